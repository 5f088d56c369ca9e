"""Readers of one of several memories: what its steps weigh, how many there are, and parts of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.memory.reader import Prioritized, Reader
from shoal.memory.replay import ReplayMemory
from shoal.memory.shard_reader import ShardReader
from shoal.memory.slab import Slab
from shoal.types import Spec


def memory_of(steps: int, rows: int = 2, capacity: int = 40) -> ReplayMemory:
    """Episodes of five steps."""
    spec = Spec.of("Test-v0", spaces.Box(-1, 1, (4,), np.float32), spaces.Discrete(2))
    return filled(ReplayMemory(spec, rows, capacity=capacity), steps)


def filled(memory: ReplayMemory, steps: int) -> ReplayMemory:
    slab = Slab(memory.spec, steps, memory.num_rows)
    slab.clear()
    slab.valid[:] = True
    ends = np.arange(steps) % 5 == 4
    slab.terminated[:] = ends[:, None]
    slab.start[:] = (np.arange(steps) % 5 == 0)[:, None]
    index = np.full(slab.final_index.shape, -1, np.int32)
    index[ends] = np.arange(index[ends].size).reshape(index[ends].shape)
    slab.final_index[:] = index
    slab.num_final = int(index.max()) + 1
    memory.insert(slab)
    return memory


@pytest.mark.parametrize("steps", [1, 2, 7, 12, 60])
def test_how_many_steps_can_be_drawn(steps: int) -> None:
    """As many as a prioritized reader has above 0, and none of the last observations, after the ring went round too."""
    memory = memory_of(steps)
    uniform = ShardReader(memory, batch_size=4)
    prioritized = ShardReader(memory, batch_size=4, prioritized=Prioritized(0.5))
    for _ in range(3):
        priority = Reader(memory, batch_size=4, prioritized=Prioritized(0.5))
        mass, count = uniform.mass
        assert mass == count
        assert prioritized.mass == (pytest.approx(count), count)  # all weigh 1 at first
        if count:
            priority.sample()
            assert count == int((priority.state()["priority"] > 0).sum())
        filled(memory, steps)


def test_what_priorities_weigh() -> None:
    """Five steps of priorities 1, 4, 9, 16 and 25 with alpha 0.5 weigh 15; the least chance drawn is its own."""
    memory = memory_of(5, rows=1)
    reader = ShardReader(memory, batch_size=8, prioritized=Prioritized(0.5, epsilon=1e-12))
    assert reader.mass == (5.0, 5)
    reader.draw(8, 1.0)
    reader.prioritize(np.arange(5), np.array([1, 4, 9, 16, 25], np.float32))
    assert reader.mass == (pytest.approx(15), 5)
    part = reader.draw(3, 1.0)
    assert len(part.key) == len(part.reward) == 3
    chance = (1 + part.key) / 15
    assert reader.least_chance == pytest.approx(chance.min())
    assert torch.allclose(part.weight, torch.from_numpy(chance.min() / chance).float())


def test_parts_of_a_batch() -> None:
    """The arrays behind it stay; more than a batch, or nothing, is refused."""
    reader = ShardReader(memory_of(7), batch_size=4)
    reader.batch.key[:] = -1
    reader.draw(3, None)
    assert (reader.batch.key >= 0).tolist() == [True, True, True, False]
    for count in (0, 5):
        with pytest.raises(ValueError, match="count must be between 1 and batch_size=4"):
            reader.draw(count, None)
