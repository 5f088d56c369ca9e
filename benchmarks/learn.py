"""Learning, measured: trains presets over seeds and appends a JSON row for each run.

python -m benchmarks.learn cartpole lunarlander    appends to benchmarks/results/learn.jsonl
python -m benchmarks.learn acrobot --seeds 3 4      only these of its seeds
python -m benchmarks.learn                          only sums up what stands there, in learning.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import shoal
from benchmarks import machine
from shoal.report.statistics import iqm
from shoal.run.log import read

RESULTS = Path(__file__).parent / "results"
PEER_RECORDS = RESULTS / "peers"
WITH_PEER = ("lunarlander",)
TASKS: dict[str, dict[str, Any]] = {
    "cartpole": {"env": "CartPole-v1", "algo": "ppo", "seeds": range(10)},
    "cartpole-pqn": {"env": "CartPole-v1", "algo": "pqn", "seeds": range(5)},
    "cartpole-a2c": {"env": "CartPole-v1", "algo": "a2c", "seeds": range(10)},
    "lunarlander": {"env": "LunarLander-v3", "algo": "ppo", "seeds": range(10)},
    "lunarlander-dqn": {"env": "LunarLander-v3", "algo": "dqn", "seeds": range(5), "stop_at": float("inf")},
    "acrobot": {"env": "Acrobot-v1", "algo": "ppo", "seeds": range(5)},
    "mountaincar": {"env": "MountainCar-v0", "algo": "ppo", "seeds": range(5)},
    "mountaincar-continuous": {"env": "MountainCarContinuous-v0", "algo": "ppo", "seeds": range(5)},
    "pendulum": {"env": "Pendulum-v1", "algo": "ppo", "seeds": range(5)},
    "pendulum-sac": {"env": "Pendulum-v1", "algo": "sac", "seeds": range(5)},
    "pendulum-td3": {"env": "Pendulum-v1", "algo": "td3", "seeds": range(5)},
    "lunarlander-continuous-sac": {
        "env": "LunarLanderContinuous-v3",
        "algo": "sac",
        "seeds": range(5),
        "stop_at": float("inf"),
    },
    "breakout": {"env": "shoal/Breakout-v0", "algo": "ppo", "seeds": range(5)},
    "breakout-dqn": {
        "env": "shoal/Breakout-v0",
        "algo": "dqn",
        "seeds": range(3),
        "stop_at": float("inf"),
        "bar": 20.0,
    },
    "pong": {"env": "shoal/Pong-v0", "algo": "ppo", "seeds": range(5)},
    "snake": {"env": "shoal/Snake-v0", "algo": "ppo", "seeds": range(5), "stop_at": 33.5},
}
"""What is trained; `stop_at`: where training stops if not at the threshold that the greedy episodes have to meet.

`bar`: what they have to meet in the place of the environment's threshold; of shoal/Breakout-v0 half of its bricks.
"""


def measure(
    task: str, env: str, algo: str, seed: int, stop_at: float | None = None, bar: float | None = None
) -> dict[str, Any]:
    """One run: steps, seconds of training, the greedy return over 100 fresh episodes and of a second 100.

    Seconds of training go from the first environment step through both evaluations; imports are apart.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = shoal.train(env, algo=algo, seed=seed, panel="none", run_dir=folder, stop_at=stop_at)
        begun = time.perf_counter()
        trained = shoal.load(result.path)
        confirmed = trained.evaluate(episodes=100, seed=seed + 1000)
        seconds = result.seconds + result.greedy_seconds + time.perf_counter() - begun
        lines = read(result.path / "metrics.jsonl")
    threshold = trained.spec.reward_threshold if bar is None else bar
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
        "threshold": threshold,
        "reached": threshold is None or min(result.greedy_return, confirmed.mean) >= threshold,
        "stop_reason": result.stop_reason,
        "curve": curve[:: max(1, len(curve) // 100)],
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "versions": machine.versions(),
    }


def _reached(runs: list[dict[str, Any]]) -> str:
    threshold = runs[0]["threshold"]
    if threshold is None:
        return ""
    return f"{sum(r['reached'] for r in runs)} reached {threshold:g} in two greedy evaluations; "


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The results file of all tasks, of each seed's last run: median seconds, and what the peer once came to."""
    rows: list[dict[str, Any]] = []
    for task in dict.fromkeys(line["claim"] for line in lines):
        runs = list({line["seed"]: line for line in lines if line["claim"] == task}.values())
        seconds, returns = float(np.median([r["seconds"] for r in runs])), [r["greedy_return"] for r in runs]
        steps = [r["steps"] for r in runs]
        note = (
            f"median of {len(runs)} seeds; {_reached(runs)}greedy return over 100 episodes: interquartile mean "
            f"{float(iqm(np.array(returns))):.1f} ({min(returns):.1f} to {max(returns):.1f}); "
            f"steps {min(steps):,} to {max(steps):,}"
        )
        peer = PEER_RECORDS / f"sb3_{task}.json"
        if task in WITH_PEER and peer.exists():
            told = json.loads(peer.read_text())
            (one,) = told["records"][0]["seeds"]
            note += (
                f"; Stable-Baselines3, rl-zoo's whole budget, 1 seed, another day ({told['machine']['date'][:10]}): "
                f"greedy {one['greedy_mean']:.1f} after {one['steps']:,} steps and {one['seconds']:,.0f} s"
            )
        claim = f"seconds of training, {runs[0]['env']}, {runs[0]['algo'].upper()}"
        nothing_beside = {"theirs": None, "ratio": None, "bar": None}
        rows.append({"claim": claim, "ours": seconds, **nothing_beside, "unit": "s", "note": note})
    info = {"machine": machine.describe(), "versions": machine.versions()}
    return {"name": "learning", "date": lines[-1]["date"], **info, "rows": rows}


def main() -> None:
    """Runs the tasks named on the command line, one run after another, and sums up the last run of every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", choices=[[], *sorted(TASKS)])
    parser.add_argument("--out", type=Path, default=RESULTS / "learn.jsonl")
    parser.add_argument("--seeds", nargs="*", type=int, help="instead of the task's own")
    options = parser.parse_args()
    for task in options.tasks:
        for seed in TASKS[task]["seeds"] if options.seeds is None else options.seeds:
            chosen = {name: value for name, value in TASKS[task].items() if name != "seeds"}
            line = measure(task, seed=seed, **chosen)
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print({k: v for k, v in line.items() if k not in ("curve", "machine", "versions")}, flush=True)
    result = summary([json.loads(line) for line in options.out.read_text().splitlines()])
    (RESULTS / "learning.json").write_text(json.dumps(result, indent=1) + "\n")
    for row in result["rows"]:
        print(f"{row['claim']}: {row['ours']:.2f} s; {row['note']}")


if __name__ == "__main__":
    main()
