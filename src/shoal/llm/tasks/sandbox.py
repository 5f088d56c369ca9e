"""A sandbox for Python that a model writes: bounded in time, memory, files, processes and output, without a network."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.llm.tasks.isolation import WORK
from shoal.types import ConfigError, check_ranges

MIB = 2**20
MAX_CODE = 2**20
"""Characters of a program."""
END_S = 3.0
"""How long the guard may take to end what it started."""
_BOOT = (
    "import json, sys; given = json.loads(sys.argv[1]); sys.path[:0] = given['path']; "
    "from shoal.llm.tasks.sandbox_guard import main; main(given)"
)
SHARED = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc/ld.so.cache")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may take."""

    timeout_s: float = 10.0
    """Seconds by the clock."""
    cpu_s: int = 5
    """Seconds of processor time, of each process."""
    memory_mib: int = 512
    """Of each process, in MiB of address space."""
    file_mib: int = 16
    """All files together, in MiB."""
    processes: int = 16
    """Processes and threads."""
    output_bytes: int = 16_384
    """What it may print; then it is ended."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_ranges(
            self,
            timeout_s=(0.05, 3600.0),
            cpu_s=(1, 3600),
            memory_mib=(32, 2**20),
            file_mib=(1, 2**20),
            processes=(1, 4096),
            output_bytes=(1, 2**26),
        )


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a program."""

    output: str
    """What it printed, errors and the traceback of an exception among it, in order; no more than it may print."""
    ended: str
    """Why it ended, in words; empty where it came to its end."""
    seconds: float
    """By the clock, with the start of its process."""
    cpu_s: float = 0.0
    """Of the processor, where it ended by itself."""

    @property
    def text(self) -> str:
        """What a model is shown."""
        if not self.ended:
            return self.output
        line = "" if not self.output or self.output.endswith("\n") else "\n"
        return f"{self.output}{line}[{self.ended}]"


class PythonSandbox:
    """Runs programs, each in new processes and an empty folder, of which nothing is left.

    A program sees the standard library and no other files of this machine, no network and no other process: Linux
    namespaces part it from the rest. It is no defense against a program that attacks the kernel itself.
    """

    def __init__(
        self, limits: Limits | None = None, *, unconfined: bool = False
    ) -> None:
        """Tries whether programs can be parted from the rest here.

        Args:
            limits: what a program may take.
            unconfined: go on where they cannot: time, memory, output and each file stay limited, but a program can
                then read and write this user's files, reach the network, and start any number of processes.

        Raises:
            ConfigError: they cannot be parted here, or an empty program did not come to its end.
        """
        if sys.platform != "linux":
            raise ConfigError("the sandbox needs Linux: its namespaces part programs")
        self.limits, self.unconfined = limits or Limits(), unconfined
        ran = self.run("")
        if ran.ended or ran.output:
            raise ConfigError(f"the sandbox cannot run an empty program: {ran.text}")

    def run(self, code: str) -> Ran:
        """Runs a program to its end, or to one of its limits; it never raises for what the program does.

        Raises:
            ConfigError: processes cannot be parted from the rest on this machine.
        """
        began = time.monotonic()
        if len(code) > MAX_CODE:
            return Ran("", f"the program has more than {MAX_CODE:,} characters", 0.0)
        with tempfile.TemporaryDirectory(prefix="shoal-sandbox-") as root:
            work = Path(root) / WORK
            if self.unconfined:
                work.mkdir()
            told = os.memfd_create("shoal-sandbox")
            try:
                output, ended = self._watch(root, told, code, began)
                said = _read_told(told)
            finally:
                os.close(told)
        if "refused" in said:
            raise ConfigError(
                f"programs cannot be parted from the rest of this machine ({said['refused']}): they could reach the "
                "network and this user's files. Containers often forbid it; unconfined=True runs them all the same"
            )
        ended = ended or self._words(said)
        output = output.replace(root, "")  # drawn anew each time; programs are not
        seconds = time.monotonic() - began
        return Ran(output, ended, seconds, float(said.get("cpu_s", 0.0)))

    def _watch(self, root: str, told: int, code: str, began: float) -> tuple[str, str]:
        """Starts the guard, reads what the program prints, and ends it at a limit; the output, and which limit."""
        read, write = os.pipe()
        try:
            given = self._given(root, told, write)
            path = json.dumps(given | {"path": [str(folder) for folder in sys.path]})
            guard = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOOT, path],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=write,
                pass_fds=(told, write),
                env={},
                process_group=0,
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        try:
            with suppress(OSError):
                assert guard.stdin is not None
                guard.stdin.write(code.encode(errors="replace"))
                guard.stdin.close()
            return self._heard(read, began + self.limits.timeout_s)
        finally:
            os.close(read)
            _end(guard)

    def _heard(self, read: int, deadline: float) -> tuple[str, str]:
        """What is printed until its end or a limit."""
        most, ended = self.limits.output_bytes, ""
        parts: list[bytes] = []
        size = 0
        with selectors.DefaultSelector() as selector:
            selector.register(read, selectors.EVENT_READ)
            while not ended:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    ended = f"it took more than {self.limits.timeout_s:g} s"
                elif selector.select(left_s):
                    part = os.read(read, 65_536)
                    if not part:
                        break
                    parts.append(part)
                    size += len(part)
                    if size > most:
                        ended = f"it printed more than {most:,} bytes"
        return b"".join(parts)[:most].decode(errors="replace"), ended

    def _given(self, root: str, told: int, output: int) -> dict[str, Any]:
        limits = self.limits
        memory, size = limits.memory_mib * MIB, limits.file_mib * MIB
        python = os.path.realpath(sys.executable)
        prefix = os.path.realpath(sys.base_prefix)
        return {
            "parent": os.getpid(),
            "root": root,
            "work": f"{root}/{WORK}",
            "unconfined": self.unconfined,
            "python": python,
            "paths": [*SHARED, prefix],
            "told": told,
            "output": output,
            "processes": limits.processes,
            "file_bytes": size,
            "limits": {
                "RLIMIT_CPU": (limits.cpu_s, limits.cpu_s + 1),
                "RLIMIT_AS": (memory, memory),
                "RLIMIT_FSIZE": (size, size),
                "RLIMIT_NOFILE": (64, 64),
                "RLIMIT_CORE": (0, 0),
            },
        }

    def _words(self, said: dict[str, Any]) -> str:
        """How the program ended."""
        if "lost" in said:
            return f"it could not be started: {said['lost']}"
        if "status" not in said:
            return "it was ended"
        status = said["status"]
        if status >= 0:
            return f"it ended with status {status}" if status else ""
        killed = status == -signal.SIGKILL and said["cpu_s"] >= self.limits.cpu_s
        if killed or status == -signal.SIGXCPU:
            return f"it took more than {self.limits.cpu_s} s of processor time"
        return f"it was killed by {signal.Signals(-status).name}"


def _read_told(told: int) -> dict[str, Any]:
    """What the guard said last."""
    lines = os.pread(told, 65_536, 0).splitlines()
    return json.loads(lines[-1]) if lines else {}


def _end(guard: subprocess.Popen[bytes]) -> None:
    """Has the guard end all that it started."""
    guard.terminate()
    try:
        guard.wait(END_S)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
