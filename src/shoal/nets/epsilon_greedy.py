"""Epsilon-greedy choice by the values of the actions: the distribution of a Q-network."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from shoal.nets.distributions import NEVER

if TYPE_CHECKING:
    from torch import Tensor


class EpsilonGreedy:
    """With probability epsilon any option alike, else the one of the highest value: values [..., n], actions [...]."""

    noise: ClassVar[str] = "uniform"
    noise_size = 1

    def __init__(
        self,
        values: Tensor,
        *,
        start: int = 0,
        epsilon: Tensor | None = None,
        quantiles: Tensor | None = None,
    ) -> None:
        """`start` is the space's first action; `epsilon` [...], 0 where none is given.

        `quantiles` [..., n, N] are those of the returns whose means the values are.
        """
        self.values, self.start, self.quantiles = values, start, quantiles
        self.settled: Tensor | None = None
        """Of a noisy network the values without noise [..., n], which `mode` goes by."""
        self._epsilon = epsilon

    @property
    def epsilon(self) -> Tensor:
        """How often any option is taken [...]; 0 where none was given."""
        shape = self.values.shape[:-1]
        if self._epsilon is None:
            return self.values.new_zeros(shape)
        return self._epsilon.to(self.values.dtype).expand(shape)

    def exploring(self, epsilon: Tensor) -> EpsilonGreedy:
        """The same with another `epsilon` [...]."""
        return EpsilonGreedy(self.values, start=self.start, epsilon=epsilon)

    def masked(self, mask: Tensor) -> EpsilonGreedy:
        """The same among the options where `mask` [..., n] is true."""
        values = self.values.masked_fill(~mask, NEVER)
        made = EpsilonGreedy(values, start=self.start, epsilon=self._epsilon)
        if self.settled is not None:
            made.settled = self.settled.masked_fill(~mask, NEVER)
        return made

    def sample(self, noise: Tensor) -> Tensor:
        """One number below 1 decides whether to explore, and where it does, which option is taken."""
        number, epsilon = noise.squeeze(-1), self.epsilon
        allowed = (self.values > NEVER / 2).to(self.values.dtype)
        options = allowed.sum(-1)
        share = number / torch.where(epsilon > 0, epsilon, 1.0)
        place = torch.minimum(share * options, options - 0.5)
        seen = allowed[..., :-1].cumsum(-1)
        explored = (seen <= place.unsqueeze(-1)).sum(-1)
        return torch.where(number < epsilon, explored, self.values.argmax(-1))

    def mode(self) -> Tensor:
        """The option of the highest value, without noise."""
        values = self.values if self.settled is None else self.settled
        return values.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log of epsilon / n, and 1 - epsilon more for the greedy option."""
        return self._probabilities().gather(-1, action.unsqueeze(-1)).squeeze(-1).log()

    def entropy(self) -> Tensor:
        """-sum p log p, with 0 log 0 = 0."""
        return -torch.xlogy(*[self._probabilities()] * 2).sum(-1)

    def to_env(self, action: Tensor) -> Tensor:
        """Counts from the space's start."""
        return action + self.start if self.start else action

    def from_env(self, action: Tensor) -> Tensor:
        """Counts from 0."""
        return action.long() - self.start

    def _probabilities(self) -> Tensor:
        allowed = (self.values > NEVER / 2).to(self.values.dtype)
        each = (self.epsilon / allowed.sum(-1)).unsqueeze(-1) * allowed
        best = torch.nn.functional.one_hot(self.values.argmax(-1), allowed.shape[-1])
        return each + best * (1 - self.epsilon).unsqueeze(-1)
