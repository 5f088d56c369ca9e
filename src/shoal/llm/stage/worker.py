"""A process of a stage: it makes what works, and works on what it is sent."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.envs import forks
from shoal.envs.workers.failures import failure_of
from shoal.envs.workers.pipe import pack, unpack
from shoal.envs.workers.worker import STRAY, Pipe
from shoal.types import RAISED

if TYPE_CHECKING:
    from shoal.llm.stage.work import Work


class Introduction(NamedTuple):
    """What a new process is told."""

    make: bytes
    """Packed: makes the Work."""
    number: int
    """The process's, counted from 0."""
    word: str
    """What it is called in messages."""


class Batch(NamedTuple):
    """Pieces of work for one call."""

    task: int
    """Its number, which comes back with what comes of them."""
    pieces: list[Any]


def main(given: dict[str, Any]) -> None:
    """Its whole life, started by `supervisor.main` with its file descriptors."""
    pipe = Pipe(given["pipe"])
    said: Introduction = pipe.receive()
    forks.tell.append(lambda told: pipe.send(pack((STRAY, False, told))))
    try:
        work: Work = unpack(said.make)()
        size = work.batch_size
    except RAISED as error:
        pipe.send(pack((0, False, failure_of(error, said.number, said.word))))
        return
    pipe.send(pack((0, True, size)))
    own = os.getpid()
    while True:
        try:
            batch: Batch | None = pipe.receive()
        except EOFError:  # the parent is gone
            break
        if batch is None:
            break
        outcomes = work.work(batch.pieces)
        forks.end_if_forked(own, f"{said.word} {said.number}")
        pipe.send(pack((batch.task, True, outcomes)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
