"""Explanations where the truth is known: one of eight features matters, and is it named first?

    python -m benchmarks.explain --seeds 10

Each seed trains a policy on an environment whose reward depends on one feature alone, another one each time, and prints
which feature is named first, its share, and the fidelity of the decision tree on held-out episodes.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

import shoal
from shoal.experiment.explaining import explain_run
from shoal.report.explain.explain import Asked

FEATURES, LENGTH = 8, 32


class OneMatters(gym.Env[Any, Any]):
    """Says whether feature `which` is above 0, for a reward of 1; the other features are noise of the same size."""

    def __init__(self, which: int = 0, *, continuous: bool = False) -> None:
        """`continuous`: instead, the feature itself is to be named, for minus the square of the error."""
        self.which, self.continuous = which, continuous
        self.observation_space = spaces.Box(-10, 10, (FEATURES,), np.float32)
        self.action_space = spaces.Box(-3, 3, (1,), np.float32) if continuous else spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Draws a first observation."""
        super().reset(seed=seed)
        self.steps = 0
        return self._draw(), {}

    def step(self, action: Any) -> Any:
        """Pays for the answer, and draws another."""
        truth = float(self.seen[self.which])
        reward = -((float(action[0]) - truth) ** 2) if self.continuous else float(int(action) == (truth > 0))
        self.steps += 1
        return self._draw(), reward, False, self.steps >= LENGTH, {}

    def _draw(self) -> Any:
        self.seen = np.clip(self.np_random.normal(0, 1, FEATURES), -10, 10).astype(np.float32)
        return self.seen


@dataclass(frozen=True, slots=True)
class Named:
    """What an explanation says where one feature matters."""

    truth: int
    first: int
    share: float
    """Of the first one."""
    incomplete: float
    fidelity: float
    plain: float


def measure(seed: int, *, continuous: bool = False) -> Named:
    """Trains with this seed and explains."""
    which = seed * 3 % FEATURES
    with tempfile.TemporaryDirectory() as folder:
        result = shoal.train(
            partial(OneMatters, which, continuous=continuous),
            run_dir=folder,
            seed=seed,
            panel="none",
            final_episodes=0,
            num_threads=1,
            num_envs=16,
            num_steps=64,
            num_minibatches=8,
            learning_rate=0.003,
            gamma=0.5,
            total_timesteps=30_000,
        )
        agent = shoal.load(result.path, factory=partial(OneMatters, which, continuous=continuous))
        found = explain_run(agent, Asked(episodes=20, states=128, points=32))
    first = found.order()[0]
    tree = found.surrogate
    assert tree is not None
    share = float(found.importance.share[first])
    return Named(which, first, share, found.importance.incomplete, tree.fidelity, tree.plain)


def main() -> None:
    """Prints a line a seed, and how often the right feature is first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    for continuous in (False, True):
        print("numbers" if continuous else "choices", flush=True)
        right = 0
        for seed in range(1, given.seeds + 1):
            named = measure(seed, continuous=continuous)
            right += named.first == named.truth
            print(
                f"  seed {seed}: feature {named.truth} matters, {named.first} is named first with {named.share:.3f} of "
                f"all; tree's fidelity {named.fidelity:.3f} ({named.plain:.3f} without looking)",
                flush=True,
            )
        print(f"  right in {right} of {given.seeds}")


if __name__ == "__main__":
    main()
