"""Curiosity, measured: who finds the flag of MountainCar-v0, with a bonus for what was not seen often and without.

python -m benchmarks.curiosity                 five seeds of PPO and DQN, with and without, on one thread
python -m benchmarks.curiosity --algo ppo --seeds 0 1

Each reward is -1 until the flag is reached, and an episode is cut after 200 steps, so that nothing tells one policy
from another before the first success. All settings are the defaults (no preset) but that observations are normalized,
in every arm; `curiosity.coef` is 1. DQN learns from each observation several times, and its curiosity has a tenth of
the learning rate. Appended to benchmarks/results/curiosity.jsonl: the step of the first episode that reached the flag,
how many did, and the greedy return over 100 episodes.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shoal
from benchmarks import machine
from shoal.run.callbacks import EpisodeEnd

if TYPE_CHECKING:
    from shoal.run.callbacks import Record
    from shoal.run.run import Run

RESULT = Path(__file__).parent / "results" / "curiosity.jsonl"
ENV, STEPS, CUT = "MountainCar-v0", 50_000, -200
RATES = {"ppo": 1e-4, "dqn": 1e-5}
"""Learning rates of the curiosity."""


def measure(algo: str, coef: float, seed: int, steps: int) -> dict[str, Any]:
    """One run: when it first reached the flag, how often, and what its greedy policy comes to."""
    reached: list[int] = []

    def note(run: Run, record: Record) -> None:
        if isinstance(record, EpisodeEnd) and record.episode_return > CUT:
            reached.append(record.step)

    settings: dict[str, Any] = {"network": {"normalize_obs": True}, "preset": "none", "num_threads": 1}
    if coef:
        settings["curiosity"] = {"coef": coef, "learning_rate": RATES[algo]}
    with tempfile.TemporaryDirectory() as folder:
        result = shoal.train(
            ENV,
            algo=algo,
            seed=seed,
            total_timesteps=steps,
            callbacks=[note],
            run_dir=folder,
            panel="none",
            stop_at=math.inf,
            **settings,
        )
    return {
        "algo": algo,
        "coef": coef,
        "curiosity_learning_rate": RATES[algo] if coef else None,
        "seed": seed,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "first_success": reached[0] if reached else None,
        "successes": len(reached),
        "greedy_return": result.greedy_return,
    }


def main() -> None:
    """Every seed, with curiosity and without."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", nargs="*", default=list(RATES))
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)))
    parser.add_argument("--steps", type=int, default=STEPS)
    told = parser.parse_args()
    about = {"env": ENV, "machine": machine.describe(), "versions": machine.versions()}
    for algo in told.algo:
        for seed in told.seeds:
            for coef in (0.0, 1.0):
                row = measure(algo, coef, seed, told.steps)
                print(row, flush=True)
                with RESULT.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"date": time.strftime("%Y-%m-%d"), **about, **row}) + "\n")


if __name__ == "__main__":
    main()
