"""A deterministic action with noise around it: the distribution of a deterministic actor."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from shoal.nets.distributions import place_in

if TYPE_CHECKING:
    from torch import Tensor


class Deterministic:
    """An action in [-1, 1], scaled to a Box for the environment; exploring adds Gaussian noise and clips.

    Actions [..., D] are kept as they are in [-1, 1] (Fujimoto et al. 2018, arXiv 1802.09477, algorithm 1).
    """

    noise: ClassVar[str] = "normal"

    def __init__(
        self,
        action: Tensor,
        low: Tensor,
        high: Tensor,
        *,
        deviation: Tensor | None = None,
    ) -> None:
        """`low` and `high` [D] are the Box's bounds; `deviation` [...] is the noise's, 0 where none is given."""
        self.action, self.low, self.high = action, low, high
        self.deviation = deviation
        self.noise_size = action.shape[-1]

    def exploring(self, deviation: Tensor) -> Deterministic:
        """The same with noise of another deviation [...]."""
        return Deterministic(self.action, self.low, self.high, deviation=deviation)

    def sample(self, noise: Tensor) -> Tensor:
        """The action with noise [..., D], clipped to [-1, 1]."""
        if self.deviation is None:
            return self.action
        added = self.deviation.unsqueeze(-1) * noise
        return (self.action + added).clamp(-1, 1)

    def mode(self) -> Tensor:
        """The action without noise."""
        return self.action

    def log_prob(self, action: Tensor) -> Tensor:
        """0: there is no density that a loss could use."""
        return action.new_zeros(action.shape[:-1])

    def entropy(self) -> Tensor:
        """0, likewise."""
        return self.action.new_zeros(self.action.shape[:-1])

    def to_env(self, action: Tensor) -> Tensor:
        """Scaled to the Box; the clamp catches the last rounding."""
        low, high = self.low.to(action.device), self.high.to(action.device)
        return (low + 0.5 * (high - low) * (action + 1)).clamp(low, high)

    def from_env(self, action: Tensor) -> Tensor:
        """In [-1, 1]."""
        return place_in(action, self.low, self.high).clamp(-1, 1).float()
