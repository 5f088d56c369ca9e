"""The action guard of a policy that acts for whoever asks, in rows that begin episodes as they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoal.envs.action_guard.rows import GuardRows

if TYPE_CHECKING:
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
        if self._rows is None or len(self._rows.begun) != count:
            self._rows = GuardRows(self._guard, self._spec, count)
        self._rows.forget(start)
        rows = slice(0, count)
        executed, changed = self._rows.guarded(rows, obs, action)
        self._rows.note(rows, executed, np.ones(count, np.bool_))
        self.interventions += int(changed.sum())
        return executed
