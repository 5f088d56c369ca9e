"""Learning: each algorithm reaches a return that only a correct one reaches, or a value known in closed form."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from shoal import algos
from shoal.envs.registry import make
from shoal.experiment import training
from shoal.memory.settings import Replay
from shoal.nets.network import QNet
from shoal.nets.policy import Network
from shoal.nets.q_network import action_values
from tests import single_run
from tests.learn.envs import Forever, Recall, Sorting

pytestmark = pytest.mark.usefixtures("all_greedy_episodes")

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.experiment.result import Result


def train(env: Any, run_dir: Path, *, seed: int = 1, **settings: Any) -> Result:
    """A silent run, seed 1."""
    return training.train(env, panel="none", run_dir=str(run_dir), seed=seed, **settings)


@pytest.mark.parametrize("schedule", ["sync", "overlap"])
def test_cartpole_by_ppo(schedule: str, run_dir: Path) -> None:
    """The preset stops at a mean return of 475, and its greedy policy holds it."""
    result = train("CartPole-v1", run_dir, schedule=schedule)
    assert result.stop_reason.startswith("mean return")
    assert result.steps <= 200_000
    assert result.greedy_return >= 475


def test_cartpole_by_a2c(run_dir: Path) -> None:
    """The preset for 300,000 steps."""
    result = train("CartPole-v1", run_dir, algo="a2c", stop_at=math.inf, total_timesteps=300_000)
    assert result.greedy_return >= 475


@pytest.mark.slow
def test_cartpole_by_impala(run_dir: Path) -> None:
    """The preset, which stops at a mean return of 475."""
    assert train("CartPole-v1", run_dir, algo="impala", final_episodes=20).greedy_return >= 475


@pytest.mark.slow
def test_cartpole_from_rollouts_that_are_old(run_dir: Path) -> None:
    """Up to four rollouts late, by two actors: V-trace learns from them, and PPO does by weights of its own."""
    late: dict[str, Any] = {"schedule": "async", "actors": 2, "max_staleness": 4, "final_episodes": 20}
    result = train("CartPole-v1", run_dir, algo="impala", preset="small-rollouts", total_timesteps=400_000, **late)
    assert result.greedy_return >= 400
    result = train("CartPole-v1", run_dir, decoupled_clip=2.0, learning_rate=1e-3, **late)
    assert result.greedy_return >= 300


@pytest.mark.slow
def test_pendulum_by_ppo(run_dir: Path) -> None:
    """The preset for continuous actions; a policy at random gets about -1,200."""
    assert train("Pendulum-v1", run_dir).greedy_return >= -250


@pytest.mark.slow
def test_pendulum_by_explorers_beside_an_actor(run_dir: Path) -> None:
    """A memory of 10,000 steps, half of them the explorers': the actor swings up, -91 here, and a random one -1,200."""
    settings: dict[str, Any] = {"num_envs": 4, "total_timesteps": 10_000, "stop_at": math.inf}
    settings |= {"batch_size": 128, "learning_rate": 1e-3, "network": {"hidden": (64, 64)}}
    settings["replay"] = {"buffer_size": 10_000, "learning_starts": 800, "samples_per_insert": 128}
    settings["explorers"] = {"learning_rate": 1e-3, "update_epochs": 10}
    assert train("Pendulum-v1", run_dir, algo="ppo_sac", final_episodes=20, **settings).greedy_return >= -200


RECALL: dict[str, dict[str, Any]] = {
    "ppo": {"num_minibatches": 4, "update_epochs": 4, "total_timesteps": 16_000},
    "a2c": {"total_timesteps": 64_000},
    "impala": {"total_timesteps": 64_000, "learning_rate": 3e-3, "norm_adv": True},
}


@pytest.mark.parametrize("algo", ["ppo", *(pytest.param(name, marks=pytest.mark.slow) for name in ("a2c", "impala"))])
@pytest.mark.parametrize("recurrent", ["none", "gru", "lstm"])
def test_only_a_memory_answers_the_cue(algo: str, recurrent: Any, run_dir: Path) -> None:
    """Chance is 1/2: a feed-forward policy stays there, one with a memory answers."""
    memory: dict[str, Any] = {} if recurrent == "none" else {"recurrent": recurrent, "recurrent_size": 16}
    network = Network(hidden=(16,), **memory)
    shape: dict[str, Any] = {"num_envs": 32, "num_steps": 20, "learning_rate": 5e-3, "gamma": 0.95, "ent_coef": 0.01}
    result = train(Recall, run_dir, algo=algo, network=network, **shape | RECALL[algo])
    if recurrent == "none":
        assert 0.3 <= result.greedy_return <= 0.7
    else:
        assert result.greedy_return > 0.9


@pytest.mark.slow
def test_a_memory_answers_the_cue_by_q_learning_on_rollouts(run_dir: Path) -> None:
    """PQN with a GRU; chance is 1/2."""
    shape: dict[str, Any] = {"num_envs": 32, "num_steps": 20, "num_minibatches": 4, "update_epochs": 4}
    network = {"hidden": [16], "recurrent": "gru", "recurrent_size": 16}
    learning: dict[str, Any] = {"learning_rate": 5e-3, "gamma": 0.95, "total_timesteps": 32_000}
    result = train(Recall, run_dir, algo="pqn", network=network, **shape, **learning)
    assert result.greedy_return > 0.9


REMEMBER: dict[str, Any] = {"num_envs": 16, "total_timesteps": 24_000, "learning_rate": 3e-3, "stop_at": 0.95}
SEQUENCES: dict[str, Any] = {"algo": "r2d2", "sequence_length": 16, "burn_in": 4}


