"""PPO and A2C: what their settings do, what they refuse, and that evaluation beside them changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shoal import algos
from shoal.algos import a2c, ppo, pqn
from shoal.algos.a2c import A2C
from shoal.algos.ppo import PPO
from shoal.algos.pqn import PQN
from shoal.algos.presets import preset, presets
from shoal.envs.registry import make
from shoal.experiment import training
from shoal.experiment.options import Options
from shoal.experiment.settings import resolve
from shoal.learn.learner import Learner
from shoal.nets.network import QNet
from shoal.nets.policy import Network
from shoal.run.log import read
from shoal.types import ConfigError
from tests.single_run import train


def ppo_run(updates: int, *, native: bool = True, **settings: Any) -> dict[str, list[float]]:
    """PPO for so many updates on 4 rows of CartPole; its lines of metrics."""
    shape: dict[str, Any] = {"num_steps": 8, "num_minibatches": 2, "update_epochs": 3}
    _, logged = train(ppo, PPO(**(shape | settings)), make("CartPole-v1", 4), updates=updates, native=native)
    return logged


def test_learning_rates_follow_their_plan() -> None:
    """Constant; linear to 0 over 4 updates of 32 steps; adapted to a KL that is far under its target."""
    rates = "train/learning_rate"
    assert ppo_run(2, learning_rate=1e-3)[rates] == [1e-3, 1e-3]
    linear = ppo_run(4, learning_rate=1e-3, learning_rate_schedule="linear")[rates]
    assert linear == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    low = ppo_run(3, learning_rate=1e-6, learning_rate_schedule="kl", target_kl=1e3)[rates]
    assert low == pytest.approx([1.5e-6, 2.25e-6, 3.375e-6])
    high = ppo_run(3, learning_rate=1e-3, learning_rate_schedule="kl", target_kl=1e-12)[rates]
    assert high == pytest.approx([1e-3 / 1.5, 1e-3 / 2.25, 1e-3 / 3.375])


@pytest.mark.parametrize("native", [True, False])
def test_the_loss_sees_the_settings_of_its_moment(monkeypatch: pytest.MonkeyPatch, *, native: bool) -> None:
    """Clip range and entropy coefficient over 4 updates: cosine, and a function that begins at 0."""
    seen: list[tuple[float, float, float]] = []
    real = Learner.step

    def step(self: Learner, loss: Any, batch: Any, cfg: Any) -> Any:
        seen.append((getattr(cfg, "clip_coef", 0.0), cfg.ent_coef, self.learning_rate))
        return real(self, loss, batch, cfg)

    monkeypatch.setattr(Learner, "step", step)
    plan: dict[str, Any] = {"ent_coef": 0.1, "ent_coef_schedule": lambda progress: 2 * progress}
    rates: dict[str, Any] = {"learning_rate": 1e-3, "learning_rate_schedule": "cosine"}
    ppo_run(4, native=native, clip_coef=0.2, clip_coef_schedule="linear", update_epochs=1, **plan, **rates)
    half = 0.5**0.5
    cosine = [1e-3, 1e-3 * (1 + half) / 2, 5e-4, 1e-3 * (1 - half) / 2]
    expected = list(zip([0.2, 0.15, 0.1, 0.05], [0.0, 0.05, 0.1, 0.15], cosine, strict=True))
    assert np.array(seen) == pytest.approx(np.repeat(expected, 2, axis=0))
    seen.clear()
    train(a2c, A2C(num_steps=4, **plan, **rates), make("CartPole-v1", 4), updates=4, native=native)
    assert np.array(seen)[:, 1:] == pytest.approx(np.array(expected)[:, 1:])


@pytest.mark.parametrize("native", [True, False])
def test_a_large_kl_stops_the_update(monkeypatch: pytest.MonkeyPatch, *, native: bool) -> None:
    """Epochs count passes over the rollout: all three, or only as many as it takes to exceed target_kl."""
    steps: list[float] = []
    real = Learner.step

    def step(self: Learner, loss: Any, batch: Any, cfg: Any) -> Any:
        stats = real(self, loss, batch, cfg)
        steps.append(float(stats.approx_kl))
        return stats

    monkeypatch.setattr(Learner, "step", step)
    ppo_run(2, native=native)
    assert len(steps) == 2 * 3 * 2
    steps.clear()
    ppo_run(2, native=native, target_kl=1e-9, learning_rate=0.1)
    assert len(steps) <= 2 * 2 * 2


@pytest.mark.parametrize("native", [True, False])
def test_rewards_beyond_float32_end_the_run(*, native: bool) -> None:
    """Advantages beyond float32 make every step's gradient infinite: nothing can be learned, which is said."""
    env = make("CartPole-v1", 4)
    cfg = PPO(num_steps=8, num_minibatches=2, update_epochs=1, norm_adv=False)
    with pytest.raises(FloatingPointError, match="in any of 2 gradient steps; no checkpoint was written yet"):
        train(ppo, cfg, env, native=native, reward_scale=1e30)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "must be >= 1"),
        ({"num_minibatches": 0}, "must be >= 1"),
        ({"learning_rate": 0.0}, "learning_rate must be"),
        ({"learning_rate_schedule": "kl"}, "needs target_kl; 0.01 is a usual value"),
        (
            {"clip_coef_schedule": "kl"},
            "clip_coef_schedule must be one of constant, linear, cosine, a function .* 'kl'",
        ),
        ({"ent_coef_schedule": 0.5}, "ent_coef_schedule must be one of .*, got 0.5"),
    ],
)
def test_ppo_refuses_what_cannot_work(settings: dict[str, Any], message: str) -> None:
    """The message says what would."""
    with pytest.raises(ConfigError, match=message):
        PPO(**settings)


