"""Workers, actors and samplers without the wait for imports: a process that has imported what they need forks each.

Run as a script, it takes one request a message from the socket whose number it is given. `Warm` is the other end; its
`start` stands in for shoal's own way of starting a process. For tests of what is done in those processes: those of how
they begin, end and fail start them as users' do.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Lock
from typing import Any

ROOT = Path(__file__).parents[1]
IMPORTED = (
    "pytest",
    "shoal.envs.workers.supervisor",
    "shoal.envs.workers.worker",
    "shoal.experiment.learner_process",
    "shoal.experiment.training",
    "shoal.llm.stage.worker",
    "shoal.stream.actors.local",
    "shoal.stream.groups.child",
)
FREE = 512
"""Descriptors from here on are nobody's."""
LARGEST = 2**20
"""Bytes of a request, at most."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Forked:
    """A process of the server's, as `subprocess.Popen` shows one."""

    def __init__(self, warm: Warm, pid: int) -> None:
        """It has just begun."""
        self.pid = pid
        self._warm = warm
        self._status: int | None = None

    def poll(self) -> int | None:
        """How it ended; None while it goes on."""
        if self._status is None:
            self._status = self._warm.ask({"poll": self.pid})
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """The same when it has ended; TimeoutExpired where it does not in so many seconds."""
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(0.002)
        return status

    def terminate(self) -> None:
        """Sends it SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Sends it SIGKILL."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class Warm:
    """The server, and what it is asked for."""

    def __init__(self) -> None:
        """Starts it; what it imports is there when the first process is asked for."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._one_asks = Lock()
        with theirs:
            command = [sys.executable, "-P", __file__, str(theirs.fileno())]
            env = os.environ | ONE_THREAD | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._server = subprocess.Popen(command, pass_fds=(theirs.fileno(),), cwd=ROOT, env=env)

    def start(self, command: list[str], fds: tuple[int, ...]) -> Any:
        """What shoal's `_start` of a worker does, which ends its command with what the worker is given."""
        env = dict(os.environ | ONE_THREAD)
        request = {"given": json.loads(command[-1]), "env": env, "cwd": str(Path.cwd())}
        return Forked(self, self.ask(request, fds))

    def ask(self, request: dict[str, Any], fds: tuple[int, ...] = ()) -> Any:
        """The answer to a request."""
        with self._one_asks:
            socket.send_fds(self._socket, [json.dumps(request).encode()], fds)
            answer = self._socket.recv(LARGEST)
        assert answer, "the server of warm workers ended"
        return json.loads(answer)

    def close(self) -> None:
        """Ends it, and with it what it has forked."""
        self._server.kill()
        self._server.wait()
        self._socket.close()


def serve(asked: socket.socket) -> dict[str, Any] | None:
    """Answers until nobody asks any more: None; in a process that was forked: what it is given."""
    statuses: dict[int, int] = {}
    while True:
        message, fds, _, _ = socket.recv_fds(asked, LARGEST, 8)
        if not message:
            return None
        request = json.loads(message)
        if "poll" in request:
            asked.send(json.dumps(status_of(request["poll"], statuses)).encode())
            continue
        pid = os.fork()
        if pid == 0:
            asked.close()
            return become(request, fds)
        for fd in fds:
            os.close(fd)
        asked.send(json.dumps(pid).encode())


def status_of(pid: int, statuses: dict[int, int]) -> int | None:
    """How a process that was forked here ended; None while it goes on."""
    if pid not in statuses:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            return None
        statuses[pid] = os.waitstatus_to_exitcode(status)
    return statuses[pid]


def become(request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Makes this forked process what a worker's first process is; what it is given."""
    os.setpgid(0, 0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    given = request["given"]
    # Descriptors keep the numbers that they have in the process that asks, as in any process that it starts itself.
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, FREE) for fd in fds]
    for fd in fds:
        os.close(fd)
    for fd, name in zip(moved, ("pipe", "block", "stack"), strict=True):
        os.dup2(fd, given[name])
        os.close(fd)
    sys.path[:] = given.pop("path")
    return given | {"parent": os.getppid()}


if __name__ == "__main__":
    for module in IMPORTED:
        importlib.import_module(module)
    gc.freeze()
    wanted = serve(socket.socket(fileno=int(sys.argv[1])))
    if wanted is not None:
        importlib.import_module("shoal.envs.workers.supervisor").main(wanted)
