"""The generators of Python environments: the bytes that are copied are the state that NumPy tells."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shoal import _native
from shoal.envs.generators import Generators, set_generator, spelled_out, state_of


@pytest.mark.parametrize("draws", [0, 1, 2, 1001])
def test_the_state_equals_numpys(draws: int) -> None:
    generator = np.random.Generator(np.random.PCG64(7))
    generator.integers(10, size=draws, dtype=np.int32)
    env: Any = SimpleNamespace(np_random=generator)
    start = Generators([env]).start_of(0)
    assert spelled_out(start) == {"generator": generator.bit_generator.state}


def test_a_generator_put_back_draws_the_same() -> None:
    env: Any = SimpleNamespace(np_random=np.random.Generator(np.random.PCG64(3)))
    generators = Generators([env])
    env.np_random.integers(10, dtype=np.int32)
    start = generators.start_of(0)
    drawn = env.np_random.random(5).tolist()
    for form in (start["generator"], state_of(start["generator"])):
        set_generator(env, form)
        assert env.np_random.random(5).tolist() == drawn
        assert generators.start_of(0) != start, "the new generator is read, not the one before"


def test_other_generators_have_no_start() -> None:
    for other in (None, np.random.RandomState(1), np.random.Generator(np.random.MT19937(1))):
        env: Any = SimpleNamespace(np_random=other)
        assert Generators([env]).start_of(0) == {}


def test_gather_copies_rows_and_rewards() -> None:
    obs, reward = np.zeros((2, 3), np.float32), np.zeros(2)
    seen = [np.array([1, 2, 3], np.float32), np.array([4, 5, 6], np.float32)]
    assert _native.gather(seen, [0.5, 2], obs, reward)
    assert obs.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert reward.tolist() == [0.5, 2.0]


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
    ],
)
def test_gather_leaves_the_rest_to_python(row: Any, reward: Any) -> None:
    good = np.zeros(3, np.float32)
    assert not _native.gather([good, row], [1.0, reward], np.zeros((2, 3), np.float32), np.zeros(2))


def test_gather_refuses_targets_that_do_not_fit() -> None:
    good, reward = [np.zeros(3, np.float32)], np.zeros(1)
    with pytest.raises(ValueError, match="as many rows"):
        _native.gather(good, [1.0], np.zeros((2, 3), np.float32), reward)
    with pytest.raises(ValueError, match="as many rows"):
        _native.gather(good, [1.0, 2.0], np.zeros((1, 3), np.float32), reward)
    with pytest.raises(TypeError, match="obs must be a contiguous, writable array"):
        _native.gather(good, [1.0], np.zeros((1, 6), np.float32)[:, ::2], reward)


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
