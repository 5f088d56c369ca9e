"""Native environments of other packages: found by their entry points, loaded when one of their ids is named.

A package `my_pkg` has an extension module with environments `my_pkg/NAME-v0`, and in its pyproject.toml

    [project.entry-points."shoal.environments"]
    my_pkg = "my_pkg._native:environments"
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import gymnasium as gym

from shoal import _native
from shoal.types import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "shoal.environments"


def has(env_id: str) -> bool:
    """Whether an id is native: built in, or an installed package's, which is then loaded.

    ConfigError where the package cannot be loaded: it was built against another shoal, or is broken.
    """
    if env_id in _native.env_ids():
        return True
    name, slash, _ = env_id.partition("/")
    if not slash or env_id in gym.registry:
        return False
    for found in entry_points(group=GROUP, name=name):
        load(found)
    return env_id in _native.env_ids()


def load_all() -> list[str]:
    """Loads the environments of every installed package; a sentence for each that cannot be loaded."""
    problems: list[str] = []
    for found in entry_points(group=GROUP):
        try:
            load(found)
        except ConfigError as error:
            problems.append(str(error))
    return problems


def load(found: EntryPoint) -> list[str]:
    """The ids of a package, whose environments are known from now on."""
    package = found.dist.name if found.dist else found.value
    try:
        made = found.load()
        if type(made).__name__ != "PyCapsule":
            raise TypeError(f"{found.value} is {made!r}, not what an extension exports")
        ids = _native.add_environments(made)
    except Exception as error:  # whatever a package of somebody else raises
        known = isinstance(error, ImportError | AttributeError | TypeError | ValueError)
        said = str(error) if known else f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"the environments of {package} cannot be loaded: {said}"
        ) from error
    strangers = [name for name in ids if not name.startswith(f"{found.name}/")]
    if strangers:
        raise ConfigError(
            f"the environments of {package} must be named {found.name}/NAME-v0, not {strangers[0]}"
        )
    return ids
