"""The phases of a check, one after another: what is tried out in each."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from shoal.check.play import Player, check_ends, check_scales, play
from shoal.check.repeat import check_repeats, check_resume
from shoal.check.report import Speed, duration
from shoal.check.rows import (
    make_rows,
    play_rows,
    repeat_rows,
    resume_rows,
    time_rows,
)
from shoal.check.speed import NUM_ROWS, check_speed, run_bare, run_rows
from shoal.check.told import check_told
from shoal.check.trial import REPEAT_S, close_rows
from shoal.check.values import check_spaces
from shoal.check.workers import check_workers
from shoal.envs.agents.games import is_game
from shoal.envs.lasting import warn_of_lasting
from shoal.envs.python_env import check_alike, close_all
from shoal.envs.workers.processes import START_S
from shoal.envs.workers.rows import make as make_workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.check.trial import Trial
    from shoal.envs.workers.rows import WorkersEnv
    from shoal.envs.workers.settings import Workers

PLAY_S, ROWS_S, BARE_S = 10.0, 2.0, 3.0
RESUME_ROWS = 3


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase: its name, the seconds that it may take of its own, and what it does."""

    title: str
    budget_s: float
    run: Callable[[Trial], None]


def phases(workers: Workers | None) -> list[Phase]:
    """The phases in their order; `workers` says how rows in processes are made, if they shall be."""
    found = [
        Phase("make", 0.0, make_two),
        Phase("spaces", 0.0, see_spaces),
        Phase("values", PLAY_S, play_random),
        Phase("determinism", REPEAT_S, repeat),
        Phase("rows", ROWS_S, step_rows),
        Phase("speed", BARE_S, time_bare),
        Phase("resume", REPEAT_S, save_and_restore),
    ]
    if workers is not None:
        in_processes = partial(step_workers, workers=workers)
        found.append(Phase("workers", START_S + REPEAT_S, in_processes))
    return found


def shared_phases() -> list[Phase]:
    """The phases of games and vector environments after they were made."""
    return [
        Phase("values", PLAY_S, play_rows),
        Phase("determinism", REPEAT_S, repeat_rows),
        Phase("resume", REPEAT_S, resume_rows),
        Phase("speed", ROWS_S, time_rows),
    ]


def make_two(trial: Trial) -> None:
    """Makes two instances."""
    found = trial.found
    if trial.vector is not None:
        make_rows(trial)
        return
    began = time.perf_counter()
    first = trial.factory()
    trial.envs.append(first)
    trial.startup_s += time.perf_counter() - began
    warn_of_lasting(first, trial.name)
    if is_game(first):
        trial.is_game = True
        close_all(trial.envs)
        make_rows(trial)
        return
    second = trial.factory()
    trial.envs.append(second)
    if first.unwrapped is second.unwrapped:
        says = "made twice, it is the same object"
        advice = "return a new environment from each call: rows are environments of their own"
        found.error("make", says, advice)
        trial.blocked = True
    took = duration(time.perf_counter() - began)
    found.ok("make", f"made twice, two objects, in {took}")


def see_spaces(trial: Trial) -> None:
    """Looks at the spaces."""
    check_spaces(trial.found, trial.envs[0])
    trial.blocked = trial.found.has("spaces") and trial.found.failed
    if not trial.blocked:
        check_alike(trial.envs, trial.name)


def play_random(trial: Trial) -> None:
    """Plays random episodes, and looks at each value."""
    trial.players = [Player(env, trial.name) for env in trial.envs]
    trial.played = play(
        trial.found,
        trial.players[0],
        seed=trial.seed,
        steps=trial.steps,
        budget_s=PLAY_S,
    )
    trial.startup_s += trial.played.first_reset_s
    if not trial.found.failed:
        check_told(trial.found, trial.envs[0], trial.name, trial.played)
        check_ends(trial.found, trial.envs[0], trial.played)
        check_scales(trial.found, trial.played)
    trial.blocked = trial.found.failed


def repeat(trial: Trial) -> None:
    """Plays the same episodes again, and in the other instance."""
    player, other = trial.players
    check_repeats(trial.found, player, other, seed=trial.seed, count=trial.repeated)


def step_rows(trial: Trial) -> None:
    """Steps rows of the backend `serial`."""
    per_s = 0.0
    rows = trial.make_rows(NUM_ROWS)
    if rows is not None:
        try:
            per_s = run_rows(rows, seed=trial.seed, steps=trial.steps, budget_s=ROWS_S)
        finally:
            close_rows(rows)
        trial.found.ok("rows", f"{NUM_ROWS} rows of the backend `serial` step")
    trial.speed = Speed(trial.startup_s, 0.0, per_s, NUM_ROWS, 0.0, 0.0)


def time_bare(trial: Trial) -> None:
    """Times the environment in a plain loop."""
    player = trial.players[0]
    loop = run_bare(player, steps=trial.steps, budget_s=BARE_S)
    seconds = loop.step_s + loop.reset_s
    trial.speed = Speed(
        startup_s=trial.startup_s,
        bare=loop.steps / seconds,
        rows=trial.speed.rows if trial.speed else 0.0,
        num_rows=NUM_ROWS,
        reset_share=loop.reset_s / seconds,
        bytes_per_step=max(0.0, loop.bytes_per_step),
    )
    check_speed(trial.found, loop, trial.speed, player)


def save_and_restore(trial: Trial) -> None:
    """Saves rows, and brings them back in others."""
    if trial.found.has("determinism", "shared"):
        trial.skipped.append("resume")
        return
    rows = trial.make_rows(RESUME_ROWS)
    if rows is None:
        trial.skipped.append("resume")
        return
    again = trial.make_rows(RESUME_ROWS) or rows
    count = trial.repeated
    try:
        check_resume(trial.found, rows, again, seed=trial.seed, count=count)
    finally:
        close_rows(rows)
        close_rows(again)


def step_workers(trial: Trial, *, workers: Workers) -> None:
    """Steps rows in processes, which must do what rows in this process do."""
    here = trial.make_rows(NUM_ROWS)
    if here is None:
        trial.skipped.append("workers")
        return
    there: WorkersEnv | None = None
    found, seed = trial.found, trial.seed
    try:
        there = make_workers(trial.factory, NUM_ROWS, name=trial.name, workers=workers)
        if check_workers(found, here, there, seed=seed, count=trial.repeated):
            per_s = run_rows(there, seed=seed, steps=trial.steps, budget_s=ROWS_S)
            where = f"{NUM_ROWS} rows in {workers.num_workers} processes"
            found.ok("workers", f"{where} do the same: {per_s:,.0f} steps per second")
            if trial.speed is not None:
                trial.speed = replace(trial.speed, workers=per_s)
    finally:
        close_rows(here)
        if there is not None:
            close_rows(there)
