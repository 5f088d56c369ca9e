"""The parent of a program in a sandbox: it parts itself from the rest, starts it, and ends all that it started.

Only what Python itself has is imported here, and the supervisor of workers, which imports no more.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any

from shoal.envs.workers.supervisor import (
    HEARD,
    PR_SET_PDEATHSIG,
    begin,
    prctl,
    wait_for,
)
from shoal.llm.tasks.isolation import CODE, enter, isolate, limit_processes

PR_SET_NO_NEW_PRIVS = 38
REFUSED, LOST = 100, 101
"""How the guard ends where it could not part itself, and where the program was not started."""


def main(given: dict[str, Any]) -> None:
    """The whole life of the guard; what came of the program stands in the file `told`, as JSON."""
    begin(given["parent"])
    root, apart = given["root"], not given["unconfined"]
    code = sys.stdin.buffer.read()
    if apart:
        try:
            isolate(root, given["paths"], nbytes=given["file_bytes"])
        except OSError as error:
            _tell(given, {"refused": str(error)})
            os._exit(REFUSED)
    with open(f"{root}/{CODE}", "wb") as file:
        file.write(code)
    own = os.getpid()
    first = os.fork()
    if first:
        wait_for(first)
        os._exit(0)
    _first(given, own)


def _first(given: dict[str, Any], guard: int) -> None:
    """The first of the new processes; when it ends, the kernel ends all others. It starts the program and waits."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Of a process apart the parent has no number here.
    if given["unconfined"] and os.getppid() != guard:
        os._exit(LOST)
    program = os.fork()
    if not program:
        try:
            _become(given)
        except BaseException as error:
            _tell(given, {"lost": f"{type(error).__name__}: {error}"})
        finally:
            os._exit(LOST)
    while True:
        pid, status, used = os.wait4(-1, 0)
        if pid == program:
            break
    told = {
        "status": os.waitstatus_to_exitcode(status),
        "cpu_s": used.ru_utime + used.ru_stime,
    }
    _tell(given, told)
    os._exit(0)


def _become(given: dict[str, Any]) -> None:
    """Becomes the program, with its limits."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    root, code = given["root"], f"{given['root']}/{CODE}"
    os.dup2(given["output"], 1)
    os.dup2(given["output"], 2)
    if given["unconfined"]:
        os.chdir(given["work"])
    else:
        enter(root)
        code = f"/{CODE}"
    for name, limit in given["limits"].items():
        resource.setrlimit(getattr(resource, name), (limit[0], limit[1]))
    if not given["unconfined"]:
        limit_processes(given["processes"])
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    home = os.getcwd()
    env = {"HOME": home, "TMPDIR": home, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    command = [given["python"], "-I", "-S", "-u", "-X", "utf8", code]
    os.execve(command[0], command, env)


def _tell(given: dict[str, Any], told: dict[str, Any]) -> None:
    os.write(given["told"], json.dumps(told).encode() + b"\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
