"""A run whose policy is a dict of roles is saved, and goes on from its checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.nets.policy import Network, make_policy
from shoal.report.panel import panel_of
from shoal.run import checkpoint
from shoal.run.directory import RunDirectory
from shoal.run.log import Log
from shoal.run.loop import Run, Settings
from shoal.stream.rollouts import rollouts

if TYPE_CHECKING:
    from pathlib import Path

CAST = {"left": slice(0, 2), "right": slice(2, 4)}


def train(path: Path, steps: int, kind: type[Any]) -> dict[str, torch.Tensor]:
    """Moves each role's weights by 0.01 an update; returns the sum of each role's weights."""
    directory = RunDirectory(path)
    told: dict[str, Any] = {"env": "CartPole-v1", "algo": "ppo", "seed": 1, "num_envs": 4, "steps_per_update": 32}
    run = Run(directory, Settings(total_timesteps=steps, **told), Log(directory.metrics, []), panel_of("none"))
    env = make("CartPole-v1", 4)
    made = {role: make_policy(env.spec, Network(hidden=(8,)), seed) for seed, role in enumerate(CAST)}
    policies = kind(made)
    stream = rollouts(env, policies, num_steps=8, cast=CAST, acting=Acting(1))
    for batch in run.loop(stream, state={"policy": policies}):
        assert set(batch) == {"left", "right"}
        with torch.no_grad():
            for parameter in nn.ModuleDict(made).parameters():
                parameter.add_(0.01)
        stream.publish(policies)
    run.close()
    return {role: torch.stack([p.sum() for p in policy.parameters()]) for role, policy in made.items()}


@pytest.mark.parametrize("kind", [dict, nn.ModuleDict])
def test_a_cast_is_saved_and_resumed(kind: type[Any], tmp_path: Path) -> None:
    """Four updates at once, and two and two, give the same weights."""
    for name in ("whole", "parts"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    whole = train(tmp_path / "whole", 128, kind)
    train(tmp_path / "parts", 64, kind)
    found = checkpoint.load(tmp_path / "parts" / "checkpoints")
    assert found is not None
    assert found.updates == 2
    parts = train(tmp_path / "parts", 128, kind)
    assert all(torch.equal(whole[role], parts[role]) for role in CAST)
