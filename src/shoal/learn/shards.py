"""Gradients in shards: parts of a minibatch, each on a thread of its own, summed in order of their index."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from shoal.nets.images import ImageEncoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    Loss = Callable[[slice], tuple[Tensor, list[Tensor]]]


def has_images(policy: nn.Module) -> bool:
    """Whether a policy has layers for images, whose gradients are worth threads of their own."""
    return any(isinstance(module, ImageEncoder) for module in policy.modules())


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's malloc.h."""


def keep_pages() -> None:
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
        self._pool = (
            ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1))
            if threads > 1
            else None
        )
        if self._shards > 1:
            keep_pages()

    def backward(self, loss: Loss, size: int) -> list[Tensor]:
        """Fills the parameters' gradients with those of the mean loss over `size` steps; returns the mean statistics.

        `loss(part)` gives the mean loss over the steps of `part`, and statistics that are means too.
        """
        if self._shards == 1 or size < self._shards:
            whole, stats = loss(slice(0, size))
            for parameter in self._parameters:
                parameter.grad = None
            whole.backward()
            return [x.detach() for x in stats]
        edges = [size * k // self._shards for k in range(self._shards + 1)]
        parts = [slice(a, b) for a, b in pairwise(edges)]
        work = partial(self._one, loss)
        done = list(self._pool.map(work, parts) if self._pool else map(work, parts))
        weights = [(part.stop - part.start) / size for part in parts]
        for index, parameter in enumerate(self._parameters):
            total = done[0][0][index] * weights[0]
            for (gradients, _), weight in zip(done[1:], weights[1:], strict=True):
                total.add_(gradients[index], alpha=weight)
            parameter.grad = total
        columns = zip(*(stats for _, stats in done), strict=True)
        return [
            torch.stack([w * x for w, x in zip(weights, column, strict=True)]).sum()
            for column in columns
        ]

    def _one(self, loss: Loss, part: slice) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        value, stats = loss(part)
        return torch.autograd.grad(value, self._parameters), [x.detach() for x in stats]
