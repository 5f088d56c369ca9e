"""What `workers` does when a process dies, hangs or raises: named in time, followed as told, nothing left behind."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal.envs.registry import make
from shoal.envs.workers.rows import WorkersEnv
from shoal.envs.workers.settings import Workers
from shoal.types import ConfigError, EnvError
from tests.fault.rows import ALL, TIMEOUT_S, Rows, check_order, played, step
from tests.fault.troubles import LENGTH, OddError, Trouble

pytestmark = pytest.mark.usefixtures("warm_workers")


@pytest.mark.parametrize(
    ("what", "kind", "message", "within_s"),
    [
        ("SIGKILL", EnvError, r"worker 1 \(pid \d+, rows 2\.\.4\), .* send 3 .* was killed by SIGKILL", 1),
        ("SIGSEGV", EnvError, r"worker 1 \(pid \d+, rows 2\.\.4\), .* send 3 .* was killed by SIGSEGV", 1),
        ("exit", EnvError, r"worker 1 \(pid \d+, rows 2\.\.4\), .* send 3 .* exited with status 3", 1),
        ("SIGSTOP", EnvError, r"worker 1 \(pid .* send 3 .* did not answer for 1 s; it is stopped", TIMEOUT_S + 1),
        ("hang", EnvError, r"worker 1 \(pid .* did not answer for 1 s; its stack:\n(?s:.*)make_trouble", TIMEOUT_S + 1),
        ("raise", OddError, "the wheel came off", 1),
        ("raise unpicklable", EnvError, "StubbornError: it is stubborn", 1),
        ("NaN observation", EnvError, r"row 2 at step 3 of its episode returned the observation \[nan", 1),
        ("NaN reward", EnvError, r"row 2 at step 3 of its episode returned the reward nan", 1),
        ("long observation", EnvError, r"row 2 at step 3 .* observation of shape \(4,\)", 1),
        ("short observation", EnvError, r"row 2 at step 3 .* observation of shape \(1,\)", 1),
        ("no observation", EnvError, r"row 2 at step 3 .* observation None", 1),
    ],
)
def test_a_fault_is_named_in_time(rows: Rows, what: str, kind: type[Exception], message: str, within_s: float) -> None:
    env = rows(what)
    step(env, 2)
    begun = time.perf_counter()
    with pytest.raises(kind, match=message) as caught:
        step(env)
    seconds = time.perf_counter() - begun
    print(f"{what}: {seconds:.3f} s")
    assert seconds < within_s + 2  # a loaded machine; the benchmark holds the bounds themselves
    assert what not in ("SIGSTOP", "hang") or seconds >= TIMEOUT_S
    with pytest.raises(RuntimeError, match=r"a step failed halfway; call reset\(seed\) or restore\(state\)"):
        step(env)
    if what.startswith("raise"):
        notes = "\n".join(caught.value.__notes__)
        assert "raised by Trouble: row 2 at step 3 of its episode, after the action 0" in notes
        assert f"in worker 1, pid {env.pids[1]}:\nTraceback" in notes
    env.reset(100)
    assert env.recv().obs[:, 0].tolist() == [100, 101, 102, 103, 104]
    assert step(env, 12).obs[:, 1].tolist() == [12 - LENGTH] * 5


def test_the_users_exception_arrives_unchanged(rows: Rows) -> None:
    env = rows("raise")
    with pytest.raises(OddError) as caught:
        step(env, 3)
    assert type(caught.value) is OddError
    assert (caught.value.args, caught.value.code) == (("the wheel came off", 42), 42)


def test_close_while_a_worker_hangs(rows: Rows) -> None:
    env = rows("stubborn hang", at=1, step_timeout_s=60.0)
    env.send(ALL, np.zeros(5, np.int64))
    time.sleep(0.2)
    begun = time.perf_counter()
    env.close()
    assert time.perf_counter() - begun < 5
    with pytest.raises(RuntimeError, match="closed"):
        env.recv()
    with pytest.raises(RuntimeError, match="closed"):
        env.reset(0)


@pytest.mark.parametrize("sends", ["whole", "halves"])
@pytest.mark.parametrize("what", ["SIGKILL", "SIGSTOP", "raise", "NaN reward"])
def test_restart_cuts_the_workers_rows_and_loses_no_step(rows: Rows, what: str, sends: str) -> None:
    env = rows(what, at=12, on_fault="restart")
    seen = played(env, 40, halves=sends == "halves")
    assert [check_order(row, steps) for row, steps in seen.items()] == [0, 0, 1, 1, 1]
    assert [len(steps) for steps in seen.values()] == [40] * 5


def test_a_restart_is_deterministic(rows: Rows) -> None:
    first, second = (played(rows("exit", at=12, on_fault="restart"), 30, halves=False) for _ in range(2))
    assert first == second
    assert len({steps[-1][0][0] for steps in first.values()}) == 5


def test_restarts_have_a_budget(rows: Rows) -> None:
    env = rows("SIGKILL", at=1, on_fault="restart", max_restarts=0)
    with pytest.raises(EnvError, match="SIGKILL") as caught:
        step(env)
    assert "after 0 restarts, as max_restarts allows" in caught.value.__notes__[0]


class Fragile(Trouble):
    """The first process that takes over dies before it is ready."""

    def __init__(self, made: str) -> None:
        super().__init__("exit", at=12)
        with open(made, "a", encoding="utf-8") as file:
            file.write("x")
        if os.path.getsize(made) == 6:
            os._exit(4)


def test_a_process_that_dies_while_it_takes_over(tmp_path: Path) -> None:
    settings = Workers(2, on_fault="restart")
    env = make(Fragile, 5, backend="workers", env_kwargs={"made": str(tmp_path / "made")}, workers=settings)
    env.reset(0)
    env.recv()
    assert isinstance(env, WorkersEnv)
    seen = played(env, 20, halves=True)
    assert [check_order(row, steps) for row, steps in seen.items()] == [0, 0, 1, 1, 1]
    assert env.state()["restarts"] == [0, 0, 2, 2, 2]
    env.close()


def test_a_worker_that_dies_between_steps(rows: Rows) -> None:
    env = rows("nothing", on_fault="restart")
    step(env, 4)
    saved = env.state()
    env.pool.workers[0].kill()
    ready = step(env)
    assert ready.truncated.tolist() == [True, True, False, False, False]
    assert ready.final_obs[:2].tolist() == [[0, 4, 1], [1, 4, 1]]
    assert step(env).valid.all()
    assert env.restore(saved) == []
    assert env.recv().obs[:, 1].tolist() == [4] * 5


def test_a_state_with_rows_that_wait_to_be_cut_says_so(rows: Rows) -> None:
    env = rows("SIGKILL", at=5, on_fault="restart")
    step(env, 4)
    env.send(slice(2, 3), np.zeros(1, np.int64))
    assert env.recv().truncated.tolist() == [True]
    lost = env.restore(env.state())
    assert [sentence.split(";")[0] for sentence in lost] == [
        f"Trouble: row {row} did not come back to its saved observation and return after 0 actions" for row in (3, 4)
    ]
    assert env.recv().truncated.tolist() == [False, False, False, True, True]


def test_workers_outlive_the_thread_that_made_them(rows: Rows) -> None:
    made: list[WorkersEnv] = []
    thread = threading.Thread(target=lambda: made.append(rows("nothing")))
    thread.start()
    thread.join()
    time.sleep(0.2)
    assert step(made[0], 3).valid.all()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_ends_nothing(rows: Rows) -> None:
    env = rows("nothing")
    child = os.fork()
    if not child:
        env.pool._at_exit()
        os._exit(0)
    os.waitpid(child, 0)
    assert step(env, 3).valid.all()


def test_a_reset_that_hangs_is_named(rows: Rows) -> None:
    env = rows("hang at reset")
    with pytest.raises(
        EnvError, match=r"worker 0 \(pid \d+, rows 0\.\.1\), .* reset, did not answer for 1 s; its stack"
    ):
        env.reset(2**19)
    env.reset(5)
    assert env.recv().obs[:, 0].tolist() == [5, 6, 7, 8, 9]


def test_too_little_memory_is_a_sentence(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(ConfigError, match=r"5 rows need [\d,]+ bytes of shared memory, .*No space left .* num_envs"):
        rows("nothing")


def test_settings_that_cannot_work() -> None:
    impossible: list[dict[str, Any]] = [
        {"num_workers": -1},
        {"step_timeout_s": 0.0},
        {"start_timeout_s": float("nan")},
        {"max_restarts": -1},
    ]
    impossible.append({"on_fault": "ignore"})
    for wrong in impossible:
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Workers(**wrong)


def test_a_factory_that_raises(rows: Rows) -> None:
    def broken() -> Any:
        raise OddError("no such level", 7)

    with pytest.raises(OddError, match="no such level") as caught:
        make(broken, 3, backend="workers", workers=Workers(2))
    assert any("while row 0 of broken was made" in note for note in caught.value.__notes__)
