"""Members of a population: agents that learn side by side in one run, each with settings of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from shoal.math.rates import epsilon_ladder
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.learn.learner import Learner
    from shoal.run.settings import Settings

ConfigT = TypeVar("ConfigT")
ONE = "policy"
"""The name of an agent that is alone."""
WRITE = (
    "write learning_rate=1e-4,3e-4 with a number for each agent, learning_rate=loguniform(1e-5,1e-3) or "
    "gamma=uniform(0.9,0.999)"
)
DRAWN = re.compile(r"(uniform|loguniform)\(([^,]+),([^,]+)\)")
SEED_STEP = 1_000_003
"""From one agent's seed to the next one's, far beyond those of rows."""


@dataclass(frozen=True, slots=True)
class Population:
    """What the agents of a run share, and in what they differ."""

    memory: Literal["shared", "private"] = "shared"
    """Who learns from a step: every agent, or only the one that took it, from its part of the replay memory."""
    vary: tuple[str, ...] = ()
    """Settings in which agents differ: `learning_rate=1e-4,3e-4` (one for each) or `gamma=uniform(0.9,0.999)`."""

    def __post_init__(self) -> None:
        """Refuses what cannot be read."""
        for entry in self.vary:
            if not all(entry.partition("=")):
                raise ConfigError(
                    f"population.vary: {entry!r} names no values; {WRITE}"
                )


def member_names(count: int) -> tuple[str, ...]:
    """What the agents of a run are called."""
    return (ONE,) if count == 1 else tuple(f"agent{i}" for i in range(count))


def rows_of_members(num_rows: int, num_envs: int, count: int) -> dict[str, slice]:
    """The rows of each agent, whole environments all of them.

    Raises:
        ConfigError: the environments do not divide among so many.
    """
    if num_envs % count:
        less = max(count, num_envs // count * count)
        raise ConfigError(
            f"num_envs={num_envs} environments do not divide among agents={count}; "
            f"num_envs={less} or {less + count} would"
        )
    share = num_rows // count
    names = member_names(count)
    return {name: slice(i * share, (i + 1) * share) for i, name in enumerate(names)}


def members_of(
    cfg: ConfigT, population: Population, count: int, *, seed: int
) -> dict[str, ConfigT]:
    """The settings of each agent: `cfg` with what is varied; what explores by an epsilon comes to a ladder of them.

    Raises:
        ConfigError: a setting that does not exist or is no number, or values for more or fewer agents.
    """
    own = [cfg] * count
    if count > 1 and "epsilon_end" in _numbers(cfg):
        ends = [epsilon_ladder(number, count) for number in range(count)]
        own = [_with(cfg, epsilon_end=end) for end in ends]
    for place, entry in enumerate(population.vary):
        name, _, said = entry.partition("=")
        if name == "num_steps":
            raise ConfigError(
                "all agents step together: num_steps must be the same for each"
            )
        kind = _kind(cfg, name)
        rng = np.random.default_rng([seed, 4, place])
        values = _values(name, said, count, rng)
        pairs = zip(own, values, strict=True)
        own = [_with(each, **{name: kind(value)}) for each, value in pairs]
    return dict(zip(member_names(count), own, strict=True))


def check_members(settings: Settings, learners: Mapping[str, Learner]) -> None:
    """ConfigError where a run of several agents has not a learner for each."""
    if settings.learners not in (1, len(learners)):
        raise ConfigError(
            f"{settings.algo} trains {len(learners)} of agents={settings.learners}: an algorithm of several takes "
            "their settings from run.members(cfg), and gives its stream and run.loop a learner for each"
        )


def _with(cfg: ConfigT, **values: float) -> ConfigT:
    """The settings with other numbers."""
    plain: Any = cfg
    return replace(plain, **values)


def _numbers(cfg: object) -> dict[str, type]:
    """Which settings are numbers, and whether whole ones."""
    plain: Any = cfg
    kinds = {field.name: type(getattr(cfg, field.name)) for field in fields(plain)}
    return {name: kind for name, kind in kinds.items() if kind in (int, float)}


def _kind(cfg: object, name: str) -> type:
    """Int or float, as a setting is."""
    numbers = _numbers(cfg)
    if name not in numbers:
        raise ConfigError(
            f"population.vary: {name!r} is no number among the algorithm's settings; these are: {', '.join(numbers)}"
        )
    return numbers[name]


def _values(name: str, said: str, count: int, rng: np.random.Generator) -> list[Any]:
    """A value for each agent."""
    drawn = DRAWN.fullmatch(said.replace(" ", ""))
    try:
        if drawn is None:
            values = [float(value) for value in said.split(",")]
        else:
            values = _drawn(drawn[1], float(drawn[2]), float(drawn[3]), count, rng)
    except ValueError as error:
        raise ConfigError(
            f"population.vary: {name}={said!r}: {error}; {WRITE}"
        ) from error
    if len(values) != count:
        raise ConfigError(
            f"population.vary: {name} has {len(values)} values for agents={count}; give {count}, or a distribution "
            f"such as {name}=loguniform(1e-5,1e-3)"
        )
    return values


def _drawn(
    kind: str, low: float, high: float, count: int, rng: np.random.Generator
) -> list[float]:
    if not low < high:
        raise ValueError(f"{low:g} must be below {high:g}")
    if kind == "uniform":
        return rng.uniform(low, high, count).tolist()
    if low <= 0:
        raise ValueError(f"loguniform needs positive numbers, got {low:g}")
    return np.exp(rng.uniform(np.log(low), np.log(high), count)).tolist()
