"""The sandbox: what programs take is bounded, and what they cannot see is the rest of the machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from shoal.llm.tasks import sandbox as sandboxes
from shoal.llm.tasks.sandbox import Limits, PythonSandbox, Ran
from shoal.types import ConfigError

LIMITS = Limits(timeout_s=20.0, cpu_s=1, memory_mib=256, output_bytes=2000)


def can_be_confined() -> bool:
    try:
        PythonSandbox()
    except ConfigError:
        return False
    return True


CONFINED = can_be_confined() if sys.platform == "linux" else False
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
confined = pytest.mark.skipif(not CONFINED, reason="this container forbids namespaces")


@pytest.fixture(scope="module", params=[pytest.param(False, marks=confined), True], ids=["confined", "unconfined"])
def sandbox(request: pytest.FixtureRequest) -> PythonSandbox:
    return PythonSandbox(LIMITS, unconfined=request.param)


def test_programs_come_to_their_end(sandbox: PythonSandbox) -> None:
    code = "import os, math, json\nprint(math.comb(4, 2), sorted(os.listdir('.')))\nopen('x', 'w').write('é')\n"
    for _ in range(2):  # nothing is left of the first one
        ran = sandbox.run(code)
        assert (ran.output, ran.ended, ran.text) == ("6 []\n", "", "6 []\n")
        assert 0 < ran.cpu_s < ran.seconds < 20


@pytest.mark.parametrize(
    ("code", "output", "ended"),
    [
        ("print(1)\n1 / 0", "ZeroDivisionError: division by zero\n", "it ended with status 1"),
        ("raise SystemExit(3)", "", "it ended with status 3"),
        ("(", "SyntaxError: '(' was never closed\n", "it ended with status 1"),
        ("import os; os.kill(os.getpid(), 11)", "", "it was killed by SIGSEGV"),
        ("bytearray(10**10)", "MemoryError\n", "it ended with status 1"),
        ("print(input())", "EOFError: EOF when reading a line\n", "it ended with status 1"),
        ("while True: print('ab' * 50)", "ab", "it printed more than 2,000 bytes"),
        pytest.param("while True: pass", "", "it took more than 1 s of processor time", marks=pytest.mark.slow),
        pytest.param(
            "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
            "",
            "it took more than 1 s of processor time",
            marks=pytest.mark.slow,
        ),
        ("import os; os.environ.clear(); print(os.path.exists(os.path.expanduser('~/.ssh')))", "False\n", ""),
        ("\0", "", "it ended with status 1"),
        ("# \ud800\nprint(1)", "1\n", ""),
        ("x" * (2**20 + 1), "", "the program has more than 1,048,576 characters"),
    ],
)
@confined
def test_limits(code: str, output: str, ended: str) -> None:
    ran = PythonSandbox.run(made(), code)
    assert ended in ran.ended
    assert bool(ran.ended) == bool(ended)
    assert output in ran.output
    assert len(ran.output) <= 2000
    assert ran.seconds < 10


def made(limits: Limits = LIMITS) -> PythonSandbox:
    """A sandbox without the trial at its start."""
    sandbox = PythonSandbox.__new__(PythonSandbox)
    sandbox.limits, sandbox.unconfined = limits, False
    return sandbox


def test_equal_programs_print_equal_texts(sandbox: PythonSandbox) -> None:
    """Also where they fail: no name of a folder that was made for one run is told."""
    first, again = sandbox.run("1 / 0"), sandbox.run("1 / 0")
    assert "ZeroDivisionError" in first.output
    assert first.output == again.output
    assert "shoal-sandbox" not in first.output


def test_time_by_the_clock() -> None:
    sandbox = made(Limits(timeout_s=0.6))
    sandbox.unconfined = not CONFINED
    for code in ("import time; time.sleep(600)", "import os, time; os.fork() or os.setsid(); time.sleep(600)"):
        ran = sandbox.run(code)
        assert ran.ended == "it took more than 0.6 s"
        assert ran.seconds < 5


@confined
def test_nothing_else_is_there() -> None:
    sandbox = made()
    code = """
import os, socket
def tried(what):
    try: print(what())
    except OSError as error: print(type(error).__name__, error.errno)
