"""After a push: whether an engine computes with the weights that it was given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from shoal.llm.layout import laid_out
from shoal.llm.logprobs import chosen_logprobs
from shoal.types import Answers, EnvError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.llm.model import LanguageModel

PROBE = 32
"""Tokens that are compared."""
STEP = 7919
"""A prime: the tokens are all over the vocabulary."""
LEAST = 1e-3
"""Nats by which an engine may always be off, on average."""
GROWTH = 5.0
"""How many times further off than after the first push it may be later."""


def probe_tokens(model: LanguageModel) -> list[int]:
    """Tokens that are compared after each push; always the same ones, so that what is off can be followed."""
    a = model.architecture
    count = max(2, min(PROBE, a.max_length - 1))
    return [(1 + number * STEP) % a.vocab_size for number in range(count)]


@torch.no_grad()
def prefill_logprobs(model: LanguageModel, token: Sequence[int]) -> list[float]:
    """The log-probability of each token but the first, given those before it, at temperature 1: the trainer's."""
    device = model.head.device
    rest = torch.tensor([list(token[1:])], device=device)
    zeros = torch.zeros(rest.shape, device=device)
    batch = Answers(
        prompt=torch.tensor([[token[0]]], device=device),
        prompt_length=torch.tensor([1], device=device),
        prompt_of=torch.tensor([0], device=device),
        token=rest,
        mask=torch.ones(rest.shape, dtype=torch.bool, device=device),
        logprob=zeros,
        version=zeros.long(),
        reward=torch.zeros(1, device=device),
        truncated=torch.zeros(1, dtype=torch.bool, device=device),
    )
    laid = laid_out(batch)
    hidden = model.model(laid)
    logprob, _ = chosen_logprobs(
        hidden[laid.source], model.head, laid.target, None, 1.0
    )
    return laid.spread(logprob, rest.shape)[0].tolist()


@dataclass(slots=True)
class PrefillCheck:
    """How far an engine's log-probabilities are from the trainer's, push by push.

    An engine that rounds more coarsely (bfloat16) is off from the first push on, and by as much later. One that goes
    on with older weights somewhere is off by more with every push.
    """

    engine: str
    """As messages call it."""
    tolerance: float
    """Nats by which it may be off, on average, whatever it was before."""
    first: float | None = None
    """By how much it was off after the first push."""
    last: float = 0.0
    """And after the last one."""

    def compare(
        self, version: int, theirs: Sequence[float], ours: Sequence[float]
    ) -> None:
        """Compares the log-probabilities of some tokens after a push.

        Raises:
            EnvError: the engine is further off than it may be.
        """
        off = float(np.abs(np.subtract(theirs, ours)).mean())
        limit = self.tolerance
        if self.first is not None:
            limit = min(limit, max(LEAST, GROWTH * self.first))
        if not off <= limit:
            raise EnvError(self._message(version, off, limit, len(ours)))
        self.last = off
        if self.first is None:
            self.first = off

    def _message(self, version: int, off: float, limit: float, count: int) -> str:
        before = ""
        if self.first is not None:
            before = f" ({self.first:.2g} after the first push)"
        return (
            f"{self.engine} does not compute with the weights of version {version} that it was given: the "
            f"log-probabilities of {count} tokens are off by {off:.3g} on average{before}, and may be by {limit:.2g}. "
            "Engines were seen to keep an older output head where it is the embedding (tie_word_embeddings): renew it "
            "there, or take an engine that does. Is it another model, or does it round coarsely (bfloat16, "
            "quantization)? Serve the run's model in float32, or raise language.engine_tolerance"
        )
