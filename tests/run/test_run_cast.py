"""A run of several learners, one a role: it is saved, goes on from its checkpoint, and each has metrics of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import SGD

from shoal.algos.a2c import A2C, a2c_loss
from shoal.envs.registry import make
from shoal.learn.learner import Learner
from shoal.math.returns import n_step
from shoal.nets.policy import Network, make_policy
from shoal.run import checkpoint
from shoal.run.directory import RunDirectory
from shoal.run.log import Log, read
from shoal.run.run import Run
from shoal.run.settings import Settings
from shoal.stream.rollouts import rollouts

if TYPE_CHECKING:
    from pathlib import Path

CAST = {"left": slice(0, 2), "right": slice(2, 4)}


def train(path: Path, steps: int) -> dict[str, Learner]:
    """A2C for each role, with its own learning rate."""
    directory = RunDirectory(path)
    told: dict[str, Any] = {"env": "CartPole-v1", "algo": "a2c", "seed": 1, "num_envs": 4}
    settings = Settings(total_timesteps=steps, **told)
    run = Run(settings, directory=directory, log=Log(directory.metrics, []))
    env, cfg = make("CartPole-v1", 4), A2C()
    learners: dict[str, Learner] = {}
    for seed, role in enumerate(CAST):
        policy = make_policy(env.spec, Network(hidden=(8,)), seed)
        learners[role] = run.learner(policy, SGD, lr=0.01 * (seed + 1))
    stream = rollouts(env, learners, num_steps=8, cast=CAST, acting=run.acting)
    for batch in run.loop(stream, learners):
        assert set(batch) == {"left", "right"}
        for role, learner in learners.items():
            steps_of_role = batch[role]
            target = n_step(steps_of_role, gamma=0.9, n=8)
            learned = replace(steps_of_role, advantage=target - steps_of_role.value, target=target)
            learner.step(a2c_loss, learned, cfg)
        stream.publish()
    run.close()
    return learners


def test_a_cast_is_saved_and_resumed(tmp_path: Path) -> None:
    """Four updates at once, and two and two, give the same weights, versions and lines."""
    for name in ("whole", "parts"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    whole = train(tmp_path / "whole", 128)
    train(tmp_path / "parts", 64)
    found = checkpoint.load(tmp_path / "parts" / "checkpoints")
    assert found is not None
    assert found.updates == 2
    parts = train(tmp_path / "parts", 128)
    for role, learner in whole.items():
        assert torch.equal(learner.flat, parts[role].flat)
        assert (learner.updates, learner.version) == (parts[role].updates, parts[role].version) == (4, 4)
    lines = [list(read(tmp_path / name / "metrics.jsonl")) for name in ("whole", "parts")]
    timeless = [[{k: v for k, v in x.items() if not k.startswith(("time/", "speed/"))} for x in y] for y in lines]
    assert timeless[0] == timeless[1]
    for line in timeless[0]:
        assert (line["train/learning_rate/left"], line["train/learning_rate/right"]) == (0.01, 0.02)
        assert line["loss/value/left"] != line["loss/value/right"]
