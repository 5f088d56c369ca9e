"""Ranks as threads of one process: each with connections of its own, as processes have them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

from torch import distributed

from shoal.learn.ranks import Ranks

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def together(count: int, work: Callable[[Ranks], T]) -> list[T]:
    """What `work(ranks)` gives on each of so many ranks."""
    torch_own: Any = distributed
    store = torch_own.HashStore()

    def one(rank: int) -> T:
        with closing(Ranks(store, rank, count)) as ranks:
            return work(ranks)

    with ThreadPoolExecutor(count) as pool:
        return [future.result(60) for future in [pool.submit(one, rank) for rank in range(count)]]
