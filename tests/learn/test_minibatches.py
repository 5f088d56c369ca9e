"""Minibatches: every valid step once, whole rows for a memory, shapes that cannot be cut."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch

from shoal.algos.ppo import PPO
from shoal.learn.losses import with_normalized_advantage
from shoal.learn.minibatches import check_minibatches, cut_steps, everything, minibatches
from shoal.types import ConfigError, Steps
from tests.learn.paths import CFG, rollout_of


def rollout(valid: Any, *, state: Any = None) -> Steps:
    """A rollout whose rewards number its steps."""
    _, steps = rollout_of("categorical", num_steps=len(valid), num_rows=len(valid[0]))
    reward = torch.arange(float(steps.reward.numel())).view(steps.reward.shape)
    return replace(steps, reward=reward, valid=torch.tensor(valid, dtype=torch.bool), state=state)


def parts_of(steps: Steps, count: int, seed: int = 0) -> list[list[int]]:
    """Which steps, or rows, each part has."""
    rng = np.random.default_rng(seed)
    return [part.index.tolist() for part in minibatches(steps, steps.reward, 2 * steps.reward, count, rng)]


def test_minibatches_hold_every_valid_step_once() -> None:
    """Seven valid steps in three parts; whole rows in two; another generator, another order."""
    found = parts_of(rollout([[1, 1, 0], [1, 1, 1], [1, 0, 1]]), 3)
    assert sorted(len(part) for part in found) == [2, 2, 3]
    assert sorted(chain(*found)) == [0, 1, 3, 4, 5, 6, 8]
    whole = rollout([[1] * 6] * 5, state=torch.zeros(6, 1))
    rows = parts_of(whole, 2)
    assert [len(part) for part in rows] == [3, 3]
    assert sorted(chain(*rows)) == [0, 1, 2, 3, 4, 5]
    assert parts_of(whole, 2, seed=1) != rows


def test_a_part_without_steps_is_left_out() -> None:
    """Two valid steps in four parts; no valid step at all."""
    assert sorted(chain(*parts_of(rollout([[0, 1], [1, 0]]), 4))) == [1, 2]
    assert parts_of(rollout([[0, 0]]), 4) == []


def test_several_passes_over_a_rollout_share_its_steps() -> None:
    """The same advantages give the same object, others another one; a copy finds its own valid steps."""
    steps = rollout([[1, 0], [1, 1]])
    first = steps.with_targets(steps.reward, steps.value)
    assert steps.with_targets(steps.reward, steps.value) is first
    other = steps.with_targets(steps.reward, steps.reward)
    assert other.target is steps.reward
    assert first.target is steps.value
    assert first.valid_places().tolist() == [0, 2, 3]
    steps.valid[0, 0] = False
    assert first.valid_places().tolist() == [2, 3]
    steps.valid[0, 0] = True
    assert replace(first, valid=~first.valid).valid_places().tolist() == [1]
    assert pickle.loads(pickle.dumps(first)).valid_places().tolist() == [0, 2, 3]


@pytest.mark.parametrize("count", [0, -3, 1.5, "2", None])
def test_a_number_of_parts_that_is_none_is_refused(count: Any) -> None:
    with pytest.raises(ConfigError, match="num_minibatches must be a whole number of at least 1"):
        parts_of(rollout([[1, 1]]), count)


def test_advantages_of_another_shape_are_refused() -> None:
    """[B, T] instead of [T, B], one step too few, and an array."""
    steps = rollout([[1, 1, 1], [1, 1, 1]])
    for wrong in (steps.reward.t(), steps.reward[1:], steps.reward.numpy()):
        given: Any = wrong
        with pytest.raises(ConfigError, match=r"advantage must be a tensor \[T, B\] of the shape \(2, 3\)"):
            list(minibatches(steps, given, steps.value, 1, np.random.default_rng(0)))
        with pytest.raises(ConfigError, match="target must be"):
            list(minibatches(steps, steps.value, given, 1, np.random.default_rng(0)))


def test_take_picks_steps_or_whole_rows() -> None:
    """Step t * B + b, as [1, M]; or rows with all their steps and their state; with advantage and target."""
    steps = rollout([[1] * 8] * 3)
    for part in minibatches(steps, steps.reward + 1, 2 * steps.reward, 2, np.random.default_rng(0)):
        some = part.take()
        index = torch.from_numpy(part.index).long()
        assert some.reward.tolist() == [index.tolist()]
        assert torch.equal(some.obs, steps.obs.flatten(0, 1)[index].unsqueeze(0))
        assert torch.equal(some.version, steps.version.flatten()[index].unsqueeze(0))
        assert some.advantage is not None
        assert some.target is not None
        assert torch.equal(some.advantage, some.reward + 1)
        assert torch.equal(some.target, 2 * some.reward)
    whole = replace(steps, state=torch.arange(8))
    for part in minibatches(whole, steps.reward, steps.reward, 4, np.random.default_rng(0)):
        rows = part.take()
        index = torch.from_numpy(part.index).long()
        assert torch.equal(rows.action, steps.action[:, index])
        assert rows.state.tolist() == index.tolist()


def test_everything_is_all_that_counts() -> None:
    """In order, as one batch."""
    assert everything(rollout([[1, 0], [0, 1]])).index.tolist() == [0, 3]
    assert everything(rollout([[1, 0], [0, 1]], state=torch.zeros(2, 1))).index.tolist() == [0, 1]


def test_cuts_are_views() -> None:
    """Steps 2 to 4 of [T, 8], in the same memory."""
    steps = rollout([[1] * 8] * 3)
    part = cut_steps(steps, slice(2, 5))
    assert part.reward.tolist() == [[2, 3, 4], [10, 11, 12], [18, 19, 20]]
    assert part.obs.data_ptr() == steps.obs[:, 2:].data_ptr()


def test_advantages_are_normalized_over_valid_steps() -> None:
    """1, 2 and 3 with a step between that does not count; or left as they are."""
    steps = replace(rollout([[1, 1, 0, 1]]), advantage=torch.tensor([[1.0, 2.0, 50.0, 3.0]]))
    normalized = with_normalized_advantage(steps, CFG).advantage
    assert normalized is not None
    torch.testing.assert_close(normalized[0, [0, 1, 3]], torch.tensor([-1.0, 0.0, 1.0]))
    assert with_normalized_advantage(steps, replace(CFG, norm_adv=False)) is steps


def cut(count: int, *, norm_adv: bool) -> PPO:
    """Settings with so many minibatches."""
    return PPO(num_minibatches=count, norm_adv=norm_adv)


@pytest.mark.parametrize(
    ("cfg", "shape", "whole_rows", "message"),
    [
        (cut(7, norm_adv=True), (128, 16), False, r"= 2048 steps do not split into 7 .*; num_minibatches=4 would"),
        (cut(8, norm_adv=True), (4, 2), False, r"into 8 minibatches of at least 2 steps; num_minibatches=4 would"),
        (cut(8, norm_adv=True), (128, 4), True, r"4 rows do not split into 8 minibatches.*; num_minibatches=4 would"),
        (cut(1, norm_adv=True), (1, 1), False, "batch of 1 step cannot be normalized; use norm_adv=False, more num_e"),
    ],
)
def test_impossible_shapes_are_refused(cfg: PPO, shape: tuple[int, int], message: str, *, whole_rows: bool) -> None:
    """With a number that would do."""
    with pytest.raises(ConfigError, match=message):
        check_minibatches(shape, cfg, whole_rows=whole_rows)


@pytest.mark.parametrize(
    ("cfg", "shape", "whole_rows"),
    [
        (cut(8, norm_adv=True), (128, 16), False),
        (cut(8, norm_adv=False), (4, 2), False),
        (cut(4, norm_adv=False), (1, 4), True),
    ],
)
def test_possible_shapes_are_not(cfg: PPO, shape: tuple[int, int], *, whole_rows: bool) -> None:
    """Even cuts of one step, or of two where advantages are normalized."""
    check_minibatches(shape, cfg, whole_rows=whole_rows)
