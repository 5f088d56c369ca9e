"""The action guard of a policy that acts for whoever asks, in rows that begin episodes as they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoal.envs.action_guard.rows import GuardRows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from shoal.envs.action_guard.settings import ActionGuard
    from shoal.types import Bools, Spec, Tree


class GuardActing:
    """Holds actions [N, ...] to a guard, as many rows as come; another number of them begins anew."""

    def __init__(self, guard: ActionGuard, spec: Spec) -> None:
        """`spec`: of the rows."""
        self._guard, self._spec = guard, spec
        self._rows: GuardRows | None = None
        self.interventions = 0
        """Actions that were changed."""

    def hold(self, obs: Tree, action: Tree, start: Bools) -> Tree:
        """What is done instead of `action` [N, ...] by those who see `obs`; `start` [N]: their first action.

        Raises:
            ConfigError: the guard does not fit these actions.
            EnvError: a user's function gave what cannot be done, or nothing is allowed.
        """
        if self._guard.idle:
            return action
        count = len(start)
        own = self._rows_of(count)
        own.forget(start)
        rows = slice(0, count)
        executed, changed = own.guarded(rows, obs, action)
        own.note(rows, executed, np.ones(count, np.bool_))
        self.interventions += int(changed.sum())
        return executed

    @property
    def remembers(self) -> bool:
        """Whether what is allowed depends on the action before."""
        return bool(self._guard.max_change)

    def last_action(self) -> NDArray[np.float64]:
        """What was done last [N, ...], of as many rows as there were then."""
        assert self._rows is not None
        return self._rows.previous.reshape(-1, *self._shape).copy()

    def go_on_from(self, last: ArrayLike, count: int) -> None:
        """The next action follows `last` [N, ...] in the episode of each of `count` rows.

        Raises:
            ValueError: it is of another shape, or not finite.
        """
        given = np.asarray(last, np.float64)
        if given.shape != (count, *self._shape):
            raise ValueError(f"expected {(count, *self._shape)}, got {given.shape}")
        if not np.isfinite(given).all():
            raise ValueError("it holds numbers that are not finite")
        own = self._rows_of(count)
        own.note(slice(0, count), given, np.ones(count, np.bool_))

    @property
    def _shape(self) -> tuple[int, ...]:
        return self._spec.action.leaves[0].shape

    def _rows_of(self, count: int) -> GuardRows:
        if self._rows is None or len(self._rows.begun) != count:
            self._rows = GuardRows(self._guard, self._spec, count)
        return self._rows
