"""A stream, a learner and a run so plain that every number of a loop is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from shoal.learn.learner import Learner
from shoal.run.directory import RunDirectory
from shoal.run.log import Log
from shoal.run.loop import Loop
from shoal.run.run import Run
from shoal.run.settings import Settings
from shoal.types import Episodes

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.run.checkpoint import Checkpoint


def weights(found: Checkpoint) -> dict[str, torch.Tensor]:
    """The policy's weights in a checkpoint."""
    return found.tree["learner"]["policy"]["networks"]["policy"]["module"]


class Beats:
    """A stream whose every batch ends `ends` episodes with the return that its number has in `returns`."""

    def __init__(self, ends: int, returns: list[float]) -> None:
        self.env_steps = self.version = 0
        self.ends, self.returns, self.shape = ends, returns, (5, 2)
        self.episodes = Episodes(np.zeros(0), np.zeros(0, np.int64), {})

    def __next__(self) -> int:
        value = self.returns[min(self.version, len(self.returns) - 1)]
        rows = np.arange(self.ends) % 2
        self.episodes = Episodes(np.full(self.ends, value), np.full(self.ends, 7), {}, rows)
        self.env_steps, self.version = self.env_steps + 10, self.version + 1
        return self.version

    def publish(self) -> int:
        return self.version

    def state(self) -> dict[str, Any]:
        return {"env_steps": self.env_steps, "version": self.version}

    def restore(self, state: dict[str, Any]) -> list[str]:
        self.env_steps, self.version = state["env_steps"], state["version"]
        return []


def make_run(path: Path, *, callbacks: Any = (), **settings: Any) -> Run:
    """A run in `path`, of batches of 10 steps."""
    (path / "checkpoints").mkdir(parents=True, exist_ok=True)
    told: Any = {"env": "E", "algo": "a", "seed": 1, "num_envs": 8, "total_timesteps": 100}
    directory = RunDirectory(path)
    log = Log(directory.metrics, [])
    return Run(Settings(**told | settings), directory=directory, log=log, callbacks=callbacks)


def linear() -> Learner:
    """A learner of one weight and one bias."""
    return Learner(torch.nn.Linear(1, 1), torch.optim.SGD, lr=0.5)


def every(patch: pytest.MonkeyPatch, *, log: int = 1, save: int = 1) -> None:
    """Lines and checkpoints are written at these counts of updates."""
    made = Loop.__init__

    def init(self: Loop, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        self._log_every, self._save_every = log, save

    patch.setattr(Loop, "__init__", init)
