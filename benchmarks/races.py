"""Seconds of training to a preset's end, beside an older version's, in alternating runs.

python benchmarks/races.py --other PATH/TO/OTHER/CHECKOUT/.venv/bin/python
python benchmarks/races.py --other ... --only LunarLander-v3 --seeds 10 --out results.jsonl

Each run is a process of its own. For each seed the two versions take turns, and which goes first changes every time.
Seconds go from the first environment step to the end of training; the greedy score is of 100 fresh episodes afterwards.
Cores busy: processor time over wall time and both cores, from the first ended episode to the last line of metrics; only
this version tells it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import shoal

BARS = {"LunarLander-v3": 0.6, "CartPole-v1": 0.7}
"""Environment -> the bar: our median seconds over the other version's."""


def train(env: str, seed: int) -> dict[str, Any]:
    """One training with the preset, then 100 greedy episodes."""
    times: list[tuple[float, float]] = []

    def note(*_: Any) -> None:
        times[1:] = [(time.perf_counter(), time.process_time())]

    newer = hasattr(shoal, "ConfigError")
    settings: dict[str, Any] = {"final_episodes": 0, "callbacks": [note]} if newer else {}
    with tempfile.TemporaryDirectory() as folder:
        result = shoal.train(env, seed=seed, num_threads=2, panel="none", run_dir=folder, **settings)
        greedy = shoal.load(result.path).evaluate(episodes=100, seed=seed + 1000).mean
    return {
        "steps": result.steps,
        "seconds": result.seconds,
        "busy": (times[-1][1] - times[0][1]) / (times[-1][0] - times[0][0]) / 2 if newer else None,
        "greedy": greedy,
        "reason": result.stop_reason,
    }


def measure(python: str, env: str, seed: int) -> dict[str, Any]:
    """The same in a new process of `python`."""
    command = [python, str(Path(__file__).resolve()), "--worker", env, str(seed)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    if done.returncode:
        sys.exit(f"{env}, seed {seed} with {python}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def race(env: str, other: str, seeds: int) -> dict[str, Any]:
    """Both versions over all seeds, in turns."""
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for seed in range(seeds):
        sides = [(ours, sys.executable), (theirs, other)]
        for runs, python in sides if seed % 2 else reversed(sides):
            runs.append(measure(python, env, seed))
        a, b = ours[-1], theirs[-1]
        print(
            f"{env} seed {seed}: {a['seconds']:.2f} s, greedy {a['greedy']:.0f}, cores busy {a['busy']:.0%}; "
            f"beside {b['seconds']:.2f} s, greedy {b['greedy']:.0f}",
            flush=True,
        )
    medians = [statistics.median(run["seconds"] for run in runs) for runs in (ours, theirs)]
    return {
        "env": env,
        "ratio": medians[0] / medians[1],
        "bar": BARS[env],
        "seconds": medians,
        "busy": statistics.median(run["busy"] for run in ours),
        "ours": ours,
        "theirs": theirs,
    }


def main() -> None:
    """Races, prints, and appends where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", help="the Python interpreter of the other checkout")
    parser.add_argument("--only", action="append", choices=list(BARS), help="this environment; may be given again")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, help="append the figures to this file, one JSON object a line")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(train(options.worker[0], int(options.worker[1]))))
        return
    if options.other is None:
        parser.error("--other is needed")
    for env in options.only or BARS:
        figures = race(env, options.other, options.seeds)
        ours, theirs = figures["seconds"]
        said = f"{figures['ratio']:.2f} x (bar {figures['bar']}), cores busy {figures['busy']:.0%}"
        print(f"{env}: {ours:.2f} beside {theirs:.2f} s, {said}")
        if options.out is not None:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"date": time.strftime("%Y-%m-%d %H:%M"), **figures}) + "\n")


if __name__ == "__main__":
    main()
