"""Settings of language models that are a run's, not an algorithm's."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from shoal.types import ConfigError, check_ranges


@dataclass(frozen=True, slots=True)
class Language:
    """How a language model samples, how its answers are judged, how its gradients are computed."""

    slots: int = 64
    """Answers that are drawn at a time; more use matrix products better and take more memory for keys and values."""
    after_publish: Literal["keep", "refill"] = "keep"
    """What answers under way do when weights change: keep the keys and values of older weights, or read all anew."""
    micro_tokens: int = 16_384
    """Tokens whose gradient is computed at a time; fewer take less memory. Changes rounding alone."""
    scorer_workers: int = 0
    """Processes that judge answers; 0: the training process does."""
    scorer_timeout_s: float = 30.0
    """Seconds that judging one answer may take, where processes judge."""
    scorer_retries: int = 2
    """How often an answer is judged again after a failure."""
    on_scorer_failure: Literal["raise", "zero", "drop"] = "raise"
    """Where judging an answer goes on failing: end the run, give it 0, or leave the answer out."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_ranges(self, slots=(1, 65_536), micro_tokens=(1, inf))
        check_ranges(self, scorer_workers=(0, 1024), scorer_retries=(0, 100))
        if not 0 < self.scorer_timeout_s < inf:
            raise ConfigError(
                f"scorer_timeout_s must be above 0, got {self.scorer_timeout_s}"
            )
