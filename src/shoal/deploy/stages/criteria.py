"""Criteria: the numbers that must hold in each stage, as a user sets them in Python or in a TOML file."""

from __future__ import annotations

import math
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from shoal.run.reading import read_toml
from shoal.types import ConfigError, check_seed
from shoal.types.arguments import flag_of, number_of, object_of, whole_of

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Simulate:
    """Greedy episodes in the simulator."""

    episodes: int = 100
    least_return: float | None = None
    """Their mean return must be at least that; None: the run's threshold, or the environment's."""
    most_cost: float | None = None
    """Their mean cost may be at most that, where steps have a cost; None: the limit that the run was trained under."""
    seed: int = 10_000
    """Of the episodes."""


@dataclass(frozen=True, slots=True)
class Replay:
    """A log of the controller that drives the real system."""

    least_gain: float = 0.0
    """The lower bound of the policy's estimated return must be at least that of the logged episodes plus this."""
    least_episodes: int = 20
    """Logged ones."""
    least_effective_episodes: float = 20.0
    """Of how many episodes of the policy itself the log must be worth, where importance sampling is gone by."""
    confidence: float = 0.95
    """Of the intervals, both of whose lower bounds are compared."""
    gamma: float | None = None
    """Discount of the returns; None: the run's own."""
    greedy: bool = True
    """Whether the greedy policy is judged, or the one that draws its actions, which logs say more about."""
    values: bool = True
    """Whether fitted Q evaluation is taken into account."""
    rate_hz: float | None = None
    """Steps a second that the log must say it has; None: any."""
    units: tuple[str, ...] = ()
    """Of each number of an observation, in order, as the log must say it; (): any."""
    most_cost: float | None = None
    """The upper bound of the policy's estimated cost of an episode; None: the limit that the run was trained under."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """Beside the real controller, without effect."""

    least_episodes: int = 10
    least_agreement: float = 0.8
    """Share of steps in which the policy would have done the same: the same choices, or within 5 % of the range."""
    most_distance: float = 0.2
    """Mean distance of the actions as a share of their range; of choices the share of those that differ."""
    most_interventions: float = 0.01
    """Share of steps in which the action guard changes what the policy wants."""
    most_drifted: int | None = None
    """Features whose drift is alarmed, at most so many; None: they are told, and do not stop anybody."""
    most_cost: float | None = None
    """Mean cost of an episode of the controller, beside which the policy stands; None: it is told."""


@dataclass(frozen=True, slots=True)
class Canary:
    """In a share of the episodes of the real system the policy acts."""

    least_episodes: int = 10
    """Of the policy, and of the controller."""
    most_loss: float = 0.0
    """The lower bound of the difference of mean returns, policy minus controller, must be at least minus this."""
    confidence: float = 0.95
    """One-sided, of bounds over resampled episodes."""
    most_interventions: float = 0.01
    most_drifted: int | None = None
    most_cost: float | None = None
    """The upper bound of the mean cost of the policy's episodes; None: the limit that the run was trained under."""


@dataclass(frozen=True, slots=True)
class Drifts:
    """From which drift on it is alarmed."""

    most_shift: float = 1.0
    """Difference of means, in standard deviations of what was seen in training."""
    most_psi: float = 0.25
    """Population stability index over ten bins."""
    least_observations: int = 200
    """Of fewer nothing is said."""


@dataclass(frozen=True, slots=True)
class Criteria:
    """Of all stages."""

    simulate: Simulate = field(default_factory=Simulate)
    replay: Replay = field(default_factory=Replay)
    shadow: Shadow = field(default_factory=Shadow)
    canary: Canary = field(default_factory=Canary)
    drift: Drifts = field(default_factory=Drifts)

    def __post_init__(self) -> None:
        """ConfigError for numbers that no criterion can be."""
        for part in fields(self):
            table = getattr(self, part.name)
            kind: Any = part.default_factory
            object_of(part.name, table, kind, f"{kind.__name__}(...)")
            for one in fields(table):
                if one.name not in ("units", "rate_hz"):
                    value = _checked(part.name, one, getattr(table, one.name))
                    object.__setattr__(table, one.name, value)
        _check_log(self.replay)


