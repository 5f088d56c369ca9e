"""A worker process: it steps its rows in shared memory whenever its parent asks, and says what went wrong."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import traceback
from contextlib import suppress
from enum import IntEnum
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.agents.games import is_game
from shoal.envs.python_env import make_envs
from shoal.envs.serial import SerialEnv
from shoal.envs.workers.block import Block
from shoal.envs.workers.pipe import pack, unpack
from shoal.types import ConfigError, EnvError, assign, map_tree, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.types import Bools, Tree

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


class Rows(SerialEnv):
    """The worker's rows. After another process died with them, the next step of each only cuts its episode."""

    _cut_seeds: dict[int, int]
    _last_obs: Tree = None
    _revived = False
    _shared_masks: Bools | None = None

    def adopt(self, block: Block, rows: slice) -> None:
        """Writes to the shared arrays from now on."""
        self.out = block.outputs(rows)
        self._shared_masks = block.masks[rows]
        if self._masks is not None:
            self.out.add_masks(self._shared_masks)
        self._cut_seeds = {}

    def begin(self, seeds: Sequence[int]) -> bool:
        """Resets every row; whether their actions are masked."""
        self._cut_seeds.clear()
        self.out.valid[:] = True
        self.reset(seeds)
        self.recv()
        return self.spec.masked

    def resume(self, state: dict[str, Any]) -> tuple[bool, list[str]]:
        """Continues every row from `state`; whether actions are masked, and what could not be continued."""
        self._cut_seeds.clear()
        self.out.valid[:] = True
        lost = self.restore(state)
        self.recv()
        return self.spec.masked, lost

    def revive(self, lost: dict[str, Any]) -> None:
        """Takes the place of a process that is gone.

        Args:
            lost: `seeds` of the episodes that begin when the rows are stepped next; the last `obs`, `returns` and
                `lengths` of those that are cut then.
        """
        self._revived = True
        self._cut_seeds = dict(enumerate(lost["seeds"]))
        self._last_obs = lost["obs"]
        self._running_return[:], self._running_length[:] = (
            lost["returns"],
            lost["lengths"],
        )
        self._starts = [{"seed": seed} for seed in lost["seeds"]]
        self._played = [[] for _ in lost["seeds"]]
        self._in_flight.begin()
        self.recv()

    def step(self, rows: slice, action: Tree) -> None:
        """Steps `rows`; those that wait to be cut are cut and not stepped."""
        if self._revived:
            self.out.valid[rows] = True
        if not self._cut_seeds:
            self._step(rows, map_tree(np.copy, action))  # checked by the parent
            return
        for row in range(rows.start, rows.stop):
            if row in self._cut_seeds:
                self._cut_lost(row)
            else:
                at = row - rows.start
                self._step(
                    slice(row, row + 1),
                    map_tree(np.copy, select(action, slice(at, at + 1))),
                )

    def _cut_lost(self, row: int) -> None:
        out = self.out
        out.valid[row] = False
        out.reward[row], out.terminated[row], out.truncated[row] = 0, False, True
        assign(out.final_obs, row, select(self._last_obs, row))
        out.episode_return[row], out.episode_length[row] = (
            self._running_return[row],
            self._running_length[row],
        )
        for values in out.info.values():
            values[row] = np.nan
        self._begin(np.array([row]), [{"seed": self._cut_seeds.pop(row)}])
        self._read_masks(slice(row, row + 1))

    def _add_masks(self) -> None:
        super()._add_masks()
        if self._shared_masks is not None:
            self.out.add_masks(self._shared_masks)


def main(given: dict[str, Any]) -> None:
    """The whole life of a worker, started by `processes.Worker` with its file descriptors."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != given["parent"]:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1, file=given["stack"], all_threads=True)
    pipe = Connection(given["pipe"])
    plan = unpack(pipe.recv_bytes())
    mine = slice(*plan["rows"])
    with suppress(OSError):  # a sandbox may forbid it: then the kernel alone decides
        os.sched_setaffinity(0, plan["cores"])
    try:
        factory = unpack(plan["factory"])
        envs = make_envs(
            factory, mine.stop - mine.start, name=plan["name"], first_row=mine.start
        )
        if is_game(envs[0]):
            raise ConfigError(
                f"{plan['name']} has several agents; backend='serial' steps them, workers do not yet"
            )
        kept = {key: plan[key] for key in ("info_keys", "ranges")}
        rows = Rows(envs, plan["name"], first_row=mine.start, **kept)
    except Exception as error:
        pipe.send_bytes(packed_error(error, plan["number"], task=0))
        return
    pipe.send_bytes(pack((0, True, rows.spec)))
    sizes = unpack(pipe.recv_bytes())
    block = Block(given["block"], rows.spec, **sizes)
    rows.adopt(block, mine)
    serve(
        rows,
        block,
        pipe,
        number=plan["number"],
        first=mine.start,
        spin_s=plan["spin_s"],
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def serve(
    rows: Rows,
    block: Block,
    pipe: Connection,
    *,
    number: int,
    first: int,
    spin_s: float,
) -> None:
    """Does one task after another until told to close."""
    signals, done = block.signals, 0
    step, close = int(Op.STEP), int(Op.CLOSE)
    while True:
        op, start, stop = signals.take(number, done, spin_s, IDLE_S)
        if not op:
            continue
        if op == close:
            rows.close()
            return
        done += 1
        try:
            if op == step:
                rows.step(
                    slice(start, stop),
                    select(block.action, slice(first + start, first + stop)),
                )
                signals.answer(number, done, failed=False)
                continue
            made = pack((done, True, ask(rows, Op(op), unpack(pipe.recv_bytes()))))
        except Exception as error:
            made = packed_error(error, number, task=done)
            signals.answer(number, done, failed=True)
        else:
            signals.answer(number, done, failed=False)
        pipe.send_bytes(made)


def ask(rows: Rows, op: Op, message: Any) -> Any:
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
