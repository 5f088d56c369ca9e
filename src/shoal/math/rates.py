"""Settings that change as training goes on: schedules over the run's progress, and a learning rate led by the KL."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, cast

from shoal.envs.factories import import_object
from shoal.types import RAISED, ConfigError, misfit, refuse_leaving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

LOWEST, HIGHEST = 1e-6, 1e-2
SUFFIX = "_schedule"
ConfigT = TypeVar("ConfigT")
Schedule: TypeAlias = str | Callable[[float], float]
"""A name in SHAPES, a function of the run's progress in [0, 1), or the name of one: `package.module:function`."""


class HasLearningRate(Protocol):
    """Who steps by a learning rate, and keeps the other settings that follow a schedule."""

    @property
    def scheduled(self) -> dict[str, float]:
        """Settings in force, by name, which are logged."""
        ...

    @property
    def learning_rate(self) -> float:
        """The step size."""
        ...

    @learning_rate.setter
    def learning_rate(self, value: float) -> None: ...


def _constant(progress: float) -> float:
    return 1.0


def _linear(progress: float) -> float:
    return 1 - progress


def _cosine(progress: float) -> float:
    """Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5, without restarts."""
    return (1 + math.cos(math.pi * progress)) / 2


SHAPES: dict[str, Callable[[float], float]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
}
"""Factors of a setting by the share of the run that is over: 1 at first; at the end 1, 0 and 0."""


def apply_schedules(
    config: ConfigT, progress: float, learner: HasLearningRate
) -> ConfigT:
    """The settings as they are at `progress`: each NAME with a NAME_schedule is multiplied by what that gives.

    The learner's learning rate is set to the one of these settings, if `learning_rate_schedule` is among them; of the
    others it keeps those that change, for the metrics.

    Args:
        config: a frozen dataclass. A schedule that is none of SHAPES and no function leaves its setting as it is.
        progress: the share of the run's total_timesteps that is over, in [0, 1).
        learner: who steps by the learning rate.

    Returns:
        `config` itself where every schedule is constant.

    Raises:
        ConfigError: a schedule gives no finite number of at least 0, or there is no function of its name.
    """
    now = config
    for name, schedule in _schedules(config):
        shape = _function(name, schedule)
        if shape is None:
            continue
        value = getattr(config, name) * _factor(name, shape, progress)
        if name == "learning_rate":
            learner.learning_rate = value
        elif shape is not _constant:
            learner.scheduled[name] = value
        if shape is not _constant:
            now = copy.copy(config) if now is config else now
            # Past the checks of the settings: a factor may be 0 where a setting must be above.
            object.__setattr__(now, name, value)
    return now


def falling(first: float, last: float, over: float) -> float:
    """From `first` to `last`, linearly, as `over` goes from 0 to 1; `last` beyond."""
    return first + min(over, 1.0) * (last - first)


class FallingEpsilon(Protocol):
    """Settings of an epsilon that falls."""

    @property
    def epsilon_start(self) -> float:
        """At first."""
        ...

    @property
    def epsilon_end(self) -> float:
        """At last."""
        ...

    @property
    def exploration_fraction(self) -> float:
        """The share of the run in which it falls."""
        ...


def epsilon_at(progress: float, cfg: FallingEpsilon) -> float:
    """The epsilon when a share `progress` of the run is over: it falls linearly to its end."""
    over = progress / max(cfg.exploration_fraction, 1e-9)
    return falling(cfg.epsilon_start, cfg.epsilon_end, over)


def epsilon_ladder(number: int, count: int) -> float:
    """0.4^(1 + 7 i / (m - 1)), the epsilon of agent i of m (Horgan et al. 2018, arXiv 1803.00933, section 4.1)."""
    return 0.4 ** (1 + 7 * number / max(1, count - 1))


