"""Ratios and losses of tokens by hand: what they come to, which tokens get a gradient, and what stands off the mask."""

from __future__ import annotations

import math

import pytest
import torch

from shoal.math.losses import ppo_policy_loss
from shoal.math.token_losses import (
    clipped_surrogate,
    over_tokens,
    soft_gated_surrogate,
    weighted_policy_gradient,
)
from shoal.math.token_ratios import LARGEST_LOG, over_sequence, sequence_ratio, token_ratio

MASK = torch.tensor([[1, 0, 1], [1, 1, 0]]).bool()
OLD = torch.tensor([[-1.0, torch.nan, -2], [-3, -1, -torch.inf]])
NEW = OLD + torch.tensor([[2.0, 1, 8], [0.5, 1, 1]]).log()
"""Ratios 2 and 8, 1/2 and 1; what lies between and after them is not a number, or infinite."""


def gradient_of(x: torch.Tensor, loss: torch.Tensor) -> list[float]:
    return torch.autograd.grad(loss.sum(), x, retain_graph=True)[0].tolist()


def test_ratios_of_tokens_by_hand() -> None:
    logprob = NEW.clone().requires_grad_()
    ratio = token_ratio(logprob, OLD, MASK)
    torch.testing.assert_close(ratio.detach(), torch.tensor([[2.0, 1, 8], [0.5, 1, 1]]))
    found = torch.tensor(gradient_of(logprob, ratio))
    torch.testing.assert_close(found, torch.tensor([[2.0, 0, 8], [0.5, 1, 0]]))


def test_ratios_of_sequences_by_hand() -> None:
    """sqrt(2 * 8) = 4, sqrt(1/2 * 1). In the mean over a sequence each token's gradient is that of the mean: 4 / 2."""
    logprob = NEW.clone().requires_grad_()
    ratio = sequence_ratio(logprob, OLD, MASK)
    low = math.sqrt(0.5)
    torch.testing.assert_close(ratio.detach(), torch.tensor([[4, 1, 4], [low, low, 1]]))
    found = torch.tensor(gradient_of(logprob, ratio * MASK / 2))
    torch.testing.assert_close(found, torch.tensor([[2, 0, 2], [low / 2, low / 2, 0]]))
    # One token alone moves by its own probability, so that it may have an advantage of its own.
    assert torch.tensor(gradient_of(logprob, ratio[0, 2])).round(decimals=4).tolist() == [[0, 0, 4], [0, 0, 0]]
    log = torch.where(MASK, logprob - OLD, 0.0)
    whole = over_sequence(log, MASK, mean=True).exp()
    torch.testing.assert_close(whole.detach(), torch.tensor([4, low]))
    torch.testing.assert_close(torch.tensor(gradient_of(logprob, whole)).nan_to_num(), found)
    torch.testing.assert_close(over_sequence(log, MASK, mean=False).exp().detach(), torch.tensor([16, 0.5]))


def test_ratios_of_a_sequence_without_tokens_are_1() -> None:
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    logprob = torch.full((1, 2), -torch.inf, requires_grad=True)
    for ratio in (token_ratio(logprob, logprob.detach(), nothing), sequence_ratio(logprob, logprob.detach(), nothing)):
        assert ratio.tolist() == [[1, 1]]
        assert gradient_of(logprob, ratio) == [[0, 0]]


def test_ratios_do_not_overflow() -> None:
    """Beyond e^20 they are cut, and what is clipped has a gradient of 0, not of 0 times infinity."""
    logprob = torch.tensor([[-1.0, -1.0]], requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    for ratio in (token_ratio, sequence_ratio):
        found = ratio(logprob, torch.full((1, 2), -400.0), mask)
        torch.testing.assert_close(found.detach(), torch.full((1, 2), math.exp(LARGEST_LOG)))
        loss = clipped_surrogate(found, torch.tensor([[1.0, -1.0]]), eps_low=0.2, eps_high=0.2)
        assert gradient_of(logprob, loss) == [[0, 0]]


RATIO = torch.tensor([0.5, 1.0, 2.0, 2.0, 0.5, 8.0])
ADVANTAGE = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])


