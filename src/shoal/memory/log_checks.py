"""Whether a log is of this policy's world: its rate, its units, and numbers that its spaces allow."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.envs.names import names_by_leaf
from shoal.memory.given import check_observations
from shoal.types import ConfigError, leaf_spaces
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.memory.data import CheckedEpisode
    from shoal.memory.data_file import DataFile
    from shoal.types import Spec


@dataclass(frozen=True, slots=True)
class Expected:
    """What a log's metadata must say; None and () ask nothing."""

    rate_hz: float | None = None
    """Steps a second (`rate_hz`)."""
    units: Sequence[str] = ()
    """Of each number of an observation, in order (`units`)."""

    def __post_init__(self) -> None:
        """ConfigError for what no log has."""
        rate: Any = self.rate_hz
        units: Any = self.units
        number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if rate is not None and not (number and 0 < rate < inf):
            raise ConfigError(f"rate_hz must be a number above 0, got {rate!r}")
        listed = isinstance(units, list | tuple)
        if not listed or not all(isinstance(unit, str) for unit in units):
            raise ConfigError(
                f"units must be texts, one for each number of an observation, got {units!r}"
            )


def folder_of(where: str, given: object) -> Path:
    """The folder of a data set; ConfigError for what is no path."""
    if not isinstance(given, str | os.PathLike):
        raise ConfigError(
            f"{where}: expected the folder of a data set as a path, got {given!r}"
        )
    return Path(given)


def check_log(
    file: DataFile,
    episodes: Sequence[CheckedEpisode],
    spec: Spec,
    expected: Expected | None = None,
) -> None:
    """ConfigError where a log has another environment, rate or units, or observations outside their space."""
    named = file.metadata.get("env_id")
    if named is not None and _bare(named) != _bare(spec.env_id):
        raise ConfigError(
            f"{file.folder} is a log of {printable(named, 80)}, and the policy acts in {spec.env_id}; name a "
            "log of that"
        )
    check_numbers(file, episodes, spec, expected or Expected())


def _bare(env: object) -> str:
    """A name without the module that it is imported from: a class is given now as itself, and now by its place."""
    return str(env).rpartition(":")[2]


def check_numbers(
    file: DataFile, episodes: Sequence[CheckedEpisode], spec: Spec, expected: Expected
) -> None:
    """ConfigError where a log has another rate or other units, or observations outside their space."""
    _check_rate(file, expected.rate_hz)
    _check_units(file, expected.units)
    for number, episode in enumerate(episodes):
        _check_bounds(file, number, episode, spec)


def _check_rate(file: DataFile, rate_hz: float | None) -> None:
    if rate_hz is None:
        return
    said: Any = file.metadata.get("rate_hz")
    if not isinstance(said, int | float):
        raise ConfigError(
            f"{file.folder} does not say its rate, and {rate_hz:g} steps a second are expected; write `rate_hz` into "
            "its metadata.json"
        )
    if abs(said - rate_hz) > 1e-3 * rate_hz:
        raise ConfigError(
            f"{file.folder} has {said:g} steps a second, and the policy acts {rate_hz:g} times a second; take a log of "
            "that rate, or resample it"
        )


def _check_units(file: DataFile, units: Sequence[str]) -> None:
    if not units:
        return
    said: Any = file.metadata.get("units")
    if not isinstance(said, list):
        raise ConfigError(
            f"{file.folder} does not say its units, and {', '.join(units)} are expected; write `units` into its "
            "metadata.json, one for each number of an observation"
        )
    theirs = [printable(unit, 40) for unit in said]
    if theirs != list(units):
        raise ConfigError(
            f"{file.folder} has observations in {', '.join(theirs)}, and the policy was trained in {', '.join(units)}; "
            "convert the log"
        )


def _check_bounds(
    file: DataFile, number: int, episode: CheckedEpisode, spec: Spec
) -> None:
    leaves = spec.observation.leaves
    parts = leaf_spaces(spec.observation_space)
    where = f"{file.folder}, episode {number}"
    called = names_by_leaf(spec)
    for leaf, (_, part), values, names in zip(
        leaves, parts, episode.obs, called, strict=True
    ):
        name = f"the observation{leaf.name}"
        check_observations(where, name, part, values, names=names)
