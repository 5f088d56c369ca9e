"""Self-play: the policy learns against itself as it was, versions drawn from a pool."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.learn.acting import Acting
from shoal.stream.rollouts import Rollouts, rollouts
from shoal.types import ConfigError, Episodes, check_ranges

if TYPE_CHECKING:
    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.types import Steps

POOL_STREAM = 2
"""The word behind the seed that draws opponents."""


@dataclass(frozen=True, slots=True)
class SelfPlay:
    """Whom a policy meets in games of several agents."""

    every: int = 0
    """Updates after which the policy joins the pool of its past versions; 0: the policy plays all agents and learns
    from all of them, and there are no past versions."""
    pool: int = 20
    """Past versions kept, at most; more make the opponents more varied. When it is full, every other one leaves, and
    from then on half as many join: the pool goes back to the untrained policy, in even steps."""
    latest: float = 0.5
    """How often an opponent is the policy as it is now instead of a past version; more chases the newest mistakes."""
    opponents: int = 2
    """Opponents drawn anew for each rollout; each meets the learner in a part of the environments."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_ranges(
            self, every=(0, inf), pool=(2, inf), latest=(0, 1), opponents=(1, inf)
        )


def against(
    past: SelfPlay, env: VecEnv, policy: nn.Module, **settings: Any
) -> Rollouts | PastVersions:
    """The stream of a policy that plays every agent, or (`past.every` > 0) one agent against its past versions.

    Args:
        past: whom it meets.
        env: of two agents or more, where it meets past versions.
        policy: acts by a snapshot that `publish` renews.
        settings: as `rollouts` takes them.

    Raises:
        ConfigError: one agent alone, or fewer environments than opponents.
    """
    return (
        PastVersions(past, env, policy, **settings)
        if past.every
        else rollouts(env, policy, **settings)
    )


class PastVersions:
    """Rollouts of a learner who plays one agent of each environment; opponents play the others.

    In environment e the learner is agent e modulo the number of agents. A step is a step of the learner's rows, and
    `episodes` are its own. Opponents are drawn at every publish.
    """

    def __init__(
        self, past: SelfPlay, env: VecEnv, policy: nn.Module, **settings: Any
    ) -> None:
        """See `against`."""
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
        rows = np.arange(env.num_rows).reshape(games, agents)
        self.rows = rows[np.arange(games), np.arange(games) % agents]
        edges = [
            games * number // past.opponents for number in range(past.opponents + 1)
        ]
        parts = [rows[first:last].ravel() for first, last in pairwise(edges)]
        cast = {"learner": self.rows.tolist()}
        cast |= {
            f"opponent_{number}": np.setdiff1d(part, self.rows).tolist()
            for number, part in enumerate(parts)
        }
        acting = settings.get("acting") or Acting(0)
        self.past, self.version = past, 0
        self._agents = agents
        self._rng = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence([acting.seed, POOL_STREAM]))
        )
        self._opponents = [copy.deepcopy(policy).eval() for _ in parts]
        self._pool = [_weights(policy)]
        self._drawn = [0] * len(parts)
        self._every = past.every
        self.env_steps = 0
        self._stream = rollouts(env, self._policies(policy), cast=cast, **settings)
        self.episodes = self._stream.episodes

    def __iter__(self) -> PastVersions:
        """Itself."""
        return self

    def __next__(self) -> Steps:
        """The learner's part of the next rollout."""
        steps = next(self._stream)["learner"]
        self.env_steps = self._stream.env_steps // self._agents
        found = self._stream.episodes
        own = np.isin(found.rows, self.rows)
        info = {key: values[own] for key, values in found.info.items()}
        self.episodes = Episodes(
            found.returns[own], found.lengths[own], info, found.rows[own]
        )
        return steps

    def publish(self, policy: nn.Module) -> int:
        """Gives the acting side the learner's weights, perhaps adds them to the pool, and draws the opponents."""
        if (self.version + 1) % self._every == 0:
            if len(self._pool) == self.past.pool:
                self._pool, self._every = self._pool[::2], 2 * self._every
            if (self.version + 1) % self._every == 0:
                self._pool.append(_weights(policy))
        self._drawn = [self._draw() for _ in self._opponents]
        self.version = self._stream.publish(self._policies(policy))
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

    def restore(self, state: dict[str, Any], policy: nn.Module) -> list[str]:
        """Continues from `state`, against the same opponents."""
        self._pool = [
            {name: torch.as_tensor(x).clone() for name, x in one.items()}
            for one in state["pool"]
        ]
        self._every = state["every"]
        self._drawn, self._rng.bit_generator.state = list(state["drawn"]), state["rng"]
        lost = self._stream.restore(state["stream"], self._policies(policy))
        self.version, self.env_steps = (
            self._stream.version,
            self._stream.env_steps // self._agents,
        )
        return lost

    def _draw(self) -> int:
        """A place in the pool, or -1 for the policy as it is now."""
        number = int(self._rng.integers(len(self._pool)))
        return -1 if self._rng.random() < self.past.latest else number

    def _policies(self, policy: nn.Module) -> dict[str, nn.Module]:
        """Who plays each role: the learner, and opponents with the weights that were drawn."""
        policies = {"learner": policy}
        for number, (opponent, drawn) in enumerate(
            zip(self._opponents, self._drawn, strict=True)
        ):
            opponent.load_state_dict(
                self._pool[drawn] if drawn >= 0 else policy.state_dict()
            )
            policies[f"opponent_{number}"] = opponent
        return policies


def _weights(policy: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the weights and the normalisation statistics."""
    return {name: x.detach().cpu().clone() for name, x in policy.state_dict().items()}
