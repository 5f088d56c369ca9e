"""Where and how gradients are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from shoal.learn.ranks import Ranks

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where and how gradients are computed; the number of threads changes no bit."""

    device: torch.device = CPU
    native: bool = True
    """Run networks in native code where that is supported."""
    num_threads: int = 1
    act_block: int = 64
    """Rows per forward pass when acting."""
    grad_shards: int = 2
    """Shards of a minibatch whose gradients are computed separately and summed in order."""
    micro_tokens: int = 16_384
    """Tokens of a batch of answers whose gradient is computed at a time."""
    shard: bool = False
    """Whether language models lie in parts on all ranks."""
    ranks: Ranks | None = None
    """The processes that gradients are the mean over, where this is one of several."""
