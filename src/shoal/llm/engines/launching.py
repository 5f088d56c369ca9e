"""vLLM's server as a process of a run's own: how it is started, ended, and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.llm.engines import PACKAGE
from shoal.llm.engines.connection import Connection, EngineError
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RECEIVER = "shoal_vllm_receiver"
"""As what vLLM imports the file that takes weights in."""
START_S = 600.0
"""Seconds that it may take to begin: it compiles, and profiles the memory."""
END_S = 8.0
LOOK_S = 0.25
SHOWN = 20
"""Lines of its log that are shown where it ended."""
_DIES_WITH = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGTERM); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
"""What makes the system end it with the process that started it."""


def vllm_command(
    python: str, model: Path, *, port: int, options: Sequence[str] = ()
) -> list[str]:
    """How vLLM's server is started so that it takes a run's weights.

    Args:
        python: an interpreter that has vLLM.
        model: a folder with the model, in transformers' layout; the run's weights take the place of its own.
        port: on this machine alone: whoever reaches it can change its weights.
        options: further ones of vLLM's; those that come later count.
    """
    return [
        python,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(model),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--dtype",
        "float32",
        "--enable-scale-out",
        "--logprobs-mode",
        "processed_logprobs",
        "--worker-extension-cls",
        f"{RECEIVER}.Receiver",
        "--weight-transfer-config",
        '{"backend": "shoal"}',
        *options,
    ]


def vllm_environment(folder: Path) -> dict[str, str]:
    """The environment of that process; puts the file that takes weights in into `folder`, where vLLM finds it."""
    shutil.copyfile(PACKAGE / "vllm_receiver.py", folder / f"{RECEIVER}.py")
    own = {
        "PYTHONPATH": str(folder),
        "VLLM_SERVER_DEV_MODE": "1",  # the routes that pause it and change its weights
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    usual = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    }
    kept = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "VIRTUAL_ENV")
    }
    return usual | kept | own


class LaunchedVllm:
    """A server on a free port of this machine. It ends with this process."""

    def __init__(
        self,
        model: Path,
        *,
        python: str = "",
        options: Sequence[str] = (),
        start_s: float = START_S,
    ) -> None:
        """Starts it and waits until it answers.

        Args:
            model: a folder in transformers' layout.
            python: an interpreter that has vLLM; empty: this one.
            options: further ones of vLLM's.
            start_s: how long it may take.

        Raises:
            ConfigError: this interpreter has no vLLM, or there is no other one.
            EnvError: it ended at once, or did not answer in time.
        """
        self._python = _interpreter(python)
        self._start_s = start_s
        self.folder = Path(tempfile.mkdtemp(prefix="shoal-vllm-"))
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment: Mapping[str, str] = vllm_environment(self.folder)
        self._command = vllm_command(
            self._python, model, port=self.port, options=options
        )
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.revive()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        """What it writes."""
        return self.folder / "vllm.log"

    def revive(self) -> None:
        """Starts it where it does not run, and waits until it answers."""
        runs = self._process is not None and self._process.poll() is None
        if runs and self._answers():
            return
        # One that is being killed runs a moment longer.
        self._end()
        self._start()
        if not self._answers():
            assert self._process is not None
            raise EnvError(
                f"vLLM ended with status {self._process.poll()} before it answered:\n{self._tail()}"
            )

    def close(self) -> None:
        """Ends it."""
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _DIES_WITH, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=dict(self._environment),
                process_group=0,
            )

    def _answers(self) -> bool:
        """Waits until it answers; False where it ends before that."""
        assert self._process is not None
        asked = Connection(self.url, timeout_s=2.0)
        deadline = time.monotonic() + self._start_s
        while self._process.poll() is None:
            with suppress(EngineError):
                asked.get("/v1/models")
                return True
            if time.monotonic() > deadline:
                raise EnvError(
                    f"vLLM did not answer within {self._start_s:g} s:\n{self._tail()}"
                )
            time.sleep(LOOK_S)
        return False

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
        self._process = None

    def _tail(self) -> str:
        with suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            return "\n".join(lines[-SHOWN:])
        return ""


def _interpreter(python: str) -> str:
    if python:
        found = shutil.which(python)
        if found is None:
            raise ConfigError(
                f"engine_python={python!r} is no program; name the interpreter of an environment with vLLM"
            )
        return os.path.abspath(found)
    if find_spec("vllm") is None:
        raise ConfigError(
            "this environment has no vLLM: install it (pip install vllm), or name the interpreter of one that has it "
            "(language.engine_python), or a server (language.engine_url)"
        )
    return sys.executable


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
