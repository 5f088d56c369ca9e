"""The stream `rollouts`: whole rollouts [T, B] of fresh experience, for on-policy algorithms."""

from __future__ import annotations

import time
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.envs.finite import check_finite, may_overflow
from shoal.learn.acting import Acting, PlanActor
from shoal.learn.learner import POLICY
from shoal.learn.plan import Noise
from shoal.learn.publishing import Frozen, observes
from shoal.memory.slab import Slab
from shoal.memory.states import state_layout
from shoal.stream.collector import Collector
from shoal.stream.meter import Meter
from shoal.stream.rewards import RewardNormalizer, Rewards
from shoal.stream.roles import Role, casting
from shoal.stream.schedules import Overlap, Schedule, Sync
from shoal.types import ConfigError, Episodes, map_tree, select

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from shoal.envs.vec_env import VecEnv
    from shoal.learn.plan import Plan
    from shoal.stream.roles import Cast, Policies
    from shoal.types import Steps, Tree


def rollouts(
    env: VecEnv,
    learner: Policies,
    *,
    num_steps: int,
    schedule: Schedule | None = None,
    cast: Cast | None = None,
    acting: Acting | None = None,
    meter: Meter | None = None,
    rewards: Rewards | None = None,
) -> Rollouts:
    """An endless stream of rollouts of `num_steps` steps of every row.

    Args:
        env: reset here with the acting seed.
        learner: whose weights act, by a snapshot that `publish` renews; with `cast`, one a role. A plain module acts
            as it is at each publish.
        num_steps: T, at least 1.
        schedule: Sync() by default, or Overlap().
        cast: the rows of each role, a slice or their numbers, together every row once; the stream then yields a dict of
            roles.
        acting: seed, device, and how forwards are cut into blocks.
        meter: where the seconds of the environment and of acting go.
        rewards: what becomes of them before they are learned from; nothing by default. Returns of episodes stay.

    Raises:
        ConfigError: a setting that cannot work, with one that would.
    """
    if num_steps < 1:
        raise ConfigError(f"num_steps must be at least 1, got {num_steps}")
    if not env.capabilities.in_order:
        size = env.capabilities.batch_rows
        raise ConfigError(
            f"a rollout needs its rows in the order of sends; leave batch_rows={size} out"
        )
    return Rollouts(
        env,
        learner,
        num_steps,
        schedule=schedule or Sync(),
        cast=cast,
        acting=acting or Acting(0),
        meter=meter or Meter(),
        rewards=rewards or Rewards(),
    )


UNANSWERED = "pulled the next rollout before publish(): publish after every update"


