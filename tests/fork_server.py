"""A Python interpreter that has imported shoal and torch once, and forks for every program it is given.

Run as a script, it reads one request a line from its input, forks, and answers with the child's process id, then with
how the child ended. The child leaves the loop and is an interpreter like any other from there on: what the program
raises, its exit status and its exit functions are Python's own. `Interpreter` is the other end.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
COMMAND = "import sys; from shoal.cli import main; sys.argv[0] = 'shoal'; main()"


class Interpreter:
    """Runs programs as `subprocess.run([sys.executable, "-c", program, ...])` does, without the wait for imports.

    Not for programs about what is imported, nor for variables that Python or torch read when they start.
    """

    def __init__(self, *imported: str, site: bool = True) -> None:
        """Starts it.

        Args:
            imported: modules that it imports; else shoal, and with it torch.
            site: whether site-packages are found as usual, or only as this process's path has them.
        """
        flags = [] if site and not sys.flags.no_site else ["-S"]
        env = None if site else os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        command = [sys.executable, *flags, __file__, *imported]
        self._server = subprocess.Popen(command, text=True, cwd=ROOT, env=env, **pipes)

    def run(
        self,
        program: str | Path,
        *arguments: str,
        folder: Path,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        timeout_s: float = 110,
        few_greedy_episodes: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end.

        Args:
            program: source text, or a script.
            arguments: what follows in `sys.argv`.
            folder: where its output is kept in files.
            cwd: the folder that it runs in; else this process's.
            env: its environment variables; else this process's.
            timeout_s: it is killed when it takes longer.
            few_greedy_episodes: its runs end with two of them instead of a hundred.

        Raises:
            TimeoutExpired: it took longer.
        """
        out, err = folder / "child.out", folder / "child.err"
        request = {
            "program": str(program),
            "script": isinstance(program, Path),
            "arguments": list(arguments),
            "cwd": str(cwd or Path.cwd()),
            "env": env or dict(os.environ),
            "out": str(out),
            "err": str(err),
            "timeout_s": timeout_s,
            "few_greedy_episodes": few_greedy_episodes,
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, "the fork server ended"
        status = json.loads(answer)
        printed, errors = out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")
        command = [sys.executable, str(program), *arguments]
        if status is None:
            raise subprocess.TimeoutExpired(command, timeout_s, printed, errors)
        return subprocess.CompletedProcess(command, status, printed, errors)

    def shoal(self, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Runs a command of shoal in a folder."""
        return self.run(COMMAND, *arguments, folder=folder.parent, cwd=folder)

    def close(self) -> None:
        """Ends the server."""
        self._server.communicate("", timeout=10)


def wait_for(pid: int, timeout_s: float) -> int | None:
    """How a child ended, as `subprocess` says it; None where it was killed because its time was over."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return None


def become(request: dict[str, Any]) -> tuple[str, ModuleType]:
    """Makes this forked process look like a fresh interpreter for the request: its program and its main module."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        opened = os.open(name, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - open as long as the process is
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    if request["few_greedy_episodes"]:
        from shoal.experiment import training

        training.GREEDY_EPISODES = 2
    main = ModuleType("__main__")
    sys.modules["__main__"] = main
    program = request["program"]
    name = program if request["script"] else "-c"
    sys.argv = [name, *request["arguments"]]
    sys.path[0] = str(Path(program).parent) if request["script"] else ""
    if request["script"]:
        main.__file__ = program
        program = Path(program).read_text(encoding="utf-8")
    return program, main


def serve() -> dict[str, Any] | None:
    """Forks for every request: the request in a child; None in the server, when no more come."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    if not sys.argv[1:]:
        shoal = importlib.import_module("shoal")
        for name in shoal.__all__:
            getattr(shoal, name)  # imported when it is first used
    gc.freeze()  # a child's collections leave what it shares with its parent alone
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            answers.close()
            return request
        answers.write(json.dumps(wait_for(pid, request["timeout_s"])) + "\n")
        answers.flush()
    return None


if __name__ == "__main__":
    wanted = serve()
    if wanted is not None:
        source, module = become(wanted)
        exec(compile(source, sys.argv[0], "exec"), module.__dict__)
