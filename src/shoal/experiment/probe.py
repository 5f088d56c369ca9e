"""A probe: a short run of an experiment that keeps nothing, and how many steps a second it takes."""

from __future__ import annotations

import resource
import signal
import threading
import time
from bisect import bisect_left
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Any

import torch

from shoal.envs.told import told_before
from shoal.experiment.applies import check_applies
from shoal.experiment.engine import engine_of
from shoal.experiment.experiment import with_actors
from shoal.experiment.placed import training_rows
from shoal.experiment.session import settings_of
from shoal.memory.settings import Replay
from shoal.run.bottleneck import Engine, Spent
from shoal.run.interrupts import CUT_SHORT
from shoal.run.run import Run
from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from types import FrameType

    from shoal.envs.vec_env import VecEnv
    from shoal.experiment.experiment import Experiment
    from shoal.learn.learner import Learner
    from shoal.run.loop import Stream

    Mark = tuple[float, int]

ENDLESS = 10**12
"""Environment steps that no probe comes to."""
WARM_UP = 0.25
"""The share of a probe before it is measured; the first update at least."""
WINDOWS = 3
SLEEPS = 0.5
"""The share of the time that a process keeps a core busy, below which it counts as sleeping."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What a probe has measured."""

    steps_per_s: float
    """The least of its windows."""
    spent: Spent
    engine: Engine
    native_rows: bool
    sleeps: bool = False
    """Whether this process slept most of the time, as with environments that wait for something."""


def probe(experiment: Experiment, seconds: float, *, limit_s: float) -> Probed:
    """Trains for so many seconds, from the first update on, on rows that are closed in the end.

    Args:
        experiment: what is trained.
        seconds: how long it is measured.
        limit_s: after which it ends, be it in the midst of a rollout.

    Raises:
        ConfigError: settings that cannot work.
        EnvError: two updates were not over within the limit; errors of the environment arrive unchanged.
        KeyboardInterrupt: Ctrl-C.
    """
    experiment = with_actors(experiment)
    _import_optimizers()
    with (
        told_before(),
        _ended_after(limit_s),
        closing(training_rows(experiment)) as rows,
    ):
        check_applies(experiment, rows.spec)
        return _probe(_measured(experiment), rows, seconds)


def _probe(experiment: Experiment, rows: VecEnv, seconds: float) -> Probed:
    settings = settings_of(experiment, rows, run="", began_with="")
    run = Timed(replace(settings, stop_at=inf), experiment, seconds)
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    try:
        experiment.algorithm.train(experiment.config, rows, run)
    finally:
        run.close()
    elapsed_s = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_SELF)
    if run.stop_reason in CUT_SHORT:
        raise KeyboardInterrupt
    return Probed(
        least_rate(run.marks),
        Spent.of_meter(run.meter),
        engine_of(experiment, rows),
        rows.native_pool is not None,
        _slept(before, after, elapsed_s),
    )


def _slept(
    before: resource.struct_rusage, after: resource.struct_rusage, elapsed_s: float
) -> bool:
    """Whether a process gave the cores away for most of the time, rather than being driven from them."""
    busy_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    willingly = after.ru_nvcsw - before.ru_nvcsw
    driven = after.ru_nivcsw - before.ru_nivcsw
    return busy_s < SLEEPS * elapsed_s and willingly > driven


class Timed(Run):
    """A run without a directory that notes when each update was over, and stops after so many seconds."""

    def __init__(self, settings: Any, experiment: Experiment, seconds: float) -> None:
        """`seconds`: from the end of the first update on."""
        super().__init__(settings, policy=experiment.make_policy)
        self.marks: list[Mark] = []
        """When, and after how many environment steps."""
        self._seconds = seconds

    def loop(
        self,
        stream: Stream,
        learner: Learner | Mapping[str, Learner],
        *,
        state: Mapping[str, Any] | None = None,
    ) -> Iterator[Any]:
        """As of any run, until the time is over."""
        batches = super().loop(stream, learner, state=state)
        return self._noted(batches, stream)

    def _noted(self, batches: Iterator[Any], stream: Stream) -> Generator[Any]:
        for batch in batches:
            yield batch
            now = time.perf_counter()
            self.marks.append((now, stream.env_steps))
            enough = len(self.marks) > WINDOWS
            if enough and now - self.marks[0][0] >= self._seconds:
                self.stop("it was measured")


def least_rate(marks: Sequence[Mark]) -> float:
    """Steps per second: the least of some windows of equal length, after a warm-up.

    Args:
        marks: when each update was over, and after how many steps.

    Raises:
        EnvError: fewer than two updates.
    """
    if len(marks) < 2:
        raise EnvError("not even two updates were over in its time")
    times = [at for at, _ in marks]
    begun = times[0] + WARM_UP * (times[-1] - times[0])
    first = min(bisect_left(times, begun), len(marks) - 2)
    edges = [first]
    for window in range(1, WINDOWS + 1):
        wanted = times[first] + (times[-1] - times[first]) * window / WINDOWS
        place = min(bisect_left(times, wanted), len(marks) - 1)
        if place > edges[-1]:
            edges.append(place)
    rates: list[float] = []
    for begin, end in pairwise(edges):
        steps = marks[end][1] - marks[begin][1]
        rates.append(steps / max(times[end] - times[begin], 1e-9))
    return min(rates)


def _measured(experiment: Experiment) -> Experiment:
    """The experiment as a probe trains it: without an end, evaluation, or a memory that is kept."""
    options = replace(
        experiment.options,
        total_timesteps=ENDLESS,
        eval_every=0,
        timeline=0,
        stop_at=inf,
    )
    config: Any = experiment.config
    memory = getattr(config, "replay", None)
    if isinstance(memory, Replay):
        starts = min(memory.learning_starts, Replay().learning_starts)
        own = replace(memory, file=False, learning_starts=starts)
        config = replace(config, replay=own)
    return replace(experiment, options=options, config=config)


def _import_optimizers() -> None:
    """Torch imports a good part of itself for the first optimizer: a limit must not end that in the middle."""
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])


class _Late(BaseException):
    """The time is over; no fault policy takes it for an environment's error."""


@contextmanager
def _ended_after(seconds: float) -> Generator[None]:
    """Raises EnvError in the block when it takes longer; only in the main thread, where signals arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise _Late

    begun = time.monotonic()
    before = signal.signal(signal.SIGALRM, late)
    left_s, interval_s = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _Late as error:
        raise EnvError(f"it was not measured within {seconds:.3g} s") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left_s:  # somebody else's alarm goes on
            left_s = max(1e-3, left_s - (time.monotonic() - begun))
            signal.setitimer(signal.ITIMER_REAL, left_s, interval_s)
