"""Rollouts that are kept: which are drawn, that they are copies, and that a checkpoint gives them back."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from shoal.memory.kept_rollouts import UNUSED, KeptRollouts
from shoal.types import ConfigError, Steps
from tests.learn.paths import rollout_of

CPU = torch.device("cpu")


def numbered(number: int, **network: Any) -> Steps:
    """A rollout whose rewards are its number."""
    _, steps = rollout_of("masked", num_steps=3, num_rows=2, **network)
    return replace(steps, reward=torch.full_like(steps.reward, number))


def numbers(drawn: Any) -> list[int]:
    """Which rollouts they are."""
    return [int(steps.reward[0, 0]) for steps in drawn]


def test_the_last_are_drawn_alike() -> None:
    """Three of five are kept; a share of 3/4 of all is three old ones beside a new one, 1/3 is one every other time."""
    memory, rng = KeptRollouts(3, CPU), np.random.default_rng(1)
    assert numbers(memory.draw(0.5, rng)) == []
    for number in range(5):
        memory.keep(numbered(number))
    assert len(memory) == 3
    drawn = [numbers(memory.draw(0.75, rng)) for _ in range(400)]
    assert {len(some) for some in drawn} == {3}
    share = np.bincount(np.concatenate(drawn), minlength=5) / 1200
    np.testing.assert_allclose(share, [0, 0, 1 / 3, 1 / 3, 1 / 3], atol=0.05)
    counts = [len(numbers(memory.draw(1 / 3, rng))) for _ in range(400)]
    assert np.mean(counts) == pytest.approx(0.5, abs=0.08)


def test_nothing_is_kept_or_asked_for_without_a_share() -> None:
    """No memory, no random number."""
    memory, rng = KeptRollouts(0, CPU), np.random.default_rng(1)
    memory.keep(numbered(1))
    assert len(memory) == 0
    full = KeptRollouts(2, CPU)
    full.keep(numbered(1))
    for drawn in (memory.draw(0.5, rng), full.draw(0.0, rng)):
        assert numbers(drawn) == []
    assert rng.integers(1000) == np.random.default_rng(1).integers(1000)


@pytest.mark.parametrize("recurrent", ["none", "lstm"])
def test_a_checkpoint_gives_them_back(recurrent: str) -> None:
    """What is kept is a copy; names stand for the same arrays in the next state; a damaged one is refused."""
    memory = KeptRollouts(2, CPU)
    first = numbered(1, recurrent=recurrent)
    memory.keep(first)
    expected = first.obs.clone()
    first.obs.zero_()
    before = memory.state()
    memory.keep(numbered(2, recurrent=recurrent))
    state = memory.state()
    assert set(before["leaves"].arrays) < set(state["leaves"].arrays)
    other = KeptRollouts(2, CPU)
    other.restore(state)
    assert other.added == 2
    rngs = (np.random.default_rng(2), np.random.default_rng(2))
    for one, two in zip(memory.draw(0.9, rngs[0]), other.draw(0.9, rngs[1]), strict=True):
        for name in (field.name for field in fields(Steps) if field.name not in UNUSED):
            torch.testing.assert_close(getattr(one, name), getattr(two, name), rtol=0, atol=0)
        if one.reward[0, 0] == 1:
            assert torch.equal(one.obs, expected)
    other.keep(numbered(3, recurrent=recurrent))
    assert other.state()["numbers"] == [1, 2]
    del state["trees"][0]["obs"]
    with pytest.raises(ConfigError, match="kept rollouts are damaged: KeyError: 'obs'"):
        other.restore(state)
