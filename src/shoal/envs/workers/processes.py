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
from shoal.envs.workers.stacks import stack_of
from shoal.envs.workers.supervisor import PID_BYTES
from shoal.envs.workers.worker import MUTE_STATUS, STRAY
from shoal.types import EnvError, text_of

if TYPE_CHECKING:
    from shoal.envs.workers.failures import Failure

START_S = 60.0
KILL_S = 1.0
LOOK_S = 0.1
"""A process that says nothing is looked at once in so many seconds."""
STATUSES = {
    MUTE_STATUS: "its pipe was closed or replaced: an environment must not close descriptors that it did not open",
}
"""What some exit statuses of a worker mean."""
_BOOT = (
    "import json, sys; given = json.loads(sys.argv[1]); sys.path[:] = given.pop('path'); "
    "from shoal.envs.workers.supervisor import main; main(given)"
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
    """One process with its rows, under a supervisor. Nothing that they start outlives `end`, or this process."""

    def __init__(
        self,
        number: int,
        rows: slice,
        block: int,
        *,
        work: str = "shoal.envs.workers.worker",
        word: str = "worker",
    ) -> None:
        """Starts the process; `block` is the descriptor of the shared memory.

        Args:
            number: counted from 0.
            rows: which ones it steps.
            block: descriptor of the memory that is shared with it.
            work: module whose `main` is its life.
            word: what it is called in messages.
        """
        self.number, self.rows, self._pid, self._killed = number, rows, 0, False
        self._word = word
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
                "work": work,
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
        self._heard: dict[int, Failure] = {}

    @property
    def pid(self) -> int:
        """The worker's; its supervisor's until it has begun, and when it is over."""
        if self._pid == 0 and self._stack >= 0:
            self._pid = int(os.pread(self._stack, PID_BYTES, 0) or 0)
        return self._pid or self._process.pid

    def __str__(self) -> str:
        """The worker in a message."""
        rows = f", rows {self.rows.start}..{self.rows.stop - 1}"
        if self.rows.start == self.rows.stop:  # it has none
            rows = ""
        return f"{self._word} {self.number} (pid {self.pid}{rows})"

    @property
    def alive(self) -> bool:
        """Whether the process is there, and is not being ended."""
        return not self._killed and self._process.poll() is None

    def send(self, message: Any) -> None:
        """Sends a message; one to a process that is gone is lost, which `alive` tells."""
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(pack(message))

    def receive(self, timeout_s: float, *, task: int = 0, doing: str = "") -> Any:
        """What the worker says to a task (0: to its start); an exception of its environment is raised here.

        EnvError, naming what it was `doing`, when the process is gone or says nothing in time; it is killed then.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            answer, good, value = self._next(timeout_s, deadline, doing)
            if answer == task:
                break
        if good:
            return value
        raise value.exception()

    def hear(self, timeout_s: float, *, doing: str) -> tuple[int, bool, Any]:
        """The next thing that the worker says: to which task, whether it went well, and what came of it.

        EnvError as of `receive`.
        """
        return self._next(timeout_s, time.monotonic() + timeout_s, doing)

    def drain(self) -> None:
        """Reads what the worker said and nobody asked for any more; what went wrong in it is kept."""
        with contextlib.suppress(OSError, EOFError, EnvError):
            while self.pipe.poll():
                answer, good, value = self._read("")
                if not good and answer != STRAY:
                    self._heard[answer] = value

    def kept_failure(self, task: int) -> Exception | None:
        """What `drain` found to have gone wrong in a task."""
        failure = self._heard.get(task)
        return failure.exception() if failure else None

    def death(self) -> str:
        """How the process ended, in words."""
        try:
            status = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        if status in STATUSES:
            return f"exited with status {status}: {STATUSES[status]}"
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
        return stack_of(self.pid, self._stack)

    def end(self) -> None:
        """Kills the process and all that it started, and frees what belongs to it."""
        self.kill()
        try:
            self._process.wait(KILL_S)
        except subprocess.TimeoutExpired:
            self._kill_group()
        self._release()

    def terminate(self) -> None:
        """Asks the process to end."""
        with contextlib.suppress(OSError):
            if self.alive and self.pid != self._process.pid:
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process, whatever it is doing, and has the supervisor end all that it started."""
        self._killed = True
        if self._process.poll() is None and self.pid != self._process.pid:
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
        self._process.terminate()

    def _kill_group(self) -> None:
        """Ends the worker's process group and a supervisor that does not."""
        if self.pid != self._process.pid:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_S)

    def _next(
        self, timeout_s: float, deadline: float, doing: str
    ) -> tuple[int, bool, Any]:
        """The next message: the number of a task, whether it went well, and what came of it."""
        doing = f", {doing}," if doing else ""
        try:
            while not self.pipe.poll(LOOK_S):
                if not self.alive and not self.pipe.poll():
                    raise EnvError(f"{self}{doing} {self.death()}")
                if time.monotonic() >= deadline:
                    what = f"said nothing for {timeout_s:g} s{self.stack()}"
                    self.kill()
                    raise EnvError(f"{self}{doing} {what}")
            answer, good, value = self._read(doing)
        except (OSError, EOFError):
            raise EnvError(f"{self}{doing} {self.death()}") from None
        if answer == STRAY:
            raise EnvError(f"{self}: {value}")
        return answer, good, value

    def _read(self, doing: str) -> tuple[int, bool, Any]:
        packed = self.pipe.recv_bytes()
        try:
            answer, good, value = unpack(packed)
        except Exception as error:
            self.kill()
            why = f"{type(error).__name__}: {text_of(error)}"
            raise EnvError(
                f"{self}{doing} answered what cannot be read here ({why}); a class that is in it must be importable "
                "here, and an environment must not write to descriptors that it did not open"
            ) from error
        return answer, good, value

    def _release(self) -> None:
        self.pipe.close()
        if self._stack >= 0:
            os.close(self._stack)
            self._stack = -1


def end_all(workers: list[Worker]) -> None:
    """Ends all workers and whatever they started."""
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
