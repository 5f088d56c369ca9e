"""The bottleneck of a run, in one sentence: what waits for what, and which setting would move it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoal.stream.meter import ACTIVITIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.stream.meter import Meter

MUCH = 0.25
"""A share of the time from which on waiting is worth a word."""
SHORTEST_S = 2.0
"""Of training, that its shares may tell anything."""
EXCHANGE_S = 1e-4
"""What handing all rows to worker processes for a step and back may take, rather too much than too little (55 us for 8
rows and 75 us for 32, measured on two cores): stepping side by side must save more."""
THREADED = ("native", "ale", "envpool")
"""Backends whose rows num_threads step."""
ELSEWHERE = {
    "vector": "the VectorEnv steps its rows itself, on as many cores as it takes",
    "remote": "the servers step the rows: more of them, or more cores there, step faster",
}
"""Backends whose rows no setting of the run's own steps faster."""
MEANWHILE = '--schedule async (schedule="async" in Python) learns meanwhile'


@dataclass(frozen=True, slots=True)
class Engine:
    """How a run collected and learned."""

    schedule: str = "sync"
    max_staleness: int = 1
    backend: str = "auto"
    """Of its rows: native, serial, workers, ...; auto where nobody knows."""
    actors: int = 0
    num_envs: int = 1
    num_threads: int = 1
    num_workers: int = 0
    """0: one a core."""
    cores: int = 1
    """Of the machine."""
    several_agents: bool = False
    """Whether an environment has several, which worker processes do not step."""

    replay: bool = False
    """Whether it learned from a replay memory."""
    task: bool = False
    """Whether a language model answered a task."""
    passes: int = 1
    """Over each batch of its answers."""

    @property
    def fewer(self) -> str:
        """What makes the updates for so many steps fewer."""
        if self.replay:
            return "a smaller replay.samples_per_insert"
        return "fewer update_epochs, larger minibatches"

    @property
    def ahead(self) -> bool:
        """Whether rollouts are collected while others are learned from."""
        return self.schedule == "async" and self.max_staleness > 0


@dataclass(frozen=True, slots=True)
class Spent:
    """Where the time of a run went, by activity, and who waited for how much of it."""

    elapsed_s: float
    seconds: Mapping[str, float]
    learner_waits: float | None = None
    """Share of its time in which the learner waited for a rollout; None without actors."""
    actors_wait: float | None = None
    """Share of their time in which actors waited to be asked."""
    exchange: float | None = None
    """Share of its time in which the first of several learners waited for the others; None for one alone."""
    steps: float = 0
    """Of environments, which were taken meanwhile; 0 where nobody knows."""

    @classmethod
    def of_meter(cls, meter: Meter, steps: float = 0) -> Spent:
        """As a run has measured it, which took so many steps meanwhile."""
        names = ("speed/learner_waits", "speed/actors_wait", "speed/exchange")
        waits = map(meter.mean, names)
        return cls(meter.elapsed(), dict(meter.seconds), *waits, steps=steps)

    @classmethod
    def of_lines(cls, lines: Sequence[Mapping[str, Any]]) -> Spent | None:
        """As its metrics tell it, since it was resumed last; None where they do not."""
        timed = [line for line in lines if _number(line, "time/elapsed") is not None]
        first = 0
        for place in range(1, len(timed)):
            if _spent(timed[place]) < _spent(timed[place - 1]):  # begun anew
                first = place
        timed = timed[first:]
        if len(timed) < 2:
            return None
        begin, end = timed[0], timed[-1]
        seconds = {name: _grown(begin, end, f"time/{name}") for name in ACTIVITIES}
        return cls(
            _grown(begin, end, "time/elapsed"),
            seconds,
            _mean(timed, "speed/learner_waits"),
            _mean(timed, "speed/actors_wait"),
            _mean(timed, "speed/exchange"),
            _grown(begin, end, "step"),
        )

    @property
    def step_s(self) -> float | None:
        """What a step of one environment took; None where nobody knows."""
        return self.seconds.get("environment", 0.0) / self.steps if self.steps else None

    def share(self, *activities: str) -> float:
        """The part of the time that activities took."""
        whole = max(self.elapsed_s, 1e-9)
        return min(1.0, sum(self.seconds.get(name, 0.0) for name in activities) / whole)


def bottleneck(spent: Spent, engine: Engine) -> str:
    """What a run waited for most, and what would change that; empty where it was too short to tell."""
    if spent.elapsed_s < SHORTEST_S:
        return ""
    if engine.task:
        return _of_task(spent, engine)
    waits = spent.learner_waits, spent.actors_wait
    if engine.ahead and waits[0] is not None and waits[1] is not None:
        return _of_waits(waits[0], waits[1], engine)
    if spent.exchange is not None and spent.exchange >= MUCH:
        return (
            f"{_percent(spent.exchange)} of the time goes into what learners exchange and wait for: larger minibatches "
            "and fewer update_epochs exchange less often; where an update is short, learners=1 is faster"
        )
    shares = {
        "stepping": spent.share("environment"),
        "acting": spent.share("acting"),
        "learning": spent.share("learning"),
    }
    rest = 1 - sum(shares.values()) - spent.share("transfer")
    shares["rest"] = max(0.0, rest)
    most = max(shares, key=lambda name: shares[name])
    said = _percent(shares[most])
    match most:
        case "stepping":
            return f"stepping the environments takes {said} of the time: {_for_steps(engine, spent.step_s)}"
        case "acting":
            return (
                f"acting takes {said} of the time: raise num_envs, so that more rows share a forward pass, or make the "
                "network smaller"
            )
        case "learning":
            return (
                f"learning takes {said} of the time: {engine.fewer}, a smaller network or a GPU shorten it; faster "
                "environments would not"
            )
        case _:
            return (
                f"{said} of the time goes into evaluation, checkpoints and logging: larger distances between them "
                "(eval_every, checkpoint_every) shorten it"
            )


