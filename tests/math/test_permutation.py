"""The permutation test beside the enumeration of all splits, and what it says where nothing differs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from shoal.math.permutation import check_reachable, permutation_test
from shoal.types import ConfigError


def exact(better: list[float], worse: list[float]) -> float:
    """The share of all splits whose first part has as large a sum."""
    both = [*better, *worse]
    splits = list(combinations(range(len(both)), len(better)))
    return sum(sum(both[i] for i in split) >= sum(better) for split in splits) / len(splits)


@pytest.mark.parametrize(
    ("better", "worse"), [([2, 3], [0, 1]), ([1, 4, 4], [0, 2, 3]), ([5, 5, 5, 5], [1, 1, 1, 9]), ([0, 1], [2, 3])]
)
def test_p_values_are_those_of_all_splits(better: list[float], worse: list[float]) -> None:
    """Two and three of ours above both of theirs: 1 of 6 splits, and so on; 20,000 are drawn."""
    p_value = permutation_test(np.array(better), np.array(worse), level=5e-4, rng=np.random.default_rng(1))
    assert p_value == pytest.approx(exact(better, worse), abs=0.015)


def test_equal_samples_are_never_told_apart() -> None:
    same = np.array([0.1, 0.2, 0.3, 0.7])
    assert permutation_test(same, same[::-1], level=0.2, rng=np.random.default_rng(1)) > 0.2
    assert permutation_test(np.ones(5), np.ones(5), level=0.01, rng=np.random.default_rng(1)) == 1


def test_samples_apart_come_to_the_least_p_value() -> None:
    """Of 184,756 splits of ten and ten one is as extreme; 10,000 are drawn."""
    p_value = permutation_test(np.arange(10.0) + 20, np.arange(10.0), level=1e-3, rng=np.random.default_rng(1))
    assert p_value <= 2 / 10_001


def test_the_level_is_kept_on_skewed_samples() -> None:
    """Mostly 1, now and then -99: p <= 0.1 in at most a tenth of 400 pairs, and three deviations."""
    rng = np.random.default_rng(1)
    samples = np.where(rng.random((400, 2, 10)) < 0.2, -99.0, 1.0) + 0.01 * rng.random((400, 2, 10))
    found = sum(permutation_test(a, b, level=0.1, rng=rng) <= 0.1 for a, b in samples)
    assert found <= 40 + 3 * np.sqrt(400 * 0.09)


def test_samples_that_are_too_small_are_refused() -> None:
    """Of 4 and 4 there are 70 splits, of 5 and 5 252."""
    check_reachable(5, 0.005, "episodes")
    with pytest.raises(ConfigError, match=r"episodes=4 is too few .* is 1 / 70, and 0.005 .* at least 5"):
        check_reachable(4, 0.005, "episodes")
