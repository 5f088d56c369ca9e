"""Where and how gradients are computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where and how gradients are computed; the number of threads changes no bit."""

    device: torch.device = CPU
    native: bool = True
    """Lower networks to native code where that is possible."""
    num_threads: int = 1
    act_block: int = 64
    """Rows in one forward while acting."""
    grad_shards: int = 2
    """Parts of a minibatch whose gradients are computed apart and summed in order."""
