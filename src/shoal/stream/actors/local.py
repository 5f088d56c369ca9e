"""The process of an actor on its learner's machine: messages on a pipe, arrays in memory that both map."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import torch

from shoal.envs import forks
from shoal.envs.workers.failures import failure_of
from shoal.envs.workers.pipe import pack
from shoal.envs.workers.worker import STRAY, Pipe
from shoal.memory.arena import Arena, Packed, nbytes
from shoal.stream.actors.actor import Actor, rows_of
from shoal.stream.actors.messages import KEPT_REGIONS, WORD, Introduction, Rows
from shoal.stream.actors.serving import Serving
from shoal.types import RAISED

if TYPE_CHECKING:
    from shoal.envs.workers.failures import Failure
    from shoal.stream.actors.serving import Answer


def main(given: dict[str, Any]) -> None:
    """Its whole life, started by `supervisor.main` with its file descriptors."""
    pipe = Pipe(given["pipe"])
    said: Introduction = pipe.receive()
    forks.tell.append(lambda told: pipe.send(pack((STRAY, False, told))))
    torch.set_num_threads(1)
    number = said.number

    def failed(error: BaseException) -> Failure:
        return failure_of(error, number, WORD)

    try:
        env = rows_of(said)
    except RAISED as error:
        pipe.send(pack((0, False, failed(error))))
        return
    pipe.send(pack((0, True, Rows(env.spec, env.num_rows, env.capabilities))))

    def room(sizes: tuple[int, ...]) -> KeepingArena:
        os.ftruncate(given["block"], nbytes(sizes))
        return KeepingArena(given["block"], sizes)

    Serving(Actor(env, room), PackedPipe(pipe), number, failed).run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class KeepingArena(Arena):
    """An arena that knows where states are kept."""

    slabs_in_turn = False

    def let_go(self, packed: Packed) -> None:
        """Nothing is held: the learner counts the regions that weights may lie in."""

    def keep(self, value: object, regions: tuple[int, int] = KEPT_REGIONS) -> bool:
        """As of any arena."""
        return super().keep(value, regions)


class PackedPipe:
    """A worker's pipe, for whole answers."""

    def __init__(self, pipe: Pipe) -> None:
        """`pipe` packs nothing itself."""
        self._pipe = pipe
        self.poll, self.receive = pipe.poll, pipe.receive

    def send(self, answer: Answer) -> None:
        """Packs and sends one."""
        self._pipe.send(pack(answer))
