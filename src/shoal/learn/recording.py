"""Recording: a plan that acts for rows and records their steps in a slab, in one native call each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from shoal import _native

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shoal.learn.acting import PlanActor
    from shoal.learn.plan import RolloutArrays
    from shoal.types import Bools

    class RecordArrays(RolloutArrays, Protocol):
        """The arrays [T, B, ...] that are filled step by step; a slab has them."""

        valid: NDArray[np.bool_]
        version: NDArray[np.int32]


def recorder_of(
    actor: PlanActor, slab: RecordArrays, start: Bools
) -> _native.StepRecorder | None:
    """What acts as `actor` does, whose counters it advances, and records in a slab; None for policies with a memory.

    Args:
        actor: whose plan, noise and exploration it is.
        slab: what the rows see, float32 or float64 [T, B, ...], and what they do and get.
        start: rows whose next observation is the first of an episode [B]; false after each step that is recorded.
    """
    plan: Any = actor.plan.native
    if not isinstance(plan, _native.MlpPlan):
        return None
    lead = slab.reward.shape
    return _native.StepRecorder(
        plan,
        slab.obs.reshape(*lead, -1),
        slab.start,
        slab.action.reshape(*lead, -1),
        slab.log_prob,
        slab.value,
        slab.reward,
        slab.terminated,
        slab.truncated,
        slab.valid,
        slab.version,
        start,
        actor.row_step,
        actor.rows,
        actor.acting.seed,
        actor.acting.stream,
        actor.epsilon,
    )
