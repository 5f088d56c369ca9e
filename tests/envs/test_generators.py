"""The generators of Python environments: the bytes that are copied are the state that NumPy tells."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

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
