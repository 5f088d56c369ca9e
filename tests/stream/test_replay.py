"""The stream `replay`: how many transitions are drawn for how many steps, what they hold, what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.optim import Adam

from shoal.algos import dqn, sac, td3
from shoal.envs.registry import make
from shoal.learn.acting import Acting, PlanActor, TorchActor
from shoal.learn.learner import Learner
from shoal.memory.settings import Replay
from shoal.nets.network import QNet
from shoal.nets.q_network import make_q_network
from shoal.run.run import Run
from shoal.run.settings import Settings
from shoal.stream.replay import ReplayStream
from shoal.stream.rollouts import rollouts
from shoal.stream.schedules import Overlap, Sync
from shoal.stream.self_play import SelfPlay
from shoal.types import ConfigError, map_tree
from tests import single_run
from tests.counting import counting_rows
from tests.inside import inside

if TYPE_CHECKING:
    from shoal.envs.vec_env import VecEnv
    from shoal.types import Transitions


@dataclass(frozen=True)
class Draws:
    """How rows step and what is drawn."""

    num_steps: int = 4
    batch_size: int = 16
    n_step: int = 1
    gamma: float = 0.5


REPLAY = Replay(buffer_size=1_000, learning_starts=40, samples_per_insert=4)


def make_stream(
    env: VecEnv,
    draws: Draws | None = None,
    settings: Replay = REPLAY,
    *,
    schedule: Any = None,
    native: bool = True,
    total_timesteps: int = 10_000,
) -> ReplayStream:
    draws = draws or Draws()
    learner = Learner(make_q_network(env.spec, QNet(hidden=(8,)), 1), Adam, lr=1e-3)
    acting = Acting(1, native=native)
    made = rollouts(env, learner, num_steps=draws.num_steps, schedule=schedule or Sync(), acting=acting)
    rows = {"policy": slice(0, made.env.num_rows)}
    shared: dict[str, Any] = {"agents": {"policy": draws}, "rows": rows}
    return ReplayStream(made, settings, total_timesteps=total_timesteps, **shared)


def kept(batch: Transitions) -> dict[str, Any]:
    """Copies that outlive the next batch."""

    def copied(x: Any) -> Any:
        return x.clone()

    names = ("obs", "action", "reward", "discount", "next_obs", "steps")
    return {name: map_tree(copied, getattr(batch, name)) for name in names} | {"key": batch.key.copy()}


def pull(stream: ReplayStream, batches: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for _ in range(batches):
        batch: Any = next(stream)
        found.append(kept(batch))
        stream.publish()
    return found


@pytest.mark.parametrize("schedule", [Sync(), Overlap()])
def test_what_is_drawn_for_each_step(schedule: Any) -> None:
    """8 rows of 4 steps are 32 a time. Of the first 64, 24 come after the warm-up of 40: 24 * 4 / 16 = 6 batches.

    Then 8 batches for every 32 steps, which count when the last of them is drawn.
    """
    stream = make_stream(make("CartPole-v1", 8), schedule=schedule)
    steps: list[int] = []
    for _ in range(6 + 8 + 8):
        next(stream)
        stream.publish()
        steps.append(stream.env_steps)
    assert steps == [0] * 5 + [64] * 8 + [96] * 8 + [128]


def test_a_batch_larger_than_what_one_rollout_allows() -> None:
    """4 steps allow 4 * 0.5 = 2 transitions; a batch of 3 comes after 2 rollouts, then 1, 2 and 1: none is lost."""
    settings = Replay(buffer_size=100, learning_starts=0, samples_per_insert=0.5)
    stream = make_stream(make("CartPole-v1", 4), Draws(num_steps=1, batch_size=3), settings)
    steps: list[int] = []
    for _ in range(4):
        next(stream)
        stream.publish()
        steps.append(stream.env_steps)
    assert steps == [8, 12, 20, 24]


def test_episodes_are_handed_over_once() -> None:
    stream = make_stream(make("CartPole-v1", 8))
    returns: list[float] = []
    for _ in range(300):
        next(stream)
        stream.publish()
        returns += stream.episodes.returns.tolist()
        assert len(stream.episodes.rows) == len(stream.episodes.returns)
    assert sum(returns) <= stream.env_steps
    assert len(returns) > 20


def test_transitions_are_what_the_rows_did() -> None:
    """Counting rows: the observation is (row, step), the reward the step plus an eighth of the action."""
    stream = make_stream(counting_rows(3), Draws(num_steps=7, batch_size=200, n_step=2), native=False)
    ends, shorter = {0: 3, 1: 2}, 0
    for batch in pull(stream, 3):
        for i in range(200):
            row, t = (int(x) for x in batch["obs"][i])
            left = ends.get(row, 10**6) - t
            k = int(batch["steps"][i])
            assert 1 <= k <= min(2, left)
            shorter += k < min(2, left)  # the row's newest step has nothing behind it yet
            assert batch["next_obs"][i].tolist() == [row, t + k]
            own = t + int(batch["action"][i]) / 8
            later = batch["reward"][i].item() - own
            assert later == 0 if k == 1 else 0.5 * (t + 1) <= later <= 0.5 * (t + 1.25)
            terminated = row == 0 and k == left
            assert batch["discount"][i].item() == (0 if terminated else 0.5**k)
    assert 0 < shorter < 100


@pytest.mark.parametrize(("native", "kind"), [(True, PlanActor), (False, TorchActor)])
def test_rows_explore_as_they_are_told(kind: type[Any], *, native: bool) -> None:
    """Row 0 always takes any action, the other one never: over 200 steps it takes a single one more often."""
    stream = make_stream(make("MountainCar-v0", 2), Draws(num_steps=100), native=native)
    assert isinstance(inside(stream._rollouts).roles[0].actor, kind)
    stream.explore([1.0, 0.0])
    pull(stream, 1)
    action = stream._rollouts.slabs[0].action
    share = np.bincount(action[:, 0], minlength=3) / 100
    assert (share > 0.2).all()
    obs = torch.from_numpy(stream._rollouts.slabs[0].obs[:, 1])
    actor: Any = inside(stream._rollouts).roles[0].actor
    network = actor.snapshot.policy
    assert action[:, 1].tolist() == network(obs, None, None).distribution.mode().tolist()


def test_rows_explore_differently_in_each_stream_of_noise() -> None:
    actions: list[Any] = []
    for stream_number in (0, 3):
        env = make("MountainCar-v0", 2)
        learner = Learner(make_q_network(env.spec, QNet(hidden=(8,)), 1), Adam, lr=1e-3)
        made = rollouts(env, learner, num_steps=50, acting=Acting(1, stream=stream_number))
        made.roles[0].explore(1.0)
        next(made)
        actions.append(made.slabs[0].action.copy())
    assert (actions[0] != actions[1]).any()


@pytest.mark.parametrize("schedule", [Sync(), Overlap()])
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_a_restored_stream_goes_on(schedule: Any, alpha: float) -> None:
    """Also in the middle of what one rollout allows."""
    settings = replace(REPLAY, alpha=alpha, buffer_size=160)

    def prioritized(stream: ReplayStream, batches: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for _ in range(batches):
            batch: Any = next(stream)
            found.append(kept(batch))
            batch.error.copy_(batch.reward * torch.arange(16))
            stream.prioritize(batch)
            stream.publish()
        return found

    streams = [make_stream(make("CartPole-v1", 8), settings=settings, schedule=schedule) for _ in range(2)]
    for stream in streams:
        stream.explore(0.3)
    prioritized(streams[0], 37)
    assert streams[1].restore(streams[0].state()) == []
    for left, right in zip(prioritized(streams[0], 40), prioritized(streams[1], 40), strict=True):
        for name, value in left.items():
            assert np.array_equal(value, right[name]), name
    assert streams[0].env_steps == streams[1].env_steps


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"total_timesteps": 1_000}, r"nothing would be learned: total_timesteps=1,000 are over before"),
        ({"self_play": SelfPlay(every=2)}, r"self-play needs rollouts"),
        ({"reward_gamma": 0.99}, r"normalize_reward changes with time"),
        ({"num_envs": 3}, r"num_envs=3, but its rows are of 2 environments"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], message: str) -> None:
    env = make("CartPole-v1", 2)
    told: dict[str, Any] = {"env": "CartPole-v1", "algo": "dqn", "seed": 1, "num_envs": 2, "total_timesteps": 5_000}
    run = Run(Settings(**told | settings))
    learner = run.learner(make_q_network(env.spec, QNet(), 1), Adam)
    with pytest.raises(ConfigError, match=message):
        run.replay(env, learner, dqn.DQN(), Replay())
    run.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples_per_insert": 0}, r"samples_per_insert must be"),
        ({"learning_starts": 200_000}, r"learning_starts=200,000 steps do not fit into buffer_size=100,000"),
        ({"alpha": 1.5}, r"alpha must be"),
        ({"buffer_size": 0}, r"buffer_size must be"),
    ],
)
def test_settings_that_cannot_learn_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Replay(**settings)


def test_a_run_ends_with_all_of_its_updates() -> None:
    """2,000 steps less 500 of warm-up, 4 transitions for each, batches of 16: 375 updates."""
    cfg = dqn.DQN(batch_size=16, replay=Replay(learning_starts=500, samples_per_insert=4), num_steps=5)
    env = make("CartPole-v1", 4)
    _, logged = single_run.train(dqn, cfg, env, updates=100)
    assert logged["step"][-1] == 2_000
    assert logged["update"][-1] == 375


@pytest.mark.parametrize(("algorithm", "env_id"), [(dqn, "CartPole-v1"), (sac, "Pendulum-v1"), (td3, "Pendulum-v1")])
@pytest.mark.parametrize("starts", [0, 3])
def test_learning_begins_where_a_step_has_one_behind_it(algorithm: Any, env_id: str, starts: int) -> None:
    """Of one step of each of 4 rows nothing can be drawn; later all that they allow is: 60 steps, 4 of each."""
    cfg = algorithm.Config(batch_size=16, replay=Replay(learning_starts=starts, samples_per_insert=4), num_steps=1)
    env = make(env_id, 4)
    _, logged = single_run.train(algorithm, cfg, env, total_timesteps=60)
    assert logged["step"][-1] == 60
    assert logged["update"][-1] == (60 - starts) * 4 // 16
