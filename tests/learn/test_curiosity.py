"""Curiosity: what a bonus is, who gets it, and that no memory and no return holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.optim import SGD

import shoal
from shoal.algos.dqn import DQN
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.curiosity import Bonuses, Curiosity, Distillation, following
from shoal.learn.hardware import Hardware
from shoal.memory.reader import Reader
from shoal.memory.replay import ReplayMemory
from shoal.memory.settings import Replay
from shoal.nets.network import QNet
from shoal.nets.policy import Network, make_policy
from shoal.nets.q_network import make_q_network
from shoal.run import checkpoint
from shoal.run.run import Run
from shoal.run.settings import Settings
from shoal.stream.rewards import Rewards
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError
from tests.counting import CountingPolicy, counting_rows

if TYPE_CHECKING:
    from shoal.run.callbacks import Record
    from shoal.types import Tree

SMALL: dict[str, Any] = {"num_envs": 4, "panel": "none", "preset": "none", "final_episodes": 0, "num_threads": 1}
CURIOUS: dict[str, Any] = {"curiosity": {"coef": 0.5}}


def made(seed: int = 1, rate: float = 1e-3, *, native: bool = False) -> Distillation:
    """Of CartPole's observations."""
    spec = make("CartPole-v1", 1).spec
    return Distillation(spec, Curiosity(1.0, rate), hardware=Hardware(native=native), seed=seed)


def test_the_bonus_is_the_error_over_its_deviation() -> None:
    """Of a first batch, by plain NumPy: normalized and clipped observations through both networks, then e / std(e)."""
    rng = np.random.default_rng(0)
    obs = rng.normal(3, 2, (200, 4)).astype(np.float32)
    obs[0] = 1000  # clipped to 5 deviations
    one = made(rate=1e-9)
    weights = one.state()["networks"]
    seen = np.clip((obs - obs.mean(0, dtype=np.float64)) / np.sqrt(obs.var(0, dtype=np.float64) + 1e-8), -5, 5)
    features: list[Any] = []
    for name, layers in (("policy", 3), ("target", 2)):
        x = seen
        for layer in range(layers):
            weight, bias = (weights[name]["module"][f"tower.{2 * layer}.{part}"].numpy() for part in ("weight", "bias"))
            x = x @ weight.T + bias
            if layer + 1 < layers:
                x = np.maximum(x, 0)
        features.append(x)
    error = np.square(features[0] - features[1]).mean(1)
    bonus = one.bonus(torch.from_numpy(obs), 200)
    np.testing.assert_allclose(bonus, error / np.sqrt(error.var() + 1e-8), rtol=1e-4)


@pytest.mark.parametrize("native", [True, False])
def test_what_is_seen_often_is_no_longer_new(*, native: bool) -> None:
    """After 60 batches around 0 their bonus is a third of the first one; that of what lies elsewhere is far above."""
    one = made(native=native)
    rng = np.random.default_rng(0)

    def near() -> torch.Tensor:
        return torch.from_numpy(rng.normal(0, 1, (64, 4)).astype(np.float32))

    means = [one.bonus(near(), 64).mean() for _ in range(60)]
    elsewhere = one.bonus(4 + near(), 64).mean()
    assert means[-1] < means[0] / 3
    assert elsewhere > 5 * means[-1]


def test_what_follows_each_step() -> None:
    """The next row of observations, the final one where an episode ended, the latest after the last step."""
    seen: list[Tree] = []

    class Noting(Bonuses):
        def on_steps(self, name: str, steps: Any, last: Tree) -> Any:
            seen.append(following(steps, last))
            return steps

    rewards = Rewards(bonuses=Noting({}, 1.0, lambda name, value: None))
    stream = rollouts(counting_rows(), CountingPolicy(), num_steps=3, rewards=rewards)
    steps = next(stream)
    assert steps.obs.tolist() == [[[0, 0], [1, 0], [2, 0]], [[0, 1], [1, 1], [2, 1]], [[0, 2], [1, 0], [2, 2]]]
    assert seen[0].tolist() == [[[0, 1], [1, 1], [2, 1]], [[0, 2], [1, 2], [2, 2]], [[0, 3], [1, 1], [2, 3]]]