BETWEEN = {
    "gamma": (0.0, 1.0),
    "least_agreement": (0.0, 1.0),
    "most_interventions": (0.0, 1.0),
}
"""Shares, both of whose ends may be."""
LEAST_WHOLE = {
    "episodes": 2,
    "least_episodes": 2,
    "least_observations": 2,
    "most_drifted": 0,
}
"""Whole numbers, and the least that each may be."""
MOST_WHOLE = {"episodes": 1_000_000}
"""And the most, where it is not 2**31 - 1."""
NOT_NEGATIVE = (
    "least_effective_episodes",
    "most_loss",
    "most_distance",
    "most_cost",
)
POSITIVE = ("most_shift", "most_psi")
"""Of drift: 0 would be an alarm of every feature."""


def _checked(part: str, one: Field[Any], value: Any) -> Any:
    """The value as Python's own flag or number; ConfigError where no criterion can be that."""
    name = f"{part}.{one.name}"
    if value is None and one.default is None:
        return None
    if isinstance(one.default, bool):
        return flag_of(name, value)
    if one.name == "seed":
        check_seed(value, name)
        seed: Any = value
        return int(seed)
    if one.name in LEAST_WHOLE:
        most = MOST_WHOLE.get(one.name, 2**31 - 1)
        return whole_of(name, value, LEAST_WHOLE[one.name], most)
    number = number_of(name, value, -math.inf, math.inf)
    _check_number(one.name, name, number)
    return number


def _check_number(key: str, name: str, value: float) -> None:
    low, high = BETWEEN.get(key, (-math.inf, math.inf))
    if not low <= value <= high:
        raise ConfigError(f"{name} must lie between {low:g} and {high:g}, got {value}")
    if key == "confidence" and not 0.5 < value < 1:
        raise ConfigError(f"{name} must lie between 0.5 and 1, got {value}")
    if key in NOT_NEGATIVE and value < 0:
        raise ConfigError(f"{name} must not be negative, got {value}")
    if key in POSITIVE and value <= 0:
        raise ConfigError(f"{name} must be above 0, got {value}")


def _check_log(wanted: Replay) -> None:
    rate: Any = wanted.rate_hz
    units: Any = wanted.units
    number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if rate is not None and not (number and 0 < rate < math.inf):
        raise ConfigError(f"replay.rate_hz must be a positive number, got {rate!r}")
    if not isinstance(units, tuple) or not all(isinstance(x, str) for x in units):
        raise ConfigError(
            f"replay.units must be texts, one for each number of an observation, got {units!r}"
        )


def check_costs(criteria: Criteria, env: str, *, costs: bool) -> None:
    """ConfigError where a criterion is of costs, and steps of the environment have none."""
    tables = [part.name for part in fields(criteria)]
    asked = [
        name
        for name in tables
        if getattr(getattr(criteria, name), "most_cost", None) is not None
    ]
    if asked and not costs:
        raise ConfigError(
            f"{asked[0]}.most_cost is of costs, and the steps of {env} have none; leave it out, or train with "
            "preprocessing.cost_key"
        )


def read_criteria(path: Path) -> Criteria:
    """The criteria of a TOML file, in tables `[simulate]`, `[replay]`, `[shadow]`, `[canary]` and `[drift]`.

    Raises:
        ConfigError: no file, no TOML, an unknown name, or a value that no criterion can be.
    """
    made = _filled(Criteria(), read_toml(path), f"{path}: ")
    assert isinstance(made, Criteria)
    return made


def _filled(defaults: Any, given: dict[str, Any], where: str) -> object:
    known = {one.name: getattr(defaults, one.name) for one in fields(defaults)}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(
            f"{where}there is no criterion {unknown[0]!r}; there are {', '.join(known)}"
        )
    changed: dict[str, Any] = {}
    for name, value in given.items():
        before = known[name]
        if is_dataclass(before):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}{name} is a table: [{name}]")
            changed[name] = _filled(before, value, f"{where}{name}.")
            continue
        changed[name] = tuple(value) if isinstance(value, list) else value
    return type(defaults)(**{**known, **changed})
