"""Gradients in shards: parts of a minibatch, each on a thread of its own, summed in order of their index."""

from __future__ import annotations

import ctypes
import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import torch

from shoal.learn.minibatches import cut_steps
from shoal.memory.batches import part_of
from shoal.nets.images import ImageEncoder
from shoal.types import Transitions

T = TypeVar("T")
R = TypeVar("R")

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from shoal.types import Steps

    Part = Steps | Transitions
    PartLoss = Callable[[Part], tuple[Tensor, list[Tensor]]]


def has_images(policy: nn.Module) -> bool:
    """Whether a policy has layers for images, whose gradients are worth threads of their own."""
    return any(isinstance(module, ImageEncoder) for module in policy.modules())


LEAST_PIXELS = 40_000
"""Of each part: in fewer, calling the layers once more costs what a second thread gains; 100 images of MinAtar."""
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
        encoders = [m for m in policy.modules() if isinstance(m, ImageEncoder)]
        self._pixels = sum(math.prod(encoder.shape) for encoder in encoders)
        if self._pixels and there == {"cpu"}:
            keep_freed_memory()

    def parts(self, batch: Part) -> list[Part]:
        """A minibatch [1, M], or transitions [M], cut into as many parts as there are shards, or fewer of LEAST_PIXELS.

        Parts are views: what a loss writes into one stands in the batch.
        """
        size = _size(batch)
        count = min(self._shards, size, size * self._pixels // LEAST_PIXELS)
        if count < 2:
            return [batch]
        edges = [size * k // count for k in range(count + 1)]
        places = [slice(first, last) for first, last in pairwise(edges)]
        if isinstance(batch, Transitions):
            return [part_of(batch, place) for place in places]
        return [cut_steps(batch, place) for place in places]

    def each(self, work: Callable[[T], R], items: Sequence[T], *, size: int) -> list[R]:
        """What `work` gives for every item, each on a thread of its own where batches of `size` are worth one."""
        if self._pool is None or size * self._pixels < LEAST_PIXELS:
            return [work(item) for item in items]
        return list(self._pool.map(work, items))

    def backward(self, loss: PartLoss, parts: list[Part]) -> list[Tensor]:
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
        size = sum(map(_size, parts))
        weights = [_size(part) / size for part in parts]
        for index, parameter in enumerate(self._parameters):
            # Laid out as the parameter: convolutions give channels last, and torch's fused Adam goes by the memory.
            total = torch.empty_like(parameter)
            torch.mul(done[0][0][index], weights[0], out=total)
            for (gradients, _), weight in zip(done[1:], weights[1:], strict=True):
                total.add_(gradients[index], alpha=weight)
            parameter.grad = total
        means: list[Tensor] = []
        for column in zip(*(stats for _, stats in done), strict=True):
            weighted = [weight * x for weight, x in zip(weights, column, strict=True)]
            means.append(torch.stack(weighted).sum())
        return means

    def _one(
        self, loss: PartLoss, part: Part
    ) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        value, stats = loss(part)
        gradients = torch.autograd.grad(value, self._parameters)
        return gradients, [x.detach() for x in stats]


def _size(part: Part) -> int:
    """Steps of [1, M], or transitions of [M]: the last axis."""
    return part.reward.shape[-1]
