"""Trials as processes of this machine, forked by one process that has imported all that they need."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

from shoal.types import EnvError

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.experiment.sweep.trial import Job

INTERRUPTED = 3
"""Exit status of a trial that is to be gone on with."""
SERVER = "shoal.experiment.sweep.server"
CLOSE_S = 20.0
"""For so long a trial may take to end after its update, with its checkpoint, when the sweep is interrupted."""
KILLED_S = 5.0
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Workers(Protocol):
    """What trains jobs, as many at a time as are begun."""

    def begin(self, job: Job) -> None:
        """Begins one."""
        ...

    def ended(self) -> dict[str, str]:
        """The names of jobs that ended since the last call, and what is to be said of a process that was lost."""
        ...

    def interrupt(self) -> None:
        """Ends those that run, each with a checkpoint."""
        ...

    def close(self) -> None:
        """Ends what is left."""
        ...


class Processes:
    """Trials on this machine."""

    def __init__(self, log: Path, *, lock: int, cpus: int) -> None:
        """Starts the process that forks them.

        Args:
            log: gets what trials print.
            lock: descriptor of a lock that they hold too, so that no other sweep begins there while one of them lives.
            cpus: threads of each trial.
        """
        own = dict.fromkeys(ONE_THREAD, str(cpus))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with os.fdopen(os.open(log, flags, 0o644), "ab") as told:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", SERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=told,
                env=os.environ | own,
                pass_fds=(lock,),
                start_new_session=True,
            )
        self._log, self._rest = log, b""
        self._running: set[str] = set()

    def begin(self, job: Job) -> None:
        """Begins a trial."""
        self._running.add(job.name)
        self._send({"job": asdict(job)})

    def ended(self) -> dict[str, str]:
        """As of `Workers`."""
        found: dict[str, str] = {}
        for line in self._lines():
            told = json.loads(line)
            name, status = told["name"], told["status"]
            self._running.discard(name)
            found[name] = ""
            if status < 0:
                found[name] = f"its process was ended by signal {-status}"
            elif status == INTERRUPTED:
                found[name] = "it was stopped by hand, or by a signal"
            elif status:
                found[name] = f"its process ended with status {status}"
        return found

    def interrupt(self) -> None:
        """As of `Workers`; waits until they have ended."""
        self._send({"interrupt": True})
        end = time.monotonic() + CLOSE_S
        while self._running and time.monotonic() < end:
            self.ended()
            time.sleep(0.02)

    def close(self) -> None:
        """As of `Workers`."""
        process = self._process
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.close()
        try:
            process.wait(KILLED_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def _send(self, told: dict[str, object]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write((json.dumps(told) + "\n").encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._lost() from error

    def _lines(self) -> list[bytes]:
        output = self._process.stdout
        assert output is not None
        while select.select([output], [], [], 0)[0]:
            data = os.read(output.fileno(), 1 << 20)
            if not data:
                raise self._lost()
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        return lines

    def _lost(self) -> EnvError:
        status = self._process.wait()
        return EnvError(
            f"the process that starts the sweep's trials ended (status {status}); {self._log} may say why. The same "
            "command goes on with the sweep"
        )
