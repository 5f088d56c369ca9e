"""Steps per second of an environment, bare and in rows; where the time goes; whether memory grows."""

from __future__ import annotations

import copy
import gc
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from gymnasium.vector.utils import batch_space

from shoal.check.legal import legal_rows
from shoal.check.play import Player
from shoal.check.report import duration

if TYPE_CHECKING:
    from shoal.check.report import Findings, Speed
    from shoal.envs.vec_env import VecEnv

NUM_ROWS = 8
SECTIONS = 6
SLOW_PER_S, SLOW_STARTUP_S, RESET_SHARE = 1000.0, 5.0, 0.5
LEAK_PER_STEP, LEAK = 128, 4 << 20
TRACED_STEPS = 500
BLOCK = 32


@dataclass(slots=True)
class Loop:
    """Seconds and memory of a bare loop."""

    steps: int
    step_s: float
    reset_s: float
    memory: list[tuple[int, int]]
    """After each section: steps so far, bytes of the process."""

    @property
    def bytes_per_step(self) -> float:
        """Growth after the first section, in which caches are filled."""
        (first, before), (last, after) = self.memory[0], self.memory[-1]
        return (after - before) / max(1, last - first)

    @property
    def leaks(self) -> bool:
        """Whether memory grew a good deal, and in every section."""
        sizes = [size for _, size in self.memory]
        if not (np.diff(sizes) > 0).all():
            return False
        return self.bytes_per_step > LEAK_PER_STEP and sizes[-1] - sizes[0] > LEAK


def run_bare(player: Player, *, steps: int, budget_s: float) -> Loop:
    """Random steps in a plain loop, with a reset where an episode ends."""
    process = psutil.Process()
    loop = Loop(0, 0.0, 0.0, [])
    actions = [player.env.action_space.sample() for _ in range(256)]
    player.reset()
    for _ in range(SECTIONS):
        steps_left = -(-steps // SECTIONS)
        ends_at = time.perf_counter() + budget_s / SECTIONS
        block = 1
        while steps_left > 0 and time.perf_counter() < ends_at:
            number = min(block, steps_left)
            _run_block(player, actions, number, loop)
            steps_left -= number
            block = min(2 * block, BLOCK)
        gc.collect()
        loop.memory.append((loop.steps, process.memory_info().rss))
    return loop


def _run_block(player: Player, actions: list[object], number: int, loop: Loop) -> None:
    step = player.env.step
    given: list[object] = []
    for count in range(loop.steps, loop.steps + number):
        given.append(copy.copy(actions[count % len(actions)]))  # noqa: PERF401
    player.calls += 1
    reset = player.reset_alone
    if player.masks.any:
        step, reset = player.step, player.reset
    resets_s = 0.0
    began = time.perf_counter()
    for action in given:
        chosen = player.masks.legal(action) if player.masks.any else action
        _, _, terminated, truncated, _ = step(chosen)
        if terminated or truncated:
            reset_at = time.perf_counter()
            reset()
            resets_s += time.perf_counter() - reset_at
    loop.steps += number
    loop.reset_s += resets_s
    loop.step_s += time.perf_counter() - began - resets_s


def run_rows(env: VecEnv, *, seed: int, steps: int, budget_s: float) -> float:
    """Steps per second of rows that are stepped together, at most `steps` in all and `budget_s` seconds."""
    rows = slice(0, env.num_rows)
    space = batch_space(env.spec.action_space, env.num_rows)
    actions = [space.sample() for _ in range(64)]
    env.reset(seed)
    ready = env.recv()
    made = 0
    began = time.perf_counter()
    while True:
        action = actions[made % len(actions)]
        masks, turn = ready.action_mask, ready.turn
        env.send(rows, legal_rows(env.spec.action_space, action, masks, turn))
        ready = env.recv()
        made += 1
        enough = made * env.num_rows >= steps
        if enough or time.perf_counter() - began >= budget_s:
            break
    return made * env.num_rows / (time.perf_counter() - began)


def check_speed(found: Findings, loop: Loop, speed: Speed, player: Player) -> None:
    """Says what the speed means for training, and where the time and the memory go."""
    step_us = 1e6 * loop.step_s / loop.steps
    says = f"{speed.bare:,.0f} steps per second bare ({step_us:.3g} µs a step)"
    if speed.rows:
        says += f", {speed.rows:,.0f} in `serial` with {speed.num_rows} rows"
    if speed.bare < SLOW_PER_S:
        advice = (
            f"1 M steps take {duration(speed.million_s)}: profile step() (python -m cProfile), work on whole arrays in "
            "NumPy instead of loops, render nothing"
        )
        found.warn("speed", says, advice)
    else:
        found.ok("speed", says)
    says = f"{speed.reset_share:.0%} of the time passes in reset()"
    if speed.reset_share > RESET_SHARE:
        advice = "load files and build worlds once, in __init__, and only put them back in reset()"
        found.warn("resets", says, advice)
    else:
        found.ok("resets", says)
    says = f"{duration(speed.startup_s)} to import it, make one and reset it once"
    if speed.startup_s > SLOW_STARTUP_S:
        advice = "each process pays this, and each row a part: load what is needed later, or share what never changes"
        found.warn("startup", says, advice)
    else:
        found.ok("startup", says)
    _check_memory(found, loop, player)


def _check_memory(found: Findings, loop: Loop, player: Player) -> None:
    if not loop.leaks:
        found.ok("memory", f"does not grow steadily in {loop.steps:,} steps")
        return
    (first, before), (last, after) = loop.memory[0], loop.memory[-1]
    grown = (after - before) / 2**20
    says = f"memory grew by {grown:.0f} MiB in {last - first:,} steps, without pause"
    needed = loop.bytes_per_step / 1e3
    advice = f"let go of what step() or reset() collects: 1 M steps need {needed:,.1f} GB more"
    found.warn("memory", says + _largest(player), advice)


def _largest(player: Player) -> str:
    """The line of Python that takes the most memory and keeps it, over some more steps."""
    tracemalloc.start()
    try:
        run_bare(player, steps=TRACED_STEPS, budget_s=2.0)
        largest = tracemalloc.take_snapshot().statistics("lineno")[:1]
    finally:
        tracemalloc.stop()
    if not largest or largest[0].size < LEAK_PER_STEP * TRACED_STEPS:
        return ""
    frame = largest[0].traceback[0]
    return f"; most of it is taken in {Path(frame.filename).name}:{frame.lineno}"
