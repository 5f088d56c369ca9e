"""What an algorithm says of its groups: a base of its settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from shoal.llm.sampler.protocol import Sampling
from shoal.types import check_ranges


@dataclass(frozen=True, slots=True)
class DrawsGroups:
    """A batch is num_prompts groups of num_generations answers."""

    num_prompts: int = 8
    """Prompts of a batch; more make the gradient less noisy."""
    num_generations: int = 8
    """Answers to each prompt; more make it likelier that some are better than others."""
    max_completion_length: int = 32
    """Tokens of an answer at most; what is longer is cut."""
    sampling: Sampling = field(default_factory=Sampling)
    """How tokens are drawn; log-probabilities are those of what could be drawn."""
    dynamic_sampling: bool = False
    """Replace groups whose answers all earn the same by others."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_ranges(
            self,
            num_prompts=(1, 2**16),
            num_generations=(2, 2**15),
            max_completion_length=(1, 2**20),
        )
