"""The process that forks trials: it has imported all that they need, and they end with it, as it ends with the sweep.

A line of JSON comes in for each trial, one goes out when its process has ended.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import traceback
from importlib import import_module
from typing import Any

import torch

from shoal.envs.workers.supervisor import PR_SET_PDEATHSIG, prctl
from shoal.experiment.sweep.processes import INTERRUPTED
from shoal.experiment.sweep.trial import run_trial

LOOK_S = 0.02
NEEDED = ("shoal.experiment.training", "tensorboardX.event_file_writer", "tabulate")


def main() -> None:
    """Its whole life."""
    torch.set_num_threads(1)
    for name in NEEDED:
        try:
            import_module(name)
        except ModuleNotFoundError:  # what is optional
            continue
    # Torch imports a good part of itself for the first optimizer.
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    Server().serve()
    os._exit(
        0
    )  # what Python and torch take down takes seconds, while the directory's lock is held


class Server:
    """Forks trials and says when they end."""

    def __init__(self) -> None:
        """None yet."""
        self._names: dict[int, str] = {}
        self._rest = b""

    def serve(self) -> None:
        """Until its input ends, with which its trials end too."""
        while True:
            ready, _, _ = select.select([0], [], [], LOOK_S)
            if ready:
                data = os.read(0, 1 << 20)
                if not data:
                    break
                self._take(data)
            self._reap()
        for pid in self._names:
            os.kill(pid, signal.SIGKILL)
        for pid in self._names:
            os.waitpid(pid, 0)

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if "interrupt" in told:
                for pid in self._names:
                    os.kill(pid, signal.SIGTERM)
            else:
                self._begin(told["job"])

    def _begin(self, job: dict[str, Any]) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _live(job, parent)
        self._names[pid] = job["name"]

    def _reap(self) -> None:
        while self._names:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            name = self._names.pop(pid, None)
            if name is None:
                continue
            told = {"name": name, "status": os.waitstatus_to_exitcode(status)}
            os.write(1, (json.dumps(told) + "\n").encode())


def _live(job: dict[str, Any], parent: int) -> None:
    """A trial's process, from its first to its last line."""
    status = 1
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(status)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 0)
        os.dup2(2, 1)
        run_trial(job)
        status = 0
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
