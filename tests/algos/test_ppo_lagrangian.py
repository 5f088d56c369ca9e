"""PPO under a limit on costs: resumed bit for bit, what cannot be, and a limit that it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import shoal
from shoal.run import checkpoint
from shoal.run.log import read
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

CROSSING = "shoal.envs.costs.crossing:Crossing"
SMALL: dict[str, Any] = {
    "algo": "ppo_lagrangian",
    "num_envs": 4,
    "num_steps": 50,
    "num_minibatches": 2,
    "update_epochs": 1,
    "total_timesteps": 1600,
    "network": {"hidden": (8,), "normalize_obs": True},
    "preprocessing": {"cost_key": "cost"},
    "panel": "none",
    "final_episodes": 0,
    "num_threads": 1,
    "stop_at": np.inf,
}


def saved(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    """All networks in a run's newest checkpoint, and its multiplier."""
    found = checkpoint.load(path / "checkpoints")
    assert found is not None
    tensors: dict[str, torch.Tensor] = {}
    for who, learner in found.tree["learner"].items():
        for name, network in learner["networks"].items():
            tensors |= {f"{who}.{name}.{key}": x for key, x in network["module"].items()}
    return tensors, found.tree["other"]["multiplier"]


def test_a_resumed_run_equals_one_that_was_not_stopped(tmp_path: Path) -> None:
    def stop(run: Any, record: Any) -> None:
        if run.updates == 4:
            run.stop("four")

    settings: dict[str, Any] = SMALL | {"run_dir": tmp_path}
    whole = shoal.train(CROSSING, name="whole", **settings).path
    halves = shoal.train(CROSSING, name="halves", callbacks=[stop], **settings).path
    shoal.resume(halves, panel="none")
    mine, theirs = saved(whole), saved(halves)
    assert mine[1] == theirs[1]
    assert mine[0].keys() == theirs[0].keys()
    assert any("cost_critic" in name for name in mine[0])
    for name, tensor in mine[0].items():
        assert torch.equal(tensor, theirs[0][name]), name
    lines = read(whole / "metrics.jsonl")
    assert {"info/cost", "constraint/multiplier", "loss/cost_value"} <= set().union(*lines)
    assert shoal.load(whole).act(np.zeros(6, np.float32)).shape == (2,)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"preprocessing": {"cost_key": "cost"}, "agents": 2}, "one policy under a limit on its costs, which agents"),
        ({"cost_limit": -1.0}, "cost_limit"),
        ({"cost_gamma": 1.5}, "cost_gamma"),
        ({"multiplier_learning_rate": 0.0}, "multiplier_learning_rate"),
        ({"multiplier_gain": float("inf")}, "multiplier_gain"),
    ],
)
def test_what_cannot_be(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        shoal.train(CROSSING, run_dir=tmp_path, **SMALL | settings)


def test_a_limit_without_costs(tmp_path: Path) -> None:
    settings: dict[str, Any] = SMALL | {"run_dir": tmp_path, "preprocessing": {}}
    with pytest.raises(ConfigError, match="CartPole-v1 has no costs, which cost_limit is for"):
        shoal.train("CartPole-v1", **settings)
    with pytest.raises(Exception, match=r"third of six values is a cost, set preprocessing.cost_key"):
        shoal.train(CROSSING, algo="ppo", run_dir=tmp_path, total_timesteps=400, panel="none")


@pytest.mark.slow
def test_actors_learn_the_same_bits(tmp_path: Path) -> None:
    settings: dict[str, Any] = SMALL | {"run_dir": tmp_path, "action_guard": {"max_change": [0.5]}}
    mine = shoal.train(CROSSING, name="mine", **settings).path
    beside: dict[str, Any] = {"schedule": "async", "max_staleness": 0, "actors": 2}
    theirs = shoal.train(CROSSING, name="theirs", **settings, **beside).path
    for name, tensor in saved(mine)[0].items():
        assert torch.equal(tensor, saved(theirs)[0][name]), name


@pytest.mark.slow
def test_costs_stay_at_the_limit(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"num_envs": 32, "num_steps": 128, "run_dir": tmp_path, "panel": "none", "seed": 1}
    settings |= {"total_timesteps": 200_000, "final_episodes": 0, "num_threads": 1, "stop_at": np.inf}
    settings |= {"preprocessing": {"cost_key": "cost"}}

    def end_of(algo: str, **more: Any) -> tuple[float, float]:
        run = shoal.train(CROSSING, algo=algo, name=algo, **settings, **more)
        lines = [line for line in read(run.path / "metrics.jsonl") if "info/cost" in line][-10:]
        return run.mean_return, float(np.mean([line["info/cost"] for line in lines]))

    free_return, free_cost = end_of("ppo")
    held_return, held_cost = end_of("ppo_lagrangian", cost_limit=5.0)
    assert free_return > 15
    assert free_cost > 20
    assert held_return > 2.5
    assert held_cost < 7
