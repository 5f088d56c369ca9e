"""Actions of an environment as policies keep them: the inverse of `to_env`, for every kind of action."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.nets.deterministic import Deterministic
from shoal.nets.distributions import Normal, SquashedNormal, from_env
from shoal.nets.epsilon_greedy import EpsilonGreedy
from shoal.nets.heads import deviations, head, head_size
from shoal.types import ConfigError, map_tree

LOW, HIGH = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 10.0])
NESTED = spaces.Dict(
    {
        "move": spaces.Box(-1, 3, (2, 2)),
        "tool": spaces.Discrete(3, start=5),
        "keys": spaces.MultiBinary(3),
        "dials": spaces.Tuple([spaces.MultiDiscrete([2, 4], start=[1, -1])]),
    }
)


def test_a_squashed_action_by_hand() -> None:
    """0 of [-2, 2] is tanh 0 = 0; 7.5 of [0, 10] is half of the way up: tanh x = 0.5, so x = log(3) / 2."""
    kept = SquashedNormal(torch.zeros(2), torch.zeros(2), LOW, HIGH).from_env(torch.tensor([0.0, 7.5]))
    assert kept.tolist() == pytest.approx([0.0, 0.5 * np.log(3)], abs=1e-6)


def test_actions_at_the_bounds_are_finite() -> None:
    """Those that tanh never reaches come back within a millionth of the Box's half."""
    squashed = SquashedNormal(torch.zeros(2), torch.zeros(2), LOW, HIGH)
    for bound in (LOW, HIGH):
        kept = squashed.from_env(bound)
        assert kept.abs().tolist() == pytest.approx([7.2543, 7.2543], abs=1e-3)
        assert torch.allclose(squashed.to_env(kept), bound, atol=1e-5)


def test_a_deterministic_action_by_hand() -> None:
    kept = Deterministic(torch.zeros(2), LOW, HIGH).from_env(torch.tensor([1.0, 10.0]))
    assert kept.tolist() == [0.5, 1.0]


def test_a_box_of_one_value() -> None:
    one = torch.tensor([3.0])
    for kind in (SquashedNormal(torch.zeros(1), torch.zeros(1), one, one), Deterministic(torch.zeros(1), one, one)):
        assert kind.from_env(one).tolist() == [0.0]
        assert kind.to_env(kind.from_env(one)).tolist() == [3.0]


def test_values_count_from_zero() -> None:
    assert EpsilonGreedy(torch.zeros(3), start=-1).from_env(torch.tensor([-1, 1])).tolist() == [0, 2]


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-2, 5, (3,)),
        spaces.Box(-2, 5, (3,), np.float64),
        spaces.Discrete(4, start=-2),
        spaces.MultiDiscrete([3, 2], start=[0, 7]),
        NESTED,
    ],
)
def test_an_action_comes_back(space: Any, *, squash: bool) -> None:
    """`to_env(from_env(action))` is the action, whatever the network said."""
    generator = torch.Generator().manual_seed(3)
    numbers = torch.randn((50, head_size(space)), generator=generator)
    log_std = torch.zeros((50, deviations(space))) if deviations(space) else None
    distribution = head(space, squash=squash)(numbers, log_std)
    space.seed(4)
    samples = [space.sample() for _ in range(50)]
    stacked = stack(samples)
    back = distribution.to_env(from_env(distribution, map_tree(torch.as_tensor, stacked)))
    map_tree(lambda now, was: np.testing.assert_allclose(now, was, atol=2e-5), back, stacked)


def stack(samples: list[Any]) -> Any:
    first = samples[0]
    if isinstance(first, dict):
        return {key: stack([sample[key] for sample in samples]) for key in first}
    if isinstance(first, tuple):
        return tuple(stack([sample[at] for sample in samples]) for at in range(len(first)))
    return np.stack(samples)


def test_a_gaussian_keeps_actions_as_they_are() -> None:
    normal = Normal(torch.zeros(2), torch.zeros(2), LOW, HIGH)
    assert normal.from_env(torch.tensor([1.5, 3.0], dtype=torch.float64)).dtype == torch.float32


def test_a_distribution_without_an_inverse() -> None:
    class Own:
        noise, noise_size = "uniform", 1

    with pytest.raises(ConfigError, match="from_env"):
        from_env(Own(), torch.zeros(1))  # pyright: ignore[reportArgumentType]
