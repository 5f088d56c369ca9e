"""The replay memory while others write to it: records that go away in the middle of a sample, and torn ones."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from gymnasium import spaces

from benchmarks.stress_replay import stress, stress_threads
from shoal.memory.reader import Prioritized, Reader
from shoal.memory.replay import ReplayMemory
from shoal.memory.replay_steps import StepArrays, WholeSteps
from shoal.types import Spec


@pytest.mark.parametrize("prioritized", [None, Prioritized()])
def test_a_sample_that_lasts_longer_than_what_it_draws_from(prioritized: Prioritized | None) -> None:
    """Rings of 64 records go round several times in a sample of 4,096: what is gone is drawn again."""
    spec = Spec.of("Test-v0", spaces.Box(-1e9, 1e9, (2,), np.float32), spaces.Discrete(3))
    memory = ReplayMemory(spec, 2, capacity=128)
    done = threading.Event()
    zeros = np.zeros((50, 2), np.bool_)
    reward = np.arange(100, dtype=np.float32).reshape(50, 2)
    obs = np.repeat(reward[..., None], 2, axis=2)
    steps = StepArrays(obs, np.zeros((50, 2), np.int64), reward, zeros, zeros)
    block = WholeSteps(memory.form, steps)
    memory.insert(block)

    def write() -> None:
        while not done.is_set():
            memory.insert(block)

    writer = threading.Thread(target=write)
    writer.start()
    reader = Reader(memory, batch_size=4096, prioritized=prioritized)
    try:
        for _ in range(2000):
            try:
                batch = reader.sample()
            except RuntimeError:
                continue
            assert (batch.obs[:, 0] == batch.reward).all()
            assert (batch.obs[:, 0] == batch.obs[:, 1]).all()
            if reader.overwritten > 100:
                break
    finally:
        done.set()
        writer.join()
    assert reader.overwritten > 100


def test_threads_write_and_read() -> None:
    """Both sides in one process, where `make sanitize` looks for races; without the sequence check records are torn."""
    found = stress_threads(2.0, writers=2, readers=2, checked=True)
    assert [each.first_torn for each in found if each.torn] == []
    assert all(each.count for each in found)
    assert any(each.torn for each in stress_threads(60.0, writers=2, readers=2, checked=False))


@pytest.mark.slow
def test_processes_write_and_read() -> None:
    """The stress of benchmarks/stress_replay.py; without the sequence check it finds torn records."""
    found = stress(5.0, writers=2, readers=2, checked=True)
    assert [each.first_torn for each in found if each.torn] == []
    assert sum(each.count for each in found if each.role != "writer") > 0
    assert any(each.torn for each in stress(20.0, writers=2, readers=2, checked=False))
