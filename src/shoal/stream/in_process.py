"""Rows that act and step in this process: by a collector, or in one native call for a whole rollout."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch

from shoal.envs.finite import check_finite, may_overflow
from shoal.envs.vec_env import slowest_of
from shoal.learn.acting import PlanActor
from shoal.learn.plan import Noise
from shoal.memory.slab import Slab
from shoal.memory.states import state_layout
from shoal.stream.collector import Collector
from shoal.stream.linked import linked_rollouts
from shoal.stream.roles import Role, casting
from shoal.stream.schedules import Async, Overlap
from shoal.types import ConfigError, map_tree, select

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.learn.acting import Acting
    from shoal.learn.plan import Plan
    from shoal.stream.actors.shard import Sharding
    from shoal.stream.ending import Ending
    from shoal.stream.linked import LinkedRollouts
    from shoal.stream.meter import Meter
    from shoal.stream.roles import Cast, Policies
    from shoal.stream.schedules import Schedule
    from shoal.stream.under_way import Between
    from shoal.types import Episodes, Spec, Tree


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be collected; see `rollouts`."""

    policies: Policies
    num_steps: int
    schedule: Schedule
    cast: Cast | None
    acting: Acting
    sharding: Sharding | None = None
    """How actors keep their steps, where these do not travel."""


class Until:
    """Between two steps: the rollout is left where the run is to end, and stands still where that is to."""

    def __init__(self, ending: Ending) -> None:
        """As `ending` says."""
        self._ending = ending

    def due(self) -> bool:
        """Whether nobody waits any longer, or nobody is to go on for a while."""
        return self._ending.to_check

    def pause(self) -> None:
        """Stands still as long as it is to; EndingError: the rollout is left as it is."""
        self._ending.check()


