"""A worker process as its parent sees it: how it starts, speaks, dies and is ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from shoal.envs.workers.pipe import pack, unpack
from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Sequence

START_S = 60.0
CLOSE_S, TERM_S, KILL_S = 1.5, 0.5, 1.0
STACK_S = 0.5
_BOOT = (
    "import json, sys; given = json.loads(sys.argv[1]); sys.path[:] = given.pop('path'); "
    "from shoal.envs.workers.worker import main; main(given)"
)
_FLAGS = {
    "no_site": "-S",
    "isolated": "-I",
    "ignore_environment": "-E",
    "no_user_site": "-s",
    "dev_mode": "-Xdev",
}
# A worker dies with the thread that started it; this one lasts as long as the interpreter.
_STARTER = ThreadPoolExecutor(1, "shoal-starts-workers")


class Worker:
    """One process with its rows. Nothing of it outlives `end`, or this process."""

    def __init__(self, number: int, rows: slice, block: int) -> None:
        """Starts the process; `block` is the descriptor of the shared memory."""
        self.number, self.rows = number, rows
        self._stack = os.memfd_create("shoal-stack")
        ours, theirs = socket.socketpair()
        with theirs:
            for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                ours.setsockopt(
                    socket.SOL_SOCKET, option, struct.pack("ll", int(START_S), 0)
                )
            self.pipe = Connection(ours.detach())
            given = {
                "pipe": theirs.fileno(),
                "block": block,
                "stack": self._stack,
                "parent": os.getpid(),
            }
            given |= {"path": [str(folder) for folder in sys.path]}
            flags = [flag for name, flag in _FLAGS.items() if getattr(sys.flags, name)]
            try:
                self._process = _start(
                    [sys.executable, *flags, "-c", _BOOT, json.dumps(given)],
                    (theirs.fileno(), block, self._stack),
                )
            except BaseException:
                self._release()
                raise
        self.pid = self._process.pid

    def __str__(self) -> str:
        """The worker in a message."""
        return f"worker {self.number} (pid {self.pid}, rows {self.rows.start}..{self.rows.stop - 1})"

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def send(self, message: Any) -> None:
        """Sends a message; one to a process that is gone is lost, which `alive` tells."""
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(pack(message))

    def receive(self, timeout_s: float, *, task: int = 0) -> Any:
        """What the worker says to a task (0: to its start); an exception of its environment is raised here.

        EnvError when the process is gone or says nothing in time.
        """
        answer, good = -1, True
        value: Any = None
        while answer != task:
            try:
                if not self.pipe.poll(timeout_s):
                    raise EnvError(f"{self} said nothing for {timeout_s:g} s")
                packed = self.pipe.recv_bytes()
            except (OSError, EOFError):
                raise EnvError(f"{self} {self.death()}") from None
            answer, good, value = unpack(packed)
        if good:
            return value
        raise value

    def drain(self) -> None:
        """Reads what the worker said and nobody asked for any more."""
        with contextlib.suppress(OSError, EOFError):
            while self.pipe.poll():
                self.pipe.recv_bytes()

    def death(self) -> str:
        """How the process ended, in words."""
        try:
            status = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        if status >= 0:
            return f"exited with status {status}"
        hint = (
            ", as the kernel does where memory runs out"
            if -status == signal.SIGKILL
            else ""
        )
        return f"was killed by {signal.Signals(-status).name}{hint}"

    def stack(self) -> str:
        """Where the process is at this moment: its Python stack, or that it is stopped."""
        with contextlib.suppress(OSError, IndexError):
            with open(f"/proc/{self.pid}/stat", encoding="utf-8") as stat:
                if stat.read().rpartition(")")[2].split()[0] in "Tt":
                    return "; it is stopped (SIGSTOP, or a debugger)"
            before = os.fstat(self._stack).st_size
            self._process.send_signal(signal.SIGUSR1)
            end, seen = time.monotonic() + STACK_S, before
            while time.monotonic() < end:
                time.sleep(0.02)
                now = os.fstat(self._stack).st_size
                if now == seen > before:
                    break
                seen = now
            text = (
                os.pread(self._stack, seen - before, before)
                .decode(errors="replace")
                .rstrip()
            )
            if text:
                return f"; its stack:\n{text}"
        return "; it did not show its stack"

    def end(self) -> None:
        """Kills the process if it is there, and frees what belongs to it."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_S)
        self._release()

    def wait(self, timeout_s: float) -> None:
        """Waits for the process to end, not longer than this."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(timeout_s, 0.0))

    def terminate(self) -> None:
        """Asks the process to end."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends the process, whatever it is doing."""
        self._process.kill()

    def _release(self) -> None:
        self.pipe.close()
        if self._stack >= 0:
            os.close(self._stack)
            self._stack = -1


def end_all(workers: list[Worker], *, asked: Sequence[Worker] = ()) -> None:
    """Ends all workers in at most 4 s; those that were `asked` to close get time for it, then a SIGTERM."""
    for patience, nudge in ((CLOSE_S, True), (TERM_S, False)):
        deadline = time.monotonic() + patience
        for worker in asked:
            worker.wait(deadline - time.monotonic())
        for worker in asked:
            if nudge and worker.alive:
                worker.terminate()
    for worker in workers:
        worker.kill()
    while workers:
        workers.pop().end()


def _start(command: list[str], fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
    one_thread = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
    )

    def start() -> subprocess.Popen[bytes]:
        # A process group of its own: a Ctrl-C in the terminal is the parent's alone.
        return subprocess.Popen(
            command,
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            env=os.environ | one_thread,
            process_group=0,
        )

    if threading.current_thread() is threading.main_thread():
        return start()
    return _STARTER.submit(start).result()
