"""What a run knows of itself: how long it goes, how its rows act, what it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from shoal.learn.acting import Acting
from shoal.learn.curiosity import Curiosity
from shoal.learn.hardware import Hardware
from shoal.llm.settings import Language
from shoal.memory.settings import FromData
from shoal.run.guard.settings import Guarding
from shoal.run.members import Population, member_names
from shoal.run.origin import Identity
from shoal.stream.groups.held_out import HELD_OUT
from shoal.stream.schedules import Schedule, schedule
from shoal.stream.self_play import SelfPlay
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.learn.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the engine; none of them is part of an algorithm."""

    env: str
    algo: str
    seed: int
    num_envs: int
    total_timesteps: int
    stop_at: float | None = None
    """Stop when the mean return of the last max(100, num_envs) episodes reaches this."""
    confirm_episodes: int = 0
    """Greedy episodes whose mean must reach it too, before that of training counts; 0: none."""
    keep_last: int = 3
    """Rolling checkpoints that stay."""
    checkpoint_every: int = 0
    """Environment steps from one checkpoint to the next; 0: a twentieth of the run."""
    timeline: int = 0
    """Updates, the last ones, of which it is kept who did what when."""
    guarding: Guarding | None = None
    """How the guard watches updates; None: nobody does."""
    began_with: str = ""
    """Whose weights the policy began with, where they were not drawn from the seed."""
    device: str = "cpu"
    num_threads: int = 1
    native: bool = True
    agents: tuple[str, ...] = ()
    """The names of an environment's agents, in the order of its rows, where there are several."""
    schedule: str = "sync"
    """When rows act and step: sync, overlap or async."""
    max_staleness: int = 1
    """Of async: how many rollouts late a step may be learned from."""
    act_block: int = 64
    """Rows per forward pass when acting."""
    grad_shards: int = 2
    """Shards of a minibatch whose gradients are computed separately."""
    reward_scale: float = 1.0
    """Rewards are multiplied by this before learning."""
    reward_gamma: float | None = None
    """Rewards are divided by the standard deviation of returns discounted by this; None: they are not."""
    self_play: SelfPlay = field(default_factory=SelfPlay)
    """Self-play against past versions, in environments with several agents."""
    learners: int = 1
    """Agents that learn side by side, each on an equal share of the environments."""
    population: Population = field(default_factory=Population)
    """What they share, and in what they differ."""
    curiosity: Curiosity = field(default_factory=Curiosity)
    """A bonus on rewards for observations that were not seen often."""
    data: FromData = field(default_factory=FromData)
    """A data set that is learned from too."""
    language: Language = field(default_factory=Language)
    """How a language model samples and is judged."""
    identity: Identity = field(default_factory=Identity)
    """Which run it is, and what its checkpoints must have been trained with."""
    ranks: Ranks | None = None
    """The processes that learn together, each on an equal share of the environments, where this is one of several."""

    @property
    def held_out(self) -> str:
        """The info value of episodes that nothing is learned from, by which the guard judges; empty: there is none."""
        if self.language.held_out_scorer:
            return HELD_OUT
        return "" if self.guarding is None else self.guarding.held_out

    @property
    def leads(self) -> bool:
        """Whether this process writes, evaluates and tells, of those that learn together."""
        return self.ranks is None or self.ranks.rank == 0

    @property
    def own_envs(self) -> int:
        """Environments of this process."""
        return self.num_envs // (1 if self.ranks is None else self.ranks.size)

    @property
    def hardware(self) -> Hardware:
        """What learners compute on."""
        return Hardware(
            device=torch.device(self.device),
            native=self.native,
            num_threads=self.num_threads,
            act_block=self.act_block,
            grad_shards=self.grad_shards,
            micro_tokens=self.language.micro_tokens,
            shard=self.language.shard and self.ranks is not None,
            ranks=self.ranks,
        )

    def generator(self) -> np.random.Generator:
        """A new one of the run's random numbers."""
        return np.random.Generator(
            np.random.PCG64(np.random.SeedSequence([self.seed, 1]))
        )

    @property
    def acting(self) -> Acting:
        """How policies act."""
        rows = self.own_envs * max(1, len(self.agents))
        return Acting(
            self.seed,
            device=torch.device(self.device),
            native=self.native,
            num_threads=self.num_threads,
            act_block=self.act_block,
            first_row=0 if self.ranks is None else self.ranks.rank * rows,
            ranks=self.ranks,
        )

    @property
    def timing(self) -> Schedule:
        """When rows act, step and are learned from."""
        return schedule(self.schedule, self.max_staleness)

    @property
    def whose_rows(self) -> tuple[str, ...]:
        """Names of rows, over and over in their order, by which returns are told apart; empty where nothing is."""
        if self.learners == 1:
            return self.agents
        share = self.num_envs * max(1, len(self.agents)) // self.learners
        return tuple(name for name in member_names(self.learners) for _ in range(share))

    @property
    def window(self) -> int:
        """Episodes in the mean that decides."""
        return max(100, self.num_envs)


def check_rows(num_rows: int, num_agents: int, num_envs: int) -> None:
    """ConfigError unless rows are those of as many environments as the run counts with."""
    there = num_rows // num_agents
    if there != num_envs:
        raise ConfigError(
            f"the run was given num_envs={num_envs}, but its rows are of {there} environments; make both equal: "
            f"shoal.run.open(num_envs={there}), or make(env, {num_envs})"
        )
