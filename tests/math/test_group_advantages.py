"""Advantages of answers to the same prompts, by hand and against loops over groups."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from shoal.math.group_advantages import (
    group_advantage,
    has_signal,
    leave_one_out,
    whitened_advantage,
)

REWARD = torch.tensor([3.0, 2, 0, 6, 0, 5])
GROUP = torch.tensor([4, -9, 4, -9, 4, 2])
"""3, 0 and 0 of mean 1; 2 and 6 of mean 4; 5 alone."""


def test_group_advantage_by_hand() -> None:
    """Less the mean 2, -1, -1 (squares 6, over two 3); -2, 2 (squares 8, over one 8); nothing to compare."""
    found = group_advantage(REWARD, GROUP, scale="none")
    assert found.tolist() == [2, -2, -1, 2, -1, 0]
    found = group_advantage(REWARD, GROUP, eps=1.0)
    one, two = math.sqrt(3) + 1, math.sqrt(8) + 1
    torch.testing.assert_close(found, torch.tensor([2 / one, -2 / two, -1 / one, 2 / two, -1 / one, 0]))
    # All six: sum 16, squares 74 - 16^2 / 6 = 94 / 3, over five 94 / 15.
    found = group_advantage(REWARD, GROUP, scale="batch", eps=1.0)
    torch.testing.assert_close(found, torch.tensor([2.0, -2, -1, 2, -1, 0]) / (math.sqrt(94 / 15) + 1))


def test_leave_one_out_by_hand() -> None:
    """3 - 0; 2 - 6; 0 - 3/2; 6 - 2; 0 - 3/2; nobody else."""
    assert leave_one_out(REWARD, GROUP).tolist() == [3, -4, -1.5, 4, -1.5, 0]


def test_signal() -> None:
    assert has_signal(REWARD, GROUP).tolist() == [True] * 5 + [False]
    assert has_signal(torch.tensor([1.0, 1, 1, 2]), torch.tensor([0, 0, 1, 1])).tolist() == [False, False, True, True]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("eps", [0.0, 1e-4])
def test_without_signal_nothing_is_left(scale: Any, eps: float) -> None:
    """The mean of seven times 0.1 is not 0.1 in float32; what is left of it would be scaled up."""
    reward = torch.tensor([0.1] * 7 + [0.0, 1.0])
    assert reward[:7].sum() / 7 != reward[0]
    group = torch.tensor([0] * 7 + [1] * 2)
    assert group_advantage(reward, group, scale=scale, eps=eps)[:7].tolist() == [0] * 7
    assert leave_one_out(reward, group)[:7].tolist() == [0] * 7
    assert group_advantage(reward[:7], group[:7], scale=scale, eps=eps).tolist() == [0] * 7
    mask = torch.ones(7, 3, dtype=torch.bool)
    assert whitened_advantage(reward[:7], mask).tolist() == [[0] * 3] * 7


def test_groups_against_loops() -> None:
    """Groups of one to many, mixed, with ids that are no places."""
    rng = np.random.default_rng(0)
    reward, group = rng.standard_normal(40), rng.choice([-5, 0, 3, 7, 10**9, 8, 9, 11], 40)
    expected = {name: np.zeros(40) for name in ("group", "batch", "none", "others")}
    for i in range(40):
        own = reward[group == group[i]]
        others = [reward[j] for j in range(40) if j != i and group[j] == group[i]]
        if others:
            less = reward[i] - own.mean()
            expected["none"][i] = less
            expected["group"][i] = less / (own.std(ddof=1) + 1e-4)
            expected["batch"][i] = less / (reward.std(ddof=1) + 1e-4)
            expected["others"][i] = reward[i] - np.mean(others)
    given = torch.from_numpy(reward).float(), torch.from_numpy(group)
    scales: tuple[Any, ...] = ("group", "batch", "none")
    for scale in scales:
        found = group_advantage(*given, scale=scale)
        np.testing.assert_allclose(found.numpy(), expected[scale], atol=1e-5)
    np.testing.assert_allclose(leave_one_out(*given).numpy(), expected["others"], atol=1e-5)


def test_whitening_by_hand() -> None:
    """Tokens 1, 1, -1 and 5 of mean 3/2: squares 1/4 + 1/4 + 25/4 + 49/4 = 19, over three."""
    mask = torch.tensor([[1, 1, 0], [0, 0, 1], [0, 1, 0]]).bool()
    deviation = math.sqrt(19 / 3)
    expected = torch.tensor([[-0.5, -0.5, 0], [0, 0, -2.5], [0, 3.5, 0]]) / deviation
    torch.testing.assert_close(whitened_advantage(torch.tensor([1.0, -1, 5]), mask), expected)
    by_token = torch.tensor([[1.0, 1, math.nan], [math.inf, -7, -1], [9, 5, 9]])
    torch.testing.assert_close(whitened_advantage(by_token, mask), expected)
    # The baseline is the group's, the scale the batch's: 1 and -1 of two tokens and one, mean 1/3, squares 8/3 over 2.
    centered = group_advantage(torch.tensor([3.0, 1]), torch.tensor([0, 0]), scale="none")
    found = whitened_advantage(centered, mask[:2])
    torch.testing.assert_close(found, torch.tensor([[2 / 3, 2 / 3, 0], [0, 0, -4 / 3]]) / math.sqrt(4 / 3))


def test_what_does_not_fit_is_refused() -> None:
    wrong: Any = "std"
    with pytest.raises(ValueError, match="got 'std'"):
        group_advantage(REWARD, GROUP, scale=wrong)
    with pytest.raises(AssertionError):
        group_advantage(REWARD, GROUP[:5])
    with pytest.raises(AssertionError):
        leave_one_out(REWARD[:, None], GROUP[:, None])
    with pytest.raises(AssertionError):
        whitened_advantage(REWARD, torch.ones(5, 2, dtype=torch.bool))
