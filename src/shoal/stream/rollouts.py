"""The stream `rollouts`: whole rollouts [T, B] of fresh experience, for on-policy algorithms."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from shoal.learn.acting import Acting
from shoal.learn.learner import POLICY
from shoal.learn.publishing import Frozen, observes
from shoal.stream.actors.collecting import Actors
from shoal.stream.actors.rows import ActorRows
from shoal.stream.ending import EndingError
from shoal.stream.in_process import InProcess, Wanted
from shoal.stream.joined import check_joinable, joined_episodes
from shoal.stream.meter import Meter
from shoal.stream.rewards import RewardNormalizer, Rewards
from shoal.stream.schedules import Schedule, Sync
from shoal.types import ConfigError, Episodes, map_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from shoal.envs.vec_env import VecEnv
    from shoal.learn.publishing import Published
    from shoal.memory.slab import Slab
    from shoal.stream.roles import Cast, Policies
    from shoal.types import Steps, Tree


class Plays(Protocol):
    """A role: rows, and whose weights act in them."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def source(self) -> Published:
        """Whose weights act."""
        ...

    @property
    def count(self) -> int:
        """Rows, n."""
        ...

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Which rows of the environment they are [n]."""
        ...

    values: bool
    """Whether the value of what follows each step is wanted."""

    def explore(self, epsilon: ArrayLike) -> None:
        """How often the rows of a Q-network take any action instead of the best: a number, or [n]."""
        ...


class Collects(Protocol):
    """Where rows act and step: in this process, or in processes beside it."""

    @property
    def roles(self) -> Sequence[Plays]:
        """Who plays."""
        ...

    @property
    def slabs(self) -> list[Slab]:
        """The memory of the last rollout, one a role; the next one overwrites it."""
        ...

    @property
    def states(self) -> list[Tree]:
        """The recurrent states before the first step of the last rollout, one a role."""
        ...

    @property
    def native(self) -> bool:
        """Whether whole rollouts are native calls: every step counts then."""
        ...

    def collect(self) -> Episodes:
        """The next rollout, left in `slabs`; the episodes that ended."""
        ...

    def latest(self, number: int) -> Tree:
        """What the rows of a role see and have not acted on yet [n, ...]."""
        ...

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        ...

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`; a sentence for each episode that could not be continued."""
        ...


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
        env: reset here with the acting seed; rows of actors collect in their own processes.
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
    acting, meter = acting or Acting(0), meter or Meter()
    wanted = Wanted(learner, num_steps, schedule or Sync(), cast, acting)
    collects: Collects
    if isinstance(env, ActorRows):
        collects = Actors(env, wanted, meter)
    else:
        collects = InProcess(env, wanted, meter)
    return Rollouts(
        env,
        num_steps,
        collects,
        acting=acting,
        meter=meter,
        rewards=rewards or Rewards(),
        alone=cast is None,
    )


UNANSWERED = "pulled the next rollout before publish(): publish after every update"


