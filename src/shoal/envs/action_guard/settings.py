"""Settings of the action guard: which actions of a policy may reach an environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, TypeAlias

import numpy as np

from shoal.envs.finite import LARGEST
from shoal.types import ConfigError

Constraint: TypeAlias = Callable[[Any, Any], Any]
"""`(obs [n, ...], action [n, ...]) -> action [n, ...]`, or of a choice of N a mask `bool [n, N]`."""
Inequalities: TypeAlias = Callable[[Any], Any]
"""`obs [n, ...] -> (A [n, m, D], b [n, m])`."""


@dataclass(frozen=True, slots=True)
class ActionGuard:
    """What becomes of an action on its way to the environment: clipped, limited in its change, then constrained.

    It holds wherever the policy acts: in training, evaluation, recordings and `Agent.act`.
    """

    low: tuple[float, ...] = ()
    """Least action of a Box, one number or one a dimension; none: the action space's own."""
    high: tuple[float, ...] = ()
    """Greatest action of a Box, likewise."""
    max_change: tuple[float, ...] = ()
    """Most that an action may differ from the one before it in its episode; none: as much as it likes."""
    constraint: str | Constraint | None = None
    """Function `(obs, action) -> allowed action` of whole batches, or the name of one: `package.module:function`."""
    inequalities: str | Inequalities | None = None
    """Function `obs -> (A, b)`, or its name: the nearest action with A a <= b is done (extra `action-guard`)."""
    safe_action: tuple[float, ...] = ()
    """Action that is done where no action satisfies the inequalities, or a mask leaves none; none: the run stops."""
    penalty: float = 0.0
    """Subtracted from the learner's reward for every step whose action was changed; larger avoids changes more."""

    def __post_init__(self) -> None:
        """Refuses what cannot work in any environment."""
        for name in ("low", "high", "max_change", "safe_action"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
            _check_numbers(name, getattr(self, name))
        if not all(0 < most < inf for most in self.max_change):
            raise ConfigError(
                f"action_guard.max_change must be above 0 and finite, got {list(self.max_change)}; "
                "leave it out for no limit"
            )
        penalty: Any = self.penalty
        number = isinstance(penalty, int | float | np.number) and not isinstance(
            penalty, bool
        )
        if not (number and 0 <= penalty <= LARGEST):
            raise ConfigError(
                f"action_guard.penalty must be at least 0 and finite, got {penalty!r}; it is subtracted from "
                "rewards"
            )
        if self.constraint is not None and self.inequalities is not None:
            raise ConfigError(
                "action_guard.constraint and action_guard.inequalities both have the last word; leave one of them out"
            )
        for name in ("constraint", "inequalities"):
            _check_function(name, getattr(self, name))
        if self.safe_action and self.constraint is None and self.inequalities is None:
            raise ConfigError(
                "action_guard.safe_action is for where inequalities or a mask leave no action; set one of "
                "action_guard.inequalities and action_guard.constraint, or leave it out"
            )

    @property
    def idle(self) -> bool:
        """Whether every action passes as it is."""
        limits = self.low or self.high or self.max_change
        return not limits and self.constraint is None and self.inequalities is None


def _check_numbers(name: str, given: tuple[float, ...]) -> None:
    """ConfigError for NaN, and for infinite numbers, but for bounds that are none."""
    if np.isnan(given).any():
        raise ConfigError(f"action_guard.{name} holds NaN; give numbers")
    open_end = {"low": -inf, "high": inf}.get(name)
    wrong = [x for x in given if np.isinf(x) and x != open_end]
    if wrong and name != "max_change":  # which says itself what it may be
        raise ConfigError(
            f"action_guard.{name} holds {wrong[0]}, which no action can be; give finite numbers"
        )


def _check_function(name: str, given: object) -> None:
    named = isinstance(given, str) and all(given.partition(":"))
    if not (given is None or named or (callable(given) and not isinstance(given, str))):
        raise ConfigError(
            f"action_guard.{name} must be a function, or the name of one as package.module:function, got {given!r}"
        )


def _numbers(name: str, given: object) -> tuple[float, ...]:
    """One number, or one a dimension, as a tuple; ConfigError where it is something else."""
    try:
        array = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        array = None
    flags = np.asarray(given).dtype.kind == "b" if array is not None else True
    if array is None or array.ndim > 1 or flags or isinstance(given, str | bytes):
        raise ConfigError(
            f"action_guard.{name} must be a number, or one a dimension, got {given!r}"
        )
    return tuple(np.atleast_1d(array).tolist())
