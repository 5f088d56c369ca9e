"""What every test shares: one intra-op thread, fixed seeds, a place for run directories, skipped GPU tests."""

import gc
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is first imported
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="shoal-state-")  # no test touches the user's key
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Whoever runs the tests in a shell's background ignores it, and so would all that tests of Ctrl-C start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest

from tests.fork_server import Interpreter
from tests.warm_workers import Warm


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Global generators start every test at the same state; shoal itself uses none of them."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - for libraries that draw from it
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
        torch.manual_seed(0)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A folder for the run directories of one test."""
    return tmp_path / "runs"


@pytest.fixture
def few_greedy_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of training alone: a run ends with two greedy episodes instead of a hundred."""
    from shoal.experiment import training

    monkeypatch.setattr(training, "GREEDY_EPISODES", 2)


@pytest.fixture
def all_greedy_episodes() -> None:
    """For tests of the greedy episodes themselves: a run ends with all hundred."""


@pytest.fixture(autouse=True)
def _what_fast_tests_leave_out(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts their power, so files need not reach the disk; and they train for some updates without learning much.

    Their runs end with two greedy episodes instead of a hundred, unless `all_greedy_episodes` are asked for.
    """
    if "slow" in request.keywords:
        return
    monkeypatch.setattr(os, "fsync", lambda _: None)
    training = sys.modules.get("shoal.experiment.training")  # else this process has trained nothing, and imports none
    if training is not None and "all_greedy_episodes" not in request.fixturenames:
        monkeypatch.setattr(training, "GREEDY_EPISODES", 2)


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Interpreter]:
    """Runs programs in processes that need not import torch and shoal again."""
    with closing(Interpreter()) as started:
        yield started


@pytest.fixture(scope="session")
def _warm() -> Iterator[Warm]:
    with closing(Warm()) as started:
        yield started


@pytest.fixture
def warm_workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what is done in workers, actors and samplers, which need not import torch and shoal again."""
    from shoal.envs.workers import processes

    if not sys.flags.no_site:  # else this process tests a shoal with a defect, in one test
        warm: Warm = request.getfixturevalue("_warm")
        monkeypatch.setattr(processes, "_start", warm.start)


def pytest_collection() -> None:
    """What is imported and collected stays: nobody looks for garbage meanwhile."""
    gc.disable()


def pytest_collection_finish() -> None:
    """What stays until the end, such as torch and thousands of tests, is no part of any test's garbage collections."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """The state folder of this process's tests goes with it."""
    shutil.rmtree(os.environ["XDG_STATE_HOME"], ignore_errors=True)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names that are the same in every process that collects: of sets in order, of functions without addresses."""
    if isinstance(val, set | frozenset):
        return "+".join(sorted(str(part) for part in val))
    name = getattr(val, "__name__", None)
    return name if callable(val) and isinstance(name, str) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs a GPU where there is none; torch is imported only if such a test was selected."""
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if not needing:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
