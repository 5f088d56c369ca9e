"""Processes: what an environment starts ends with its worker; who comes back twice, or is not heard, is named."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from shoal.envs.registry import make
from shoal.envs.vec_env import VecEnv
from shoal.envs.workers.rows import WorkersEnv
from shoal.envs.workers.settings import Workers
from shoal.types import EnvError, Ready
from tests.fault.strays import Closer, Doomed, Plain, Raiser, Slow, Starter, Twice

TWO = slice(0, 2)


def begun(env: Any, settings: Workers | None = None, backend: str = "workers", **kwargs: Any) -> VecEnv:
    """Two rows, in one process each, after the first recv."""
    workers = settings or Workers(2)
    made = make(env, 2, backend=backend, env_kwargs=kwargs, workers=workers if backend == "workers" else None)
    try:
        made.reset(0)
    except BaseException:
        made.close()
        raise
    made.recv()
    return made


def step(env: VecEnv, count: int = 1) -> Ready:
    ready: Any = None
    for _ in range(count):
        env.send(TWO, np.zeros(2, np.int64))
        ready = env.recv()
    return ready


def noted(folder: Path) -> list[int]:
    """The processes that `Starter`s have started so far."""
    return [int(pid) for path in folder.glob("[0-9]*") if not path.suffix for pid in path.read_text().split()]


def wait_gone(pids: list[int], within_s: float = 3.0) -> None:
    deadline = time.monotonic() + within_s
    while left := [pid for pid in pids if psutil.pid_exists(pid)]:
        assert time.monotonic() < deadline, f"{left} of {pids} are still there"
        time.sleep(0.01)


@pytest.mark.parametrize("way", ["close", "killed", "restart", "drop"])
def test_what_an_environment_starts_ends_with_its_worker(way: str, tmp_path: Path) -> None:
    """A forked child, a subprocess, one of another session, and an orphan of a third."""
    policy = way if way in ("restart", "drop") else "raise"
    ends = policy != "raise"
    env = begun(Starter, Workers(2, on_fault=policy), notes=str(tmp_path), ends=ends)
    assert isinstance(env, WorkersEnv)
    try:
        pids, workers = noted(tmp_path), env.pids
        assert len(pids) == 8
        assert all(psutil.pid_exists(pid) for pid in pids)
        if way == "killed":
            for pid in workers:
                os.kill(pid, 9)
            wait_gone(pids + workers)
        elif ends:
            with pytest.raises(EnvError, match="last worker") if way == "drop" else np.errstate():
                step(env, 2)
            wait_gone(pids)
    finally:
        env.close()
    wait_gone(noted(tmp_path))


def test_what_an_environment_starts_ends_when_the_parent_is_killed(tmp_path: Path) -> None:
    body = (
        "import sys, time; from tests.fault.test_processes import begun; from tests.fault.strays import Starter; "
        "env = begun(Starter, notes=sys.argv[1]); print(*env.pids, flush=True); time.sleep(1000)"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", body, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(noted(tmp_path)) == 8
    wait_gone(workers + noted(tmp_path))


def test_close_waits_for_the_step_under_way(tmp_path: Path) -> None:
    env = begun(Slow, notes=str(tmp_path))
    env.send(TWO, np.zeros(2, np.int64))
    time.sleep(0.05)
    begin = time.perf_counter()
    env.close()
    assert time.perf_counter() - begin < 1.5
    assert [path.read_text() for path in tmp_path.iterdir()] == ["closed after 1"] * 2


@pytest.mark.parametrize("where", ["step", "reset"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_comes_back_is_named_and_ended(where: str) -> None:
    env = begun(Twice, where=where)

    def go_on() -> None:
        if where == "reset":
            env.reset(1)
            env.recv()
        step(env, 3)

    with pytest.raises(EnvError, match=r"forked, and the child \(pid \d+\) came back from the call too; it is ended"):
        go_on()
    env.reset(2)
    env.recv()
    assert step(env).obs.ravel().tolist() == [1, 1]
    env.close()


def test_rows_whose_environment_came_back_twice_are_restarted() -> None:
    env = begun(Twice, Workers(2, on_fault="restart"))
    seen = [step(env) for _ in range(1)]
    cut = np.zeros(2, np.bool_)
    for _ in range(2):
        ready = step(env)
        cut |= ready.truncated
        seen.append(ready)
    assert cut.all()
    env.close()


def test_in_serial_a_child_that_comes_back_ends_without_a_trace(tmp_path: Path) -> None:
    body = (
        "import sys; from tests.fault.test_processes import begun, step; from tests.fault.strays import Twice\n"
        "env = begun(Twice, backend='serial')\n"
        "try:\n    step(env, 2); step(env); print('stepped', flush=True)\n"
        "finally:\n    print('end', flush=True)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.splitlines() == ["stepped", "end"]
    assert "Twice: the step of a row among 0..1 forked, and the child" in done.stderr


def test_rows_may_be_handed_to_a_forked_child() -> None:
    """Only a process that a call begins in one and ends in another is refused."""
    env = begun(Plain, backend="serial")
    child = os.fork()
    if not child:
        os._exit(int(step(env).obs[0, 0]))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


@pytest.mark.parametrize(("policy", "reopens"), [("raise", "file"), ("restart", "file"), ("restart", ""), ("drop", "")])
def test_a_worker_that_cannot_be_talked_to_is_replaced(policy: str, reopens: str, tmp_path: Path) -> None:
    once, file = tmp_path / "once", tmp_path / "file"
    settings = Workers(1, on_fault=policy)
    env = begun(Closer, settings, once=str(once), file=str(file) if reopens else "")
    assert step(env, 3).obs.ravel().tolist() == [3, 3]
    if policy == "raise":
        with pytest.raises(EnvError, match=r"exited with status 71: its pipe was closed or replaced"):
            env.reset(1)
    env.reset(2)
    assert env.recv().obs.ravel().tolist() == [0, 0]
    assert step(env, 2).obs.ravel().tolist() == [2, 2]
    env.close()
    assert not reopens or file.read_bytes() == b""


def test_a_checkpoint_of_a_worker_that_cannot_be_talked_to_cuts_its_rows(tmp_path: Path) -> None:
    env = begun(Closer, Workers(1, on_fault="restart"), once=str(tmp_path / "once"))
    step(env, 3)
    saved = env.state()
    ready = step(env)
    assert ready.truncated.all()
    assert ready.episode_length.tolist() == [3, 3]
    assert len(env.restore(saved)) == 2
    env.close()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("dies", r"worker 0 \(pid \d+, rows 0\.\.0\), making its environments, exited with status 5"),
        ("hangs", r"worker 0 .*, making its environments, said nothing for 1\.5 s; its stack:\n(?s:.*)strays\.py"),
    ],
)
def test_death_and_hang_in_init_are_named_in_time(how: str, message: str) -> None:
    begin = time.perf_counter()
    with pytest.raises(EnvError, match=message):
        make(Doomed, 1, backend="workers", env_kwargs={"how": how}, workers=Workers(1, start_timeout_s=1.5))
    assert time.perf_counter() - begin < 5


def test_an_exception_whose_class_is_not_here_keeps_its_name_and_text() -> None:
    env = begun(Raiser, what="only there")
    with pytest.raises(EnvError, match=r"LostError: \('nobody knows me', 7\)") as caught:
        step(env, 2)
    notes = "\n".join(caught.value.__notes__)
    assert "it could not be made again in this process: ModuleNotFoundError: No module named 'only_there'" in notes
    assert "raised by Raiser: row 0 at step 2 of its episode" in notes
    assert f"in worker 0, pid {env.pids[0]}:\nTraceback" in notes  # pyright: ignore[reportAttributeAccessIssue]
    env.close()


@pytest.mark.parametrize("policy", ["raise", "restart"])
def test_an_exception_whose_text_raises(policy: str) -> None:
    env = begun(Raiser, Workers(2, on_fault=policy), what="silent")
    step(env)
    if policy == "restart":
        assert step(env).truncated.all()
    else:
        with pytest.raises(EnvError, match=r"SilentError: \(its text cannot be shown: str\(\) of it raised ZeroDiv"):
            step(env)
    env.close()


@pytest.mark.parametrize("backend", ["serial", "workers"])
def test_an_error_of_close_is_raised_when_all_are_closed(backend: str) -> None:
    env = begun(Raiser, backend=backend, what="close")
    step(env)
    with pytest.raises(OSError, match="the display is gone"):
        env.close()
    env.close()
    with pytest.raises(RuntimeError, match="closed"):
        step(env)
