"""Result: how a run ended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shoal.experiment.agent import GREEDY_EPISODES
from shoal.experiment.foreign import Told
from shoal.run import log
from shoal.run.guard.ending import GUARD
from shoal.types.text import decimal

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from shoal.types import Floats


@dataclass(frozen=True, slots=True, repr=False)
class Result(Told):
    """How a run ended: its directory, the mean return of fresh greedy episodes, and whether it met the threshold.

    The greedy return is NaN where no greedy episodes were played: `final_episodes=0`, they failed, or Ctrl-C ended the
    run.
    """

    path: Path
    policy: nn.Module
    steps: int
    seconds: float
    greedy_return: float
    greedy_seconds: float
    threshold: float | None
    stop_reason: str
    mean_return: float = -math.inf
    """Of the last max(100, num_envs) episodes of training; -inf where there were fewer."""
    greedy_episodes: int = GREEDY_EPISODES
    greedy_std: float = math.nan
    """Standard deviation of the returns of the greedy episodes."""
    greedy_cost: float = math.nan
    """Mean cost of the greedy episodes; NaN where none were played, or steps have no cost."""
    greedy_cost_std: float = math.nan
    greedy_cost_worst: float = math.nan
    """Of the costliest of them."""
    cost_limit: float | None = None
    """What an episode may cost on average, where that was learned."""
    agent: str = ""
    """Whose policy it is, of several agents: the one with the best greedy episodes; empty where none were played."""
    bottleneck: str = ""
    """What training waited for, and which setting would move it; empty where it was too short to tell."""

    @property
    def guard_stopped(self) -> bool:
        """Whether the guard ended it, as nothing else helped."""
        return self.stop_reason.startswith(GUARD)

    @property
    def solved(self) -> bool:
        """Whether the greedy return meets the threshold (always, without one).

        Where no greedy episodes were played, the mean return of training's last episodes decides.
        """
        reached = self.greedy_return
        if math.isnan(reached):
            reached = self.mean_return
        return self.threshold is None or reached >= self.threshold

    def frame(self) -> dict[str, Floats]:
        """The metrics of the run as columns, one array [lines] a key: NaN where a line lacks it.

        `pandas.DataFrame(run.frame())` takes them.
        """
        lines = log.read(self.path / "metrics.jsonl")
        keys = dict.fromkeys(key for line in lines for key in line)
        return {
            key: np.array([line.get(key) for line in lines], np.float64) for key in keys
        }

    def __repr__(self) -> str:
        """One line: where the run is and what came of it."""
        bar = "" if self.threshold is None else f", threshold={self.threshold:g}"
        if not math.isnan(self.greedy_cost):
            bar += f", greedy_cost={self.greedy_cost:.4g}"
        return (
            f"Result({str(self.path)!r}, steps={self.steps:,}, seconds={self.seconds:.1f}, "
            f"greedy_return={decimal(self.greedy_return)}{bar}, stop_reason={self.stop_reason!r})"
        )
