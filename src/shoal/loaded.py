"""Trained policies: loading the policy of a run, acting with it, playing episodes with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.job import Job, from_toml
from shoal.nets.acting import Acting, make_actor
from shoal.run import checkpoint
from shoal.run import directory as directories
from shoal.run.evaluate import EVALUATION_STREAM, Score, evaluate
from shoal.types import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from shoal.nets.acting import Actor
    from shoal.types import Spec

GREEDY_EPISODES = 100


def load(path: str | Path, *, run_dir: str = "runs", policy: Any = None, factory: Any = None, tag: str = "") -> Loaded:
    """The trained policy of a run: `shoal.load(run).act(obs)`.

    Args:
        path: a run directory, or a folder of runs (the newest).
        run_dir: where `path` is looked for as well.
        policy: the policy's factory, where the run was given an object.
        factory: the environment's factory, where the run was given one.
        tag: "" for the newest checkpoint, "best" for the best.
    """
    where = directories.find(path, Path(run_dir))
    module, launch, config, env_kwargs = from_toml(where.read_config())
    job = Job(launch, config, factory or launch.env, env_kwargs, policy or launch.policy)
    rows = job.rows(1)
    made = job.make_policy(rows) or module.make_policy(rows.spec, config.network, launch.seed)
    rows.close()
    found = checkpoint.load(where.checkpoints, kind={"env": launch.env, "algo": launch.algo}, tag=tag)
    if found is None:
        raise ConfigError(f"{where.path} has no checkpoint {tag!r} yet")
    made.load_state_dict(found.tree["state"]["policy"])
    return Loaded(made, rows.spec, job)


class Loaded:
    """A trained policy, ready to act."""

    def __init__(self, policy: nn.Module, spec: Spec, job: Job) -> None:
        """Made by `load`."""
        self.policy, self.spec, self._job = policy, spec, job
        self._actor: Actor | None = None
        self._start = np.ones(0, np.bool_)

    def act(self, obs: Any, *, start: Any = None, greedy: bool = True) -> Any:
        """The action for one observation, or actions [N] for a batch [N, ...], as the environment takes them.

        `start` (bool, or [N]) marks first observations of an episode for a policy with memory; by default the first
        call after `load` or `reset` is one.
        """
        leaf = self.spec.observation.single
        array = np.asarray(obs, leaf.dtype)
        alone = array.shape == leaf.shape
        batch = array[None] if alone else array
        if batch.shape[1:] != leaf.shape:
            raise ValueError(f"{self.spec.env_id}: expected an observation {leaf.shape} or [N, ...], got {array.shape}")
        if self._actor is None or len(self._start) != len(batch):
            acting = Acting(self._job.launch.seed, native=self._job.launch.native)
            self._actor = make_actor(self.policy, self.spec, len(batch), acting)
            self._start = np.ones(len(batch), np.bool_)
        if start is not None:
            self._start[:] = start
        action = self._actor.act(batch, self._start, slice(0, len(batch)), greedy=greedy).env_action
        self._start[:] = False
        return action[0] if alone else action

    def reset(self) -> None:
        """The next observation begins an episode."""
        self._start[:] = True

    def evaluate(self, *, episodes: int = GREEDY_EPISODES, seed: int = 0) -> Score:
        """Greedy episodes on fresh rows."""
        return play(self.policy, self._job, episodes=episodes, seed=seed)


def play(policy: nn.Module, job: Job, *, episodes: int, seed: int) -> Score:
    """Greedy episodes on fresh rows."""
    launch = job.launch
    rows = job.rows(min(episodes, 20))
    acting = Acting(seed, EVALUATION_STREAM, torch.device(launch.device), native=launch.native)
    try:
        return evaluate(policy, rows, episodes=episodes, acting=acting)
    finally:
        rows.close()
