"""Draws of steps from outside: their share of each batch, batches of data alone, and whose priorities errors become."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import Adam

from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.memory.data import Data
from shoal.memory.replay_steps import StepArrays
from shoal.memory.settings import FromData, Replay
from shoal.nets.network import QNet
from shoal.nets.q_network import make_q_network
from shoal.stream.data import DataDraws
from shoal.stream.replay import ReplayStream
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError
from tests.stream.test_replay import Draws

MARK = 7.0
"""What every observation of the data set holds; no CartPole comes so far."""


def marked(steps: int = 20) -> Data:
    """One episode of so many steps, whose reward is 3."""
    flags = np.zeros((steps, 1), np.bool_)
    truncated = flags.copy()
    truncated[-1] = True
    arrays = StepArrays(
        obs=np.full((steps, 1, 4), MARK, np.float32),
        action=np.zeros((steps, 1), np.int64),
        reward=np.full((steps, 1), 3.0),
        terminated=flags,
        truncated=truncated,
        final_obs=np.full((1, 4), MARK, np.float32),
    )
    return Data(Path("set"), "abc", 1, arrays)


def make_stream(how: FromData, *, alpha: float = 0.0, size: int = 0, **settings: Any) -> ReplayStream:
    replay = Replay(buffer_size=1_000, learning_starts=0, samples_per_insert=4, alpha=alpha, inserted_size=size)
    env, draws = make("CartPole-v1", 4), Draws()
    learner = Learner(make_q_network(env.spec, QNet(hidden=(8,)), 1), Adam, lr=1e-3)
    made = rollouts(env, learner, num_steps=4, acting=Acting(1))
    data = DataDraws(marked() if how.folder else None, env.spec, how, draws, seed=1, replay=replay)
    shared: dict[str, Any] = {"agents": {"policy": draws}, "rows": {"policy": slice(0, 4)}}
    return ReplayStream(made, replay, total_timesteps=settings.get("total", 1_000), data=data, **shared)


def of_data(stream: ReplayStream) -> list[bool]:
    """Which of the next batch's transitions are of the data set, by their observations and by their rewards."""
    batch: Any = next(stream)
    stream.publish()
    seen = (batch.obs == MARK).all(1).tolist()
    assert seen == (batch.next_obs == MARK).all(1).tolist() == (batch.reward == 3).tolist()
    return seen


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.25, 4), (0.5, 8), (0.99, 15)])
def test_the_share_of_each_batch(fraction: float, count: int) -> None:
    """Of 16 transitions; at least one is always the run's own."""
    stream = make_stream(FromData("set", fraction))
    for _ in range(9):
        assert of_data(stream) == [False] * (16 - count) + [True] * count


def test_batches_of_data_alone_come_first() -> None:
    """Nothing steps before; then 16 steps allow 64 transitions, 4 batches of 16."""
    stream = make_stream(FromData("set", 0.5, 3))
    steps: list[int] = []
    for number in range(3 + 4 + 1):
        assert sum(of_data(stream)) == (16 if number < 3 else 8)
        steps.append(stream.env_steps)
    assert steps == [0] * 6 + [16, 16]


def test_where_priorities_go() -> None:
    """Errors of the last 4 transitions are the data reader's, the others the memory's own; alone, all of them."""
    stream = make_stream(FromData("set", 0.25, 1), alpha=1.0)
    data = stream.data
    assert data is not None
    readers = {"own": stream._drawers[0].reader, **data._readers}

    def total() -> dict[str, float]:
        return {name: float(reader.state()["priority"].max()) for name, reader in readers.items()}

    batch = next(stream)
    batch.error.fill_(50.0)
    stream.prioritize(batch)
    stream.publish()
    assert total()["alone"] == pytest.approx(50)
    batch = next(stream)
    batch.error[12:] = 20.0
    batch.error[:12] = 30.0
    stream.prioritize(batch)
    found = total()
    assert (found["mixed"], found["own"]) == (pytest.approx(20), pytest.approx(30))


def test_another_data_set_is_refused() -> None:
    stream = make_stream(FromData("set", 0.5, 2))
    for _ in range(3):
        next(stream)
        stream.publish()
    state = stream.state()
    again = make_stream(FromData("set", 0.5, 2))
    again.restore(state)
    assert of_data(again) == of_data(stream)
    assert again.state()["data"]["done"] == 2
    state["data"]["sha256"] = "other"
    with pytest.raises(ConfigError, match="the data set was changed since the checkpoint"):
        make_stream(FromData("set", 0.5, 2)).restore(state)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_what_is_inserted_has_its_share_from_then_on(alpha: float) -> None:
    """4 of 16 in each batch, as soon as there are some; what the run does overwrites none of it."""
    stream = make_stream(FromData(fraction=0.25), alpha=alpha, size=30)
    data = stream.data
    assert data is not None
    for _ in range(3):
        assert of_data(stream) == [False] * 16
    assert data.outside.insert(marked().steps) == 20
    for _ in range(400):
        assert of_data(stream) == [False] * 12 + [True] * 4
    # As many steps as without: 4 batches of 16 for 16 steps. The run's own memory of 1,000 went round meanwhile.
    assert stream.env_steps == 1_600
    assert data.outside.num_inserted == 20


def test_inserted_steps_beside_a_data_set() -> None:
    """20 steps of each: every step from outside is as likely, here half of them within 5 deviations."""
    stream = make_stream(FromData("set", 0.5), size=40)
    data = stream.data
    assert data is not None
    inserted = marked().steps
    data.outside.insert(replace(inserted, reward=np.full((20, 1), 5.0)))
    seen: list[float] = []
    for _ in range(200):
        batch: Any = next(stream)
        stream.publish()
        seen += batch.reward[8:].tolist()
    assert set(seen) == {3.0, 5.0}
    assert abs(seen.count(5.0) - 800) < 5 * 20


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_inserted_steps_are_saved(alpha: float) -> None:
    """A stream that went on draws what the one draws that goes on from its state."""
    how = FromData("set", 0.5)
    stream = make_stream(how, alpha=alpha, size=40)
    assert stream.data is not None
    of_data(stream)
    stream.data.outside.insert(marked(7).steps)
    batch: Any = next(stream)
    batch.error[:] = torch.arange(16.0)
    stream.prioritize(batch)
    stream.publish()
    again = make_stream(how, alpha=alpha, size=40)
    again.restore(copy.deepcopy(stream.state()))
    assert again.data is not None
    assert again.data.outside.num_inserted == 7
    for _ in range(5):
        one, other = next(stream), next(again)
        assert torch.equal(one.weight, other.weight)
        assert np.array_equal(one.key, other.key)
        stream.publish()
        again.publish()


def test_goals_of_the_run_s_own_steps_change_alone() -> None:
    """Keys of steps from outside are of another memory, which hindsight does not look into."""
    stream = make_stream(FromData("set", 0.25, 1))
    lengths: list[int] = []
    hindsight: Any = SimpleNamespace(relabel=lambda batch: lengths.append(len(batch.key)))
    stream.hindsight = hindsight
    for _ in range(3):
        next(stream)
        stream.publish()
    assert lengths == [0, 12, 12]
