"""Rollouts of rows on servers that are native calls: each server's rows act and step without waiting for the others."""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING

from shoal.envs.vec_env import linked_of
from shoal.learn.plan import Noise

if TYPE_CHECKING:
    from shoal.envs.vec_env import Linked, VecEnv
    from shoal.learn.acting import Acting
    from shoal.learn.plan import Plan
    from shoal.memory.slab import Slab
    from shoal.stream.meter import Meter
    from shoal.stream.roles import Role

LONGEST_S = 1.0
"""A rollout that takes longer is no single call: what somebody wants between two steps waits for its end."""


class LinkedRollouts:
    """Collects rollouts of one role's rows, as `Collector` would."""

    def __init__(self, linked: Linked, role: Role, plan: Plan) -> None:
        """`plan`: the role's policy."""
        self._linked, self._role, self._plan = linked, role, plan
        self.took_s = inf
        """Seconds that the last rollout took, however it was collected."""

    @property
    def ready(self) -> bool:
        """Whether the next rollout is short enough to be one call."""
        return self.took_s < LONGEST_S

    def collect(self, slab: Slab, acting: Acting, meter: Meter) -> None:
        """Fills the slab; EnvError as of the rows' `recv`."""
        role, plan, linked = self._role, self._plan, self._linked
        role.refresh()
        begun = time.perf_counter()
        actor = role.actor
        noise = Noise(acting.seed, acting.stream, actor.rows, actor.row_step)
        rollout = plan.linked_rollout(
            linked, slab, role.start, noise, epsilon=actor.epsilon
        )
        linked.roll(rollout)
        seconds = time.perf_counter() - begun
        share = min(1.0, rollout.acting_s / seconds)
        meter.add_shares({"acting": share, "environment": 1 - share}, seconds)
        slab.version.fill(role.version)


def linked_rollouts(
    env: VecEnv, role: Role, plan: Plan, most: int
) -> LinkedRollouts | None:
    """How a role's rollouts are native calls, though no row is here; None where they cannot be.

    Args:
        env: the rows, all of them the role's.
        role: who acts.
        plan: its policy, which has no memory.
        most: rows that may act together.
    """
    linked = linked_of(env)
    if linked is None or role.held is not None:
        return None
    if max(count for count, _ in linked.servers()) > most:
        return None
    return LinkedRollouts(linked, role, plan)
