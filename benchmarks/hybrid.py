"""PPO explorers beside SAC, measured: does the actor need fewer gradient steps where explorers fill its memory too?

python -m benchmarks.hybrid                       five seeds of both arms on LunarLanderContinuous-v3, on one thread
python -m benchmarks.hybrid --seeds 100 101       only these; --arms sac or --arms hybrid: one of the two
python -m benchmarks.hybrid --summary             what the file holds

Both arms take equal environment steps and, of the actor and its critics, equal gradient steps, with the network, batch,
rates and schedules of an earlier preset of SAC; the hybrid's explorers act in half of the environments, and their own
gradient steps come on top. Every 5,000 steps the actor plays 20 greedy episodes. Appended to
benchmarks/results/hybrid.jsonl, as each run ends: the actor's gradient steps and the environment steps when the greedy
mean, and when the mean return of the actor's last 100 episodes of training, first reached 200 (null: never), and the
greedy mean of 100 fresh episodes.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import shoal
from benchmarks import machine
from shoal.report.statistics import iqm
from shoal.run.log import read

RESULT = Path(__file__).parent / "results" / "hybrid.jsonl"
ENV, STEPS, THRESHOLD, WINDOW = "LunarLanderContinuous-v3", 150_000, 200.0, 100
BATCH, SAMPLES, WARM_UP = 128, 64, 4_000
SHARED: dict[str, Any] = {
    "num_envs": 8,
    "num_steps": 1,
    "batch_size": BATCH,
    "n_step": 4,
    "learning_rate": 1e-3,
    "learning_rate_schedule": "linear",
    "critic_learning_rate": 1e-3,
    "critic_learning_rate_schedule": "linear",
    "tau": 0.01,
    "reward_scale": 0.1,
    "network": {"hidden": (128, 128)},
    "replay": {"buffer_size": STEPS, "learning_starts": WARM_UP, "samples_per_insert": SAMPLES},
}
ARMS: dict[str, dict[str, Any]] = {
    "sac": {"algo": "sac"},
    "hybrid": {"algo": "ppo_sac", "explorers": {"share": 0.5, "num_steps": 128, "update_epochs": 10}},
}
EVERY, EPISODES = 5_000, 20


def learner_steps(steps: int | None) -> int | None:
    """The actor's gradient steps after so many environment steps: the same in both arms."""
    return None if steps is None else max(0, steps - WARM_UP) * SAMPLES // BATCH


def first_at(lines: list[dict[str, Any]], name: str, least: int = 0) -> int | None:
    """The step of the first line whose `name` reaches the threshold, of those with so many episodes."""
    reached = (line["step"] for line in lines if line.get(name, -math.inf) >= THRESHOLD)
    known = {line["step"] for line in lines if line.get("episode/count", 0) >= least}
    return next((step for step in reached if step in known), None)


def measure(arm: str, seed: int, steps: int) -> dict[str, Any]:
    """One run: when it first reached 200, and what its greedy policy came to."""
    settings = SHARED | ARMS[arm]
    with tempfile.TemporaryDirectory() as folder:
        cpu = time.process_time()
        result = shoal.train(
            ENV,
            seed=seed,
            total_timesteps=steps,
            eval_every=EVERY,
            eval_episodes=EPISODES,
            num_threads=1,
            preset="none",
            panel="none",
            stop_at=math.inf,
            run_dir=folder,
            **settings,
        )
        cpu = time.process_time() - cpu
        lines = read(result.path / "metrics.jsonl")
    greedy, training = first_at(lines, "eval/return"), first_at(lines, "episode/return", WINDOW)
    evaluated = [[line["step"], round(line["eval/return"], 1)] for line in lines if "eval/return" in line]
    trained = [[line["step"], round(line["episode/return"], 1)] for line in lines if "episode/return" in line]
    explored = [line["episode/return/explorer"] for line in lines if "episode/return/explorer" in line]
    return {
        "arm": arm,
        "seed": seed,
        "steps": result.steps,
        "learner_steps": learner_steps(result.steps),
        "greedy_reached_step": greedy,
        "greedy_reached_learner_steps": learner_steps(greedy),
        "training_reached_step": training,
        "training_reached_learner_steps": learner_steps(training),
        "greedy_return": result.greedy_return,
        "best_evaluation": max(value for _, value in evaluated),
        "explorers_last_return": round(float(np.mean(explored[-25:])), 1) if explored else None,
        "evaluations": evaluated,
        "training": trained[:: max(1, len(trained) // 50)],
        "seconds": round(result.seconds, 1),
        "cpu_seconds": round(cpu, 1),
    }


def summarize(rows: list[dict[str, Any]]) -> None:
    """Prints, for each arm, its seeds' figures and their interquartile mean; of equal seeds the last row."""
    for arm in ARMS:
        runs = {row["seed"]: row for row in rows if row["arm"] == arm}
        if not runs:
            continue
        for name in ("greedy_reached_learner_steps", "training_reached_learner_steps"):
            print(arm, name, {seed: runs[seed][name] for seed in sorted(runs)})
        returns = [runs[seed]["greedy_return"] for seed in sorted(runs)]
        told = [round(value, 1) for value in returns]
        print(arm, "greedy_return", told, "interquartile mean", round(float(iqm(np.array(returns))), 1))


def main() -> None:
    """Runs, or sums up, what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULT)
    told = parser.parse_args()
    about = {"env": ENV, "machine": machine.describe(), "versions": machine.versions()}
    for seed in told.seeds if not told.summary else ():
        for arm in told.arms:
            row = measure(arm, seed, told.steps)
            with told.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"date": time.strftime("%Y-%m-%d"), **about, **row}) + "\n")
            print({name: value for name, value in row.items() if not isinstance(value, list)}, flush=True)
    summarize([json.loads(line) for line in told.out.read_text(encoding="utf-8").splitlines()])


if __name__ == "__main__":
    main()
