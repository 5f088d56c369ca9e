"""A worker process: it steps its rows in shared memory whenever its parent asks, and says what went wrong."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from shoal.envs.agents.games import is_game
from shoal.envs.lasting import warn_of_lasting
from shoal.envs.python_env import make_envs
from shoal.envs.serial import SerialEnv
from shoal.envs.workers.block import Block
from shoal.envs.workers.pipe import pack, unpack
from shoal.envs.workers.worker_rows import WorkerRows
from shoal.types import ConfigError, EnvError, select

if TYPE_CHECKING:
    from shoal.envs.randomization import Ranges

PR_SET_PDEATHSIG = 1
IDLE_S = 60.0


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
    number: int
    """The worker's."""
    rows: slice
    cores: list[int]
    """Those that it may use."""
    spin_s: float
    """How long it looks for its next task before it sleeps."""


def main(given: dict[str, Any]) -> None:
    """The whole life of a worker, started by `processes.Worker` with its file descriptors."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != given["parent"]:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1, file=given["stack"], all_threads=True)
    pipe = Connection(given["pipe"])
    plan: Plan = unpack(pipe.recv_bytes())
    with suppress(OSError):  # a sandbox may forbid it: then the kernel alone decides
        os.sched_setaffinity(0, plan.cores)
    try:
        env = make_rows(plan)
    except Exception as error:
        pipe.send_bytes(packed_error(error, plan.number, task=0))
        return
    pipe.send_bytes(pack((0, True, env.spec)))
    num_rows, num_workers = unpack(pipe.recv_bytes())
    block = Block(given["block"], env.spec, num_rows=num_rows, num_workers=num_workers)
    rows = WorkerRows(env, block, plan.rows)
    serve(rows, block, pipe, plan=plan)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def make_rows(plan: Plan) -> SerialEnv:
    """The worker's environments; ConfigError where they have several agents."""
    factory, first = unpack(plan.factory), plan.rows.start
    count = plan.rows.stop - first
    envs = make_envs(factory, count, name=plan.name, first_row=first)
    if plan.number == 0:
        warn_of_lasting(envs[0], plan.name)
    if is_game(envs[0]):
        raise ConfigError(
            f"{plan.name} has several agents; backend='serial' steps them, workers do not yet"
        )
    return SerialEnv(
        envs,
        plan.name,
        info_keys=plan.info_keys,
        ranges=plan.ranges,
        first_row=first,
    )


def serve(rows: WorkerRows, block: Block, pipe: Connection, *, plan: Plan) -> None:
    """Does one task after another until told to close."""
    signals, done, first = block.signals, 0, plan.rows.start
    number, step, close = plan.number, int(Op.STEP), int(Op.CLOSE)
    while True:
        op, start, stop = signals.take(number, done, plan.spin_s, IDLE_S)
        if not op:
            continue
        if op == close:
            rows.close()
            return
        done += 1
        try:
            if op == step:
                action = select(block.action, slice(first + start, first + stop))
                rows.step(slice(start, stop), action)
                signals.answer(number, done, failed=False)
                continue
            made = pack((done, True, ask(rows, Op(op), unpack(pipe.recv_bytes()))))
        except Exception as error:
            made = packed_error(error, number, task=done)
            signals.answer(number, done, failed=True)
        else:
            signals.answer(number, done, failed=False)
        pipe.send_bytes(made)


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


def packed_error(error: Exception, number: int, *, task: int) -> bytes:
    """The exception as bytes, with this process's traceback as a note; as an EnvError where it cannot be pickled."""
    where = f"shoal: in worker {number}, pid {os.getpid()}:\n{''.join(traceback.format_exception(error)).rstrip()}"
    try:
        error.add_note(where)
        packed: bytes = pack((task, False, error))
        twin = unpack(packed)[2]
        if type(twin) is type(error) and str(twin) == str(error):
            return packed
    except Exception as why:
        where += f"\nshoal: it could not be pickled: {type(why).__name__}: {why}"
    plain = EnvError(f"{type(error).__name__}: {error}")
    for note in getattr(error, "__notes__", []):
        if note != where:
            plain.add_note(str(note))
    plain.add_note(where)
    return pack((task, False, plain))
