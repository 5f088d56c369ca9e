"""Gradients in shards: parts of a minibatch, each on a thread of its own, summed in order of their index."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from shoal.learn.minibatches import cut_steps
from shoal.nets.images import ImageEncoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from shoal.types import Steps

    PartLoss = Callable[[Steps], tuple[Tensor, list[Tensor]]]


def has_images(policy: nn.Module) -> bool:
    """Whether a policy has layers for images, whose gradients are worth threads of their own."""
    return any(isinstance(module, ImageEncoder) for module in policy.modules())


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory for the next minibatch: an eighth of an update was page faults."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # An older glibc refuses more than 32 MiB; without the first, the second would make it worse. Others have none.
    if mallopt and (
        mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 1 << 25)
    ):
        mallopt(M_TRIM_THRESHOLD, 1 << 30)


class Shards:
    """The gradient of a mean over n steps as the weighted sum of the gradients over contiguous parts.

    sum_k (n_k / n) * grad(mean over part k). The bits depend on the number of shards, never on that of threads.
    """

    def __init__(self, policy: nn.Module, shards: int, *, num_threads: int) -> None:
        """`num_threads` work on `shards` parts, each with one intra-op thread; only images on the CPU are cut up."""
        self._parameters = [p for p in policy.parameters() if p.requires_grad]
        there = {p.device.type for p in self._parameters}
        self._shards = shards if has_images(policy) and there == {"cpu"} else 1
        threads = min(self._shards, num_threads)
        self._pool: ThreadPoolExecutor | None = None
        if threads > 1:
            one_thread = partial(torch.set_num_threads, 1)
            self._pool = ThreadPoolExecutor(threads, initializer=one_thread)
        if self._shards > 1:
            keep_freed_memory()

    def parts(self, batch: Steps) -> list[Steps]:
        """A minibatch [1, M] cut into as many parts as there are shards, where it has that many steps."""
        size = batch.reward.shape[1]
        if self._shards == 1 or size < self._shards:
            return [batch]
        edges = [size * k // self._shards for k in range(self._shards + 1)]
        return [cut_steps(batch, slice(a, b)) for a, b in pairwise(edges)]

    def backward(self, loss: PartLoss, parts: list[Steps]) -> list[Tensor]:
        """Fills the parameters' gradients with those of the mean loss over all parts; returns the mean statistics.

        `loss(part)` gives the mean loss over a part's steps, and statistics that are means too.
        """
        if len(parts) == 1:
            whole, stats = loss(parts[0])
            for parameter in self._parameters:
                parameter.grad = None
            whole.backward()
            return [x.detach() for x in stats]
        work = partial(self._one, loss)
        done = list(self._pool.map(work, parts) if self._pool else map(work, parts))
        size = sum(part.reward.shape[1] for part in parts)
        weights = [part.reward.shape[1] / size for part in parts]
        for index, parameter in enumerate(self._parameters):
            total = done[0][0][index] * weights[0]
            for (gradients, _), weight in zip(done[1:], weights[1:], strict=True):
                total.add_(gradients[index], alpha=weight)
            parameter.grad = total
        means: list[Tensor] = []
        for column in zip(*(stats for _, stats in done), strict=True):
            weighted = [weight * x for weight, x in zip(weights, column, strict=True)]
            means.append(torch.stack(weighted).sum())
        return means

    def _one(
        self, loss: PartLoss, part: Steps
    ) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        value, stats = loss(part)
        gradients = torch.autograd.grad(value, self._parameters)
        return gradients, [x.detach() for x in stats]