def test_clipped_surrogate_by_hand() -> None:
    """Clipped to 3/4 and 3/2: -min(1/2, 3/4), -1, -min(2, 3/2), -min(-2, -3/2), -min(-1/2, -3/4), -min(-8, -3/2)."""
    ratio = RATIO.clone().requires_grad_()
    loss = clipped_surrogate(ratio, ADVANTAGE, eps_low=0.25, eps_high=0.5)
    assert loss.tolist() == [-0.5, -1, -1.5, 2, 0.75, 8]
    assert gradient_of(ratio, loss) == [-1, -1, 0, 1, 0, 1]
    # With delta the last one is 3 and has no gradient; where A > 0 nothing changes.
    loss = clipped_surrogate(ratio, ADVANTAGE, eps_low=0.25, eps_high=0.5, delta=3)
    assert loss.tolist() == [-0.5, -1, -1.5, 2, 0.75, 3]
    assert gradient_of(ratio, loss) == [-1, -1, 0, 1, 0, 0]
    same = ppo_policy_loss(RATIO.log(), torch.zeros(6), ADVANTAGE, 0.25)
    torch.testing.assert_close(same, clipped_surrogate(RATIO, ADVANTAGE, eps_low=0.25, eps_high=0.25))


def test_soft_gate_by_hand() -> None:
    """Sigmoids of 0 are 1/2, of log 3 are 3/4; the slope at a ratio of 1 is that of the ratio."""
    ratio = torch.tensor([1, 1, 1 + math.log(3), 1 + math.log(3) / 2]).requires_grad_()
    advantage = torch.tensor([2.0, -1, 1, -1])
    loss = soft_gated_surrogate(ratio, advantage, steepness=1.0, steepness_below=2.0)
    # 4/1 * 1/2 * -2; 4/2 * 1/2 * 1; 4/1 * 3/4 * -1; 4/2 * 3/4 * 1.
    torch.testing.assert_close(loss.detach(), torch.tensor([-4.0, 1, -3, 1.5]))
    # 4 s (1 - s) of 1/2 and 3/4 is 1 and 3/4.
    torch.testing.assert_close(torch.tensor(gradient_of(ratio, loss)), torch.tensor([-2.0, 1, -0.75, 0.75]))


def test_weighted_policy_gradient_by_hand() -> None:
    """-w A log p, whose gradient is -w A also where the weight depends on the policy; nothing off the mask."""
    logprob = NEW.clone().requires_grad_()
    weight = token_ratio(logprob, OLD, MASK).clamp(max=4)
    loss = weighted_policy_gradient(logprob, torch.tensor([1.0, -2.0]), weight, MASK)
    expected = torch.tensor([[-2.0, 0, -4], [1, 2, 0]])
    torch.testing.assert_close(loss.detach(), torch.where(MASK, expected * NEW, 0.0))
    torch.testing.assert_close(torch.tensor(gradient_of(logprob, loss)), expected)
    # Where the surrogate clips, there is no gradient: the token of ratio 8 with A > 0, and that of 1/2 with A < 0.
    ratio = token_ratio(logprob, OLD, MASK)
    clipped = clipped_surrogate(ratio, over_tokens(torch.tensor([1.0, -2.0]), MASK), eps_low=0.2, eps_high=3)
    torch.testing.assert_close(torch.tensor(gradient_of(logprob, clipped)), torch.tensor([[-2.0, 0, 0], [0, 2, 0]]))


def test_advantages_of_tokens() -> None:
    assert over_tokens(torch.tensor([1.0, 2.0]), MASK).tolist() == [[1] * 3, [2] * 3]
    by_token = torch.arange(6.0).reshape(2, 3)
    assert over_tokens(by_token, MASK) is by_token


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"above 1 \+ eps_high = 1\.5, got 1\.2"):
        clipped_surrogate(RATIO, ADVANTAGE, eps_low=0.25, eps_high=0.5, delta=1.2)
    with pytest.raises(AssertionError):
        clipped_surrogate(RATIO, ADVANTAGE[:5], eps_low=0.25, eps_high=0.5)
    with pytest.raises(AssertionError):
        soft_gated_surrogate(RATIO, ADVANTAGE[:, None])
    with pytest.raises(AssertionError):
        token_ratio(NEW, OLD, MASK.float())
    with pytest.raises(AssertionError):
        token_ratio(NEW, OLD[:, :2], MASK)
    with pytest.raises(AssertionError):
        over_tokens(torch.ones(3), MASK)
    with pytest.raises(AssertionError):
        weighted_policy_gradient(NEW, torch.ones(2), torch.ones(2), MASK)
