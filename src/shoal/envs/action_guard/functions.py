"""A user's constraint: a function of observations and actions whose answer is checked before it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.envs.actions import ActionCheck
from shoal.envs.factories import import_object
from shoal.types import RAISED, ConfigError, EnvError, refuse_leaving

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from shoal.envs.action_guard.limits import Limits
    from shoal.types import Spec, Tree


def function_of(name: str, given: str | Callable[..., Any]) -> Callable[..., Any]:
    """The function of a setting; ConfigError where its name stands for none."""
    if not isinstance(given, str):
        return given
    if "<" in given:
        raise ConfigError(
            f"action_guard.{name}: {given} is a function that no module has under a name; give it again: "
            "action_guard=ActionGuard(...)"
        )
    found = import_object(given)
    if not callable(found):
        raise ConfigError(
            f"action_guard.{name}={given!r} is {type(found).__name__}, no function"
        )
    return found


def answer_of(function: Callable[..., Any], *given: Any, said: str, rows: slice) -> Any:
    """What a user's function answers for `rows`; what it raises is noted as its.

    `said`: which function that is. EnvError where it raised StopIteration or SystemExit.
    """
    try:
        return function(*given)
    except RAISED as error:
        where = f"rows {rows.start}..{rows.stop - 1}"
        refuse_leaving(error, f"{said}, called for {where},", kind=EnvError)
        error.add_note(f"{said} raised this for {where}")
        raise


class Constrained:
    """The function `(obs, action) -> action` of a user, or one that returns a mask of a choice's options."""

    def __init__(
        self,
        given: str | Callable[..., Any],
        spec: Spec,
        limits: Limits | None,
        safe_action: tuple[float, ...],
    ) -> None:
        """`safe_action`: what is done where a mask forbids what was chosen. ConfigError: there is none such."""
        self._function = function_of("constraint", given)
        self._spec, self._limits = spec, limits
        self._check = ActionCheck(spec)
        self._choice = isinstance(spec.action_space, spaces.Discrete)
        self._instead = _choice_of(safe_action, spec) if safe_action else None

    def answer(self, rows: slice, obs: Tree, action: NDArray[Any]) -> NDArray[Any]:
        """What the function allows: actions [n, ...] of the space and within the limits.

        Raises:
            EnvError: another shape or kind, NaN, an action outside the space or the limits, or a mask without options.
        """
        given = obs, action.copy()
        said = answer_of(self._function, *given, said=self._said, rows=rows)
        answer = np.asarray(said)
        if self._choice and answer.dtype == np.bool_:
            return self._unmasked(rows, action, answer)
        self._check_finite(rows, answer)
        try:
            checked: Any = self._check.check(rows, answer)
        except ValueError as error:
            raise EnvError(f"{self._said} gave what cannot be done: {error}") from None
        self._check_limits(rows, checked)
        return checked

    @property
    def _said(self) -> str:
        return f"{self._spec.env_id}: action_guard.constraint"

    def _check_finite(self, rows: slice, answer: NDArray[Any]) -> None:
        if answer.dtype.kind != "f" or not answer.ndim:
            return
        bad = ~np.isfinite(answer).reshape(len(answer), -1).all(1)
        if bad.any():
            row = int(np.argmax(bad))
            raise EnvError(
                f"{self._said} gave {answer[row]} for row {rows.start + row}; it must return finite actions"
            )

    def _check_limits(self, rows: slice, answer: NDArray[Any]) -> None:
        """EnvError for an action beyond action_guard.low and high; max_change may give way to a constraint."""
        if self._limits is None:
            return
        flat = answer.reshape(len(answer), -1)
        outside = (flat < self._limits.low) | (flat > self._limits.high)
        if outside.any():
            row = int(np.argmax(outside.any(1)))
            raise EnvError(
                f"{self._said} gave {answer[row]} for row {rows.start + row}, outside action_guard.low and high; "
                "it must stay within them"
            )

    def _unmasked(
        self, rows: slice, action: NDArray[Any], mask: NDArray[np.bool_]
    ) -> NDArray[Any]:
        """The actions where the mask [n, options] allows them, else the safe action, else the first allowed option."""
        space: Any = self._spec.action_space
        expected = (len(action), int(space.n))
        if mask.shape != expected:
            raise EnvError(
                f"{self._said} gave a mask of shape {mask.shape}; it must be {expected}: one column an option"
            )
        empty = ~mask.any(1)
        if empty.any() and self._instead is None:
            row = rows.start + int(np.argmax(empty))
            raise EnvError(
                f"{self._said} gave row {row} a mask that allows no option; it must leave one, or set "
                "action_guard.safe_action, which is done then"
            )
        first = int(space.start)
        numbers = np.arange(len(action))
        instead = mask.argmax(1)
        if self._instead is not None:
            safe = self._instead - first
            instead = np.where(mask[:, safe] | empty, safe, instead)
        return np.where(mask[numbers, action - first], action, instead + first)


def _choice_of(safe_action: tuple[float, ...], spec: Spec) -> int:
    """The option that is safe; ConfigError where the space has no such one."""
    space = spec.action_space
    if not isinstance(space, spaces.Discrete):
        raise ConfigError(
            f"{spec.env_id}: action_guard.safe_action beside a constraint is for choices that it masks, but the "
            f"actions are {space}; let the function return the safe action itself"
        )
    whole = len(safe_action) == 1 and float(safe_action[0]).is_integer()
    if not whole or not space.contains(np.int64(safe_action[0])):
        raise ConfigError(
            f"{spec.env_id}: action_guard.safe_action={list(safe_action)} is none of {space}; give one of its options"
        )
    return int(safe_action[0])
