"""Beginning: torch on one thread while a loop lasts, and a word where the first batch is long in coming."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from shoal.run.callbacks import tell

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from shoal.run.run import Run

PATIENCE_S = 5.0
"""Seconds without a first batch after which a user is told that it is under way."""


@dataclass(slots=True)
class _Threads:
    """What the runs of this process, in whichever threads, keep torch on one thread for."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    runs: int = 0
    before: int = 0
    """Torch's threads when the first of them began."""


_threads = _Threads()


@contextmanager
def one_torch_thread() -> Generator[None]:
    """One intra-op thread for torch while a run lasts: its bits and its speed both need it.

    Afterwards there are as many as before the first of the runs that go on at a time.
    """
    with _threads.lock:
        if not _threads.runs:
            _threads.before = torch.get_num_threads()
        _threads.runs += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _threads.lock:
            _threads.runs -= 1
            torch.set_num_threads(_threads.before)


def begin(run: Run, shape: tuple[int, int], batches: Generator[Any]) -> Iterator[Any]:
    """The batches; every callback that takes notes is told where none has come for PATIENCE_S seconds.

    Args:
        run: whose callbacks are told.
        shape: steps and rows of a batch.
        batches: the loop's own.
    """
    steps, rows = shape
    said = f"first rollout under way: {steps:,} steps of {rows:,} rows"
    late = threading.Timer(PATIENCE_S, partial(tell, run, said, how="note"))
    late.daemon = True
    with one_torch_thread(), closing(batches):
        late.start()
        try:
            first = next(batches, None)
        finally:
            late.cancel()
        if first is not None:
            yield first
            yield from batches
