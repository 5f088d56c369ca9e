"""Names of features that a user gives on the command line."""

from __future__ import annotations

from shoal.types import ConfigError


def given_names(given: str, count: int, env: str) -> tuple[str, ...]:
    """Names from a text with commas between; ConfigError where they are not `count` different ones."""
    names = tuple(name.strip() for name in given.split(","))
    if len(names) != count or len(set(names)) != count or not all(names):
        raise ConfigError(
            f"--feature-names: {env} observes {count} numbers, so give as many different names with commas "
            f"between, got {len(names)}: {given!r}"
        )
    return names