class Rollouts:
    """See `rollouts`. Iterating raises until the batch before has been answered by `publish`."""

    agent = POLICY
    """Who learns, as a run calls an agent that is alone."""

    def __init__(
        self,
        env: VecEnv,
        learner: Policies,
        num_steps: int,
        *,
        schedule: Schedule,
        cast: Cast | None,
        acting: Acting,
        meter: Meter,
        rewards: Rewards,
    ) -> None:
        self.env, self.num_steps = env, num_steps
        self.acting, self.meter, self._bonuses = acting, meter, rewards.bonuses
        self.reward_scale = np.float32(rewards.scale)
        self.version = self.env_steps = 0
        self.episodes = Episodes.none()
        self._cast, self._published = cast, True
        self._last: dict[str, Steps] = {}
        self._states: list[Tree] = []
        groups = _cut(env, schedule)
        if cast is not None and len(groups) > 1:
            raise ConfigError(
                'a cast of several roles needs schedule="sync" (shoal.stream.schedules.Sync())'
            )
        sources, places = casting(learner, cast, env.num_rows)
        # The first reset tells whether actions are masked, which decides how policies act.
        env.reset(acting.seed)
        first = env.recv()
        in_turns = first.turn is not None
        self.roles: list[Role] = []
        self.slabs: list[Slab] = []
        """The memory of the last rollout, one a role; the next one overwrites it."""
        for name, rows in places.items():
            role = Role.of(name, rows, sources[name], env, acting, in_turns=in_turns)
            self.roles.append(role)
            self.slabs.append(_slab_of(env, role, num_steps, acting))
        self._normalizers: dict[str, RewardNormalizer] = {}
        if rewards.gamma is not None:
            for role in self.roles:
                made = RewardNormalizer(rewards.gamma, len(role.start))
                self._normalizers[role.name] = made
        pairs = zip(self.roles, self.slabs, strict=True)
        learned = [slab for role, slab in pairs if not isinstance(role.source, Frozen)]
        self._learned = learned or self.slabs
        self._collector = Collector(env, self.roles, groups, meter, first)
        alone = self.roles[0] if len(self.roles) == len(groups) == 1 else None
        self._plan = None if alone is None else _fused_plan(env, alone, acting)

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and rows of one rollout."""
        return self.num_steps, self.env.num_rows

    def __iter__(self) -> Rollouts:
        """Itself."""
        return self

    def __next__(self) -> Any:
        """The next rollout in which a learner's step was completed: Steps, or a dict of roles with a cast."""
        self.collect()
        with self.meter.measure("transfer"):
            names = [role.name for role in self.roles]
            self._last = {name: self._steps(i) for i, name in enumerate(names)}
        return self._last[names[0]] if self._cast is None else self._last

    def collect(self) -> None:
        """The next rollout, left in `slabs`."""
        if not self._published:
            raise RuntimeError(UNANSWERED)
        self._published = False
        while True:
            self._states = [role.recurrent_state() for role in self.roles]
            for slab in self.slabs:
                slab.clear()
            if self._plan is None:
                self._collect()
            else:
                self._collect_natively(self._plan)
            self.env_steps += self.num_steps * self.env.num_rows
            # In games of turns a rollout may be so short that no step to be learned from is complete.
            if self._plan or any(slab.valid.any() for slab in self._learned):
                break
        for role, slab in zip(self.roles, self.slabs, strict=True):
            if self.reward_scale != 1:
                slab.reward *= self.reward_scale
            if role.name in self._normalizers:
                self._normalizers[role.name].normalize(slab)

    def explore(self, epsilon: ArrayLike, agent: str | None = None) -> None:
        """From the next rollout on, how often rows whose Q-network learns, one agent's, take any action at random."""
        learning = [r for r in self.roles if not isinstance(r.source, Frozen)]
        for role in learning or self.roles:
            role.explore(epsilon)

    def publish(self) -> int:
        """Makes the weights as they are the next version that acts, and returns its number.

        The observations of the rollout go into the normalization statistics of the policies that were trained on it.
        The weights are copied when the rows act next.
        """
        for number, role in enumerate(self.roles):
            steps = self._last.get(role.name)
            if steps is None and self._states and observes(role.source.policy):
                steps = self._steps(number)
            role.source.publish(steps)
        return self.answered()

    def answered(self) -> int:
        """Counts the version up where whoever learned has published each role's weights; returns its number."""
        self._last, self._states = {}, []
        self.version += 1
        self._published = True
        return self.version

    def state(self) -> dict[str, Any]:
        """Rows, counters, random states: all that `restore` needs, taken after a publish."""
        saved = {
            "env": self.env.state(),
            "roles": {role.name: role.state() for role in self.roles},
            "version": self.version,
            "env_steps": self.env_steps,
        }
        if self._normalizers:
            saved["rewards"] = {
                name: x.state() for name, x in self._normalizers.items()
            }
        if self._bonuses is not None:
            saved["bonuses"] = self._bonuses.state()
        return saved

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`, with the weights that the learners have by the next step.

        Returns:
            A sentence for each episode that could not be continued.
        """
        for role in self.roles:
            role.restore(state["roles"][role.name])
        for name, normalizer in self._normalizers.items():
            normalizer.restore(state["rewards"][name])
        if self._bonuses is not None:
            self._bonuses.restore(state["bonuses"])
        lost = self.env.restore(state["env"])
        self._collector.begin(self.env.recv())
        self.version, self.env_steps = state["version"], state["env_steps"]
        self._published, self._last, self._states = True, {}, []
        return lost

    def _steps(self, number: int) -> Steps:
        """What a role's slab holds."""
        device, role = self.acting.device, self.roles[number]
        steps = self.slabs[number].steps(state=self._states[number], device=device)
        if self._bonuses is None:
            return steps
        as_tensor = partial(torch.as_tensor, device=device)
        latest = map_tree(as_tensor, self._collector.latest(role))
        return self._bonuses.on_steps(role.name, steps, latest)

    def _collect(self) -> None:
        self.episodes = self._collector.collect(self.num_steps, self.slabs)
        _check_finite(self.env, self.slabs)
        for role, slab in zip(self.roles, self.slabs, strict=True):
            if role.values:
                last = self._collector.next_values(role)
                slab.fill_next_values(last, role.final_values)

    def _collect_natively(self, plan: Plan) -> None:
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
        self.meter.add("environment", stepping * seconds)
        self.meter.add("acting", (1 - stepping) * seconds)
        slab.version.fill(role.version)
        _check_finite(self.env, self.slabs)
        self.episodes = slab.episodes(self.env.spec.info_keys)


def _slab_of(env: VecEnv, role: Role, num_steps: int, acting: Acting) -> Slab:
    """The memory of a role's rollout."""
    return Slab(
        env.spec,
        num_steps,
        len(role.start),
        pinned=acting.device.type == "cuda",
        in_turns=role.held is not None,
        state=state_layout(role.source.policy) if acting.states else None,
    )


def _fused_plan(env: VecEnv, role: Role, acting: Acting) -> Plan | None:
    """The plan by which one native call collects a whole rollout of one role, where that can be."""
    actor = role.actor
    whole = acting.act_block % env.spec.num_agents == 0
    if not isinstance(actor, PlanActor) or not whole:
        return None
    if env.native_pool is None or not actor.plan.can_roll() or acting.states:
        return None
    return actor.plan


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
    """The rows that act and step together."""
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
