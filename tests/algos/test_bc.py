"""Behavior cloning: its gradient, what it reaches, that it goes on exactly, and that others begin with its policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.optim import SGD

import shoal
from shoal.algos.bc import BC, bc_loss
from shoal.envs.registry import make
from shoal.learn.hardware import Hardware
from shoal.learn.learner import Learner
from shoal.memory.data_file import DataWriter, Episode
from shoal.memory.reader import Reader
from shoal.memory.replay import ReplayMemory
from shoal.nets.distributions import Normal
from shoal.nets.policy import Network, Output, make_policy
from shoal.run import checkpoint
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("h5py")
TINY: dict[str, Any] = {"algo": "bc", "panel": "none", "final_episodes": 0, "batch_size": 16, "num_threads": 1}


def written(folder: Path, episodes: int) -> Path:
    """Episodes of CartPole by a rule that balances it: push to where the pole falls."""
    env = shoal.make_env("CartPole-v1")
    writer = DataWriter(folder / "data", make("CartPole-v1", 1).spec, {"dataset_id": "cartpole-v0"})
    for seed in range(episodes):
        seen, actions, over = [env.reset(seed=seed)[0]], [], False
        while not over:
            x, speed, angle, turning = seen[-1]
            actions.append(int(angle + 0.5 * turning + 0.02 * x + 0.05 * speed > 0))
            obs, _, terminated, truncated, _ = env.step(actions[-1])
            seen.append(obs)
            over = terminated or truncated
        ends = np.arange(1, len(actions) + 1) == len(actions)
        writer.add(Episode(np.stack(seen), np.array(actions), np.ones(len(actions)), ends & False, ends))
    writer.close()
    return folder / "data"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return written(tmp_path, 2)


@pytest.mark.parametrize("native", [True, False])
def test_the_gradient_is_what_was_chosen_less_what_was_shown(*, native: bool) -> None:
    """Of linear logits z = W s + b: the mean of (softmax(z) - onehot(a)) s^T, and a step of SGD takes it away."""
    spec = make("CartPole-v1", 1).spec
    memory = ReplayMemory(spec, 1, capacity=100)
    batch = Reader(memory, batch_size=6).batch
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(6, 4)).astype(np.float32)
    done = np.array([0, 1, 1, 0, 1, 1])
    batch.obs.copy_(torch.from_numpy(seen))
    batch.action.copy_(torch.from_numpy(done))
    policy: Any = make_policy(spec, Network(hidden=()), 3)
    before = {name: x.detach().numpy().copy() for name, x in policy.actor.named_parameters()}
    learner = Learner(policy, SGD, lr=0.5, hardware=Hardware(native=native))
    stats = learner.step(bc_loss, batch, BC())
    z = seen @ before["0.weight"].T + before["0.bias"]
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    gradient = (p - np.eye(2)[done]).T @ seen / 6
    after = dict(policy.actor.named_parameters())["0.weight"].detach().numpy()
    np.testing.assert_allclose(after, before["0.weight"] - 0.5 * gradient, atol=1e-6)
    assert float(stats.policy) == pytest.approx(-np.log(p[range(6), done]).mean(), rel=1e-5)
    assert float(stats.entropy) == pytest.approx(-(p * np.log(p)).sum(1).mean(), rel=1e-5)


def test_the_loss_of_a_gaussian() -> None:
    """-log N(a; 1, 2^2) of a = 1 and 5: ln 2 + ln(2 pi) / 2, and 2 more; their mean."""
    head = Normal(torch.ones(2, 1), torch.full((1,), np.log(2)), torch.tensor([-9.0]), torch.tensor([9.0]))
    batch: Any = type("Batch", (), {"action": torch.tensor([[1.0], [5.0]])})
    loss, _ = bc_loss(Output(head, torch.zeros(2), None), batch, BC())
    assert float(loss) == pytest.approx(np.log(2) + np.log(2 * np.pi) / 2 + 1)


def test_it_goes_on_exactly(data: Path, run_dir: Path) -> None:
    """12 updates, or 5, resumed: equal weights and statistics, which are those of the data set."""
    settings: dict[str, Any] = TINY | {"data": data, "offline_updates": 12, "name": "run"}
    settings["network"] = {"hidden": (8,), "normalize_obs": True}

    def stop(run: Any, record: Any) -> None:
        if run.updates == 5:
            run.stop("enough")

    whole = shoal.train("CartPole-v1", run_dir=run_dir / "whole", **settings)
    parts = shoal.train("CartPole-v1", run_dir=run_dir / "parts", callbacks=[stop], **settings)
    shoal.resume(parts.path, panel="none")
    found = [checkpoint.load(run.path / "checkpoints") for run in (whole, parts)]
    one, two = (each.tree["learner"]["policy"] for each in found if each is not None)
    assert one["updates"] == two["updates"] == 12
    weights = [each["networks"]["policy"]["module"] for each in (one, two)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert float(weights[0]["encoder.normalizer.count"]) == 1000


@pytest.mark.parametrize(("algo", "settings"), [("ppo", {}), ("sac", {"actor": True})])
def test_others_begin_with_it(algo: str, settings: dict[str, Any], data: Path, run_dir: Path) -> None:
    """The first weights of a run are those of the clone that init_from names."""
    told: dict[str, Any] = TINY | settings | {"data": data, "offline_updates": 5, "run_dir": run_dir}
    clone = shoal.train("CartPole-v1", **told)
    more: dict[str, Any] = {"algo": algo, "learning_rate": 1e-9, "total_timesteps": 64, "num_envs": 4, "preset": "none"}
    more |= {"num_steps": 16} if algo == "ppo" else {"replay": {"learning_starts": 60, "samples_per_insert": 1}}
    more |= {key: TINY[key] for key in ("panel", "final_episodes", "num_threads")} | {"run_dir": run_dir}
    run = shoal.train("CartPole-v1", init_from=clone.path, **more)
    for name, value in clone.policy.state_dict().items():
        torch.testing.assert_close(run.policy.state_dict()[name], value, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "total_timesteps=0: no step is taken, and no data set is learned from"),
        ({"total_timesteps": 100}, "bc learns from a data set alone; name one"),
        ({"data": True, "total_timesteps": 100}, "bc takes no environment step"),
        ({"data": True, "network": {"recurrent": "gru"}}, "a policy with a memory cannot learn from"),
        ({"data": True, "agents": 2, "num_envs": 2}, "bc trains 1 of agents=2"),
        ({"data": True, "batch_size": 0}, "batch_size"),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], message: str, data: Path, run_dir: Path) -> None:
    told: dict[str, Any] = TINY | settings | ({"data": data} if "data" in settings else {})
    with pytest.raises(ConfigError, match=message):
        shoal.train("CartPole-v1", run_dir=run_dir, **told)


@pytest.mark.slow
def test_a_clone_reaches_the_return_of_what_it_clones(tmp_path: Path, run_dir: Path) -> None:
    """Ten episodes of 500 steps; a greedy clone balances as long in nearly all of 50."""
    folder = written(tmp_path, 10)
    told: dict[str, Any] = TINY | {"batch_size": 256, "final_episodes": 50, "offline_updates": 3000}
    run = shoal.train("CartPole-v1", data=folder, run_dir=run_dir, **told)
    assert run.greedy_return is not None
    assert run.greedy_return >= 475
