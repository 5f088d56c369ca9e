"""Answers: what a language model said to prompts, in groups, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Answers:
    """S answers of at most L tokens to P prompts of at most K; rows are filled from the left, the rest is padding.

    In an answer of several turns the tokens that came from outside (a tool's output) stand between the model's own, and
    `mask` is false there. What an algorithm adds (`advantage`, `weight`) is None as the stream gives it.
    """

    prompt: Tensor
    """Tokens [P, K], int64."""
    prompt_length: Tensor
    """[P], int64: at least 1."""
    prompt_of: Tensor
    """Which prompt each answer is to [S], int64, ascending: answers of one group stand side by side."""
    token: Tensor
    """Tokens [S, L], int64."""
    mask: Tensor
    """Which of them the model chose itself [S, L], bool: those are learned."""
    logprob: Tensor
    """Log-probability of each under the weights that chose it, within what was kept [S, L], float32; 0 elsewhere."""
    version: Tensor
    """Which weights chose it [S, L], int64; 0 elsewhere."""
    reward: Tensor
    """[S], float32."""
    truncated: Tensor
    """Whether the answer was cut at its most tokens [S], bool."""
    kept: Tensor | None = None
    """The tokens that were not cut off by top-k, top-p or min-p, a bit each [S, L, ceil(V / 8)], uint8, lowest bit
    first; None where every token could be drawn."""
    player: Tensor | None = None
    """Which player of a game each answer is the part of [S], int64; None where the task is no game."""
    routing: Tensor | None = None
    """Of a mixture of experts those that chose each, by layer [S, L, layers, experts], int16: where the token before it
    went to; -1 where that is not known. None where nothing is."""
    prompt_routing: Tensor | None = None
    """Those that the prompts' tokens went to [P, K, layers, experts], int16; -1 where that is not known."""
    age: Tensor | None = None
    """How many versions before the newest ones the weights that chose each were [S, L], int64; 0 elsewhere."""
    advantage: Tensor | None = None
    """[S] or [S, L], float32."""
    weight: Tensor | None = None
    """What each token counts in the loss, over the whole batch [S, L], float32."""
    share: Tensor | None = None
    """What it counts in statistics: equal shares of the tokens that are learned, 1 in sum over the batch [S, L]."""
    proximal_logprob: Tensor | None = None
    """Log-probabilities under the weights that the update began with [S, L], float32."""
    reference_logprob: Tensor | None = None
    """Those under the reference model [S, L], float32."""

    def __len__(self) -> int:
        """S."""
        return len(self.token)

    @property
    def turns(self) -> Tensor:
        """Turns of the model in each answer [S]: stretches of its own tokens."""
        begins = self.mask.clone()
        begins[:, 1:] &= ~self.mask[:, :-1]
        return begins.sum(1)

    @property
    def length(self) -> Tensor:
        """Tokens of each answer [S], the model's own and others."""
        positions = self.mask.shape[1] - self.mask.flip(1).int().argmax(1)
        return positions * self.mask.any(1)
