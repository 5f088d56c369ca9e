"""The process of a scorer: it makes its scorer, and scores what it is sent."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.envs import forks
from shoal.envs.workers.failures import failure_of
from shoal.envs.workers.pipe import pack, unpack
from shoal.envs.workers.worker import STRAY, Pipe
from shoal.llm.scorers.score import batch_size_of, call

if TYPE_CHECKING:
    from shoal.llm.tasks.task import Prompt

WORD = "scorer"


class Introduction(NamedTuple):
    """What a new process is told."""

    make: bytes
    """Packed: makes the scorer."""
    number: int
    """The process's, counted from 0."""


class Batch(NamedTuple):
    """Answers to score in one call."""

    task: int
    """Its number, which comes back with the scores."""
    pairs: list[tuple[Prompt, str]]


def main(given: dict[str, Any]) -> None:
    """Its whole life, started by `supervisor.main` with its file descriptors."""
    pipe = Pipe(given["pipe"])
    said: Introduction = pipe.receive()
    forks.tell.append(lambda told: pipe.send(pack((STRAY, False, told))))
    try:
        scorer = unpack(said.make)()
        size = batch_size_of(scorer)
    except Exception as error:
        pipe.send(pack((0, False, failure_of(error, said.number, WORD))))
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
        outcomes = call(scorer, batch.pairs)
        forks.end_if_forked(own, f"{WORD} {said.number}")
        pipe.send(pack((batch.task, True, outcomes)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
