"""Targets and losses of Q-learning, by hand."""

import torch

from shoal.math.q_learning import best_action, huber, q_target, quantile_huber


def test_the_best_action_is_one_that_is_allowed() -> None:
    values = torch.tensor([[1.0, 5.0, 3.0], [4.0, 0.0, -2.0]])
    assert best_action(values).tolist() == [1, 0]
    mask = torch.tensor([[True, False, True], [False, False, True]])
    assert best_action(values, mask).tolist() == [2, 2]


def test_targets() -> None:
    """1 + 0.5 * 10 = 6; a termination has discount 0 and leaves the reward; quantiles move together."""
    reward, discount = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0])
    assert q_target(reward, discount, torch.tensor([10.0, 100.0])).tolist() == [6, 2]
    assert q_target(reward, discount, torch.tensor([[10.0, 20.0], [1.0, 9.0]])).tolist() == [[6, 11], [2, 2]]


def test_huber() -> None:
    """0.5 * 0.25 = 0.125; 2 - 0.5 = 1.5."""
    assert huber(torch.tensor([0.5, -0.5, 2.0, -2.0, 1.0])).tolist() == [0.125, 0.125, 1.5, 1.5, 0.5]


def test_quantile_huber() -> None:
    """Quantiles 0 (tau 1/4) and 1 (tau 3/4), target 3 and -1.

    u = 3, -1 for the first: 1/4 * 2.5 and |1/4 - 1| * 0.5, mean (0.625 + 0.375) / 2 = 0.5.
    u = 2, -2 for the second: 3/4 * 1.5 and |3/4 - 1| * 1.5, mean (1.125 + 0.375) / 2 = 0.75. Together 1.25.
    """
    loss = quantile_huber(torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, -1.0]]))
    assert loss.tolist() == [1.25]


def test_the_median_minimizes_the_quantile_loss() -> None:
    """Of 0, 0 and 9 the median is 0: at the mean, 3, the loss is greater."""
    target = torch.tensor([[0.0, 0.0, 9.0]])
    at_median, at_mean = (quantile_huber(torch.tensor([[x]]), target) for x in (0.0, 3.0))
    assert at_median < at_mean
