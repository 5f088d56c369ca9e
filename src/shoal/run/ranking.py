"""Ranking: greedy episodes of every agent of a population, on rows of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from shoal.learn.acting import Acting
from shoal.run.evaluate import EVALUATION_STREAM, MAX_STEPS, evaluate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.run.settings import Settings
    from shoal.types import Floats

SEEDS = 1_000_000_000
"""Below so many lie the seeds of rankings, as some libraries take no more than 31 bits."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """How agents are ranked: each plays greedy `episodes` on `env`, other ones than every other agent's."""

    env: VecEnv
    episodes: int
    max_steps: int = MAX_STEPS
    at_end: bool = True
    """Whether they are ranked when the run ends, to find out whose policy is kept."""
    told: set[str] = field(default_factory=set, compare=False)
    """Environments of whose endless episodes a warning told."""

    def play(
        self, policies: Mapping[str, nn.Module], settings: Settings, number: int
    ) -> tuple[dict[str, Floats], int]:
        """The returns of each agent's episodes in the comparison of this number, and how many steps they took."""
        found: dict[str, Floats] = {}
        steps = 0
        for place, (name, policy) in enumerate(policies.items()):
            draws = np.random.default_rng([settings.seed, 6, number, place])
            acting = Acting(
                int(draws.integers(SEEDS)),
                EVALUATION_STREAM,
                torch.device(settings.device),
                native=settings.native,
            )
            score = evaluate(
                policy,
                self.env,
                episodes=self.episodes,
                acting=acting,
                max_steps=self.max_steps,
                told=self.told,
            )
            found[name] = score.returns
            steps += int(score.lengths.sum())
        return found, steps
