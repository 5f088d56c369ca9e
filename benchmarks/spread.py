"""Agents who learn together, measured: PPO on mpe2's simple_spread_v3 between a player at random and a scripted team.

python -m benchmarks.spread           five seeds, appended to benchmarks/results/spread.jsonl as each ends
python -m benchmarks.spread --seeds 0 1

The scripted team knows where everybody is: it gives each agent the landmark that makes the sum of ways least, and
each drives there. The bar, set before seeds 0 to 4 were run (settings were chosen on seeds from 100 on): each seed's
greedy policy, one for all three agents, who see what the environment shows them, closes at least BAR of the gap.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import shoal
from benchmarks import machine
from shoal.envs.registry import make
from shoal.run.log import read

if TYPE_CHECKING:
    from collections.abc import Callable

RESULT = Path(__file__).parent / "results" / "spread.jsonl"
ENV = "mpe2.simple_spread_v3:parallel_env"
GAMES, BAR = 100, 0.6
PUSHES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])
"""Where each of the five actions pushes."""
GLIDE = 0.3
"""Seconds that an agent's present speed still carries it, roughly."""


def scripted(world: Any) -> list[int]:
    """The team's actions."""
    places = np.array([agent.state.p_pos for agent in world.agents])
    speeds = np.array([agent.state.p_vel for agent in world.agents])
    goals = np.array([landmark.state.p_pos for landmark in world.landmarks])
    ways = np.linalg.norm(places[:, None] - goals[None], axis=2)
    order = min(permutations(range(len(goals))), key=lambda p: sum(ways[a, goal] for a, goal in enumerate(p)))
    left = goals[list(order)] - places - GLIDE * speeds
    return [int(np.argmin(np.linalg.norm(way - 0.1 * PUSHES, axis=1))) for way in left]


def play(chooser: Callable[[Any, int], list[int]], games: int, seed: int) -> float:
    """The mean return of an agent over games of one team; `chooser` gets the world and the number of rows."""
    rows: Any = make(ENV, 1)
    rows.reset(seed)
    rows.recv()
    returns: list[float] = []
    while len(returns) < games * rows.num_rows:
        rows.send(slice(None), np.array(chooser(rows.envs[0].unwrapped.world, rows.num_rows)))
        ready = rows.recv()
        returns += ready.episode_return[ready.terminated | ready.truncated].tolist()
    rows.close()
    return float(np.mean(returns))


def measure(seed: int, low: float, high: float, **settings: Any) -> dict[str, Any]:
    """One run: the greedy return of its policy, how much of the gap that closes, and its curve."""
    with tempfile.TemporaryDirectory() as folder:
        result = shoal.train(ENV, seed=seed, panel="none", run_dir=folder, stop_at=math.inf, **settings)
        lines = read(result.path / "metrics.jsonl")
    curve = [[line["step"], round(line["episode/return"], 2)] for line in lines if "episode/return" in line]
    closed = (result.greedy_return - low) / (high - low)
    return {
        "seed": seed,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "greedy_return": round(result.greedy_return, 2),
        "gap_closed": round(closed, 3),
        "reached": closed >= BAR,
        "curve": curve[:: max(1, len(curve) // 50)],
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.describe(),
    }


def main() -> None:
    """Plays the two references, then trains each seed with the preset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)))
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    low = play(lambda _, count: rng.integers(0, 5, count).tolist(), GAMES, 0)
    high = play(lambda world, _: scripted(world), GAMES, 0)
    print(f"at random {low:.2f}, scripted {high:.2f}", flush=True)
    for seed in options.seeds:
        row = measure(seed, low, high)
        print({key: value for key, value in row.items() if key not in ("curve", "machine")}, flush=True)
        line = {"env": ENV, "bar": BAR, "at_random": low, "scripted": high, "games": GAMES, **row}
        with RESULT.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | {"versions": machine.versions()}) + "\n")


if __name__ == "__main__":
    main()
