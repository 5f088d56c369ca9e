"""Prioritized sampling: a sum tree against a naive oracle, weights and priorities by hand, what is overwritten."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from shoal.memory.reader import Prioritized, Reader
from shoal.memory.replay import ReplayMemory
from shoal.types import ConfigError
from tests.memory.test_replay import memory_of, spec_of, steps_of

PLAIN = Prioritized(alpha=1, beta=1, epsilon=1e-9)


def priorities(reader: Reader) -> Any:
    return reader.state()["priority"]


def test_new_steps_have_the_greatest_priority_so_far() -> None:
    """Those that cannot begin a transition have none: the newest, and final observations."""
    memory = memory_of(steps_of([1, 2, 4, 8], terminated=(1,)), capacity=8)
    reader = Reader(memory, batch_size=4, prioritized=PLAIN)
    reader.sample()
    assert priorities(reader).tolist() == [1, 1, 0, 1, 0, 0, 0, 0]
    reader.prioritize(np.array([1, 3]), torch.tensor([-5.0, 0.25], requires_grad=True))
    memory.insert_steps(steps_of([16, 32], first=4))
    reader.sample()
    assert priorities(reader).tolist() == [1, 5, 0, 0.25, 5, 5, 0, 0]
    memory.insert_steps(steps_of([64] * 4, first=6))  # over the ring's edge: records 0 and 1 are gone
    reader.sample()
    assert priorities(reader).tolist() == [5, 5, 0, 0.25, 5, 5, 5, 5]


def test_weights_by_hand() -> None:
    """Priorities 1, 3 and 4 of three steps: P = 1/8, 3/8, 4/8; weights (3 P)^-beta over the greatest."""
    memory = memory_of(steps_of([1, 2, 4, 8]))
    reader = Reader(memory, batch_size=8, prioritized=Prioritized(alpha=1, beta=1, epsilon=1e-12))
    reader.sample()
    reader.prioritize(np.array([0, 1, 2]), np.array([1, 3, 4]))
    batch = reader.sample()
    # Eight strata of one eighth each: every step as often as its share, exactly.
    assert batch.key.tolist() == [0, 1, 1, 1, 2, 2, 2, 2]
    np.testing.assert_allclose(batch.weight, [1] + [1 / 3] * 3 + [1 / 4] * 4, rtol=1e-6)
    np.testing.assert_allclose(reader.sample(beta=0.5).weight, [1] + [3**-0.5] * 3 + [0.5] * 4, rtol=1e-6)
    assert (reader.sample(beta=0).weight == 1).all()
    reader.sample(alpha=0)
    drawn = [reader.sample(alpha=0).key.copy() for _ in range(300)]
    assert np.bincount(np.concatenate(drawn)) == pytest.approx([800] * 3, rel=0.08)
    assert (reader.sample(alpha=0).weight == 1).all()
    assert reader.sample(alpha=1).key.tolist() == [0, 1, 1, 1, 2, 2, 2, 2]


def test_a_uniform_share_by_hand() -> None:
    """A half: P = 1/2 * 1/3 + 1/2 * (1/8, 3/8, 4/8); of 48 draws 11, 17 and 20."""
    memory = memory_of(steps_of([1, 2, 4, 8]))
    reader = Reader(memory, batch_size=48, prioritized=Prioritized(alpha=1, beta=1, epsilon=1e-12, uniform_mix=0.5))
    reader.sample()
    reader.prioritize(np.array([0, 1, 2]), np.array([1, 3, 4]))
    counts = np.zeros(3)
    for _ in range(400):
        batch = reader.sample()
        counts += np.bincount(batch.key, minlength=3)
        np.testing.assert_allclose(batch.weight, (11 / np.array([11, 17, 20]))[batch.key], rtol=1e-6)
    assert counts / 400 == pytest.approx([11, 17, 20], rel=0.05)


class Naive:
    """Priorities in a dictionary, drawn by a sum over all slots with NumPy's generator."""

    def __init__(self, rows: int, slots: int, given: Prioritized, seed: int) -> None:
        self.rows, self.slots, self.given = rows, slots, given
        self.draws = np.random.default_rng(seed)
        self.kinds: list[list[str]] = [[] for _ in range(rows)]
        self.known = [0] * rows
        self.priority: dict[tuple[int, int], float] = {}
        self.greatest, self.stale = 1.0, 0

    def insert(self, row: int, ends: Any) -> None:
        for end in ends:
            self.kinds[row] += ["step", "final"] if end else ["step"]

    def follow(self) -> None:
        for row, kinds in enumerate(self.kinds):
            for index in range(max(self.known[row] - 1, 0), len(kinds) - 1):
                if kinds[index] == "step":
                    self.priority[row, index] = self.greatest
            self.known[row] = len(kinds)
        held = self.priority.items()
        self.priority = {(row, i): p for (row, i), p in held if i >= self.known[row] - self.slots}

    def sample(self, count: int) -> tuple[list[int], Any]:
        self.follow()
        values = np.zeros(self.rows * self.slots)
        keys = np.zeros(self.rows * self.slots, np.int64)
        for (row, index), p in self.priority.items():
            values[row * self.slots + index % self.slots] = p**self.given.alpha
            keys[row * self.slots + index % self.slots] = index * self.rows + row
        ends = np.cumsum(values)
        positions = (np.arange(count) + self.draws.random(count)) * ends[-1] / count
        found = np.searchsorted(ends, positions, side="right")
        weight = (len(self.priority) * values[found] / ends[-1]) ** -self.given.beta
        return keys[found].tolist(), weight / weight.max()

    def prioritize(self, keys: Any, errors: Any) -> None:
        self.follow()
        for key, error in zip(keys.tolist(), errors.tolist(), strict=True):
            place = (key % self.rows, key // self.rows)
            if place not in self.priority:
                self.stale += 1
                continue
            self.priority[place] = float(np.float32(abs(error) + self.given.epsilon))
            self.greatest = max(self.greatest, self.priority[place])


def test_against_a_naive_oracle() -> None:
    """Random inserts, samples and updates, some of keys that are gone by then: keys and weights are NumPy's."""
    rows, slots = 3, 37
    given = Prioritized(alpha=0.7, beta=0.6, epsilon=0.01)
    memory = ReplayMemory(spec_of(), rows, capacity=rows * slots)
    reader = Reader(memory, batch_size=16, prioritized=given, seed=9)
    naive, rng = Naive(rows, slots, given, 9), np.random.default_rng(0)

    def insert(count: int) -> None:
        row, ends = int(rng.integers(rows)), rng.random(count) < 0.2
        memory.insert_steps(steps_of([0] * count, terminated=tuple(np.flatnonzero(ends).tolist())), first_row=row)
        naive.insert(row, ends)

    insert(9)
    for turn in range(250):
        insert(int(rng.integers(1, 9)))
        batch, (keys, weight) = reader.sample(), naive.sample(16)
        assert batch.key.tolist() == keys
        np.testing.assert_allclose(batch.weight, weight, rtol=1e-5)
        if turn % 2:
            insert(30)
        errors = rng.normal(size=16).astype(np.float32)
        reader.prioritize(batch.key, errors)
        naive.prioritize(batch.key, errors)
        assert reader.stale_keys == naive.stale
    assert naive.stale > 100


def test_the_last_of_two_errors_counts() -> None:
    memory = memory_of(steps_of([1, 2, 4, 8]))
    reader = Reader(memory, batch_size=4, prioritized=Prioritized(epsilon=0.5))
    reader.sample()
    reader.prioritize(np.array([1, 1, 2, 1]), np.array([9, 8, 7, -6], np.float32))
    assert priorities(reader)[:4].tolist() == [1, 6.5, 7.5, 0]


def test_bad_errors_and_keys_change_nothing() -> None:
    memory = memory_of(steps_of([1, 2, 4, 8], terminated=(1,)))
    reader = Reader(memory, batch_size=4, prioritized=PLAIN)
    reader.sample()
    before = priorities(reader)
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="the error at 1 is not finite"):
            reader.prioritize(np.array([0, 1]), np.array([3, bad]))
    for key in (-1, 2, 4, 99, 2**62):  # a final observation, the newest step, and nothing at all
        with pytest.raises(ValueError, match=f"the key at 1 is of no transition that can be sampled: {key}"):
            reader.prioritize(np.array([0, key]), np.array([3, 3]))
    with pytest.raises(ValueError, match="errors must have shape"):
        reader.prioritize(np.array([0, 1]), np.array([3.0]))
    np.testing.assert_array_equal(priorities(reader), before)
    assert reader.stale_keys == 0


