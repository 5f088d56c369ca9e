"""Pong stepping: shoal on ALE's vector environment beside EnvPool and ALE's own loop, in one run.

    python -m benchmarks.step_pong [--pairs N] [--seconds S]

Random actions drawn beforehand, 4 frames an action, 84 x 84 grey, stacks of 4, all cores. Each side steps at each of
several numbers of rows first, and is measured at its own best. The sides then alternate; what is claimed is shoal's
median beside the better of the other two. Writes benchmarks/results/pong_step.json. EnvPool runs in its peer's virtual
environment (benchmarks/peers/setup_peers.py envpool); where that is not made, its side is said to be not available.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode

from benchmarks import machine
from benchmarks.peers.run_peers import measure as peer
from shoal.envs.make import make
from shoal.run.meter import cores

if TYPE_CHECKING:
    from collections.abc import Callable

RESULT = Path(__file__).parent / "results" / "pong_step.json"
ROWS = (8, 16, 32)
TRIES = 2
"""Of each number of rows; the best counts."""
BAR = 0.97


def shoal_rows(num_envs: int, actions: np.ndarray[Any, Any]) -> Callable[[int], None]:
    """A function that steps shoal's rows once."""
    env, everything = make("ALE/Pong-v5", num_envs, num_threads=cores()), slice(0, num_envs)
    env.reset(0)
    env.recv()

    def step(tick: int) -> None:
        env.send(everything, actions[tick % len(actions)])
        env.recv()

    return step


def ale_rows(num_envs: int, actions: np.ndarray[Any, Any]) -> Callable[[int], None]:
    """A function that steps ALE's own vector environment once, with the same preprocessing."""
    mode = AutoresetMode.SAME_STEP
    env = AtariVectorEnv("pong", num_envs, num_threads=cores(), autoreset_mode=mode, reward_clipping=True)
    env.reset(seed=0)

    def step(tick: int) -> None:
        env.step(actions[tick % len(actions)])

    return step


def rate(step: Callable[[int], None], num_envs: int, seconds: float) -> float:
    """Environment steps per second."""
    for tick in range(20):
        step(tick)
    ticks, begun = 0, time.perf_counter()
    while (spent := time.perf_counter() - begun) < seconds:
        step(ticks)
        ticks += 1
    return ticks * num_envs / spent


def envpool_rate(num_envs: int, seconds: float) -> float | None:
    """EnvPool's own loop in its own virtual environment; None where it is not made."""
    settings: dict[str, Any] = {
        "num_envs": num_envs,
        "batch_size": num_envs,
        "num_threads": cores(),
        "seconds": seconds,
    }
    record = peer("envpool", "pong_sync", timeout_s=60 + 10 * seconds, **settings)
    return record["sps"] if record["status"] == "ok" else None


def measure(*, pairs: int, seconds: float) -> dict[str, Any]:
    """Each side's best number of rows, then medians over alternating rounds and of their ratios."""
    rng = np.random.default_rng(0)
    made = {"shoal": shoal_rows, "ale": ale_rows}
    rounds: dict[str, Callable[[], float | None]] = {}
    best: dict[str, int] = {}
    for name, side in made.items():
        steps = {n: side(n, rng.integers(0, 6, (256, n))) for n in ROWS}
        tried = dict.fromkeys(ROWS, 0.0)
        for n in TRIES * ROWS:
            tried[n] = max(tried[n], rate(steps[n], n, seconds / 2))
        best[name] = chosen = max(tried, key=lambda n: tried[n])
        rounds[name] = lambda step=steps[chosen], n=chosen: rate(step, n, seconds)
    tried = dict.fromkeys(ROWS, 0.0)
    for n in TRIES * ROWS:
        tried[n] = max(tried[n], envpool_rate(n, seconds / 2) or 0.0)
    best["envpool"] = chosen = max(tried, key=lambda n: tried[n])
    rounds["envpool"] = lambda n=chosen: envpool_rate(n, seconds)
    rates: dict[str, list[float]] = {name: [] for name in rounds}
    for _ in range(pairs):
        for name, one in rounds.items():
            rates[name].append(one() or 0.0)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    others = {name: value for name, value in medians.items() if name != "shoal"}
    better = max(others, key=lambda name: others[name])
    ratios = sorted(ours / theirs for ours, theirs in zip(rates["shoal"], rates[better], strict=True))
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    said = ", ".join(f"{name} {round(medians[name]):,} with {n} rows" for name, n in best.items() if medians[name])
    absent = "".join(f"; {name}: not available" for name, value in medians.items() if not value)
    row = {
        "claim": "stepping Atari Pong",
        "ours": round(medians["shoal"]),
        "theirs": round(others[better]),
        "ratio": round(statistics.median(ratios), 3),
        "bar": BAR,
        "unit": "steps/s",
        "note": f"beside {better}, the better of EnvPool and ALE; median ratio of {pairs} rounds ({each}); "
        f"{said}{absent}",
    }
    return {"rows": [row]}


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    about = {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe(), "versions": machine.versions()}
    result = {"name": "pong_step"} | about | measure(**vars(parser.parse_args()))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