def check_schedules(config: object, **also: str) -> None:
    """ConfigError naming the first NAME_schedule of `config` that cannot be one.

    `also` has another name that one of them may have: `learning_rate_schedule="kl"`, for which a `target_kl` must
    not be None.
    """
    for name, schedule in _schedules(config):
        if callable(schedule):
            _check_call(name, schedule)
        own = also.get(f"{name}{SUFFIX}", "constant")
        named = isinstance(schedule, str) and all(schedule.partition(":"))
        if not named and not callable(schedule) and schedule not in (*SHAPES, own):
            names = ", ".join(dict.fromkeys((*SHAPES, own)))
            raise ConfigError(
                f"{name}{SUFFIX} must be one of {names}, a function of the run's progress or its name "
                f"package.module:function, got {schedule!r}"
            )
        if schedule == own == "kl" and getattr(config, "target_kl", 0.0) is None:
            raise ConfigError(
                f'{name}{SUFFIX}="kl" needs target_kl; 0.01 is a usual value'
            )


def find_functions(config: object, *, resumed: bool = False) -> None:
    """ConfigError naming the first NAME_schedule of `config` that names a function that is not there.

    `resumed`: the name is of a run that goes on, which may be given the function again.
    """
    for name, schedule in _schedules(config):
        try:
            _function(name, schedule)
        except ConfigError as error:
            if not resumed:
                raise
            option = f"--{name}{SUFFIX}".replace("_", "-")
            raise ConfigError(
                f"{error}; give it again: shoal.resume(..., {name}{SUFFIX}=...), or {option} module:function"
            ) from error


def adapted_rate(learning_rate: float, kl: float, target_kl: float) -> float:
    """The learning rate divided by 1.5 where the KL is over twice the target, multiplied where it is under half.

    It stays between 1e-6 and 1e-2. As the adaptive penalty of Schulman et al. 2017, arXiv 1707.06347, section 4.
    """
    factor = 1.0
    if kl > 2 * target_kl:
        factor = 1 / 1.5
    elif kl < target_kl / 2:
        factor = 1.5
    return min(HIGHEST, max(LOWEST, learning_rate * factor))


def _schedules(config: object) -> Iterator[tuple[str, Schedule]]:
    """The settings that have a schedule, and theirs."""
    for name in _scheduled(type(config)):
        yield name.removesuffix(SUFFIX), getattr(config, name)


@cache
def _scheduled(kind: Any) -> tuple[str, ...]:
    """The names of a class's schedules."""
    names = (field.name for field in fields(kind))
    return tuple(name for name in names if name.endswith(SUFFIX))


def _function(name: str, schedule: Schedule) -> Callable[[float], float] | None:
    """The function that a schedule is or names; None for the name of something else."""
    if not isinstance(schedule, str):
        return schedule
    if ":" not in schedule:
        return SHAPES.get(schedule)
    if "<" in schedule:
        raise ConfigError(
            f"{name}{SUFFIX} is a function that no module has under a name, {schedule}"
        )
    try:
        found = import_object(schedule)
    except ConfigError as error:
        raise ConfigError(f"{name}{SUFFIX}: {error}") from error
    if not callable(found):
        raise ConfigError(f"{name}{SUFFIX}: {schedule} is no function, but {found!r}")
    _check_call(name, found)
    return cast("Callable[[float], float]", found)


def _check_call(name: str, shape: Callable[..., object]) -> None:
    """ConfigError where a schedule cannot be called with the progress alone."""
    if why := misfit(shape, 0.0):
        raise ConfigError(
            f"{name}{SUFFIX} is called with the run's progress alone, but {why}"
        )


def _factor(name: str, shape: Callable[[float], float], progress: float) -> float:
    try:
        factor: Any = shape(progress)
    except RAISED as error:
        refuse_leaving(error, f"{name}{SUFFIX}, at progress {progress:g},")
        error.add_note(
            f"shoal: raised by {name}{SUFFIX}, called with the progress {progress:g}"
        )
        raise
    if getattr(factor, "shape", None) == ():  # an array or a tensor of one number
        factor = factor.item()
    if not isinstance(factor, Real) or not 0 <= float(factor) < math.inf:
        raise ConfigError(
            f"{name}{SUFFIX} gave {factor!r} at progress {progress:g}; it must give a finite number of "
            f"at least 0, by which {name} is multiplied"
        )
    return float(factor)