def test_settings_that_cannot_work() -> None:
    memory = memory_of(steps_of([1, 2]))
    for wrong in ({"alpha": 5}, {"beta": -1}, {"epsilon": 0}, {"uniform_mix": 1.5}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Prioritized(**wrong)
    uniform = Reader(memory, batch_size=2)
    with pytest.raises(ConfigError, match="alpha and beta are of priorities"):
        uniform.sample(beta=1)
    with pytest.raises(ConfigError, match="this reader draws uniformly"):
        uniform.prioritize(np.array([0]), np.array([1]))
    reader = Reader(memory, batch_size=2, prioritized=PLAIN)
    with pytest.raises(ConfigError, match="alpha and beta must be between 0 and 4, got 9 and 1"):
        reader.sample(alpha=9)
    with pytest.raises(RuntimeError, match="nothing can be sampled yet"):
        Reader(memory_of(), batch_size=2, prioritized=PLAIN).sample()


@pytest.mark.parametrize("prioritized", [None, Prioritized(uniform_mix=0.2)])
def test_a_restored_reader_goes_on_exactly(prioritized: Prioritized | None) -> None:
    """The same keys and weights, after the state of one was given to another."""
    memory = memory_of(steps_of([1] * 40, terminated=(7, 30)))
    reader = Reader(memory, batch_size=16, prioritized=prioritized, seed=3)
    other = Reader(memory, batch_size=16, prioritized=prioritized, seed=4)
    for _ in range(5):
        batch = reader.sample()
        if prioritized is not None:
            reader.prioritize(batch.key, (batch.key % 5).astype(np.float32))
    memory.insert_steps(steps_of([1] * 20))
    other.restore(reader.state())
    for _ in range(3):
        first, second = reader.sample(), other.sample()
        np.testing.assert_array_equal(first.key, second.key)
        np.testing.assert_array_equal(first.weight, second.weight)
    wrong = reader.state() | {"random": np.zeros(6, np.uint64)}
    with pytest.raises(ConfigError, match="does not fit this one: this is no state of a random generator"):
        other.restore(wrong)
    if prioritized is not None:
        with pytest.raises(ConfigError, match="not of this memory, or they are damaged"):
            other.restore(reader.state() | {"priority": np.full(64, np.nan, np.float32)})
        with pytest.raises(ConfigError, match="had priorities"):
            Reader(memory, batch_size=16).restore(reader.state())
