"""What a sampler's process is told where vLLM draws in it; vLLM is imported there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.llm.engines.in_process import VllmSampler
    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.protocol import Drawing

START_S = 600.0
"""Seconds that it may take to begin."""


@dataclass(frozen=True, slots=True)
class VllmInside:
    """vLLM in the process that draws."""

    options: tuple[str, ...]
    """Of vLLM's server, as it takes them."""
    tolerance: float
    """Nats by which its log-probabilities may be off on average, after a push."""

    def sampler(
        self, model: LanguageModel, drawing: Drawing, *, slots: int, refill: bool
    ) -> VllmSampler:
        """Starts it, with the model's weights."""
        from shoal.llm.engines.in_process import VllmSampler

        return VllmSampler(
            model,
            drawing,
            slots=slots,
            refill=refill,
            tolerance=self.tolerance,
            options=self.options,
        )
