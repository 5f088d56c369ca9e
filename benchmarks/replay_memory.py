"""The replay memory on LunarLander transitions, one thread: inserts, uniform and prioritized batches, beside cpprb.

    python benchmarks/peers/setup_peers.py cpprb
    python -m benchmarks.replay_memory [--rounds N] [--seconds S]

Capacity 100,000; blocks of 128 steps of 16 rows (2,048 transitions) with an episode's end every 200 steps on average;
batches of 256. `public` is what users call (`ReplayMemory.insert`, `Reader.sample`, `Reader.prioritize`), `binding` the
native calls below, with their arguments prepared. The sides take turns in slices of a quarter of a second, in an order
drawn anew each time. Figures are medians over the rounds. Adds a line to benchmarks/results/replay_memory.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from benchmarks import machine
from benchmarks.peers.run_peers import LivePeer
from benchmarks.peers.worker import count_steps
from shoal.memory.reader import Prioritized, Reader
from shoal.memory.replay import ReplayMemory
from shoal.memory.slab import Slab
from shoal.types import Spec

if TYPE_CHECKING:
    from collections.abc import Callable

    Slice = Callable[[float], tuple[int, float]]
    """Works for about so many seconds; what it did and the exact time."""

RESULT = Path(__file__).parent / "results" / "replay_memory.jsonl"
CAPACITY, STEPS, ROWS, BATCH, EPISODE = 100_000, 128, 16, 256, 200
SLICE_S = 0.25
BARS = {"insert": 60e6, "uniform": 300e3, "prioritized": 10e3}
BESIDE = {"prioritized": 4.0}
UNITS = {"insert": "transitions/s", "uniform": "batches/s", "prioritized": "batches/s"}


def lander_spec() -> Spec:
    """What LunarLander's rows observe and do."""
    return Spec.of("LunarLander-v3", spaces.Box(-10, 10, (8,), np.float32), spaces.Discrete(4))


def lander_slab() -> Slab:
    """A block of transitions of LunarLander's form."""
    rng = np.random.default_rng(0)
    slab = Slab(lander_spec(), STEPS, ROWS)
    slab.clear()
    obs, action, final_obs = (np.asarray(tree) for tree in (slab.obs, slab.action, slab.final_obs))
    obs[:] = rng.normal(size=obs.shape)
    action[:] = rng.integers(0, 4, action.shape)
    final_obs[:] = rng.normal(size=final_obs.shape)
    slab.reward[:] = rng.normal(size=(STEPS, ROWS))
    for step, row in np.argwhere(rng.random((STEPS, ROWS)) < 1 / EPISODE):
        slab.terminated[step, row] = True
        slab.final_index[step, row] = slab.num_final
        slab.num_final += 1
    return slab


def full_memory(slab: Slab) -> ReplayMemory:
    """A memory that blocks have filled."""
    memory = ReplayMemory(lander_spec(), ROWS, capacity=CAPACITY)
    while len(memory) < memory.num_rows * memory.slots:
        memory.insert(slab)
    return memory


def inserts(slab: Slab, side: str) -> Callable[[], int]:
    """Inserts a block and returns how many transitions it has."""
    memory = full_memory(slab)
    if side == "public":
        return lambda: memory.insert(slab)
    form = memory.form
    obs, action, final_obs = form.obs.flat(slab.obs), form.action.flat(slab.action), form.obs.flat(slab.final_obs)
    flags = (slab.terminated, slab.truncated, slab.valid, slab.start, slab.version, slab.final_index)
    insert = memory.rings.insert
    return lambda: insert(0, obs, action, slab.reward, *flags, final_obs, None, in_turns=False)


def draws(slab: Slab, side: str) -> Callable[[], int]:
    """Samples a uniform batch."""
    reader = Reader(full_memory(slab), batch_size=BATCH)
    sample = reader.sample if side == "public" else reader._native.sample  # pyright: ignore[reportPrivateUsage]

    def draw() -> int:
        sample()
        return 1

    return draw


def updates(slab: Slab, side: str) -> Callable[[], int]:
    """Samples a batch by priorities, with weights, and gives it new priorities."""
    how = Prioritized()
    reader = Reader(full_memory(slab), batch_size=BATCH, prioritized=how)
    native = reader._native  # pyright: ignore[reportPrivateUsage]
    errors = np.random.default_rng(1).random((64, BATCH)).astype(np.float32)
    key, tick = reader.sample().key, 0

    def update() -> int:
        nonlocal tick
        tick += 1
        if side == "public":
            reader.prioritize(reader.sample().key, errors[tick % 64])
        else:
            native.sample_prioritized(how.alpha, how.beta)
            native.prioritize(key, errors[tick % 64])
        return 1

    return update


def sides(stack: ExitStack) -> dict[tuple[str, str], Slice]:
    """Slices of each task by each side; cpprb's workers end with `stack`."""
    slab = lander_slab()
    made: dict[tuple[str, str], Slice] = {}
    for task, work in {"insert": inserts, "uniform": draws, "prioritized": updates}.items():
        for side in ("public", "binding"):
            made[task, side] = sliced(work(slab, side))
        settings = {"capacity": CAPACITY, "block": STEPS * ROWS, "batch": BATCH, "episode": EPISODE}
        try:
            live = LivePeer("cpprb", task, **settings)
        except LookupError as missing:
            print(missing)
        else:
            stack.callback(live.close)
            made[task, "cpprb"] = live.slice
    return made


def sliced(work: Callable[[], int]) -> Slice:
    """Slices of `work`."""
    return lambda seconds: count_steps(work, seconds)


def one_round(made: dict[tuple[str, str], Slice], turns: int) -> dict[tuple[str, str], float]:
    """What each side did a second, over `turns` slices of each."""
    done, spent = dict.fromkeys(made, 0), dict.fromkeys(made, 0.0)
    for turn in range(turns):
        for key in random.Random(turn).sample(list(made), len(made)):
            count, seconds = made[key](SLICE_S)
            done[key] += count
            spent[key] += seconds
    return {key: done[key] / spent[key] for key in made}


def row_of(task: str, rounds: list[dict[tuple[str, str], float]]) -> dict[str, Any]:
    """The medians of a task, and of its rounds' ratios."""
    both = all((task, "cpprb") in each for each in rounds)
    ratios = [each[task, "public"] / each[task, "cpprb"] for each in rounds] if both else []
    sides = ("public", "binding", "cpprb") if both else ("public", "binding")
    return {
        "task": task,
        "unit": UNITS[task],
        "bar": BARS[task],
        **{side: round(statistics.median(each[task, side] for each in rounds)) for side in sides},
        "best_round": round(max(each[task, "public"] for each in rounds)),
        "ratio": round(statistics.median(ratios), 2) if both else None,
        "bar_ratio": BESIDE.get(task),
    }


def main() -> None:
    """Measures, prints and appends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each side in each round")
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    about = {"date": time.strftime("%Y-%m-%d %H:%M"), "machine": machine.describe(), "versions": machine.versions()}
    with ExitStack() as stack:
        made = sides(stack)
        turns = max(1, round(given.seconds / SLICE_S))
        rounds = [one_round(made, turns) for _ in range(given.rounds)]
    rows = [row_of(task, rounds) for task in BARS]
    for row in rows:
        print(json.dumps(row))
    with RESULT.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**about, "rounds": given.rounds, "seconds": given.seconds, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
