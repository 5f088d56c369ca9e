"""Origin: which run a directory is, what ties its files to each other, and the seal of who made it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from shoal.run import handed
from shoal.run.handed import name_of_object
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.run.handed import Handed

TABLE = "origin"
"""The table of config.toml that holds it; it is no setting."""
OF_OBJECTS = ("env", "policy", "unexplained")
"""Its keys of what stands in no setting."""
LANGUAGE, AGENTS, CHOICES = UNEXPLAINED = ("language", "agents", "choices")
"""A language model, several agents, observations without a number."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a run's config.toml says of the run itself."""

    run: str = ""
    """The run's id; empty in runs of earlier versions."""
    seal: str = ""
    """Shows that this user's own `train` wrote the names that the configuration holds."""
    folders: tuple[str, ...] = ()
    """Where the modules of those names were found."""
    env: str = ""
    """The environment, where the run was given an object, as `name_of_object` says it."""
    policy: str = ""
    """The policy, likewise."""
    unexplained: str = ""
    """Why `shoal explain` refuses it: one of UNEXPLAINED; empty where it does not."""

    @classmethod
    def new(
        cls, *, env: object = None, policy: object = None, unexplained: str = ""
    ) -> Origin:
        """Of a run that begins with an environment and a policy, which may be objects."""
        return cls(
            secrets.token_hex(16),
            env=name_of_object(env),
            policy=name_of_object(policy),
            unexplained=unexplained,
        )

    @classmethod
    def of_file(cls, saved: Mapping[str, object], path: Path) -> Origin:
        """What a configuration says; empty where it says nothing. ConfigError where that is damaged."""
        table = saved.get(TABLE, {})
        named = cast("Mapping[str, object]", table)
        if not isinstance(table, Mapping) or not _are_texts(named):
            raise ConfigError(f"{path}: the table [{TABLE}] is damaged; take it out")
        folders = cast("Sequence[str]", named.get("folders", ()))
        names = ("run", "seal", *OF_OBJECTS)
        texts = {name: str(named.get(name, "")) for name in names}
        return cls(folders=tuple(folders), **texts)

    def table(self) -> dict[str, Any]:
        """What config.toml holds besides the settings."""
        if not self.run:
            return {}
        said: dict[str, Any] = {"run": self.run}
        if self.seal:
            said |= {"seal": self.seal, "folders": list(self.folders)}
        given = {name: getattr(self, name) for name in OF_OBJECTS}
        return {TABLE: said | {name: text for name, text in given.items() if text}}

    def handed(self) -> list[Handed]:
        """The objects that the run was given, which are needed again."""
        env = [handed.environment(self.env)] if self.env else []
        return env + ([handed.policy(self.policy)] if self.policy else [])


def _are_texts(table: Mapping[str, object]) -> bool:
    for name, value in table.items():
        parts = value if name == "folders" else [value]
        if not isinstance(parts, list):
            return False
        if not all(isinstance(part, str) for part in cast("list[object]", parts)):
            return False
    return True


@dataclass(frozen=True, slots=True)
class Identity:
    """What a checkpoint must have in common with the run that goes on from it."""

    run: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Those that may not change, by dotted names, as JSON holds them."""

    def check(self, path: Path, manifest: Mapping[str, Any]) -> None:
        """ConfigError where the manifest at `path` is another run's, or one of other settings.

        Checkpoints of earlier versions name neither, and are taken.
        """
        run = manifest.get("run")
        if run is not None and run != self.run:
            named = f"the run {self.run}" if self.run else "no run"
            raise ConfigError(
                f"the checkpoint {path} belongs to the run {run}, but config.toml names {named}; "
                "restore the run's own files from a copy, or train a new run"
            )
        saved = cast("Mapping[str, object]", manifest.get("settings", {}))
        told = [
            f"{name} is {_shown(value)}, trained with {_shown(saved[name])}"
            for name, value in self.settings.items()
            if name in saved and not _equal(saved[name], value)
        ]
        if told:
            raise ConfigError(
                f"config.toml differs from what the checkpoint {path} was trained with: {'; '.join(told)}. "
                "Put that back, or train a new run"
            )


def _equal(one: object, other: object) -> bool:
    if one != one and other != other:  # not a number, both
        return True
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _shown(value: object) -> str:
    return "unset" if value is None else repr(value)