@pytest.mark.slow
@pytest.mark.parametrize(("recurrent", "alpha"), [("gru", 0.0), ("lstm", 0.6), ("none", 0.0)])
def test_only_sequences_answer_the_cue_by_q_learning(recurrent: str, alpha: float, run_dir: Path) -> None:
    """One of four cues, eight steps before the question: DQN stays at chance, 1/4, and R2D2 answers."""
    replay = {"samples_per_insert": 32, "alpha": alpha}
    how: dict[str, Any] = {"algo": "dqn", "network": {"hidden": [64]}}
    if recurrent != "none":
        how = SEQUENCES | {"network": {"recurrent": recurrent}}
    result = train("shoal/Memory-v0", run_dir, replay=replay, **REMEMBER, **how)
    if recurrent == "none":
        assert result.greedy_return <= 0.45
    else:
        assert result.greedy_return >= 0.9


FOREVER: dict[str, tuple[int, dict[str, Any]]] = {
    "ppo": (40, {"num_steps": 20, "num_minibatches": 4}),
    "a2c": (200, {"num_steps": 5, "learning_rate_schedule": "constant"}),
    "impala": (60, {"num_steps": 20, "num_minibatches": 2, "learning_rate_schedule": "constant"}),
}


TORCH_GRU = pytest.param("gru", False, marks=pytest.mark.slow)


@pytest.mark.parametrize(("recurrent", "native"), [("none", True), ("none", False), ("gru", True), TORCH_GRU])
@pytest.mark.parametrize("algo", ["ppo", "a2c", "impala"])
def test_a_time_limit_does_not_lower_the_value(algo: str, recurrent: Any, *, native: bool) -> None:
    """Reward 1 for ever at gamma 0.9 is worth 10; without the bootstrap at truncation it would be 5.3."""
    updates, settings = FOREVER[algo]
    module = algos.load(algo)
    network = Network(hidden=(16,), recurrent=recurrent, recurrent_size=8)
    cfg = module.Config(learning_rate=1e-2, gamma=0.9, network=network, **settings)
    policy: Any
    policy, _ = single_run.train(module, cfg, make(Forever, 16), updates=updates, native=native)
    output = policy(torch.ones(10, 1, 1), policy.initial_state(1), torch.zeros(10, 1))
    torch.testing.assert_close(output.value.mean(), torch.tensor(10.0), rtol=0, atol=0.3)


@pytest.mark.slow
def test_nested_spaces_with_masks(run_dir: Path) -> None:
    """A Dict with a Tuple seen, a Dict done, closed shelves masked; 12 is perfect, chance about 4."""
    shape: dict[str, Any] = {"num_envs": 32, "num_steps": 24, "num_minibatches": 4, "update_epochs": 4, "gamma": 0.5}
    network = Network(hidden=(32,), log_std_init=-1.0)
    result = train(Sorting, run_dir, algo="ppo", network=network, learning_rate=5e-3, total_timesteps=24_000, **shape)
    assert result.greedy_return >= 11


@pytest.mark.parametrize(("variant", "n_step"), [({}, 1), ({}, 3), ({"dueling": True}, 1), ({"quantiles": 4}, 2)])
def test_q_values_that_are_known(variant: dict[str, Any], n_step: int) -> None:
    """Reward 1 for ever at gamma 0.8 is worth 5: a truncation as an end would make it less, n steps as 1 more."""
    module = algos.load("dqn")
    replay = Replay(buffer_size=500, learning_starts=50, samples_per_insert=16)
    network = QNet(hidden=(16,), **variant)
    shape = {"num_steps": 5, "batch_size": 32, "target_update_interval": 10, "learning_rate": 1e-2, "gamma": 0.8}
    cfg = module.Config(n_step=n_step, huber="quantiles" in variant, replay=replay, network=network, **shape)
    policy: Any
    policy, _ = single_run.train(module, cfg, make(lambda: Forever(4), 8), updates=40)
    output = policy(torch.ones(1, 1), None, None)
    torch.testing.assert_close(action_values(output), torch.full((1, 2), 5.0), rtol=0, atol=0.15)


@pytest.mark.parametrize(("layer_norm", "q_lambda"), [(True, 0.65), (False, 1.0)])
def test_q_values_from_rollouts_that_are_known(q_lambda: float, *, layer_norm: bool) -> None:
    """As above: rewards of an episode's 4 steps, then the value of its last observation."""
    module = algos.load("pqn")
    shape = {"num_steps": 5, "num_minibatches": 2, "learning_rate": 3e-2, "learning_rate_schedule": "constant"}
    network = QNet(hidden=(16,), layer_norm=layer_norm)
    cfg = module.Config(gamma=0.8, q_lambda=q_lambda, network=network, **shape)
    policy: Any
    policy, _ = single_run.train(module, cfg, make(lambda: Forever(4), 8), updates=100)
    output = policy(torch.ones(1, 1), None, None)
    torch.testing.assert_close(action_values(output), torch.full((1, 2), 5.0), rtol=0, atol=0.15)


@pytest.mark.slow
def test_cartpole_by_pqn(run_dir: Path) -> None:
    """The preset."""
    assert train("CartPole-v1", run_dir, algo="pqn", final_episodes=20).greedy_return >= 475


@pytest.mark.slow
def test_cartpole_by_dqn(run_dir: Path) -> None:
    """The preset, which stops at a mean return of 475."""
    result = train("CartPole-v1", run_dir, algo="dqn", final_episodes=20)
    assert result.greedy_return >= 475


@pytest.mark.slow
def test_breakout_by_dqn(run_dir: Path) -> None:
    """The preset, until half of the bricks are hit in training; greedily then as many or more."""
    result = train("shoal/Breakout-v0", run_dir, algo="dqn", stop_at=20, final_episodes=20)
    assert result.stop_reason.startswith("mean return")
    assert result.greedy_return >= 20
