"""Learning, measured: trains presets over seeds and appends a JSON row for each run.

python benchmarks/learn.py cartpole lunarlander --out benchmarks/results/learn.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shoal
from shoal.run.log import read

TASKS: dict[str, dict[str, Any]] = {
    "cartpole": {"env": "CartPole-v1", "algo": "ppo", "seeds": range(10)},
    "cartpole-a2c": {"env": "CartPole-v1", "algo": "a2c", "seeds": range(10)},
    "lunarlander": {"env": "LunarLander-v3", "algo": "ppo", "seeds": range(5)},
    "acrobot": {"env": "Acrobot-v1", "algo": "ppo", "seeds": range(5)},
    "mountaincar": {"env": "MountainCar-v0", "algo": "ppo", "seeds": range(5)},
    "mountaincar-continuous": {"env": "MountainCarContinuous-v0", "algo": "ppo", "seeds": range(5)},
    "pendulum": {"env": "Pendulum-v1", "algo": "ppo", "seeds": range(5)},
}


def measure(task: str, env: str, algo: str, seed: int) -> dict[str, Any]:
    """One run: steps, seconds of training, the greedy return over 100 fresh episodes and of a second 100.

    Seconds of training go from the first environment step through both evaluations; imports are apart.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = shoal.train(env, algo=algo, seed=seed, panel="none", run_dir=folder)
        begun = time.perf_counter()
        confirmed = shoal.load(result.path).evaluate(episodes=100, seed=seed + 1000)
        seconds = result.seconds + result.greedy_seconds + time.perf_counter() - begun
        lines = read(result.path / "metrics.jsonl")
    curve = [[line["step"], line["episode/return"]] for line in lines if "episode/return" in line]
    return {
        "claim": task,
        "env": env,
        "algo": algo,
        "seed": seed,
        "steps": result.steps,
        "seconds": round(seconds, 3),
        "greedy_return": round(result.greedy_return, 2),
        "confirmed_return": round(confirmed.mean, 2),
        "threshold": result.threshold,
        "reached": result.solved and (result.threshold is None or confirmed.mean >= result.threshold),
        "stop_reason": result.stop_reason,
        "curve": curve[:: max(1, len(curve) // 100)],
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }


def interquartile_mean(values: list[float]) -> float:
    """Mean of the middle half, the outer quarters weighted out fractionally."""
    ordered, n = np.sort(values), len(values)
    edges = np.arange(n + 1) / n
    weights = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None)
    return float((ordered * weights).sum() / weights.sum())


def main() -> None:
    """Runs the tasks named on the command line, one run after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="+", choices=sorted(TASKS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/learn.jsonl"))
    options = parser.parse_args()
    for task in options.tasks:
        rows: list[dict[str, Any]] = []
        for seed in TASKS[task]["seeds"]:
            row = measure(task, TASKS[task]["env"], TASKS[task]["algo"], seed)
            rows.append(row)
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print({k: v for k, v in row.items() if k not in ("curve", "machine", "versions")}, flush=True)
        seconds, greedy = [r["seconds"] for r in rows], [r["greedy_return"] for r in rows]
        print(
            f"{task}: {sum(r['reached'] for r in rows)} of {len(rows)} reached; seconds median "
            f"{np.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f}); greedy return interquartile mean "
            f"{interquartile_mean(greedy):.1f} ({min(greedy):.1f} to {max(greedy):.1f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
