"""Corrections: what answers of older weights count in a loss of the newest ones."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Literal

import torch

from shoal.math.token_corrections import importance_weights, off_policy_mask
from shoal.types import ConfigError, check_ranges

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.types import Answers


@dataclass(frozen=True, slots=True)
class Correction:
    """How the ratio of the weights that learn to those that chose a token enters its loss."""

    outside: Literal["truncate", "mask", "none"] = "truncate"
    """Ratios beyond `bound` are cut to it, or their tokens teach nothing (IcePop); none: every ratio counts as 1."""
    bound: float = 2.0
    """Where that begins; more corrects more, and is noisier."""
    level: Literal["token", "sequence", "mean"] = "token"
    """Whose ratio: each token's; its answer's, the product; or the geometric mean of its answer's tokens."""
    off_policy_bound: float = 0.0
    """Leave out answers that earned less than their group and became so much less likely, in nats a token; 0: none."""
    version_decay: float = 1.0
    """What a token keeps of its weight with each version that it is old; 0: only the newest weights' tokens teach."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_ranges(self, bound=(1, inf), off_policy_bound=(0, inf))
        if not 0 <= self.version_decay <= 1:
            raise ConfigError(
                f"correction.version_decay must lie between 0 and 1, got {self.version_decay}"
            )


def correction_weights(how: Correction, proximal: Tensor, batch: Answers) -> Tensor:
    """The weight of each token of a batch with advantages [S, L], without gradients.

    Args:
        how: which corrections.
        proximal: log-probabilities under the weights that the update began with [S, L].
        batch: its `logprob` is that of the weights that chose.
    """
    mask = batch.mask
    weight = torch.ones_like(proximal)
    if how.outside != "none":
        weight = importance_weights(
            proximal,
            batch.logprob,
            mask,
            level=how.level,
            outside=how.outside,
            most=how.bound,
        )
    if how.off_policy_bound and batch.advantage is not None:
        left = off_policy_mask(
            proximal, batch.logprob, batch.advantage, mask, bound=how.off_policy_bound
        )
        weight = weight * left
    if how.version_decay < 1 and batch.age is not None:
        weight = weight * how.version_decay**batch.age
    return weight
