"""Pong stepping: shoal on ALE's vector environment beside EnvPool and ALE's own loop, in one run.

    python -m benchmarks.step_pong [--pairs N] [--seconds S]

Random actions drawn beforehand, 4 frames an action, 84 x 84 gray, stacks of 4, all cores. Every side is tried with
several numbers of rows and then measured at its own best, and with 8 rows, which is what presets learn with. The sides
take turns in slices of a quarter of a second, in an order drawn anew each time, because the speed of a shared machine's
cores changes from one second to the next. What is claimed is the median over the rounds of shoal's steps beside those
of the better of the other two, in as many seconds. EnvPool runs in its peer's virtual environment
(benchmarks/peers/setup_peers.py envpool); where that is not made, its side is said to be not available. Writes
benchmarks/results/pong_step.json.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode

from benchmarks import machine
from benchmarks.peers.run_peers import LivePeer
from benchmarks.peers.worker import count_steps
from shoal.envs.registry import make
from shoal.stream.meter import cores

if TYPE_CHECKING:
    from collections.abc import Callable

    Slice = Callable[[float], tuple[int, float]]
    """Steps for about so many seconds; the steps and the exact time."""

RESULT = Path(__file__).parent / "results" / "pong_step.json"
ROWS = (8, 16, 32, 64, 128, 256)
FEW = 8
SLICE_S = 0.25
TRIES = 8
"""Slices that each number of rows is tried with."""
BAR = 0.97


def shoal_rows(num_envs: int, actions: np.ndarray[Any, Any]) -> Slice:
    """Shoal's rows."""
    env, everything = make("ALE/Pong-v5", num_envs, num_threads=cores()), slice(0, num_envs)
    env.reset(0)
    env.recv()

    def step(action: np.ndarray[Any, Any]) -> None:
        env.send(everything, action)
        env.recv()

    return sliced(step, actions)


def ale_rows(num_envs: int, actions: np.ndarray[Any, Any]) -> Slice:
    """ALE's own vector environment, with the same preprocessing."""
    mode = AutoresetMode.SAME_STEP
    env = AtariVectorEnv("pong", num_envs, num_threads=cores(), autoreset_mode=mode, reward_clipping=True)
    env.reset(seed=0)
    return sliced(env.step, actions)


def sliced(step: Callable[[np.ndarray[Any, Any]], object], actions: np.ndarray[Any, Any]) -> Slice:
    """Slices of `step` with one of `actions` [sets, rows] after another."""
    tick = 0

    def next_step() -> int:
        nonlocal tick
        step(actions[tick % len(actions)])
        tick += 1
        return actions.shape[1]

    return lambda seconds: count_steps(next_step, seconds)


def sides(stack: ExitStack) -> dict[tuple[str, int], Slice]:
    """Every side's slices for each number of rows; EnvPool's workers end with `stack`."""
    rng = np.random.default_rng(0)
    made: dict[tuple[str, int], Slice] = {}
    for n in ROWS:
        actions = rng.integers(0, 6, (256, n))
        made["shoal", n], made["ale", n] = shoal_rows(n, actions), ale_rows(n, actions)
        try:
            live = LivePeer("envpool", "pong_sync", num_envs=n, batch_size=n, num_threads=cores(), cores=cores())
        except LookupError as missing:
            print(missing)
        else:
            stack.callback(live.close)
            made["envpool", n] = live.slice
    return made


def alternate(made: dict[tuple[str, int], Slice], times: int) -> dict[tuple[str, int], float]:
    """Steps per second of each, over `times` slices of each in turn."""
    steps, spent = dict.fromkeys(made, 0), dict.fromkeys(made, 0.0)
    for turn in range(times):
        for key in random.Random(turn).sample(list(made), len(made)):
            count, seconds = made[key](SLICE_S)
            steps[key] += count
            spent[key] += seconds
    return {key: steps[key] / spent[key] for key in made}


def measure(*, pairs: int, seconds: float) -> dict[str, Any]:
    """Each side's best number of rows, then rounds of the sides at their best and with few rows."""
    with ExitStack() as stack:
        made = sides(stack)
        tried = alternate(made, TRIES)
        names = sorted({name for name, _ in made})
        best = {name: max((key for key in made if key[0] == name), key=lambda key: tried[key]) for name in names}
        few = {name: (name, FEW) for name in names}
        chosen = {key: made[key] for key in (*best.values(), *few.values())}
        rounds = [alternate(chosen, max(1, round(seconds / SLICE_S))) for _ in range(pairs)]
    rows = [compared("stepping Atari Pong", best, rounds), compared(f"stepping Atari Pong, {FEW} rows", few, rounds)]
    rows[0]["bar"] = BAR
    rows[0]["note"] += f"; rounds of {seconds:g} s a side{'' if 'envpool' in names else '; no EnvPool here'}"
    return {"rows": rows}


def compared(
    claim: str, sides: dict[str, tuple[str, int]], rounds: list[dict[tuple[str, int], float]]
) -> dict[str, Any]:
    """What the rounds say of these sides: shoal beside the better of the others."""
    medians = {name: statistics.median(each[key] for each in rounds) for name, key in sides.items()}
    better = max(medians.keys() - {"shoal"}, key=lambda name: medians[name])
    ratios = sorted(each[sides["shoal"]] / each[sides[better]] for each in rounds)
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    said = ", ".join(f"{name} {round(medians[name]):,} with {key[1]} rows" for name, key in sides.items())
    return {
        "claim": claim,
        "ours": round(medians["shoal"]),
        "theirs": round(medians[better]),
        "ratio": round(statistics.median(ratios), 3),
        "bar": None,
        "unit": "steps/s",
        "note": f"beside {better}, the better of EnvPool and ALE; median ratio of {len(rounds)} rounds ({listed}); "
        f"{said}",
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each side in each round")
    about = {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe(), "versions": machine.versions()}
    result = {"name": "pong_step"} | about | measure(**vars(parser.parse_args()))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
