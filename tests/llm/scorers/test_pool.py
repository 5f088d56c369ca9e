"""Scoring as a stage: every answer comes back exactly once, whatever its scorer does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from shoal.llm.scorers.pool import Scored, ScorerPool
from shoal.llm.scorers.score import ScorerError
from shoal.llm.stage.stage import StageError
from shoal.llm.tasks.task import Prompt
from shoal.types import ConfigError
from tests.llm.scorers.as_told import (
    PROMPT,
    Batches,
    as_told,
    dies_while_starting,
    exact,
    fails_to_load,
    flaky_scorer,
    once,
)

pytestmark = pytest.mark.usefixtures("warm_workers")


def collect(pool: ScorerPool, *, within_s: float = 30.0) -> dict[int, Scored]:
    found: dict[int, Scored] = {}
    deadline = time.monotonic() + within_s
    while pool.pending and time.monotonic() < deadline:
        for scored in pool.poll(1.0):
            assert scored.key not in found
            found[scored.key] = scored
    assert not pool.pending
    return found


def pool_of(make: Any = lambda: as_told, **given: Any) -> ScorerPool:
    settings: dict[str, Any] = {"workers": 1, "timeout_s": 10.0}
    return ScorerPool(make, name="sums", **(settings | given))


@pytest.mark.parametrize("workers", [0, 2])
def test_scores_come_back(workers: int) -> None:
    with pool_of(lambda: exact, workers=workers) as pool:
        assert pool.poll() == []
        for key in range(40):
            pool.submit(key, PROMPT, str(key))
        assert pool.pending == 40
        found = collect(pool)
        assert sorted(found) == list(range(40))
        assert [key for key, scored in found.items() if scored.reward] == [4]
        assert all(scored.failure is None and scored.seconds >= 0 for scored in found.values())
        assert pool.poll(inf) == []
    if not workers:
        assert list(found) == list(range(40))


FAILURES = [
    ("raise", "OverflowError: too much"),
    ("nan", "ValueError: the score is nan, which is not finite"),
    ("none", "ValueError: the score is no number, but None"),
    ("text", "ValueError: the score is no number, but str 1"),
]


@pytest.mark.parametrize("workers", [0, 1])
def test_failures_follow_the_policy(workers: int) -> None:
    for policy, reward in (("zero", 0.0), ("drop", None))[workers:]:
        with pool_of(workers=workers, on_failure=policy, retries=1) as pool:
            for key, (answer, _) in enumerate(FAILURES):
                pool.submit(key, PROMPT, answer)
            pool.submit(99, PROMPT, "right")
            found = collect(pool)
        assert found.pop(99).reward == 1.0
        for key, (_, text) in enumerate(FAILURES):
            assert found[key].reward == reward
            assert found[key].failure == f"sums: scoring an answer to prompt 7 failed, 2 times: {text}"
        assert (pool.num_failures, pool.num_retries) == (4, 4)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_error_is_raised_and_loses_nothing(workers: int) -> None:
    with pool_of(workers=workers, retries=0) as pool:
        for key, answer in enumerate(("right", "raise", "right", "nan")):
            pool.submit(key, PROMPT, answer)
        text = r"sums: scoring an answer to prompt 7 failed: .*; language.on_scorer_failure='drop' or 'zero'"
        while pool.pending > 3:
            assert [scored.key for scored in pool.poll(5.0)] == [0]
        with pytest.raises(ScorerError, match=text) as first:
            pool.poll(5.0)
        assert [scored.key for scored in pool.poll(5.0)] == [2]
        with pytest.raises(ScorerError, match=text) as second:
            pool.poll(5.0)
        assert pool.pending == 0
    assert (first.value.key, second.value.key) == (1, 3)
    assert "in as_told" in first.value.__notes__[0]


@pytest.mark.slow
def test_a_flaky_scorer_is_asked_again(tmp_path: Path) -> None:
    with pool_of(retries=1) as pool:
        pool.submit(0, PROMPT, f"once {tmp_path}/raised")
        pool.submit(1, PROMPT, f"once-die {tmp_path}/died")
        found = collect(pool)
    assert [found[key].reward for key in (0, 1)] == [1.0, 1.0]
    assert (pool.num_failures, pool.num_retries) == (0, 2)


def test_processes_that_die_are_named_and_replaced() -> None:
    with pool_of(retries=0, on_failure="zero") as pool:
        [first] = pool.pids
        for key, answer in enumerate(("die", "right", "exit", "right")):
            pool.submit(key, PROMPT, answer)
        found = collect(pool)
        [last] = pool.pids
    assert first != last
    assert [found[key].reward for key in range(4)] == [0.0, 1.0, 0.0, 1.0]
    assert f"scorer 0 (pid {first}) was killed by SIGSEGV" in str(found[0].failure)
    assert "exited with status 3" in str(found[2].failure)


def test_a_scorer_that_hangs_is_killed_and_shown() -> None:
    with pool_of(retries=0, on_failure="drop", timeout_s=0.5) as pool:
        pool.submit(0, PROMPT, "hang")
        pool.submit(1, PROMPT, "right")
        began = time.monotonic()
        found = collect(pool)
    assert time.monotonic() - began < 8
    assert (found[0].reward, found[1].reward) == (None, 1.0)
    assert "said nothing for 0.5 s; its stack:" in str(found[0].failure)
    assert "in as_told" in str(found[0].failure)
    assert found[0].seconds >= 0.5


@pytest.mark.slow
def test_it_goes_on_while_nobody_asks() -> None:
    with pool_of() as pool:
        pool.submit(99, PROMPT, "parts")
        [scored] = pool.poll(10.0)
        assert (scored.reward, scored.parts, scored.steps) == (1.5, {"format": 0.5, "right": 1.0}, (0.0, 1.0))
        for key in range(20):
            pool.submit(key, PROMPT, "sleep 0.01")
        time.sleep(1.0)
        assert len(pool.poll()) == 20


def test_batches() -> None:
    with pool_of(Batches, workers=0, retries=0, on_failure="drop") as pool:
        answers = ["a", "bb", "one", "dddd", "all", "ff"]
        for key, answer in enumerate(answers):
            pool.submit(key, PROMPT, answer)
        found = collect(pool)
    assert [found[key].reward for key in range(6)] == [1.0, 2.0, None, 4.0, None, 2.0]
    assert "ValueError: this one" in str(found[2].failure)
    assert "ValueError: the batch" in str(found[4].failure)


@pytest.mark.slow
def test_a_batch_whose_process_dies_takes_no_other_answer_with_it() -> None:
    with pool_of(Batches, retries=0, on_failure="drop") as pool:
        # while the first takes its time, all others come to wait: so "die" is never in a batch of its own
        for key, answer in enumerate(("slow", "a", "bb", "die", "dddd", "one", "all", "ff")):
            pool.submit(key, PROMPT, answer)
        found = collect(pool)
    assert [found[key].reward for key in range(8)] == [4.0, 1.0, 2.0, None, 4.0, None, None, 2.0]
    assert "was killed by SIGKILL" in str(found[3].failure)


def test_scorers_that_cannot_be_made() -> None:
    for workers in (0, 1):
        with pytest.raises(FileNotFoundError, match="no weights"):
            pool_of(fails_to_load, workers=workers)
    with pytest.raises(ConfigError, match=r"sums: its scorer cannot go to other processes.*workers=0"):
        pool_of(threading.Lock().acquire)


@pytest.mark.slow
def test_a_scorer_that_is_gone_for_good(tmp_path: Path) -> None:
    path = str(tmp_path / "made")
    with pool_of(lambda: once(path), on_failure="zero", retries=0) as pool:
        pool.submit(0, PROMPT, "die")
        pool.submit(1, PROMPT, "right")
        assert [scored.key for scored in pool.poll(10.0)] == [0]
        for _ in range(2):
            with pytest.raises(StageError, match="sums: the weights are gone"):
                pool.poll(10.0)
        assert pool.pending == 1


@pytest.mark.slow
def test_processes_that_die_while_they_start(tmp_path: Path) -> None:
    path = str(tmp_path / "starts")
    with pool_of(lambda: dies_while_starting(path, times=2), on_failure="zero", retries=0) as pool:
        pool.submit(0, PROMPT, "die")
        pool.submit(1, PROMPT, "right")
        found = collect(pool)
    assert [found[key].reward for key in (0, 1)] == [0.0, 1.0]
    path = str(tmp_path / "starts again")
    with pool_of(lambda: dies_while_starting(path, times=99), on_failure="zero", retries=0) as pool:
        pool.submit(0, PROMPT, "die")
        pool.submit(1, PROMPT, "right")
        assert [scored.key for scored in pool.poll(10.0)] == [0]
        with pytest.raises(StageError, match=r"scorer 0 \(pid .*\) was killed by SIGKILL.*while it started once more"):
            pool.poll(30.0)


@pytest.mark.slow
def test_no_answer_is_lost_or_scored_twice_whatever_is_killed() -> None:
    """Scorers that raise, hang and end their process at random, and are killed at random from outside."""
    chance = Random(1)
    with pool_of(flaky_scorer, workers=2, timeout_s=0.5, retries=2, on_failure="zero") as pool:
        found: dict[int, Scored] = {}
        submitted = 0
        deadline = time.monotonic() + 12
        while pool.pending or time.monotonic() < deadline:
            while pool.pending < 20 and time.monotonic() < deadline:
                pool.submit(submitted, PROMPT, str(submitted))
                submitted += 1
            if chance.random() < 0.02:
                with suppress(OSError):
                    os.kill(chance.choice(pool.pids), signal.SIGKILL)
            for scored in pool.poll(0.02):
                assert scored.key not in found
                found[scored.key] = scored
    assert sorted(found) == list(range(submitted))
    assert submitted > 50
    assert all(scored.reward == (0.0 if scored.failure else key) for key, scored in found.items())


def test_wrong_settings() -> None:
    for given, message in (
        ({"workers": -1}, "workers must be between 0 and 256"),
        ({"retries": -1}, "retries must be between"),
        ({"timeout_s": 0.0}, "timeout_s must be >= 0.001"),
        ({"on_failure": "ignore"}, "on_failure is one of raise, zero, drop, got 'ignore'"),
    ):
        with pytest.raises(ConfigError, match=message):
            pool_of(**given)
    wrong: Any = type("Wrong", (), {"batch_size": 0, "score_batch": None})
    for workers in (0, 1):
        with pytest.raises(ValueError, match="batch_size is 0"):
            pool_of(wrong, workers=workers)


def test_keys() -> None:
    pool = pool_of(workers=0)
    pool.submit(1, PROMPT, "right")
    with pytest.raises(ValueError, match="sums: key 1 is pending"):
        pool.submit(1, PROMPT, "right")
    pool.poll()
    pool.submit(1, PROMPT, "right")
    pool.close()
    assert (pool.pending, pool.poll(1.0)) == (0, [])
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(2, PROMPT, "right")
    pool.close()


def test_an_interrupt_loses_no_answer() -> None:
    asked: list[str] = []

    def interrupted(_: Prompt, answer: str) -> float:
        asked.append(answer)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return 1.0

    pool = pool_of(lambda: interrupted, workers=0)
    for key in range(3):
        pool.submit(key, PROMPT, "right")
    with pytest.raises(KeyboardInterrupt):
        pool.poll()
    assert [scored.key for scored in pool.poll()] == [0, 1, 2]


def test_numbers_of_other_kinds() -> None:
    values = [np.float32(0.5), np.array([2.0]), np.int64(3), True, torch.tensor([4.0]), Decimal("0.25"), Fraction(1, 2)]
    pool = pool_of(lambda: lambda prompt, _: values[prompt.index], workers=0)
    for key in range(len(values)):
        pool.submit(key, Prompt(key, "x"), "")
    assert [scored.reward for scored in pool.poll()] == [0.5, 2.0, 3.0, 1.0, 4.0, 0.25, 0.5]


def test_what_always_fails_is_said_early() -> None:
    """An answer is scored again before others are scored the first time."""
    pool = pool_of(retries=2, on_failure="drop")
    for key in range(20):
        pool.submit(key, PROMPT, "" if key else "raise")
    assert next(iter(collect(pool))) == 0


def test_close_ends_a_scorer_that_hangs() -> None:
    pool = pool_of(timeout_s=100.0)
    pids = pool.pids
    pool.submit(0, PROMPT, "hang")
    time.sleep(0.2)
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < 5
    assert not any(psutil.pid_exists(pid) for pid in pids)


PARENT = """
import sys, time
sys.path.insert(0, {root!r})
from shoal.llm.scorers.pool import ScorerPool
from tests.llm.scorers.as_told import PROMPT, as_told
pool = ScorerPool(lambda: as_told, workers=2)
pool.submit(0, PROMPT, "hang")
print(*pool.pids, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_nothing_outlives_a_parent_that_is_killed() -> None:
    program = PARENT.format(root=str(Path(__file__).parents[3]))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    deadline = time.monotonic() + 5
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(psutil.pid_exists(pid) for pid in pids)
