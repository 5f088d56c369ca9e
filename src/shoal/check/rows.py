"""Checks of what is stepped as rows from the start: games of several agents, and vector environments."""

from __future__ import annotations

import copy
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.vector.utils import batch_space

from shoal.check.legal import legal_rows
from shoal.check.play import same
from shoal.check.repeat import ADVICE, check_resume
from shoal.check.report import Speed, duration, shown
from shoal.check.speed import run_rows
from shoal.check.trial import MAX_REPEATED, close_rows
from shoal.types import select

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.check.repeat import Rows
    from shoal.check.trial import Trial
    from shoal.types import Ready

NUM_ENVS = 4
PLAY_S, ROWS_S, REPEAT_S = 10.0, 2.0, 4.0
COMPARED = ("reward", "terminated", "truncated", "valid")


def make_rows(trial: Trial) -> None:
    """Makes rows twice."""
    began = time.perf_counter()
    trial.rows = [trial.make_shared(NUM_ENVS), trial.make_shared(NUM_ENVS)]
    took = duration(time.perf_counter() - began)
    env = trial.rows[0]
    what = f"{NUM_ENVS} environments"
    if env.spec.agents:
        kind = "in turns" if env.spec.in_turns else "together"
        what += f" of {env.spec.num_agents} agents who act {kind}"
    trial.found.ok("make", f"made twice, {what}, in {took}")
    spec = env.spec
    says = shown(f"observes {spec.observation_space}, does {spec.action_space}", 160)
    trial.found.ok("spaces", says)


def play_rows(trial: Trial) -> None:
    """Plays random legal steps; what breaks the contract is raised by the rows."""
    env, found = trial.rows[0], trial.found
    seen = np.zeros(env.num_rows, np.bool_)
    ends: Counter[str] = Counter()
    lengths: list[int] = []
    began = time.perf_counter()
    steps = 0
    for ready in _steps(trial, env, seed=trial.seed):
        steps += 1
        seen |= ready.valid | ready.over
        ends["terminated"] += int((ready.over & ready.terminated).sum())
        ends["truncated"] += int((ready.over & ~ready.terminated).sum())
        lengths += ready.episode_length[ready.over].tolist()
        if time.perf_counter() - began > PLAY_S or steps * env.num_rows >= trial.steps:
            break
    trial.played.steps, trial.played.seconds = steps, time.perf_counter() - began
    found.ok("step", f"{steps} steps of {env.num_rows} rows keep the contract")
    found.ok("finite", f"no NaN, nothing infinite in {steps} steps")
    if env.spec.masked:
        found.ok("masks", f"leave an option in each of {steps} steps")
    counted = f"{ends['terminated']} terminated, {ends['truncated']} truncated"
    if lengths:
        lasted = f"{min(lengths)} to {max(lengths)} steps"
        found.ok("ends", f"{len(lengths)} episodes of {lasted}: {counted}")
    else:
        advice = (
            "end them by truncated=True after some steps; evaluation waits for ends"
        )
        found.warn("ends", f"no episode ended in {steps} random steps", advice)
    _check_absent(trial, env, seen)


def repeat_rows(trial: Trial) -> None:
    """Plays the same seed and actions in both."""
    found, seed, count = trial.found, trial.seed, _affordable(trial)
    first = _trace(trial, trial.rows[0], seed=seed, count=count)
    for which, env in (
        ("after a reset with the same seed", trial.rows[0]),
        ("in a second instance", trial.rows[1]),
    ):
        difference = _differ(first, _trace(trial, env, seed=seed, count=count))
        if difference:
            says = f"with seed {seed} and the same actions, {which}: {difference}"
            found.error("determinism", says, ADVICE)
            return
    found.ok("determinism", f"{count} steps came out equal, in a second instance too")
    if _differ(first, _trace(trial, trial.rows[1], seed=seed + 1000, count=count)):
        found.ok("seed", "another seed gives other episodes")
    else:
        says = f"seeds {seed} and {seed + 1000} gave the same {count} steps"
        found.warn("seed", says, f"{ADVICE}; leave it if nothing is meant to be random")


def resume_rows(trial: Trial) -> None:
    """Saves rows, and brings them back in others."""
    if trial.found.has("determinism"):
        trial.skipped.append("resume")
        return
    env, again = trial.rows
    if not env.capabilities.can_save:
        says = "the library's rows cannot be saved: `shoal resume` cuts their episodes as truncated, and says so"
        trial.found.ok("resume", says)
        return
    check_resume(trial.found, env, again, seed=trial.seed, count=_affordable(trial))


def time_rows(trial: Trial) -> None:
    """Steps per second."""
    env = trial.rows[0]
    per_s = run_rows(env, seed=trial.seed, steps=trial.steps, budget_s=ROWS_S)
    trial.found.ok("speed", f"{per_s:,.0f} steps per second with {env.num_rows} rows")
    trial.speed = Speed(trial.startup_s, per_s, per_s, env.num_rows, 0.0, 0.0)


def close_all(trial: Trial) -> None:
    """Closes what was made."""
    for env in trial.rows:
        close_rows(env)


def _steps(trial: Trial, env: Rows, *, seed: int) -> Iterator[Ready]:
    """Legal steps from a seed of the rows on, by the same random actions each time, without an end."""
    everything, space = slice(0, env.num_rows), env.spec.action_space
    actions = batch_space(space, env.num_rows)
    actions.seed(trial.seed)
    env.reset(seed)
    ready = env.recv()
    while True:
        masks, turn = ready.action_mask, ready.turn
        env.send(everything, legal_rows(space, actions.sample(), masks, turn))
        ready = env.recv()
        trial.beats += 1
        yield ready


def _trace(trial: Trial, env: Rows, *, seed: int, count: int) -> list[dict[str, Any]]:
    """What `count` steps came to: of rows that act next, what they see too."""
    made: list[dict[str, Any]] = []
    for ready in _steps(trial, env, seed=seed):
        values = {name: getattr(ready, name).copy() for name in COMPARED}
        turn = np.ones(env.num_rows, np.bool_) if ready.turn is None else ready.turn
        values["observation"] = copy.deepcopy(select(ready.obs, turn))
        made.append(values)
        if len(made) == count:
            break
    return made


def _differ(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> str:
    """Where two traces part, or nothing."""
    for step, one in enumerate(first, 1):
        for name, value in one.items():
            if not same(value, second[step - 1][name]):
                return f"the {name} of step {step} differs"
    return ""


def _affordable(trial: Trial) -> int:
    """Steps that are repeated, at the speed seen before."""
    played = trial.played
    per_s = played.steps / max(played.seconds, 1e-6)
    return max(10, min(MAX_REPEATED, trial.steps, int(per_s * REPEAT_S / 8)))


def _check_absent(trial: Trial, env: Rows, seen: np.ndarray[Any, Any]) -> None:
    """Possible agents who never had a step."""
    agents = env.spec.agents
    if not agents:
        return
    there = np.any(seen.reshape(-1, len(agents)), axis=0)
    absent = [agents[slot] for slot in np.flatnonzero(~there)]
    if absent:
        says = f"{', '.join(absent)} never had a turn in {trial.played.steps} steps"
        advice = "its row learns nothing and costs time: leave it out of possible_agents, unless it comes later"
        trial.found.warn("agents", says, advice)
    else:
        trial.found.ok("agents", f"all {len(agents)} possible agents had turns")
