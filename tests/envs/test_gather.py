"""Rows on their way in and out of a step: what the native loops take, and what they leave to Python."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from shoal import _native
from shoal.envs.outputs import Outputs
from shoal.types import Spec


class Two:
    """Two rows of three numbers, whose episodes are cut after five steps."""

    def __init__(self) -> None:
        spec = Spec.of("Two", spaces.Box(-9, 9, (3,), np.float32), spaces.Discrete(2))
        self.out, self.returns, self.lengths = Outputs(spec, 2), np.zeros(2), np.array([0, 3])
        self.account = _native.Account(self.out, self.returns, self.lengths, np.full(2, 5))


def test_account_copies_and_counts() -> None:
    """Observations, rewards, returns, lengths; the second row is cut at its fifth step, and nobody is terminated."""
    two = Two()
    two.out.terminated[:] = True
    seen = [np.array([1, 2, 3], np.float32), np.array([4, 5, 6], np.float32)]
    assert two.account.step(0, seen, [0.5, 2], 10.0) == 0
    assert two.out.obs.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert two.out.reward.tolist() == [0.5, 2.0]
    assert two.account.step(1, seen[:1], [1.0], 10.0) == 1
    assert two.out.obs.tolist() == [[1, 2, 3], [1, 2, 3]]
    assert two.returns.tolist() == [0.5, 3.0]
    assert two.lengths.tolist() == [1, 5]
    assert two.out.truncated.tolist() == [False, True]
    assert not two.out.terminated.any()


@pytest.mark.parametrize(
    ("row", "reward"),
    [
        (np.zeros(3), 1.0),
        (np.zeros(4, np.float32), 1.0),
        (np.zeros((1, 3), np.float32), 1.0),
        (np.zeros(6, np.float32)[::2], 1.0),
        (np.zeros(3, ">f4"), 1.0),
        (np.array([0, np.nan, 0], np.float32), 1.0),
        (np.array([0, 0, -np.inf], np.float32), 1.0),
        ([0.0, 0.0, 0.0], 1.0),
        (None, 1.0),
        (np.zeros(3, np.float32), None),
        (np.zeros(3, np.float32), float("nan")),
        (np.zeros(3, np.float32), 10**400),
        (np.zeros(3, np.float32), "1"),
        (np.zeros(3, np.float32), -2e30),
    ],
)
def test_account_leaves_the_rest_to_python(row: Any, reward: Any) -> None:
    two, good = Two(), np.zeros(3, np.float32)
    assert two.account.step(0, [good, row], [1.0, reward], 1e30) == -1
    assert two.lengths.tolist() == [0, 3]
    assert not two.returns.any()


def test_account_refuses_what_does_not_fit() -> None:
    two, good = Two(), [np.zeros(3, np.float32)]
    for first, seen, rewards in ((2, good, [1.0]), (-1, good, [1.0]), (0, good, [1.0, 2.0]), (0, good * 3, [1.0] * 3)):
        with pytest.raises(ValueError, match="as many rewards"):
            two.account.step(first, seen, rewards, 10.0)
    two.out.obs = np.zeros((2, 6), np.float32)[:, ::2]
    with pytest.raises(TypeError, match="obs must be a contiguous, writable array"):
        _native.Account(two.out, two.returns, two.lengths, np.full(2, 5))


LOW, HIGH = np.array([-1, 0], np.float32), np.array([1, np.inf], np.float32)
GIVEN = np.array([[0, 5], [-1, 0], [1, np.inf]], np.float32)


def test_copy_within_takes_what_lies_within() -> None:
    out = np.zeros((3, 2), np.float32)
    assert _native.copy_within(GIVEN, out, LOW, HIGH)
    assert np.array_equal(out, GIVEN)
    number = np.zeros(2, np.int64)
    assert _native.copy_within(np.array([3, 4]), number, np.array(3), np.array(4))
    assert number.tolist() == [3, 4]


@pytest.mark.parametrize(
    "given",
    [
        GIVEN.tolist(),
        GIVEN.astype(np.float64),
        GIVEN[:2],
        np.asfortranarray(GIVEN),
        GIVEN - np.float32(0.1),
        np.full((3, 2), np.nan, np.float32),
    ],
)
def test_copy_within_leaves_the_rest_to_python(given: Any) -> None:
    out = np.full((3, 2), 7, np.float32)
    assert not _native.copy_within(given, out, LOW, HIGH)
    assert (out == 7).all()


def test_copy_within_refuses_bounds_that_do_not_fit() -> None:
    with pytest.raises(TypeError, match="low and high"):
        _native.copy_within(GIVEN, np.zeros((3, 2), np.float32), LOW[:1], HIGH)


@pytest.fixture
def out() -> Outputs:
    return Outputs(Spec.of("Two", spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(2)), 3)


NEVER = np.zeros(3, np.bool_)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32, np.int64])
def test_tally_counts_returns_lengths_and_ends(out: Outputs, dtype: Any) -> None:
    tally = _native.Tally(out, clip_reward=True)
    assert tally.step(np.array([2, -3, 0], dtype), NEVER, NEVER, None, None) == 0
    assert out.reward.tolist() == [1, -1, 0]
    ended = np.array([False, True, False])
    assert tally.step(np.array([5, 1, 1], dtype), NEVER, ended, np.array([False, False, True]), None) == 1
    assert (out.reward.tolist(), out.valid.tolist()) == ([1, 1, 0], [True, True, False])
    assert (out.truncated.tolist(), out.terminated.any()) == (ended.tolist(), np.False_)
    assert (out.episode_return[1], out.episode_length[1]) == (-2, 2)
    assert (tally.returns.tolist(), tally.lengths.tolist()) == ([7, 0, 0], [2, 0, 1])


def test_tally_notices_lost_lives(out: Outputs) -> None:
    """A life less while the game goes on; not at its end, nor with the lives of the next game."""
    tally, points = _native.Tally(out, clip_reward=False), np.full(3, 2.0)
    tally.lives[:] = 3
    assert tally.step(points, NEVER, NEVER, None, np.array([3, 2, 3], np.int32)) == 2
    assert (out.terminated.tolist(), out.episode_length[1], tally.returns[1]) == ([False, True, False], 0, 2)
    ended = np.array([True, False, False])
    assert tally.step(points, ended, NEVER, None, np.array([1, 1, 0])) == 3
    assert (out.terminated.tolist(), out.episode_return[:2].tolist()) == ([True, True, False], [4, 0])
    assert tally.step(points, NEVER, NEVER, None, np.array([3, 1, 3])) == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"reward": [1.0, 1.0, 1.0]},
        {"reward": np.ones(2)},
        {"reward": np.ones(3, np.float16)},
        {"reward": np.array([1.0, np.nan, 1.0])},
        {"terminated": np.zeros(3)},
        {"truncated": np.zeros((3, 1), np.bool_)},
        {"only_reset": np.zeros(6, np.bool_)[::2]},
        {"lives": np.zeros(3, np.float32)},
    ],
)
def test_tally_leaves_the_rest_to_python(out: Outputs, changed: dict[str, Any]) -> None:
    tally = _native.Tally(out, clip_reward=False)
    usual = {"reward": np.ones(3), "terminated": NEVER, "truncated": NEVER, "only_reset": None, "lives": None}
    assert tally.step(**usual | changed) == -1
    assert not tally.lengths.any()
    assert not tally.returns.any()


def test_tally_refuses_outputs_that_do_not_fit(out: Outputs) -> None:
    out.valid = np.ones(4, np.bool_)
    with pytest.raises(TypeError, match="valid must be a contiguous array"):
        _native.Tally(out, clip_reward=False)