@pytest.mark.parametrize("native", [True, False])
def test_rewards_of_a_rollout_have_the_bonus(*, native: bool) -> None:
    """Each is 1 and half the bonus of what followed; returns of episodes are the environment's own."""
    env = make("CartPole-v1", 4)
    notes: list[tuple[str, float]] = []
    one = made(native=native)
    bonuses = Bonuses({"all": one}, 0.5, lambda name, value: notes.append((name, float(value))))
    policy = make_policy(env.spec, Network(hidden=(8,)), 0)
    stream = rollouts(env, policy, num_steps=40, acting=Acting(3, native=native), rewards=Rewards(0.1, bonuses=bonuses))
    twin = made(native=native)
    twin.restore(one.state())
    rows = env.native_pool
    assert rows is not None
    steps = next(stream)
    expected = twin.bonus(following(steps, torch.from_numpy(rows.obs)).flatten(0, 1), 160)
    np.testing.assert_allclose(steps.reward, 0.1 + 0.5 * expected.view(40, 4), rtol=1e-5)
    assert notes == [("curiosity/bonus", pytest.approx(float(0.5 * expected.mean())))]
    assert (stream.episodes.returns == stream.episodes.lengths).all()


def test_a_memory_never_holds_it() -> None:
    """CartPole's rewards are 1: those of a batch have bonuses, those that the memory holds have none."""
    env, cfg = make("CartPole-v1", 4), DQN(batch_size=8)
    settings = Settings(env="", algo="", seed=1, num_envs=4, total_timesteps=1000, curiosity=Curiosity(0.5))
    run = Run(settings)
    learner = run.learner(make_q_network(env.spec, QNet(hidden=(8,)), 0), SGD, lr=0.01)
    stream = run.replay(env, learner, cfg, Replay(buffer_size=400, learning_starts=60, samples_per_insert=2.0))
    for _ in range(20):
        assert (next(stream).reward > 1).all()
        stream.publish()
    assert isinstance(stream.memory, ReplayMemory)
    stored = Reader(stream.memory, batch_size=100, seed=2).sample()
    assert (stored.reward == 1).all()
    assert float(run.metrics.take_means()["curiosity/bonus"]) > 0


@pytest.mark.parametrize(
    ("algo", "share"), [("ppo", True), pytest.param("ppo", False, marks=pytest.mark.slow), ("dqn", False)]
)
def test_a_curious_run_goes_on_as_if_it_had_not_ended(algo: str, share: bool, run_dir: Any) -> None:  # noqa: FBT001
    """Two agents, stopped after an update and resumed: the weights of policies and of curiosity are a whole run's."""
    settings: dict[str, Any] = SMALL | {"agents": 2, "total_timesteps": 192, "name": "run", "network": {"hidden": (8,)}}
    settings["curiosity"] = {"coef": 0.5, "share": share}
    if algo == "ppo":
        settings |= {"num_steps": 16}
    else:
        settings |= {"batch_size": 8, "replay": {"learning_starts": 60, "samples_per_insert": 1.0}}

    def stop(run: Run, record: Record) -> None:
        if run.updates == 5:
            run.stop("enough")

    whole = shoal.train("CartPole-v1", algo=algo, run_dir=str(run_dir / "whole"), **settings)
    parts = shoal.train("CartPole-v1", algo=algo, run_dir=str(run_dir / "parts"), callbacks=[stop], **settings)
    shoal.resume(parts.path, panel="none")
    trees: list[Any] = []
    for run in (whole, parts):
        found = checkpoint.load(run.path / "checkpoints")
        assert found is not None
        stream = found.tree["stream"]
        bonuses = stream["bonuses"] if algo == "dqn" else stream["rollouts"]["bonuses"]
        assert len(bonuses) == (1 if share else 2)
        trees.append([found.tree["learner"], bonuses])
    np.testing.assert_equal(numbers(trees[0]), numbers(trees[1]))


def numbers(tree: Any) -> Any:
    """The tree with arrays in the place of tensors."""
    if isinstance(tree, dict):
        return {key: numbers(part) for key, part in tree.items()}
    if isinstance(tree, list | tuple):
        return [numbers(part) for part in tree]
    return tree.numpy() if isinstance(tree, torch.Tensor) else tree


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"curiosity": {"coef": -1.0}}, "coef"),
        ({"curiosity": {"learning_rate": 1e-3}}, "set curiosity.coef too"),
        ({"curiosity": {"coef": 1.0, "share": False}}, "there is one agent; set agents too"),
        ({"env": "shoal.envs.agents.tictactoe:TicTacToe", **CURIOUS}, "game of turns"),
    ],
)
def test_what_cannot_be(settings: dict[str, Any], message: str, run_dir: Any) -> None:
    told: dict[str, Any] = {"env": "CartPole-v1", **SMALL, **settings, "total_timesteps": 64, "num_steps": 8}
    with pytest.raises(ConfigError, match=message):
        shoal.train(told.pop("env"), run_dir=str(run_dir), **told)
