"""One unattended run on Pong: PPO with NatureCNN until 30 greedy games have a mean score of 18, one seed.

    nohup python -m benchmarks.pong > pong.log &        (--seed N, --total_timesteps N, --bar N)

Every 50,000 steps 30 greedy games are played; when their mean, or that of the last 100 games of training, reaches the
bar, training stops, and 30 other greedy games are played, which count; where their mean is below the bar, training goes
on. Appends one line to benchmarks/results/pong.jsonl: the seed, steps, seconds of
training (from the first environment step, all greedy games counted in), the greedy scores, and the curve.
The run's directory stays in runs/, so that a run that was cut short goes on with --resume.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import shoal
from benchmarks import machine
from shoal.experiment import training
from shoal.run.log import read

RESULT = Path(__file__).parent / "results" / "pong.jsonl"
ENV_ID = "ALE/Pong-v5"
GAMES = 30
EVERY = 50_000
FULLER = 0.5
"""How much further a mean must come where the greedy games that count missed the bar."""


def measure(*, seed: int, total_timesteps: int, bar: float, resume: str | None) -> dict[str, Any]:
    """Trains until the greedy games reach the bar, or the steps are spent."""
    aim, greedy_seconds = bar, 0.0
    tries: list[dict[str, Any]] = []
    path = resume
    while True:
        if path is None:
            settings: dict[str, Any] = {"seed": seed, "total_timesteps": total_timesteps, "stop_at": aim}
            settings |= {"eval_every": EVERY, "eval_episodes": GAMES}
            result = shoal.train(ENV_ID, panel="plain", **settings)
        else:
            result = training.resume(path, panel="plain", stop_at=aim)
        path = str(result.path)
        begun = time.perf_counter()
        score = shoal.load(path).evaluate(episodes=GAMES, seed=seed + 1000 + len(tries))
        greedy_seconds += time.perf_counter() - begun
        tries.append({"steps": result.steps, "mean": round(score.mean, 2), "scores": score.returns.tolist()})
        print(
            f"{result.steps:,} steps, {result.seconds:.0f} s: mean of {GAMES} greedy games {score.mean:.2f}", flush=True
        )
        if score.mean >= bar or result.steps >= total_timesteps:
            break
        aim = bar + len(tries) * FULLER
    lines = read(Path(path) / "metrics.jsonl")
    curve = [[line["step"], round(line["time/elapsed"]), round(line["episode/return"], 2)] for line in lines
             if "episode/return" in line]  # fmt: skip
    greedy = [[line["step"], round(line["time/elapsed"]), round(line["eval/return"], 2)] for line in lines
              if "eval/return" in line]  # fmt: skip
    return {
        "claim": "pong",
        "seed": seed,
        "seeds": 1,
        "bar": bar,
        "games": GAMES,
        "reached": tries[-1]["mean"] >= bar,
        "steps": tries[-1]["steps"],
        "seconds": round(result.seconds + greedy_seconds, 1),
        "tries": tries,
        "curve": curve[:: max(1, math.ceil(len(curve) / 100))],
        "curve_columns": ["steps", "seconds", "mean of the last 100 games"],
        "greedy": greedy,
        "greedy_columns": ["steps", "seconds", f"mean of {GAMES} greedy games beside training"],
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "versions": machine.versions(),
    }


def main() -> None:
    """Runs, and appends the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--total_timesteps", type=int, default=5_000_000)
    parser.add_argument("--bar", type=float, default=18.0)
    parser.add_argument("--resume", default=None, help="the directory of a run that was cut short")
    result = measure(**vars(parser.parse_args()))
    with RESULT.open("a") as file:
        file.write(json.dumps(result) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "curve"}))


if __name__ == "__main__":
    main()
