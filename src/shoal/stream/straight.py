"""Straight: the plainest rows, who act for and record themselves in one native call each, beside every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.learn.acting import PlanActor
from shoal.learn.recording import recorder_of
from shoal.memory.slab import Slab

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.stream.collector import Collector, Sink
    from shoal.stream.roles import Role
    from shoal.types import Ready


class Straight:
    """One role of all rows whose policy acts in native code, and its slab.

    It writes what `Collector` would write by itself. A step in which an episode ends, or that is not valid, is left to
    that.
    """

    def __init__(self, role: Role, slab: Slab, actor: PlanActor, native: Any) -> None:
        """`native`: acts as the role's `actor` does, and records."""
        self.role, self.slab, self._plan = role, slab, actor.plan
        self.epsilon = actor.epsilon
        self._actions: list[NDArray[Any]] = list(slab.action)
        self._seen: Any = None
        self._watched: tuple[Any, ...] = (None,) * 4
        self._native = native

    def act(self, t: int, obs: NDArray[Any]) -> NDArray[Any]:
        """Chooses for what the rows see [B, ...], and records both as step t; the environment's actions."""
        if obs is not self._seen:
            self._native.see(np.ascontiguousarray(obs).reshape(len(obs), -1))
            self._seen = obs if obs.flags.c_contiguous else None
        self._native.act(t, self.role.version)
        # Whoever steps the rows may write to what it is given.
        return self._plan.to_env(self._actions[t].copy())

    def record(self, t: int, ready: Ready) -> bool:
        """Records what step t came to; False where nothing was, as more is to be done."""
        watched = self._watched
        if not (
            ready.reward is watched[0]
            and ready.terminated is watched[1]
            and ready.truncated is watched[2]
            and ready.valid is watched[3]
        ) and not self._watch(ready):
            return False
        return self._native.record(t)

    def _watch(self, ready: Ready) -> bool:
        """Other arrays are to be read; False where native code cannot."""
        arrays = ready.reward, ready.terminated, ready.truncated, ready.valid
        if ready.reward.dtype != np.float64:
            return False
        if not all(array.flags.c_contiguous for array in arrays):
            return False
        self._native.watch(*arrays)
        self._watched = arrays
        return True

    def fits(self, role: Role, sink: Sink) -> bool:
        """Whether it is of this role and slab, as they are now."""
        same = self.role is role and self.slab is sink
        return same and self.epsilon is role.actor.epsilon


def straight_of(
    collector: Collector, sinks: Sequence[Sink], before: Straight | None
) -> Straight | None:
    """How a collector's rows go straight into a slab: `before` where that is of it; None where they cannot."""
    if len(collector.groups) > 1 or len(collector.roles) > 1:
        return None
    role, sink = collector.roles[0], sinks[0]
    if before is not None and before.fits(role, sink):
        return before
    actor = role.actor
    if not isinstance(sink, Slab) or not isinstance(actor, PlanActor):
        return None
    if sink.keeps_executed or role.keeps_states or isinstance(role.rows, np.ndarray):
        return None
    if not (role.held is sink.action_mask is sink.cost is None):
        return None
    leaf, *more = collector.env.spec.observation.leaves
    if more or leaf.path or leaf.dtype.name not in ("float32", "float64"):
        return None
    native = recorder_of(actor, sink, role.start)
    return None if native is None else Straight(role, sink, actor, native)