def _of_task(spent: Spent, engine: Engine) -> str:
    """What a run of a language model spent most of its time on."""
    advice = {
        "environment": "judging answers: raise language.scorer_workers",
        "acting": 'drawing answers: --schedule async (schedule="async" in Python) draws them while the model learns, '
        "more language.slots draw more at a time",
        "waiting": "waiting for the sampler: raise max_staleness or language.slots",
        "learning": "learning: shorter answers, a LoRA or a GPU shorten it",
    }
    if engine.passes > 1:
        advice["learning"] = (
            "learning: fewer num_iterations, shorter answers, a LoRA or a GPU shorten it"
        )
    if engine.schedule != "async":
        del advice["waiting"]
    most = max(advice, key=spent.share)
    return f"{_percent(spent.share(most))} of the time goes into {advice[most]}"


def _of_waits(learner: float, actors: float, engine: Engine) -> str:
    """Of actors that collect ahead."""
    shares = (
        f"the learner waits {_percent(learner)} of the time for rollouts, and actors "
        f"{_percent(actors)} to be asked"
    )
    if learner >= MUCH and actors >= MUCH:
        return f"{shares}: they wait for each other in turns; raise max_staleness"
    if learner >= MUCH:
        if engine.actors < min(engine.cores, engine.num_envs):
            return f"{shares}: raise actors, up to one for each of the {engine.cores} cores"
        return (
            f"{shares}: collecting is the bottleneck, and each core has an actor; a cheaper environment or more "
            "cores move it, or more num_envs, which share a forward pass"
        )
    if actors >= MUCH:
        return (
            f"{shares}: the update is the bottleneck; {engine.fewer}, a smaller network or a GPU shorten it, and fewer "
            "actors leave it more of the cores"
        )
    return f"{shares}: neither waits for long; a cheaper environment or more cores move the rest"


def _for_steps(engine: Engine, step_s: float | None) -> str:
    """What makes stepping take less of the time, where nothing is learned meanwhile; `step_s`: of one environment."""
    several = min(engine.cores, engine.num_envs)
    meanwhile = MEANWHILE
    if engine.schedule == "async":
        meanwhile = "a max_staleness of 1 or more learns meanwhile"
    if engine.actors:
        if engine.actors < several:
            return f"raise actors, up to one for each of the {engine.cores} cores; {meanwhile}"
        return f"each core has an actor already; {meanwhile}"
    if engine.backend in THREADED:
        if engine.num_threads < several:
            return (
                f"raise num_threads, up to {engine.cores}, or set actors; {meanwhile}"
            )
        return meanwhile
    if engine.backend == "workers":
        if 0 < engine.num_workers < several:
            return f"raise num_workers, up to one for each of the {engine.cores} cores; {meanwhile}"
        return f"each core has a worker already; {meanwhile}"
    if engine.backend in ELSEWHERE:
        return f"{ELSEWHERE[engine.backend]}; {meanwhile}"
    if several > 1:
        return f"{_side_by_side(engine, several, step_s)}; {meanwhile}"
    return "there is one core or environment; a faster environment, or more cores and num_envs, move it"


def _side_by_side(engine: Engine, several: int, step_s: float | None) -> str:
    """What steps Python environments on several cores: worker processes, unless steps are too short for them."""
    if engine.several_agents:
        return (
            "worker processes do not step games of several agents, but actors "
            f"({several} for these cores) collect whole rollouts apart"
        )
    if step_s is None or engine.num_envs * step_s * (1 - 1 / several) > EXCHANGE_S:
        return f'--backend workers (backend="workers" in Python) steps Python environments on all {engine.cores} cores'
    return (
        f"a step takes {1e6 * step_s:.2g} us, too short for the backend workers, whose processes exchange every step; "
        f"actors ({several} for these cores) collect whole rollouts apart"
    )


def _number(line: Mapping[str, Any], name: str) -> float | None:
    value = line.get(name)
    return None if value is None or not isinstance(value, int | float) else float(value)


def _spent(line: Mapping[str, Any]) -> float:
    """Seconds that were measured since the process began."""
    return sum(_number(line, f"time/{name}") or 0.0 for name in ACTIVITIES)


def _grown(begin: Mapping[str, Any], end: Mapping[str, Any], name: str) -> float:
    before, after = _number(begin, name) or 0.0, _number(end, name) or 0.0
    return max(0.0, after - before)


def _mean(lines: Sequence[Mapping[str, Any]], name: str) -> float | None:
    found = [x for line in lines if (x := _number(line, name)) is not None]
    return sum(found) / len(found) if found else None


def _percent(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.0f} %"
