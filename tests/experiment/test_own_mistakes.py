"""Mistakes of an algorithm of one's own: each has its message; a policy of its own may be a plain module."""

from __future__ import annotations

import copy
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

import shoal
from shoal.algos import a2c
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SMALL: Any = {"num_envs": 4, "num_steps": 8, "total_timesteps": 4 * 8 * 3, "stop_at": float("inf"), "panel": "none"}


class Plain(nn.Module):
    """A plain torch policy for CartPole."""

    def __init__(self) -> None:
        super().__init__()
        self.logits, self.value = nn.Linear(4, 2), nn.Linear(4, 1)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.logits(obs), self.value(obs)


def plain_policy(spec: Any, cfg: Any, seed: int) -> nn.Module:
    """Its weights come from the seed."""
    torch.manual_seed(seed)
    return Plain()


def own(monkeypatch: pytest.MonkeyPatch, **parts: Any) -> Any:
    """A2C with parts of one's own."""
    module = ModuleType("own_algorithm")
    vars(module).update({"Config": a2c.Config, "train": a2c.train, **parts})
    monkeypatch.setitem(sys.modules, "own_algorithm", module)
    return module


def returning(value: Any) -> Any:
    """A `train` that goes through its loop and returns something else."""

    def train(cfg: Any, env: Any, run: Any) -> Any:
        a2c.train(cfg, env, run)
        return value

    return train


def no_loop(cfg: Any, env: Any, run: Any) -> Any:
    return run.policy(env.spec)


def at_once(cfg: Any, env: Any, run: Any) -> Any:
    return None


def another(cfg: Any, env: Any, run: Any) -> Any:
    """Trains, and returns a copy of its policy."""
    return copy.deepcopy(a2c.train(cfg, env, run))


@pytest.mark.parametrize(
    ("train", "told"),
    [
        (returning(None), r"own_algorithm.train returned NoneType, not the trained policy.*`return learner.policy`"),
        (returning(3), r"own_algorithm.train returned int, not the trained policy"),
        (returning(nn.Tanh()), r"own_algorithm.train returned Tanh, which cannot act"),
        (another, r"own_algorithm.train returned another module than the policy that its checkpoints hold"),
        (at_once, r"own_algorithm.train returned NoneType"),
        (no_loop, r"own_algorithm.train returned without a pass through run.loop; it trains in `for"),
    ],
    ids=["None", "number", "module", "another", "at once", "no loop"],
)
def test_what_train_returns(train: Any, told: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No policy, or one that nothing trained, is told apart from a finished run."""
    with pytest.raises(ConfigError, match=told):
        shoal.train("CartPole-v1", algo=own(monkeypatch, train=train), run_dir=run_dir, **SMALL)


def test_no_training_leaves_no_directory(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with every mistake before the first update."""
    with pytest.raises(ConfigError):
        shoal.train("CartPole-v1", algo=own(monkeypatch, train=no_loop), run_dir=run_dir, **SMALL)
    assert not run_dir.exists() or not list(run_dir.iterdir())


def test_its_policy_may_be_a_plain_module(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrapped as policy= is: it trains, is loaded and acts."""
    algo = own(monkeypatch, make_policy=plain_policy)
    result = shoal.train("CartPole-v1", algo=algo, run_dir=run_dir, **SMALL)
    loaded = shoal.load(result.path)
    assert loaded.act(np.zeros(4)) in (0, 1)
    weights = result.policy.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.policy.state_dict().items())


def test_its_policy_must_be_a_module(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None, where a return was forgotten, is refused before anything else."""
    algo = own(monkeypatch, make_policy=lambda spec, cfg, seed: None)
    with pytest.raises(ConfigError, match=r"own_algorithm.make_policy returned NoneType, expected a torch.nn.Module"):
        shoal.train("CartPole-v1", algo=algo, run_dir=run_dir, **SMALL)
