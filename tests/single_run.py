"""A run without a directory: a given number of updates, every logged number kept, nothing else around them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from shoal.learn.acting import Acting
from shoal.stream.meter import Meter


class SingleRun:
    """What an algorithm asks of a run: its settings, `rng`, `acting`, `loop` and `log`."""

    def __init__(self, updates: int = 1, *, seed: int = 1, native: bool = True) -> None:
        """`updates`: rollouts until the loop ends."""
        self.seed, self.device, self.updates, self.native = seed, "cpu", updates, native
        self.settings = self
        self.meter = Meter()
        self.rng = np.random.default_rng(seed)
        self.logged: dict[str, list[float]] = {}

    def acting(self, act_block: int) -> Acting:
        """How the policy acts."""
        return Acting(self.seed, native=self.native, act_block=act_block)

    def log(self, stats: dict[str, Any]) -> None:
        """Keeps every number."""
        for name, value in stats.items():
            number = value.detach() if isinstance(value, torch.Tensor) else value
            self.logged.setdefault(name, []).append(float(number))

    def loop(self, stream: Any, **_: Any) -> Iterator[Any]:
        """So many batches."""
        return (next(stream) for _ in range(self.updates))
