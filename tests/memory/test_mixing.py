"""Whose steps a reader draws, and how new they are: shares of blocks of rows, and the recency, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shoal.memory.reader import Mixing, Prioritized, Reader
from shoal.memory.replay import ReplayMemory
from shoal.types import ConfigError
from tests.memory.test_replay import memory_of, spec_of, steps_of

PLAIN = Prioritized(alpha=1, beta=1, epsilon=1e-12)


def memory_of_rows(*counts: int) -> ReplayMemory:
    """A memory whose rows have so many steps that can begin a transition."""
    memory = ReplayMemory(spec_of(), len(counts), capacity=16 * len(counts))
    for row, count in enumerate(counts):
        if count:
            memory.insert_steps(steps_of([1.0] * (count + 1)), first_row=row)
    return memory


def rows_drawn(reader: Reader, num_rows: int, batches: int = 200) -> list[float]:
    """The share of each row's steps among what is drawn."""
    drawn = np.concatenate([reader.sample().key.copy() for _ in range(batches)])
    return (np.bincount(drawn % num_rows, minlength=num_rows) / len(drawn)).tolist()


@pytest.mark.parametrize("prioritized", [None, PLAIN])
def test_blocks_have_their_shares(prioritized: Prioritized | None) -> None:
    """However many steps they hold; within a block each step is as likely, here 2 of 4 and 8 of 10."""
    memory = memory_of_rows(2, 8, 5)
    reader = Reader(memory, batch_size=50, prioritized=prioritized, mixing=Mixing(ends=(2, 3), shares=(0.25, 0.75)))
    assert rows_drawn(reader, 3) == pytest.approx([0.25 * 0.2, 0.25 * 0.8, 0.75], abs=0.015)


@pytest.mark.parametrize("prioritized", [None, PLAIN])
def test_a_block_without_steps_leaves_its_share_to_others(prioritized: Prioritized | None) -> None:
    """A share of 0 is kept where the others have none: nothing can be sampled."""
    mixing = Mixing(ends=(1, 2, 3), shares=(0.5, 0.375, 0.125))
    reader = Reader(memory_of_rows(0, 4, 4), batch_size=64, prioritized=prioritized, mixing=mixing)
    assert rows_drawn(reader, 3) == pytest.approx([0, 0.75, 0.25], abs=0.015)
    none = Reader(
        memory_of_rows(0, 4), batch_size=4, prioritized=prioritized, mixing=Mixing(ends=(1, 2), shares=(1, 0))
    )
    with pytest.raises(RuntimeError, match="nothing can be sampled"):
        none.sample()


def test_weights_correct_for_the_share_too() -> None:
    """Row 0: 2 steps at priorities 1 and 3 share 1/2, P = 1/8 and 3/8; row 1: one step with P = 1/2."""
    memory = memory_of_rows(2, 1)
    reader = Reader(memory, batch_size=8, prioritized=PLAIN, mixing=Mixing(ends=(1, 2), shares=(0.5, 0.5)))
    reader.sample()
    reader.prioritize(np.array([0, 2, 1]), np.array([1, 3, 100]))
    batch = reader.sample()
    # Eight strata of one eighth each; keys are index * 2 + row.
    assert batch.key.tolist() == [0, 2, 2, 2, 1, 1, 1, 1]
    np.testing.assert_allclose(batch.weight, [1] + [1 / 3] * 3 + [1 / 4] * 4, rtol=1e-6)


def test_priorities_are_restored_with_their_blocks() -> None:
    memory = memory_of_rows(6, 3)
    made: list[Any] = [
        Reader(memory, batch_size=16, prioritized=PLAIN, mixing=Mixing(ends=(1, 2), shares=(0.2, 0.8)))
        for _ in range(2)
    ]
    batch = made[0].sample()
    made[0].prioritize(batch.key, batch.key.astype(np.float32))
    made[1].restore(made[0].state())
    one, two = made[0].sample(), made[1].sample()
    assert one.key.tolist() == two.key.tolist()
    assert one.weight.tolist() == two.weight.tolist()


def test_newer_steps_by_hand() -> None:
    """With k = 2, P(age <= x) = sqrt(x): of a quarter of the steps, the newest, comes a half of what is drawn."""
    memory = memory_of(steps_of([1.0] * 2049), capacity=2049)
    reader = Reader(memory, batch_size=512, mixing=Mixing(recency=2))
    ages = 1 - (np.concatenate([reader.sample().key.copy() for _ in range(40)]) + 0.5) / 2048
    for share in (0.25, 0.5, 0.75):
        assert (ages < share).mean() == pytest.approx(share**0.5, abs=0.012)


def test_what_does_not_fit_is_refused() -> None:
    memory = memory_of_rows(2, 2)
    for mixing in (
        Mixing(ends=(1,), shares=(1.0,)),
        Mixing(ends=(1, 2), shares=(0.0, 0.0)),
        Mixing(ends=(1, 2), shares=(0.5, float("nan"))),
        Mixing(ends=(2, 1), shares=(0.5, 0.5)),
        Mixing(ends=(1, 2), shares=(1.0,)),
        Mixing(recency=0.5),
    ):
        with pytest.raises(ConfigError, match="a reader of the replay memory"):
            Reader(memory, batch_size=4, mixing=mixing)
    with pytest.raises(ConfigError, match="without priorities"):
        Reader(memory, batch_size=4, prioritized=PLAIN, mixing=Mixing(recency=2))
