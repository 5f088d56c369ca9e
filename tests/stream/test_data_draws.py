"""Draws from a data set: its share of each batch, batches of it alone, and whose priorities errors become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
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


def make_stream(how: FromData, *, alpha: float = 0.0, **settings: Any) -> ReplayStream:
    replay = Replay(buffer_size=1_000, learning_starts=0, samples_per_insert=4, alpha=alpha)
    env, draws = make("CartPole-v1", 4), Draws()
    learner = Learner(make_q_network(env.spec, QNet(hidden=(8,)), 1), Adam, lr=1e-3)
    made = rollouts(env, learner, num_steps=4, acting=Acting(1))
    data = DataDraws(marked(), env.spec, how, draws, seed=1, replay=replay)
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
        assert of_data(stream) == [True] * count + [False] * (16 - count)


def test_batches_of_data_alone_come_first() -> None:
    """Nothing steps before; then 16 steps allow 64 transitions, 4 batches of 16."""
    stream = make_stream(FromData("set", 0.5, 3))
    steps: list[int] = []
    for number in range(3 + 4 + 1):
        assert sum(of_data(stream)) == (16 if number < 3 else 8)
        steps.append(stream.env_steps)
    assert steps == [0] * 6 + [16, 16]


def test_where_priorities_go() -> None:
    """Errors of the first 4 transitions are the data reader's, the others the memory's own; alone, all of them."""
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
    batch.error[:4] = 20.0
    batch.error[4:] = 30.0
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