class Rollouts:
    """See `rollouts`. Iterating raises until the batch before has been answered by `publish`."""

    agent = POLICY
    """Who learns, as a run calls an agent that is alone."""

    def __init__(
        self,
        env: VecEnv,
        num_steps: int,
        collects: Collects,
        *,
        acting: Acting,
        meter: Meter,
        rewards: Rewards,
        alone: bool,
    ) -> None:
        """Of what is collected; `alone`: one role plays all rows, and its steps are handed over by themselves."""
        self.env, self.num_steps, self.collects = env, num_steps, collects
        self.acting, self.meter, self._bonuses = acting, meter, rewards.bonuses
        self.reward_scale = np.float32(rewards.scale)
        self.version = self.env_steps = 0
        self.episodes = Episodes.none()
        self.roles, self.slabs = collects.roles, collects.slabs
        self._ranks = acting.ranks
        if self._ranks is not None:
            check_joinable(env.spec)
        self._alone, self._published, self._collected = alone, True, False
        self._last: dict[str, Steps] = {}
        self._normalizers: dict[str, RewardNormalizer] = {}
        if rewards.gamma is not None:
            for role in self.roles:
                made = RewardNormalizer(rewards.gamma, role.count, ranks=acting.ranks)
                self._normalizers[role.name] = made
        pairs = zip(self.roles, self.slabs, strict=True)
        learned = [slab for role, slab in pairs if not isinstance(role.source, Frozen)]
        self._learned = learned or self.slabs

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and rows of one rollout: of several ranks, of this one's."""
        return self.num_steps, self.env.num_rows

    @property
    def steps_per_batch(self) -> int:
        """Environment steps of one rollout: of several ranks, of all of them."""
        ranks = 1 if self._ranks is None else self._ranks.size
        return self.num_steps * self.env.num_rows * ranks

    def __iter__(self) -> Rollouts:
        """Itself."""
        return self

    def __next__(self) -> Any:
        """The next rollout in which a learner's step was completed: Steps, or a dict of roles with a cast."""
        self.collect()
        with self.meter.measure("transfer"):
            names = [role.name for role in self.roles]
            self._last = {name: self._steps(i) for i, name in enumerate(names)}
        return self._last[names[0]] if self._alone else self._last

    def collect(self) -> None:
        """The next rollout, left in `slabs`."""
        if not self._published:
            raise RuntimeError(UNANSWERED)
        self._published = False
        while True:
            try:
                self.episodes = self.collects.collect()
            except EndingError:  # the same rollout is asked for again, if any is
                self._published = True
                raise
            self._collected = True
            self.env_steps += self.steps_per_batch
            # In games of turns a rollout may be so short that no step to be learned from is complete.
            if self.collects.native or any(slab.valid.any() for slab in self._learned):
                break
        if self._ranks is not None:
            rows = self.env.num_rows
            self.episodes = joined_episodes(self._ranks, self.episodes, rows)
        for role, slab in zip(self.roles, self.slabs, strict=True):
            if self.reward_scale != 1:
                slab.reward *= self.reward_scale
            if role.name in self._normalizers:
                self._normalizers[role.name].normalize(slab)

    @property
    def latest(self) -> Tree:
        """What the rows see after the rollout and have not acted on yet, as tensors [n, ...]; of the first role."""
        return self._latest(0)

    def explore(self, epsilon: ArrayLike, agent: str | None = None) -> None:
        """From the next rollout on, how often rows whose Q-network learns, one agent's, take any action at random."""
        learning = [r for r in self.roles if not isinstance(r.source, Frozen)]
        for role in learning or self.roles:
            role.explore(epsilon)

    def publish(self, *, only: Sequence[str] = ()) -> int:
        """Makes the weights as they are the next version that acts, and returns its number.

        The observations of the rollout go into the normalization statistics of the policies that were trained on it.
        The weights are copied when the rows act next; of them `only` those, where named, as of `Learner.publish`.
        """
        with self.meter.show("publishing"):
            for number, role in enumerate(self.roles):
                steps = self._last.get(role.name)
                if steps is None and self._collected and observes(role.source.policy):
                    steps = self._steps(number)
                role.source.publish(steps, only=only)
        return self.answered()

    def answered(self) -> int:
        """Counts the version up where whoever learned has published each role's weights; returns its number."""
        self._last, self._collected = {}, False
        self.version += 1
        self._published = True
        return self.version

    def state(self) -> dict[str, Any]:
        """Rows, counters, random states: all that `restore` needs, taken after a publish."""
        saved = {
            **self.collects.state(),
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
        lost = self.collects.restore(state)
        for name, normalizer in self._normalizers.items():
            normalizer.restore(state["rewards"][name])
        if self._bonuses is not None:
            self._bonuses.restore(state["bonuses"])
        self.version, self.env_steps = state["version"], state["env_steps"]
        self._published, self._last, self._collected = True, {}, False
        return lost

    def _steps(self, number: int) -> Steps:
        """What a role's slab holds."""
        device, role = self.acting.device, self.roles[number]
        state = self.collects.states[number]
        slab = self.slabs[number]
        steps = slab.steps(state=state, device=device)
        if self.acting.latest and not slab.in_turns:
            steps = replace(steps, latest=self._latest(number))
        if self._bonuses is None:
            return steps
        return self._bonuses.on_steps(role.name, steps, self._latest(number))

    def _latest(self, number: int) -> Tree:
        """What a role's rows see after the rollout."""
        as_tensor = partial(torch.as_tensor, device=self.acting.device)
        return map_tree(as_tensor, self.collects.latest(number))
