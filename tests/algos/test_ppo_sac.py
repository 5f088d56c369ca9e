"""PPO explorers beside SAC: one run of both, resumed bit for bit, and what cannot be."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

import shoal
from shoal.algos import ppo, ppo_sac
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.losses import prepare_of
from shoal.nets.policy import Network, make_policy
from shoal.run import checkpoint
from shoal.run.log import read
from shoal.run.members import SEED_STEP
from shoal.stream.explorers import Explorers
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.run.run import Run

SMALL: dict[str, Any] = {
    "algo": "ppo_sac",
    "num_envs": 4,
    "total_timesteps": 400,
    "batch_size": 16,
    "network": {"hidden": (8,)},
    "explorers": {"num_steps": 16, "num_minibatches": 2, "network": {"hidden": (8,)}},
    "replay": {"buffer_size": 400, "learning_starts": 100, "samples_per_insert": 8},
    "panel": "none",
    "preset": "none",
    "stop_at": float("inf"),
    "final_episodes": 2,
    "num_threads": 1,
    "name": "run",
}


def saved(path: Path) -> dict[str, torch.Tensor]:
    """All networks of both learners in a run's newest checkpoint."""
    found = checkpoint.load(path / "checkpoints")
    assert found is not None
    tensors: dict[str, torch.Tensor] = {}
    for who, learner in found.tree["learner"].items():
        for name, network in learner["networks"].items():
            tensors |= {f"{who}.{name}.{key}": x for key, x in network["module"].items()}
    return tensors


def metrics(path: Path) -> list[dict[str, Any]]:
    lines = read(path / "metrics.jsonl")
    return [{k: v for k, v in line.items() if not k.startswith(("time/", "speed/"))} for line in lines]


@pytest.mark.parametrize("env", ["Pendulum-v1", pytest.param("CartPole-v1", marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_goes_on(env: str, tmp_path: Path) -> None:
    """Stopped in the middle of an explorers' rollout and of what the actor may draw, then resumed: nothing differs."""
    whole = shoal.train(env, run_dir=str(tmp_path / "whole"), seed=5, **SMALL)

    def stop(run: Run, record: Any) -> None:
        if isinstance(record, dict) and record["update"] == 75:
            run.stop("enough")

    cut = shoal.train(env, run_dir=str(tmp_path / "cut"), seed=5, callbacks=[stop], **SMALL)
    assert 100 < cut.steps < 300
    found = checkpoint.load(cut.path / "checkpoints")
    assert found is not None
    assert 0 < found.tree["stream"]["filled"] < 16
    resumed = shoal.resume(cut.path, panel="none")
    assert resumed.steps == whole.steps == 400
    assert metrics(whole.path)[-1]["update"] == (400 - 100) * 8 // 16 + 400 // 64
    mine, theirs = saved(whole.path), saved(resumed.path)
    assert set(mine) == set(theirs)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    assert metrics(whole.path)[-1] == metrics(resumed.path)[-1]
    assert resumed.greedy_return == whole.greedy_return


def test_the_actor_is_what_is_kept(tmp_path: Path) -> None:
    """It is saved first and loaded; both learned, each with metrics of its own."""
    run = shoal.train("CartPole-v1", run_dir=str(tmp_path), **SMALL)
    kept, tensors = shoal.load(run.path).policy.state_dict(), saved(run.path)
    assert all(torch.equal(tensor, tensors[f"actor.policy.{name}"]) for name, tensor in kept.items())
    names = {name for line in metrics(run.path) for name in line}
    assert {"loss/q/actor", "loss/temperature/actor", "loss/value/explorer", "episode/return/explorer"} <= names
    assert not {"loss/temperature/explorer", "episode/return/actor"} & names
    fresh = make_policy(make("CartPole-v1", 1).spec, Network(hidden=(8,)), 1 + SEED_STEP)
    for name, tensor in fresh.state_dict().items():
        assert not torch.equal(tensor, tensors[f"explorer.policy.{name}"]), name


def test_the_explorers_loss_is_that_of_ppo() -> None:
    """Written without what explorers do without, on a rollout of a game of two choices, the advantages normalized."""
    env = make("CartPole-v1", 4)
    policy = make_policy(env.spec, Network(hidden=(8,)), 1)
    steps = next(rollouts(env, policy, num_steps=8, acting=Acting(1)))
    steps = steps.with_targets(torch.randn(8, 4), torch.randn(8, 4))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    cfg = Explorers(ent_coef=0.1, clip_coef=0.1, vf_coef=0.7)
    theirs = ppo.PPO(**{name: getattr(cfg, name) for name in ("ent_coef", "clip_coef", "vf_coef")})
    prepare: Any = prepare_of(ppo_sac.explorer_loss)
    output = policy(steps.obs, None, steps.start)
    loss, stats = ppo_sac.explorer_loss(output, prepare(steps, cfg), cfg)
    expected, others = ppo.ppo_loss(output, prepare(steps, theirs), theirs)
    assert torch.equal(loss, expected)
    assert all(torch.equal(x, getattr(others, name)) for name, x in stats._asdict().items())


def test_defaults_of_the_explorers() -> None:
    """They are PPO's but for the minibatches of fewer rows and the form of actions; a part given leaves the others."""
    cfg, theirs = Explorers(), ppo.PPO()
    names = {field.name for field in fields(Explorers)} & {field.name for field in fields(ppo.PPO)}
    differ = {name for name in names if getattr(cfg, name) != getattr(theirs, name)}
    assert differ == {"num_minibatches", "network"}
    assert cfg.network == replace(theirs.network, squash=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"agents": 2}, "ppo_sac trains one actor with its explorers, which is one agent; leave agents=2 out"),
        ({"explorers": {"share": 0.1}}, "are 0, which leaves no explorers"),
        ({"explorers": {"network": {"log_std_init": -1.0}}}, "log_std_init=-1.0 would change nothing: it is for Box"),
        ({"explorers": {"network": {"recurrent_size": 8}}}, "would change nothing: explorers have no memory"),
        ({"normalize_reward": True}, "choose reward_scale"),
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"tau": 0.0}, "tau must be between"),
        ({"explorers": {"clip_coef": 0.0}}, "clip_coef must be"),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    told: dict[str, Any] = SMALL | settings
    with pytest.raises(ConfigError, match=message):
        shoal.train("CartPole-v1", run_dir=str(tmp_path), **told)


def test_explorers_keep_actions_as_the_actor_does(tmp_path: Path) -> None:
    told: dict[str, Any] = SMALL | {"explorers": {"network": {"squash": False}}}
    with pytest.raises(ConfigError, match=r"as SquashedNormal.*explorers.network.squash"):
        shoal.train("Pendulum-v1", run_dir=str(tmp_path), **told)
