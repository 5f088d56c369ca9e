"""Guarded rows: what the guard knows of each row, and what becomes of the row's next action."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.action_guard.functions import Constrained
from shoal.envs.action_guard.limits import limits_of
from shoal.envs.action_guard.program import Program
from shoal.envs.actions import ActionCheck
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from shoal.envs.action_guard.settings import ActionGuard
    from shoal.types import Bools, Spec, Tree


class GuardRows:
    """The action guard of B rows, and the action that each of them did last in its episode."""

    def __init__(self, guard: ActionGuard, spec: Spec, num_rows: int) -> None:
        """ConfigError where the guard does not fit these actions."""
        leaf = spec.action.leaves[0]
        if len(spec.action.leaves) != 1 or leaf.path:
            raise ConfigError(
                f"{spec.env_id}: an action guard takes actions that are one array, but these are {spec.action_space}; "
                "flatten them in the environment"
            )
        self.spec, self.limits = spec, limits_of(guard, spec)
        self._check = ActionCheck(spec)
        given = (spec, self.limits, guard.safe_action)
        self._constrained: Constrained | None = None
        self._program: Program | None = None
        if guard.constraint is not None:
            self._constrained = Constrained(guard.constraint, *given)
        if guard.inequalities is not None:
            self._program = Program(guard.inequalities, *given)
        size = int(np.prod(leaf.shape))
        self.previous = np.zeros((num_rows, size))
        """What each row did last [B, D]."""
        self.begun = np.zeros(num_rows, np.bool_)
        """Whether that was in the episode that it is in [B]."""

    @property
    def sees(self) -> bool:
        """Whether what is allowed depends on the observation."""
        return self._constrained is not None or self._program is not None

    def guarded(
        self, rows: slice, obs: Tree, action: Tree
    ) -> tuple[NDArray[Any], Bools]:
        """What is done instead of `action` [n, ...] by `rows` that see `obs`, and where it differs [n].

        Raises:
            ValueError: an action that the space lacks.
            EnvError: a user's function gave what cannot be done, or nothing is allowed.
        """
        wanted: Any = self._check.check(rows, action)
        allowed = wanted
        previous, begun = self.previous[rows], self.begun[rows]
        if self.limits is not None:
            flat = wanted.reshape(len(wanted), -1)
            if self._program is None:
                numbers = self.limits.apply(flat, previous, begun)
            else:
                exact = flat.astype(np.float64)
                numbers = self._program.nearest(rows, obs, exact, previous, begun)
            allowed = numbers.astype(wanted.dtype).reshape(wanted.shape)
        if self._constrained is not None:
            allowed = self._constrained.answer(rows, obs, allowed)
        differs = (allowed != wanted).reshape(len(wanted), -1)
        return allowed, differs.any(1)

    def note(self, rows: slice, done: NDArray[Any], going_on: Bools) -> None:
        """`rows` did this; those whose episode goes on are held to it."""
        self.previous[rows] = done.reshape(len(done), -1)
        self.begun[rows] = going_on

    def forget(self, rows: Bools | slice) -> None:
        """New episodes begin in these rows."""
        self.begun[rows] = False

    def state(self) -> dict[str, Any]:
        """Everything that decides."""
        return {"previous": self.previous.copy(), "begun": self.begun.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`; ConfigError where it is of other rows or actions."""
        found = np.shape(state["previous"]), np.shape(state["begun"])
        if found != (self.previous.shape, self.begun.shape):
            raise ConfigError(
                f"{self.spec.env_id}: the saved action guard holds rows of actions {found[0]}, but here they are "
                f"{self.previous.shape}"
            )
        self.previous[:] = state["previous"]
        self.begun[:] = state["begun"]
