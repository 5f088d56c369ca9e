"""Members of a population: agents that learn side by side in one run, each with settings of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from math import inf
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from shoal.learn.learner import Learner
from shoal.math.rates import epsilon_ladder
from shoal.types import ConfigError, check_ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.run.settings import Settings

ConfigT = TypeVar("ConfigT")
ONE = "policy"
"""The name of an agent that is alone."""
WRITE = (
    "write learning_rate=1e-4,3e-4 with a number for each agent, learning_rate=loguniform(1e-5,1e-3) or "
    "gamma=uniform(0.9,0.999)"
)
MIX = (
    "write population.mixing=0.8 for that share of an agent's own steps and the rest of all others', or for each of "
    "three agents such as 0.8,0.1,0.1"
)
DRAWN = re.compile(r"(uniform|loguniform)\(([^,]+),([^,]+)\)")
SEED_STEP = 1_000_003
"""From one agent's seed to the next one's, far beyond those of rows."""


@dataclass(frozen=True, slots=True)
class Population:
    """What the agents of a run share, and in what they differ."""

    memory: Literal["shared", "private"] = "shared"
    """Who learns from a step: every agent, or only the one that took it, from its part of the replay memory."""
    mixing: tuple[str, ...] = ()
    """Whose steps a batch is of: for each agent its share of every agent's, `0.8,0.1,0.1`; or a number: of its own."""
    vary: tuple[str, ...] = ()
    """Settings in which agents differ: `learning_rate=1e-4,3e-4` (one for each) or `gamma=uniform(0.9,0.999)`."""
    exploit_interval: int = 0
    """Environment steps from one comparison of the agents to the next, at which bad ones copy good ones; 0: never."""
    evaluation_episodes: int = 20
    """Greedy episodes of each agent in a comparison, besides training's; more tell smaller differences apart."""
    quantile: float = 0.25
    """Share of the agents that may be replaced, the worst, and of those that they may copy, the best."""
    significance: float = 0.05
    """Level of the test that the better agent is better, divided by the number of pairs; smaller copies less."""
    perturb: tuple[float, ...] = (0.8, 1.2)
    """Factors, one of which each varied setting of a copy is multiplied by (1 - gamma for gamma and its like)."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        if self.mixing and self.memory == "private":
            raise ConfigError(
                'population.mixing says who learns from whose steps, and so does population.memory="private"; '
                "leave one of them out"
            )
        check_ranges(self, exploit_interval=(0, inf), evaluation_episodes=(2, 10_000))
        check_ranges(self, quantile=(0.01, 0.5), significance=(1e-4, 0.5))
        if not self.perturb or not all(0 < factor < inf for factor in self.perturb):
            raise ConfigError(
                f"population.perturb needs factors above 0, such as 0.8 1.2, got {list(self.perturb)}"
            )
        for entry in self.vary:
            if not all(entry.partition("=")):
                raise ConfigError(
                    f"population.vary: {entry!r} names no values; {WRITE}"
                )

    @property
    def varied(self) -> tuple[str, ...]:
        """The names of the settings in `vary`; without any, the learning rate's: what a copy perturbs."""
        named = (entry.partition("=")[0] for entry in self.vary)
        return tuple(dict.fromkeys(named)) or ("learning_rate",)


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


def mixing_of(population: Population, count: int) -> dict[str, tuple[float, ...]]:
    """What share of each agent's batches is of whose steps, in their order; empty where all steps are as likely.

    Raises:
        ConfigError: numbers that are no shares, or of more or fewer agents.
    """
    said = ("1",) if population.memory == "private" else population.mixing
    if not said or count == 1:
        return {}
    try:
        rows = [[float(share) for share in entry.split(",")] for entry in said]
    except ValueError as error:
        raise ConfigError(f"population.mixing: {error}; {MIX}") from error
    if len(rows) == len(rows[0]) == 1 and 0 <= rows[0][0] <= 1:
        own = rows[0][0]
        others = (1 - own) / (count - 1)
        rows = [[own if i == j else others for j in range(count)] for i in range(count)]
    if len(rows) != count or any(len(row) != count for row in rows):
        raise ConfigError(
            f"population.mixing={list(said)} is not of agents={count}, each with {count} shares; {MIX}"
        )
    if any(min(row) < 0 or not 0 < sum(row) < float("inf") for row in rows):
        raise ConfigError(
            f"population.mixing={list(said)}: shares are 0 or more, one of each agent's above 0; {MIX}"
        )
    names = member_names(count)
    shares = [tuple(share / sum(row) for share in row) for row in rows]
    return dict(zip(names, shares, strict=True))


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


def learners_of(
    settings: Settings, learner: Learner | Mapping[str, Learner]
) -> Mapping[str, Learner]:
    """Who learns in a run, by name.

    Raises:
        ConfigError: a run of several agents has not a learner for each.
    """
    learners = {ONE: learner} if isinstance(learner, Learner) else learner
    if settings.learners not in (1, len(learners)):
        raise ConfigError(
            f"{settings.algo} trains {len(learners)} of agents={settings.learners}: an algorithm of several takes "
            "their settings from run.members(cfg), and gives its stream and run.loop a learner for each"
        )
    return learners


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
