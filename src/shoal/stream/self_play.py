"""Self-play: the policy learns against itself as it was, versions drawn from a pool."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.learn.learner import POLICY
from shoal.learn.publishing import Frozen
from shoal.stream.roles import published
from shoal.stream.rollouts import Rollouts, rollouts
from shoal.types import ConfigError, check_ranges

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray
    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.learn.acting import Acting
    from shoal.learn.publishing import Published
    from shoal.stream.meter import Meter
    from shoal.stream.rewards import Rewards
    from shoal.stream.schedules import Schedule
    from shoal.types import Steps

POOL_STREAM = 2
"""The word behind the seed that draws opponents."""


@dataclass(frozen=True, slots=True)
class SelfPlay:
    """Self-play against past versions of the policy, in environments with several agents."""

    every: int = 0
    """Add the policy to the pool of past versions every this many updates. 0: no pool; one policy plays all agents and
    learns from all of them."""
    pool: int = 20
    """Maximum number of past versions; more make the opponents more varied. When the pool is full, every other version
    is removed and from then on half as many are added: it stays evenly spaced, back to the untrained policy."""
    latest: float = 0.5
    """Probability that an opponent is the current policy; larger adapts more to its newest mistakes."""
    opponents: int = 2
    """Opponents sampled for each rollout; each plays the learner in a share of the environments."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_ranges(
            self, every=(0, inf), pool=(2, inf), latest=(0, 1), opponents=(1, inf)
        )


def against(
    past: SelfPlay,
    env: VecEnv,
    learner: Published | nn.Module,
    *,
    num_steps: int,
    schedule: Schedule | None = None,
    acting: Acting | None = None,
    meter: Meter | None = None,
    rewards: Rewards | None = None,
) -> Rollouts | PastVersions:
    """The stream of a policy that plays every agent, or (`past.every` > 0) one agent against its past versions.

    Args:
        past: whom it meets.
        env: of two agents or more, where it meets past versions.
        learner: acts by a snapshot that `publish` renews.
        num_steps: as in `rollouts`, like all that follow.
        schedule: when rows act and step.
        acting: seed, device, and how forwards are cut into blocks.
        meter: where the seconds go.
        rewards: what becomes of them before they are learned from.

    Raises:
        ConfigError: one agent alone, or fewer environments than opponents.
    """
    stream = partial(
        rollouts,
        env,
        num_steps=num_steps,
        schedule=schedule,
        acting=acting,
        meter=meter,
        rewards=rewards,
    )
    if not past.every:
        return stream(learner)
    seed = 0 if acting is None else acting.seed
    return PastVersions(past, env, published(learner), seed, stream)


class PastVersions:
    """Rollouts of a learner who plays one agent of each environment; opponents play the others.

    In environment e the learner is agent e modulo the number of agents. A step is a step of the learner's rows, and
    `episodes` are its own. Opponents are drawn at every publish.
    """

    agent = POLICY
    """Who learns, as a run calls an agent that is alone."""

    def __init__(
        self,
        past: SelfPlay,
        env: VecEnv,
        learner: Published,
        seed: int,
        stream: Callable[..., Rollouts],
    ) -> None:
        """See `against`; `stream` makes the rollouts of a cast."""
        agents = env.spec.num_agents
        games = env.num_rows // agents
        if agents < 2:
            raise ConfigError(
                f"self_play.every={past.every}, but {env.spec.env_id} has one agent alone"
            )
        if games < past.opponents:
            raise ConfigError(
                f"self_play.opponents={past.opponents} need as many environments, got num_envs={games}"
            )
        self.past, self.version, self.env_steps = past, 0, 0
        self._agents, self._learner = agents, learner
        random_numbers = np.random.PCG64(np.random.SeedSequence([seed, POOL_STREAM]))
        self._rng = np.random.Generator(random_numbers)
        rows = np.arange(env.num_rows).reshape(games, agents)
        self.rows = rows[np.arange(games), np.arange(games) % agents]
        cast = self._cast(rows)
        self._opponents = [
            Frozen(copy.deepcopy(learner.policy).eval()) for _ in range(past.opponents)
        ]
        self._pool = [_weights(learner.policy)]
        self._drawn = [0] * past.opponents
        self._every = past.every
        self._arm()
        players: dict[str, Published] = {"learner": learner}
        for number, opponent in enumerate(self._opponents):
            players[f"opponent_{number}"] = opponent
        self._stream = stream(players, cast=cast)
        self.episodes = self._stream.episodes

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and rows of one rollout: the learner's rows."""
        return self._stream.num_steps, len(self.rows)

    def __iter__(self) -> PastVersions:
        """Itself."""
        return self

    def __next__(self) -> Steps:
        """The learner's part of the next rollout."""
        steps = next(self._stream)["learner"]
        self.env_steps = self._stream.env_steps // self._agents
        self.episodes = self._stream.episodes.among(self.rows)
        return steps

    def explore(self, epsilon: ArrayLike, agent: str | None = None) -> None:
        """As of `Rollouts`: the learner's rows explore, its opponents' do not."""
        self._stream.explore(epsilon)

    def publish(self) -> int:
        """Makes the weights the next version, perhaps adds them to the pool, and draws the opponents."""
        if (self.version + 1) % self._every == 0:
            if len(self._pool) == self.past.pool:
                self._pool, self._every = self._pool[::2], 2 * self._every
            if (self.version + 1) % self._every == 0:
                self._pool.append(_weights(self._learner.policy))
        self._drawn = [self._draw() for _ in self._opponents]
        self._arm()
        self.version = self._stream.publish()
        return self.version

    def state(self) -> dict[str, Any]:
        """The rollouts' state, the pool, who was drawn from it, and the generator that draws."""
        return {
            "stream": self._stream.state(),
            "pool": list(self._pool),
            "every": self._every,
            "drawn": list(self._drawn),
            "rng": self._rng.bit_generator.state,
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`, against the same opponents; the learner is restored before."""
        self._pool = [
            {name: torch.as_tensor(x).clone() for name, x in one.items()}
            for one in state["pool"]
        ]
        self._every = state["every"]
        self._drawn = list(state["drawn"])
        self._rng.bit_generator.state = state["rng"]
        self._arm()
        lost = self._stream.restore(state["stream"])
        self.version = self._stream.version
        self.env_steps = self._stream.env_steps // self._agents
        return lost

    def _cast(self, rows: NDArray[np.int64]) -> dict[str, list[int]]:
        """The learner's rows, and those of each opponent in its part of the games [games, agents]."""
        cast = {"learner": self.rows.tolist()}
        games, opponents = len(rows), self.past.opponents
        edges = [games * number // opponents for number in range(opponents + 1)]
        for number, (first, last) in enumerate(pairwise(edges)):
            theirs = np.setdiff1d(rows[first:last].ravel(), self.rows)
            cast[f"opponent_{number}"] = theirs.tolist()
        return cast

    def _draw(self) -> int:
        """A place in the pool, or -1 for the policy as it is now."""
        number = int(self._rng.integers(len(self._pool)))
        return -1 if self._rng.random() < self.past.latest else number

    def _arm(self) -> None:
        """Gives the opponents the weights that were drawn."""
        for opponent, drawn in zip(self._opponents, self._drawn, strict=True):
            weights = self._learner.policy.state_dict()
            if drawn >= 0:
                weights = self._pool[drawn]
            opponent.policy.load_state_dict(weights)


def _weights(policy: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the weights and the normalization statistics."""
    return {name: x.detach().cpu().clone() for name, x in policy.state_dict().items()}
