"""Sharing: one network's gradient as the mean over ranks, and with it what its loss says."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from shoal.learn.losses import prepare_of
from shoal.learn.minibatches import Minibatch
from shoal.types import Transitions

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from shoal.learn.losses import Loss
    from shoal.learn.ranks import Ranks

WEIGHED = 1.0
"""What a rank weighs where nobody can tell how many samples its batch has."""


class Sharing:
    """What a network's next step shares with the same network on the other ranks; nothing where there are none."""

    def __init__(self, ranks: Ranks | None) -> None:
        """With these."""
        self.ranks = ranks
        self._weight: float | None = WEIGHED
        """Of this rank in the mean; None where ranks have parts of one sum."""
        self._stats: Any = ()

    def around(
        self, step: Callable[[], float], stats: tuple[Any, ...], batch: Any = None
    ) -> tuple[Any, float]:
        """Takes a step on the gradient of a batch.

        Args:
            step: takes it, and gives the gradient's norm; it asks `mean` for the gradient.
            stats: what the loss says of this rank's batch: means over its samples.
            batch: the batch; None where nobody can tell how many samples it has.

        Returns:
            The statistics over all ranks, and the norm.
        """
        self._stats = stats
        if self.ranks is not None:
            self._weight = samples_of(batch)
        norm = step()
        return self._stats, norm

    def around_sum(
        self, step: Callable[[], float], stats: tuple[Any, ...]
    ) -> tuple[Any, float]:
        """As `around`, where the losses, statistics and gradients of all ranks add up to those of the batch."""
        self._stats, self._weight = stats, None
        norm = step()
        return self._stats, norm

    def mean(self, gradient: Tensor) -> None:
        """Makes a gradient [n], in place, the mean over all ranks' samples, and the statistics with it; or the sum."""
        if self.ranks is None:
            return
        said = [torch.as_tensor(x).reshape(1) for x in self._stats]
        count = len(gradient)
        whole = torch.cat([gradient, *(x.to(gradient) for x in said)])
        if self._weight is None:
            self.ranks.sum(whole)
        else:
            self.ranks.mean(whole, self._weight)
        gradient.copy_(whole[:count])
        if said:
            self._stats = self._stats._make(whole[count:].unbind())

    def mean_of(self, parameters: list[nn.Parameter]) -> None:
        """`mean` of the gradients that some parameters have; the others have none on any rank."""
        if self.ranks is None:
            return
        reached = [p.grad for p in parameters if p.grad is not None]
        if not reached:
            return
        flat = torch.cat([x.detach().reshape(-1).float() for x in reached])
        self.mean(flat)
        first = 0
        for gradient in reached:
            last = first + gradient.numel()
            gradient.copy_(flat[first:last].view_as(gradient))
            first = last


def samples_of(batch: Any) -> float:
    """How many samples the mean of a loss over a batch is of: the steps that count, or transitions."""
    if isinstance(batch, Minibatch):
        if batch.whole_rows:
            return float(batch.steps.valid[:, batch.index].sum())  # pyright: ignore[reportAttributeAccessIssue]
        return float(batch.index.size)
    if isinstance(batch, Transitions):
        return float(len(batch.key))
    valid = getattr(batch, "valid", None)
    return WEIGHED if valid is None else float(valid.sum())


def prepared_batch(loss: Loss, batch: Any, cfg: Any, ranks: Ranks | None) -> Any:
    """A batch as its loss wants it, before it is cut into parts; see `prepared`.

    A `prepare` that takes `ranks` sees the whole minibatch of all of them, any other this rank's share.
    """
    prepare = prepare_of(loss)
    if prepare is None:
        return batch
    if ranks is not None and _takes_ranks(prepare):
        whole: Any = prepare
        return whole(batch, cfg, ranks=ranks)
    return prepare(batch, cfg)


@lru_cache
def _takes_ranks(prepare: Callable[..., Any]) -> bool:
    return "ranks" in inspect.signature(prepare).parameters
