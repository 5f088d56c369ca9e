"""`batch_rows`: the batch that is done first comes first; every row's steps arrive once and in order."""

import os
import signal
from typing import Any

import numpy as np
import pytest

from shoal.envs.registry import make
from shoal.envs.workers.rows import WorkersEnv
from shoal.envs.workers.settings import Workers
from shoal.nets.policy import Network, make_policy
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError, EnvError
from tests.contract.toys import Lamps
from tests.fault.rows import Rows, Step, check_dropped, check_order, keep

pytestmark = pytest.mark.usefixtures("warm_workers")

EIGHT = slice(0, 8)
FOURS: dict[str, Any] = {"num_rows": 8, "num_workers": 4}


def consumed(env: WorkersEnv, num_batches: int, *, twos: int = 0) -> tuple[dict[int, list[Step]], list[int]]:
    """Sends each batch again as it comes, and on until the one of row 2 came `twos` times.

    What each row was handed, and the first rows of the batches.
    """
    seen: dict[int, list[Step]] = {row: [] for row in range(8)}
    order: list[int] = []
    env.send(EIGHT, np.zeros(8, np.int64))
    while len(order) < num_batches or order.count(2) < twos:
        ready = env.recv()
        order.append(ready.rows.start)
        keep(ready, seen)
        env.send(ready.rows, np.zeros(ready.rows.stop - ready.rows.start, np.int64))
    return seen, order


@pytest.mark.parametrize("batch_rows", [2, 4])
def test_a_slow_worker_holds_up_its_batch_alone(rows: Rows, batch_rows: int) -> None:
    """Worker 0 stands still for 100 batches: all of them are others'. Then its own comes, with its first step."""
    env = rows("nothing", batch_rows=batch_rows, step_timeout_s=60.0, **FOURS)
    os.kill(env.pids[0], signal.SIGSTOP)
    seen, order = consumed(env, 100)
    assert set(order) == set(range(batch_rows, 8, batch_rows))
    os.kill(env.pids[0], signal.SIGCONT)
    while order[-1]:
        ready = env.recv()
        order.append(ready.rows.start)
        keep(ready, seen)
        if order[-1]:
            env.send(ready.rows, np.zeros(batch_rows, np.int64))
    assert [check_order(row, steps) for row, steps in seen.items()] == [0] * 8
    assert [len(seen[row]) for row in range(8)] == [order.count(row // batch_rows * batch_rows) for row in range(8)]


@pytest.mark.parametrize("what", ["SIGKILL", "SIGSTOP", "raise"])
def test_a_restart_among_batches(rows: Rows, what: str) -> None:
    env = rows(what, at=12, batch_rows=2, on_fault="restart", **FOURS)
    seen, _ = consumed(env, 100, twos=15)
    assert [check_order(row, steps) for row, steps in seen.items()] == [0, 0, 1, 1, 0, 0, 0, 0]


def test_a_worker_that_hangs_is_named_while_others_go_on(rows: Rows) -> None:
    env = rows("hang", at=3, batch_rows=2, **FOURS)
    with pytest.raises(EnvError, match=r"worker 1 .* rows 2\.\.3, send \d+ .* did not answer for 1 s"):
        consumed(env, 10**9)


def test_dropped_batches_come_back_empty(rows: Rows) -> None:
    env = rows("SIGKILL", at=12, batch_rows=2, on_fault="drop", **FOURS)
    seen, _ = consumed(env, 100, twos=15)
    assert [check_order(row, seen[row]) for row in (0, 1, 4, 5, 6, 7)] == [0] * 6
    check_dropped(2, seen[2], 11)
    check_dropped(3, seen[3], 11)


def test_what_is_sent_must_be_whole_batches(rows: Rows) -> None:
    env = rows("nothing", batch_rows=2, **FOURS)
    with pytest.raises(ValueError, match=r"whole batches of batch_rows=2, got 1\.\.2"):
        env.send(slice(1, 3), np.zeros(2, np.int64))
    env.send(slice(2, 6), np.zeros(4, np.int64))
    with pytest.raises(RuntimeError, match=r"rows 4\.\.7 were sent before rows 2\.\.3 and 4\.\.5 were received"):
        env.send(slice(4, 8), np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="row 7"):
        env.send(slice(6, 8), np.array([0, 9]))
    env.send(slice(6, 8), np.zeros(2, np.int64))
    assert sorted(env.recv().rows.start for _ in range(3)) == [2, 4, 6]
    with pytest.raises(RuntimeError, match="no rows under way"):
        env.recv()
    assert env.restore(env.state()) == []
    assert env.recv().obs[:, 1].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("num_workers", "batch_rows", "fix"),
    [(2, 2, "num_workers=4 would"), (5, 4, "num_workers=4 would"), (2, 3, "must divide num_envs")],
)
def test_batches_are_whole_workers(num_workers: int, batch_rows: int, fix: str) -> None:
    with pytest.raises(
        ConfigError, match=f"batch_rows={batch_rows} does not fit 8 rows in {num_workers} workers; .*{fix}"
    ):
        make(Lamps, 8, backend="workers", workers=Workers(num_workers, batch_rows=batch_rows))


def test_rollouts_need_the_order_of_sends(rows: Rows) -> None:
    env = rows("nothing", batch_rows=4, **FOURS)
    with pytest.raises(ConfigError, match="leave batch_rows=4 out"):
        rollouts(env, make_policy(env.spec, Network(hidden=(4,)), 0), num_steps=2)


def test_an_answer_between_two_looks(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every worker answers after the first look at it and before the parent goes to sleep."""
    env = rows("nothing", batch_rows=2, step_timeout_s=60.0, **FOURS)
    env.send(EIGHT, np.zeros(8, np.int64))
    look = env.pool.look

    def late(tasks: Any) -> Any:
        found = look(tasks)
        while not all(env.pool.answered(task) for task in tasks):
            pass
        return found

    monkeypatch.setattr(env.pool, "look", late)
    assert [env.recv().rows.start for _ in range(4)] == [0, 2, 4, 6]