@pytest.mark.parametrize(
    ("num_envs", "settings", "message"),
    [
        (16, {"num_minibatches": 7}, r"= 2048 steps do not split into 7 minibatches of .*; num_minibatches=4 would"),
        (2, {"num_steps": 4, "num_minibatches": 8}, "of at least 2 steps; num_minibatches=4 would"),
        (1, {"num_steps": 1, "num_minibatches": 1}, "use norm_adv=False, more num_envs or more num_steps"),
        (4, {"network": Network(recurrent="gru")}, "and 4 rows do not split into 8 minibatches"),
    ],
)
def test_ppo_refuses_shapes_that_cannot_be_cut(num_envs: int, settings: dict[str, Any], message: str) -> None:
    """Before the first rollout."""
    with pytest.raises(ConfigError, match=message):
        train(ppo, PPO(**settings), make("CartPole-v1", num_envs))


def test_a2c_refuses_what_cannot_work() -> None:
    """No steps; an infinite rate; one step to normalize."""
    with pytest.raises(ConfigError, match="must be >= 1"):
        A2C(num_steps=0)
    with pytest.raises(ConfigError, match="learning_rate must be finite, got inf"):
        A2C(learning_rate=float("inf"))
    with pytest.raises(ConfigError, match="use norm_adv=False, more num_envs or more num_steps"):
        train(a2c, A2C(num_steps=1, norm_adv=True), make("CartPole-v1", 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"q_lambda": 1.1}, "q_lambda must be"),
        ({"update_epochs": 0}, "must be >= 1"),
        ({"network": QNet(noisy=True)}, "noisy and network.quantiles would do nothing; leave them out, or choose"),
        ({"network": QNet(quantiles=8)}, "would do nothing"),
    ],
)
def test_pqn_refuses_what_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PQN(**settings)
    with pytest.raises(ConfigError, match=r"32 steps do not split into 7 .*; num_minibatches=4 would"):
        train(pqn, PQN(num_steps=8, num_minibatches=7), make("CartPole-v1", 4))


def test_algorithms_and_presets_are_found_by_name() -> None:
    """Every preset builds its algorithm's config; wrong names raise with the near ones."""
    assert set(algos.summaries()) >= {"ppo", "a2c"}
    with pytest.raises(ConfigError, match="did you mean ppo"):
        algos.load("pop")
    with pytest.raises(ConfigError, match="a2c has no preset 'pac'; it has"):
        preset("a2c", "pac", "CartPole-v1")
    assert preset("ppo", None, "Unheard-v0") == {}
    for algo in algos.summaries():
        for values in presets(algo).values():
            own = {name: value for name, value in values.items() if name != "env_kwargs"}
            options, _ = resolve(Options, algos.load(algo).Config, {"env": "E"}, own)
            assert options.total_timesteps >= 1


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.parametrize("recurrent", ["none", "gru"])
def test_evaluation_beside_training_changes_no_bit(algo: str, recurrent: Any, tmp_path: Path) -> None:
    """Weights, normalization statistics and training metrics are the same with and without it."""
    network = Network(hidden=(8,), recurrent=recurrent, normalize_obs=True)
    settings: dict[str, Any] = {"num_envs": 4, "num_steps": 8, "total_timesteps": 4 * 8 * 12, "network": network}
    settings |= {"num_minibatches": 2} if algo == "ppo" else {}
    found: list[nn.Module] = []
    metrics: list[Any] = []
    for every in (0, 64):
        path = tmp_path / str(every)
        options: dict[str, Any] = {"run_dir": str(path), "stop_at": float("inf")}
        options |= {"eval_every": every, "eval_episodes": 3} if every else {}
        result = training.train("CartPole-v1", algo=algo, seed=2, panel="none", **settings, **options)
        lines = list(read(result.path / "metrics.jsonl"))
        assert sum("eval/return" in line for line in lines) == (6 if every else 0)
        apart = ("eval/", "time/", "speed/")
        metrics.append([{name: x for name, x in line.items() if not name.startswith(apart)} for line in lines])
        found.append(result.policy)
    assert metrics[0] == metrics[1]
    for name, value in found[0].state_dict().items():
        assert torch.equal(value, found[1].state_dict()[name]), name
