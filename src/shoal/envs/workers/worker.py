"""A worker process: it steps its rows in shared memory whenever its parent asks, and says what went wrong."""

from __future__ import annotations

import os
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from shoal.envs import forks
from shoal.envs.agents.games import is_game
from shoal.envs.forks import end_if_forked
from shoal.envs.lasting import warn_of_lasting
from shoal.envs.python_env import make_envs
from shoal.envs.serial import SerialEnv
from shoal.envs.workers.block import Block
from shoal.envs.workers.failures import failure_of
from shoal.envs.workers.pace import Pace
from shoal.envs.workers.pipe import pack, unpack
from shoal.envs.workers.worker_rows import WorkerRows
from shoal.types import RAISED, ConfigError, select
from shoal.types.text import without_colors

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.envs.finite import Tolerance
    from shoal.envs.randomization import Ranges

IDLE_S = 60.0
STRAY = -1
"""The number of the task in a message of a child that came back from a task."""
MUTE_STATUS = 71
"""How a worker ends whose pipe is not the one that it was given any more."""


class Op(IntEnum):
    """What a parent asks for; all but STEP and CLOSE come with a message on the pipe and have one for an answer."""

    STEP = 1
    RESET = 2
    STATE = 3
    RESTORE = 4
    REVIVE = 5
    CLOSE = 6


@dataclass(frozen=True, slots=True)
class Plan:
    """What a new process is told: how its environments are made, and which rows they are."""

    factory: bytes
    """Packed: it makes one environment."""
    name: str
    info_keys: tuple[str, ...]
    ranges: Ranges
    tolerance: Tolerance
    told: bool
    number: int
    """The worker's."""
    rows: slice
    cores: list[int]
    """Those that it may use."""
    spin_s: float
    """How long it looks for its next task before it sleeps."""


def main(given: dict[str, Any]) -> None:
    """The whole life of a worker, started by `supervisor.main` with its file descriptors."""
    pipe = Pipe(given["pipe"])
    warnings.formatwarning = _uncolored
    plan: Plan = pipe.receive()
    forks.tell.append(lambda told: pipe.send(pack((STRAY, False, told))))
    with suppress(OSError):  # a sandbox may forbid it: then the kernel alone decides
        os.sched_setaffinity(0, plan.cores)
    try:
        env = make_rows(plan)
    except RAISED as error:
        pipe.send(pack((0, False, failure_of(error, plan.number))))
        return
    pipe.send(pack((0, True, env.spec)))
    num_rows, num_workers = pipe.receive()
    block = Block(given["block"], env.spec, num_rows=num_rows, num_workers=num_workers)
    rows = WorkerRows(env, block, plan.rows)
    forks.tell.append(lambda _: block.signals.stray(plan.number))
    serve(rows, block, pipe, plan=plan)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _uncolored(
    *warning: Any, format_it: Callable[..., str] = warnings.formatwarning
) -> str:
    """A warning as Python shows it, without a library's colors: who reads it may be a file."""
    return without_colors(format_it(*warning))


def make_rows(plan: Plan) -> SerialEnv:
    """The worker's environments; ConfigError where they have several agents."""
    factory, first = unpack(plan.factory), plan.rows.start
    count = plan.rows.stop - first
    envs = make_envs(factory, count, name=plan.name, first_row=first)
    if plan.number == 0 and not plan.told:
        warn_of_lasting(envs[0], plan.name)
    if is_game(envs[0]):
        raise ConfigError(
            f"{plan.name} has several agents; backend='serial' steps them, workers do not yet"
        )
    rows = SerialEnv(
        envs,
        plan.name,
        info_keys=plan.info_keys,
        ranges=plan.ranges,
        first_row=first,
    )
    rows.keeper.tolerance = plan.tolerance
    rows.masks.looked = plan.told or plan.number > 0
    return rows


class Pipe:
    """The worker's end of its pipe. Where the descriptor is another file by now, nothing goes through it: it ends."""

    def __init__(self, fd: int) -> None:
        """`fd`: the pipe."""
        self._connection = Connection(fd)
        self._file = _file_of(fd)

    def send(self, message: bytes) -> None:
        """Says what came of a task: the packed task, whether it went well, and a value."""
        self._check()
        self._connection.send_bytes(message)

    def poll(self) -> bool:
        """Whether the parent has said something."""
        self._check()
        return self._connection.poll()

    def receive(self) -> Any:
        """What the parent says."""
        self._check()
        return unpack(self._connection.recv_bytes())

    def _check(self) -> None:
        if _file_of(self._connection.fileno()) != self._file:
            sys.stderr.flush()
            os._exit(MUTE_STATUS)


def _file_of(fd: int) -> tuple[int, int] | None:
    """What a descriptor stands for; None where it is closed."""
    with suppress(OSError):
        found = os.fstat(fd)
        return found.st_dev, found.st_ino
    return None


def serve(rows: WorkerRows, block: Block, pipe: Pipe, *, plan: Plan) -> None:
    """Does one task after another until told to close."""
    signals, first, pid = block.signals, plan.rows.start, os.getpid()
    number, step, close = plan.number, int(Op.STEP), int(Op.CLOSE)
    done, pace = signals.answered(number), Pace(block.times[number])
    while True:
        op, start, stop = signals.take(number, done, plan.spin_s, IDLE_S)
        if not op:
            continue
        done += 1
        if op == close:
            try:
                rows.close()
            except RAISED as error:
                pipe.send(pack((done, False, failure_of(error, number))))
            return
        failed = False
        try:
            if op == step:
                begun = time.perf_counter()
                action = select(block.action, slice(first + start, first + stop))
                rows.step(slice(start, stop), action)
                pace.note(time.perf_counter() - begun, stop - start)
                signals.answer(number, done, failed=False)
                continue
            message = pack((done, True, ask(rows, Op(op), pipe.receive())))
        except RAISED as error:
            failed = True
            message = pack((done, False, failure_of(error, number)))
        end_if_forked(pid, f"{plan.name}: worker {number}'s {Op(op).name.lower()}")
        signals.answer(number, done, failed=failed)
        pipe.send(message)


def ask(rows: WorkerRows, op: Op, message: Any) -> Any:
    """Does what was asked on the pipe."""
    match op:
        case Op.RESET:
            return rows.begin(message)
        case Op.STATE:
            return rows.state()
        case Op.RESTORE:
            return rows.resume(message)
        case _:
            return rows.revive(message)
