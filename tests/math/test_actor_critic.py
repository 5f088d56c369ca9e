"""Targets and losses of actors beside critics, by hand."""

import torch

from shoal.math.actor_critic import critic_loss, smoothed, soft_value


def test_soft_values() -> None:
    """10 - 0.2 * -5 = 11: what is less probable is worth more."""
    value = soft_value(torch.tensor([10.0, 2.0]), torch.tensor([-5.0, 0.0]), torch.tensor([0.2]))
    torch.testing.assert_close(value, torch.tensor([11.0, 2.0]))


def test_the_critics_loss() -> None:
    """Of the first critic (0.5 * 1 + 2 * 0.5 * 4) / 2 = 2.25, of the second (0.5 * 4 + 0) / 2 = 1: together 3.25."""
    values = torch.tensor([[1.0, 3.0], [2.0, 1.0]])
    assert critic_loss(values, torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0])).item() == 3.25


def test_smoothing_clips_the_noise_and_then_the_action() -> None:
    """0.5 + 0.2 = 0.7; noise of 2 * 0.4 is clipped to 0.5, 0.9 + 0.5 to 1."""
    action, noise = torch.tensor([[0.5, 0.9, -0.4]]), torch.tensor([[0.5, 2.0, -9.0]])
    torch.testing.assert_close(smoothed(action, noise, 0.4, clip=0.5), torch.tensor([[0.7, 1.0, -0.9]]))