tried(lambda: socket.create_connection(("127.0.0.1", {port}), timeout=1))
tried(lambda: socket.create_connection(("1.1.1.1", 80), timeout=1))
tried(lambda: open("/etc/passwd").read())
tried(lambda: open({path!r}).read())
tried(lambda: open(os.__file__, "a"))
tried(lambda: os.kill({pid}, 0))
tried(lambda: os.listdir("/proc"))
tried(lambda: os.setuid(0) if os.getuid() else print("root"))
print("read-only", os.statvfs(os.path.dirname(os.__file__)).f_flag & os.ST_RDONLY)
print(sorted(os.environ))
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ran = sandbox.run(code.format(port=port, path=__file__, pid=os.getpid()))
    lines = ran.output.splitlines()
    errors = [line.split()[0] for line in lines[:8]]
    assert errors[4] in ("OSError", "PermissionError")  # it can only be read
    del errors[4]
    missing = "FileNotFoundError"
    assert errors == ["OSError", "OSError", missing, missing, "ProcessLookupError", missing, "PermissionError"]
    assert "root" not in lines
    assert "read-only 1" in lines
    assert "LC_ALL" not in ran.output
    assert "VIRTUAL_ENV" not in ran.output


@confined
def test_forks_and_files_are_bounded() -> None:
    sandbox = made(Limits(processes=8, file_mib=2))
    code = """
import os, time
made = 0
try:
    while True:
        if not os.fork(): time.sleep(600)
        made += 1
except OSError as error: print(made, type(error).__name__)
"""
    ran = sandbox.run(code)
    made_processes, error = ran.output.split()
    assert (error, ran.ended) == ("BlockingIOError", "")
    assert 1 <= int(made_processes) < 8
    assert ran.seconds < 8
    ran = sandbox.run("for i in range(9): open(f'{i}', 'wb').write(bytes(2**19)); print(i)")
    assert "No space left on device" in ran.output
    assert ran.output.startswith("0\n1\n2\n")


@pytest.mark.slow
def test_what_it_started_ends_with_it(sandbox: PythonSandbox) -> None:
    name = f"left-{os.getpid()}-{sandbox.unconfined}"
    code = f"""
import os, sys
if not os.fork():
    os.setsid()
    if not os.fork():
        os.execv({os.path.realpath(sys.executable)!r}, ["python", "-S", "-c", "import time; time.sleep(600)", {name!r}])
    os._exit(0)
import time; time.sleep(0.5)
print("left")
"""
    assert sandbox.run(code).output == "left\n"
    assert not any(name in arguments(process) for process in psutil.process_iter())


def arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


PARENT = """
import sys
from shoal.llm.tasks.sandbox import Limits, PythonSandbox
sandbox = PythonSandbox(Limits(timeout_s=100.0), unconfined={unconfined})
print("there", flush=True)
sandbox.run("import time; time.sleep(600)  # {name}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("unconfined", [pytest.param(False, marks=confined), True])
def test_nothing_outlives_a_parent_that_is_killed(*, unconfined: bool) -> None:
    program = PARENT.format(unconfined=unconfined, name="x")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "there\n"
        deadline = time.monotonic() + 20
        started: list[psutil.Process] = []
        while len(started) < 3 and time.monotonic() < deadline:
            started = psutil.Process(parent.pid).children(recursive=True)
            time.sleep(0.05)
        parent.kill()
    assert len(started) == 3
    psutil.wait_procs(started, 5)
    assert not any(process.is_running() for process in started)


def test_machines_that_do_not_allow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxes, "_read_told", lambda _: {"refused": "[Errno 1] unshare: Operation not permitted"})
    with pytest.raises(ConfigError, match=r"parted from the rest of this machine.*unshare.*unconfined=True"):
        PythonSandbox()
    monkeypatch.setattr(sandboxes, "_read_told", lambda _: {"lost": "FileNotFoundError: python"})
    with pytest.raises(ConfigError, match=r"cannot run an empty program: \[it could not be started: FileNotFound"):
        PythonSandbox(unconfined=True)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigError, match="needs Linux"):
        PythonSandbox()


@pytest.mark.parametrize("given", [{"timeout_s": 0.0}, {"cpu_s": 0}, {"memory_mib": 1}, {"output_bytes": 0}])
def test_wrong_limits(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(given))} must be between"):
        Limits(**given)


def test_what_a_model_is_shown() -> None:
    assert Ran("4\n", "", 0.1).text == "4\n"
    assert Ran("4", "it took more than 1 s", 0.1).text == "4\n[it took more than 1 s]"
    assert Ran("", "it took more than 1 s", 0.1).text == "[it took more than 1 s]"