class InProcess:
    """Rollouts of an environment's rows into slabs, one a role."""

    def __init__(self, env: VecEnv, wanted: Wanted, meter: Meter) -> None:
        """As of `rollouts`; the rows are reset here."""
        num_steps, cast, acting = wanted.num_steps, wanted.cast, wanted.acting
        self.env, self.num_steps, self.acting = env, num_steps, acting
        self.meter, self._ending = meter, Until(meter.ending)
        groups = _cut(env, wanted.schedule)
        if cast is not None and len(groups) > 1:
            raise ConfigError(
                'a cast of several roles needs schedule="sync" (shoal.stream.schedules.Sync())'
            )
        sources, places = casting(wanted.policies, cast, env.num_rows)
        # The first reset tells whether actions are masked, which decides how policies act.
        env.reset(acting.seed + acting.first_row)
        first = env.recv()
        in_turns = first.turn is not None
        self.roles: list[Role] = []
        self.slabs: list[Slab] = []
        """The memory of the last rollout, one a role; the next one overwrites it, or that of the one after."""
        self._in_turn: deque[list[Slab]] = deque()
        for name, rows in places.items():
            role = Role.of(name, rows, sources[name], env, acting, in_turns=in_turns)
            self.roles.append(role)
            policy = role.source.policy
            slab = slab_of(
                env.spec, role.count, policy, num_steps, acting, in_turns=in_turns
            )
            self.slabs.append(slab)
        self.states: list[Tree] = []
        self.collector = Collector(env, self.roles, groups, meter, first)
        alone = self.roles[0] if len(self.roles) == len(groups) == 1 else None
        self.plan = None if alone is None else _fused_plan(env, alone, acting)
        """What collects a whole rollout in one native call, where that can be."""
        self._linked = None if alone is None else _linked(env, alone, acting)
        self._whole = self.plan is not None
        """Whether the last rollout was such a call."""

    @property
    def native(self) -> bool:
        """Whether whole rollouts are native calls."""
        return self.plan is not None

    def collect(self, between: Between | None = None) -> Episodes:
        """The next rollout, left in `slabs`; the episodes that ended.

        Args:
            between: what somebody wants of the rows between two steps; before the first one alone, where the whole
                rollout is one native call. None: nothing, but that the run may end.

        Raises:
            EndingError: nobody waits any longer; `state` has what is under way, which the next call goes on with.
        """
        if not self.under_way:
            if self._in_turn:
                self._in_turn.append(self.slabs)
                self.slabs = self._in_turn.popleft()
            self.states = [role.recurrent_state() for role in self.roles]
            for slab in self.slabs:
                slab.clear()
        between = between or self._ending
        linked = self._linked
        whole = self.plan is not None or (linked is not None and linked.ready)
        self._whole = whole and not self.under_way
        begun = time.perf_counter()
        if not self._whole:
            episodes = self._collect(between)
            slowest = slowest_of(self.env)
            if slowest is not None:
                self.meter.note("speed/slowest_worker", slowest)
        else:
            if between.due():
                between.pause()
            episodes = self._collect_whole()
        if linked is not None:
            linked.took_s = time.perf_counter() - begun
        return episodes

    def add_slabs(self, count: int) -> None:
        """From now on rollouts lie in so many slabs more, in turn."""
        spec, num_steps, acting = self.env.spec, self.num_steps, self.acting
        for _ in range(count):
            more: list[Slab] = []
            for role in self.roles:
                policy, turns = role.source.policy, role.held is not None
                more.append(
                    slab_of(spec, role.count, policy, num_steps, acting, in_turns=turns)
                )
            self._in_turn.append(more)

    @property
    def under_way(self) -> bool:
        """Whether a rollout has begun and is not over."""
        return self.collector.under_way.begun

    def latest(self, number: int) -> Tree:
        """What the rows of a role see and have not acted on yet [n, ...]."""
        return self.collector.sights.of(self.roles[number])

    @property
    def ended_at(self) -> list[int]:
        """In which step each episode of the last rollout ended."""
        if not self._whole:
            return self.collector.under_way.ended_at
        return (self.slabs[0].final_index >= 0).nonzero()[0].tolist()

    def state(self) -> dict[str, Any]:
        """All that `restore` needs: of the rows, of who acts in them, and of a rollout that is under way.

        Arrays of the latter are views of `slabs`.
        """
        saved: dict[str, Any] = {
            "env": self.env.state(),
            "roles": {role.name: role.state() for role in self.roles},
        }
        if self.under_way:
            first = {r.name: x for r, x in zip(self.roles, self.states, strict=True)}
            begun = self.collector.state(self.slabs)
            saved["under_way"] = begun | {"first_state": first}
        return saved

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`; a sentence for each episode that could not be continued."""
        for role in self.roles:
            role.restore(state["roles"][role.name])
        lost = self.env.restore(state["env"])
        begun = state.get("under_way", {})
        if begun:
            self._begin_as(begun["first_state"])
        self.collector.restore(begun, self.slabs, self.env.recv())
        return lost

    def _begin_as(self, first_state: Mapping[str, Tree]) -> None:
        """The rollout that is gone on with began with these recurrent states, and the weights that roles have."""
        found = [first_state[role.name] for role in self.roles]
        self.states = [
            None if state is None else map_tree(torch.as_tensor, state)
            for state in found
        ]
        for role in self.roles:
            role.refresh()

    def _collect(self, between: Between) -> Episodes:
        episodes = self.collector.collect(self.num_steps, self.slabs, between)
        _check_finite(self.env, self.slabs)
        for role, slab in zip(self.roles, self.slabs, strict=True):
            if role.values:
                last = self.collector.sights.values(role)
                slab.fill_next_values(last, role.final_values)
        return episodes

    def _collect_whole(self) -> Episodes:
        """In one native call, or a few of them."""
        if self.plan is not None:
            return self._collect_natively(self.plan)
        assert self._linked is not None
        self._linked.collect(self.slabs[0], self.acting, self.meter)
        _check_finite(self.env, self.slabs)
        return self.slabs[0].episodes(self.env.spec.info_keys)

    def _collect_natively(self, plan: Plan) -> Episodes:
        """Acts, steps and records in one native call."""
        role, slab, rows = self.roles[0], self.slabs[0], self.env.native_pool
        assert rows is not None
        role.refresh()
        begun = time.perf_counter()
        actor, acting = role.actor, self.acting
        noise = Noise(acting.seed, acting.stream, actor.rows, actor.row_step)
        stepping = plan.rollout(
            rows, slab, role.start, actor.state, noise, epsilon=actor.epsilon
        )
        seconds = time.perf_counter() - begun
        shares = {"acting": 1 - stepping, "environment": stepping}
        self.meter.add_shares(shares, seconds)
        slab.version.fill(role.version)
        _check_finite(self.env, self.slabs)
        return slab.episodes(self.env.spec.info_keys)


def slab_of(
    spec: Spec,
    count: int,
    policy: nn.Module,
    num_steps: int,
    acting: Acting,
    *,
    in_turns: bool,
) -> Slab:
    """The memory of the rollouts of a role with `count` rows."""
    return Slab(
        spec,
        num_steps,
        count,
        pinned=acting.device.type == "cuda",
        in_turns=in_turns,
        state=state_layout(policy) if acting.states else None,
        executed=acting.executed,
    )


def _fused_plan(env: VecEnv, role: Role, acting: Acting) -> Plan | None:
    """The plan by which one native call collects a whole rollout of one role, where that can be."""
    whole = acting.act_block % env.spec.num_agents == 0
    if not whole or env.native_pool is None:
        return None
    return _rolling_plan(role, acting)


def _rolling_plan(role: Role, acting: Acting) -> Plan | None:
    """A role's plan, where that can collect whole rollouts."""
    actor = role.actor
    if not isinstance(actor, PlanActor) or not actor.plan.can_roll() or acting.states:
        return None
    return actor.plan


def _linked(env: VecEnv, role: Role, acting: Acting) -> LinkedRollouts | None:
    """What collects a rollout of rows on servers by native calls, where that can be."""
    plan = _rolling_plan(role, acting)
    if plan is None or plan.remembers or acting.executed:
        return None
    return linked_rollouts(env, role, plan, acting.act_block)


def _check_finite(env: VecEnv, slabs: list[Slab]) -> None:
    """EnvError where native rows, which nothing else looks at, were not finite, or others not so in float32."""
    native = env.native_pool is not None
    for slab in slabs:
        if native and isfinite(slab.obs.sum() + slab.reward.sum()):
            continue
        layout = env.spec.observation
        if not native and not may_overflow(layout, slab.obs, slab.reward):
            continue
        num_steps, num_rows = slab.reward.shape
        for t in range(num_steps):
            rows = slice(0, num_rows)
            check_finite(env.spec, rows, select(slab.obs, t), slab.reward[t])


def _cut(env: VecEnv, schedule: Schedule) -> list[slice]:
    """The rows that act and step together.

    Raises:
        ConfigError: fewer than two environments to overlap, or a schedule that is for actors.
    """
    if isinstance(schedule, Async):
        raise ConfigError(
            'schedule="async" needs rows that live in actors: set actors to 1 or more'
        )
    rows, agents = env.num_rows, env.spec.num_agents
    if not isinstance(schedule, Overlap):
        return [slice(0, rows)]
    if rows < 2 * agents:
        raise ConfigError(
            f'schedule="overlap" needs at least {2 * agents} rows; set num_envs to 2 or more, or schedule="sync" '
            "(on the command line --num-envs 2, or --schedule sync)"
        )
    half = rows // 2 // agents * agents
    return [slice(0, half), slice(half, rows)]
