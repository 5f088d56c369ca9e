"""Tuning for speed: settings that change no learning result, measured one after another on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal.envs.registry import is_batched
from shoal.experiment.language import on_tasks
from shoal.experiment.probe import Probed, probe
from shoal.remote.address import is_address
from shoal.stream.meter import cores
from shoal.types import ConfigError, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from shoal.experiment.experiment import Experiment

    Changes = dict[str, Any]

FREE = ("schedule", "num_envs", "act_block")
"""Settings that change what is learned, or its rounding; they are varied where the user says so."""
LONGEST_S, SHORTEST_S = 4.0, 0.4
"""Of one probe."""
LATE = 3.0
"""How many times as long as planned a probe may take."""
FIRST_S = 20.0
"""What the settings as they are may take, however little time there is."""
BEGIN_S = 1.0
"""What making rows and the first update takes, beside what is measured; a guess, which the first probe corrects."""
MORE = 4
"""Processes for each core, at most, of environments that sleep."""
GAIN = 1.05
"""What a candidate must be faster than the settings as they are, or noise would choose."""


@dataclass(slots=True)
class Row:
    """A candidate, and what was measured of it."""

    changes: Changes
    probed: Probed | None = None
    error: str = ""
    rates: list[float] = field(default_factory=list[float])
    """Steps per second of each of its probes."""

    @property
    def steps_per_s(self) -> float:
        """The least of them; 0 where there are none."""
        return min(self.rates, default=0.0)

    @property
    def name(self) -> str:
        """In words."""
        said = " ".join(f"{name}={value}" for name, value in self.changes.items())
        return said or "as they are"

    @property
    def has_processes(self) -> bool:
        """Whether other processes are started for it."""
        return bool({"actors", "num_workers"} & self.changes.keys())


@dataclass(slots=True)
class Tuned:
    """What was measured, and what is best."""

    rows: list[Row] = field(default_factory=list[Row])
    best: Row = field(default_factory=lambda: Row({}))
    unmeasured: int = 0
    """Candidates for which there was no time."""
    seconds: float = 0.0

    @property
    def gain(self) -> float:
        """How many times as fast the best is as the settings as they are."""
        before = self.rows[0].steps_per_s
        return self.best.steps_per_s / before if before else 1.0


class Tuner:
    """Measures candidates of an experiment within a time; see `tune`."""

    def __init__(
        self,
        experiment: Experiment,
        seconds: float,
        free: Collection[str],
        tell: Callable[[Row], object],
    ) -> None:
        """As of `tune`."""
        self.experiment, self.free = experiment, free
        self.tuned = Tuned()
        self._tell = tell
        self._begun_s = time.monotonic()
        self._ends_s = self._begun_s + seconds
        self._beside_s = {False: BEGIN_S, True: 2 * BEGIN_S}
        """What is not measured of a probe, without other processes and with some."""
        self._confirming = False
        """Until then, time is kept back for it."""

    def tune(self) -> Tuned:
        """Measures; the first row is of the settings as they are."""
        tuned = self.tuned
        base = Row({})
        self._measure(base, left=12)
        if base.probed is None:
            raise ConfigError(f"the settings as they are do not train: {base.error}")
        tuned.best = base
        stages = self._stages(base.probed)
        for number, stage in enumerate(stages):
            later = sum(len(other({})) for other in stages[number + 1 :])
            candidates = stage(dict(tuned.best.changes))
            for place, changes in enumerate(candidates):
                row = Row(changes)
                left = len(candidates) - place + later
                if not self._measure(row, left=left):
                    tuned.unmeasured += 1
                elif row.steps_per_s > GAIN * tuned.best.steps_per_s:
                    tuned.best = row
        self._confirm(base)
        tuned.seconds = time.monotonic() - self._begun_s
        return tuned

    def _measure(self, row: Row, *, left: int) -> bool:
        """Probes a candidate, of which there are so many left; whether there was time."""
        room_s = self._ends_s - time.monotonic()
        if self.tuned.rows and not self._confirming:
            room_s -= sum(self._beside_s.values()) + 2 * SHORTEST_S
        beside_s = self._beside_s[row.has_processes]
        seconds = min(LONGEST_S, room_s / left - beside_s)
        if room_s < SHORTEST_S + beside_s and self.tuned.rows:
            return False
        seconds = max(SHORTEST_S, seconds)
        # A late one takes the time of the others; without the first one there is nothing to compare with.
        limit_s = max(room_s, FIRST_S)
        if self.tuned.rows:
            limit_s = min(room_s, LATE * (seconds + beside_s) + 1.0)
        begun = time.monotonic()
        try:
            changed = self.experiment.changed(**row.changes)
            found = probe(changed, seconds, limit_s=max(limit_s, SHORTEST_S))
        except Exception as error:  # a candidate that fails is a row; the others go on
            row.error = text_of(error)
        else:
            beside_s = time.monotonic() - begun - seconds
            self._beside_s[row.has_processes] = max(0.1, beside_s)
            row.rates.append(found.steps_per_s)
            row.probed = found
        if not any(row is other for other in self.tuned.rows):
            self.tuned.rows.append(row)
        self._tell(row)
        return True

    def _confirm(self, base: Row) -> None:
        """Measures the best settings and those as they are once more: the former at their least must still be faster.

        Faster than the latter at their best: on a machine that does other work too, noise would choose otherwise.
        """
        tuned, best = self.tuned, self.tuned.best
        if best is base:
            return
        self._confirming = True
        for left, row in ((2, best), (1, base)):
            self._measure(row, left=left)
        if best.error or best.steps_per_s < GAIN * max(base.rates):
            tuned.best = base

    def _stages(self, base: Probed) -> list[Callable[[Changes], list[Changes]]]:
        """What is varied, one after another: each over the best so far."""
        experiment = self.experiment
        stages: list[Callable[[Changes], list[Changes]]] = []
        if not experiment.given & set(PLACE) and not is_address(experiment.source):
            stages.append(partial(places, experiment, base))
        if "num_threads" not in experiment.given:
            stages.append(partial(threads, experiment))
        every = {"schedule": schedules, "num_envs": sizes, "act_block": blocks}
        return stages + [
            partial(stage, experiment)
            for name, stage in every.items()
            if name in self.free
        ]


PLACE = ("backend", "num_workers", "actors")
"""Settings that say where rows are stepped."""


def tune(
    experiment: Experiment,
    *,
    seconds: float = 60.0,
    free: Collection[str] = (),
    tell: Callable[[Row], object] = lambda row: None,
) -> Tuned:
    """Measures settings of an experiment that change its speed, one at a time, and finds the fastest.

    What was given by hand (`experiment.given`) stays as it is, unless it is free.

    Args:
        experiment: what is to be trained.
        seconds: what all of it may take.
        free: of `FREE`, those that are varied too.
        tell: called with each row when it was measured.

    Raises:
        ConfigError: a name that is none of `FREE`, a task of a language model, a fleet, several learners, or settings
            that do not train.
        KeyboardInterrupt: Ctrl-C.
    """
    for name in free:
        if name not in FREE:
            raise ConfigError(f"free may be {', '.join(FREE)}, got {name!r}")
    if not seconds > 0:
        raise ConfigError(f"seconds must be above 0, got {seconds}")
    options = experiment.options
    if on_tasks(experiment.algorithm):
        raise ConfigError(
            f"{options.algo} learns from a language model's answers, whose speed schedule, language.slots and "
            "num_prompts make; what is tried here is for environments. `shoal doctor RUN` says what a run waited for"
        )
    if options.fleet is not None:
        raise ConfigError(
            f"fleet={options.fleet!r}: what is measured is this machine; leave the fleet out"
        )
    if options.learners > 1:
        raise ConfigError(
            f"learners={options.learners}: what is measured is one learner; leave learners out"
        )
    if options.offline_updates or not options.total_timesteps:
        raise ConfigError(
            "there are no steps a second where a data set is learned from alone; leave offline_updates out"
        )
    return Tuner(experiment, seconds, free, tell).tune()


def places(experiment: Experiment, base: Probed, _best: Changes) -> list[Changes]:
    """Where rows could be stepped instead: in worker processes, or in actors.

    There may be more of them than cores where environments sleep.
    """
    options = experiment.options
    most = MORE * cores() if base.sleeps else cores()
    several = counts_up_to(min(most, options.num_envs))
    several = [count for count in several if count > 1]
    python = not base.native_rows and options.backend in ("auto", "serial", "workers")
    found: list[Changes] = []
    if python and not is_batched(experiment.source, options.backend):
        if options.backend == "workers":
            found.append({"backend": "serial"})
        found += [{"backend": "workers", "num_workers": count} for count in several]
    found += [{"actors": count} for count in several]
    return found


def threads(experiment: Experiment, best: Changes) -> list[Changes]:
    """How many threads native code could have."""
    now = experiment.options.threads()
    return [
        {**best, "num_threads": count}
        for count in counts_up_to(cores())
        if count != now
    ]


def schedules(experiment: Experiment, best: Changes) -> list[Changes]:
    """When rows could act and step."""
    kept = {name: value for name, value in best.items() if name not in PLACE}
    found: list[Changes] = []
    if "actors" not in best and not experiment.options.actors:
        found.append({**best, "schedule": "overlap"})
    shares = shares_of(experiment)
    return found + [{**kept, "actors": n, "schedule": "async"} for n in shares]


def sizes(experiment: Experiment, best: Changes) -> list[Changes]:
    """How many environments there could be."""
    now = experiment.options.num_envs
    return [{**best, "num_envs": now * factor} for factor in (2, 4)]


def blocks(experiment: Experiment, best: Changes) -> list[Changes]:
    """How many rows could share a forward pass."""
    now = experiment.options.act_block
    return [{**best, "act_block": size} for size in (32, 128, 256) if size != now]


def shares_of(experiment: Experiment) -> list[int]:
    """Into how many processes the environments may be divided."""
    return counts_up_to(min(cores(), experiment.options.num_envs))


def counts_up_to(most: int) -> list[int]:
    """1, 2, 4, ... below `most`, and `most`."""
    counts: list[int] = []
    count = 1
    while count < most:
        counts.append(count)
        count *= 2
    return [*counts, max(1, most)]


def with_twice_the_cores(probed: Probed, steps_per_s: float) -> float:
    """Steps per second with twice the cores, as an estimate.

    Acting and stepping take half as long then, and all else as long as now. Where rollouts are collected ahead, the
    learner no longer waits, or waits half as long.
    """
    spent, engine = probed.spent, probed.engine
    if engine.ahead and spent.learner_waits is not None:
        waits = min(spent.learner_waits, 0.5)
        return steps_per_s / (1 - waits)
    collecting = spent.share("environment", "acting")
    return steps_per_s / (1 - collecting / 2)
