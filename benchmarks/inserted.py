"""Inserted steps, measured: SAC on MountainCarContinuous-v0 beside the log of a controller, and without.

python -m benchmarks.inserted                       five seeds, shares 0, 0.25 and 0.5, on one thread
python -m benchmarks.inserted --share 0.5 --seeds 0

The reward is 100 at the flag less what pushing costs, so that an agent which has not found the flag learns to stand
still. The controller pushes to where the car moves, with noise; 10 of its episodes are inserted at the run's first
line of metrics (`run.memory.insert`). Networks have two layers of 64, batches 128 transitions. All arms take the same
environment steps and gradient steps: what is inserted counts as neither. Appended to benchmarks/results/inserted.jsonl:
the greedy return over 20 episodes, the step of the first episode that reached the flag, seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

import shoal
from benchmarks import machine
from shoal.memory.recorded import Recorded
from shoal.run.callbacks import EpisodeEnd

if TYPE_CHECKING:
    from shoal.run.callbacks import Record
    from shoal.run.run import Run

RESULT = Path(__file__).parent / "results" / "inserted.jsonl"
ENV, STEPS, EPISODES, BATCH = "MountainCarContinuous-v0", 10_000, 10, 128


def controller_log(episodes: int, seed: int) -> tuple[dict[str, Any], float]:
    """Steps of a controller that pushes to where the car moves, and its mean return."""
    env, rng = Recorded(gym.make(ENV)), np.random.default_rng(seed)
    for number in range(episodes):
        obs, over = env.reset(seed=1_000 * seed + number)[0], False
        while not over:
            action = np.clip([np.sign(obs[1]) + rng.normal(0, 0.3)], -1, 1)
            obs, _, terminated, truncated, _ = env.step(action.astype(np.float32))
            over = terminated or truncated
    log = env.take()
    return log, float(log["reward"].sum()) / episodes


def measure(share: float, seed: int, steps: int) -> dict[str, Any]:
    """One run with a share of the log in each batch; 0: without the log."""
    log, logged = controller_log(EPISODES, seed)
    reached: list[int] = []

    def insert(run: Run, record: Record) -> None:
        if isinstance(record, EpisodeEnd):
            reached.extend([record.step] if record.episode_return > 0 else [])
        elif share and not run.memory.num_inserted:
            run.memory.insert(**log)

    replay: dict[str, Any] = {"learning_starts": 1_000, "samples_per_insert": BATCH}
    settings: dict[str, Any] = {"replay": replay, "batch_size": BATCH, "network": {"hidden": (64, 64)}}
    if share:
        replay["inserted_size"] = 20_000
        settings["data_fraction"] = share
    with tempfile.TemporaryDirectory() as folder:
        result = shoal.train(
            ENV,
            algo="sac",
            seed=seed,
            total_timesteps=steps,
            callbacks=[insert],
            run_dir=folder,
            panel="none",
            stop_at=math.inf,
            final_episodes=20,
            num_threads=1,
            preset="none",
            **settings,
        )
    return {
        "share": share,
        "seed": seed,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "logged_return": round(logged, 1),
        "logged_steps": len(log["reward"]),
        "first_success": reached[0] if reached else None,
        "greedy_return": round(result.greedy_return, 1),
    }


def main() -> None:
    """Every seed, with each share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, nargs="*", default=[0.0, 0.25, 0.5])
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)))
    parser.add_argument("--steps", type=int, default=STEPS)
    told = parser.parse_args()
    about = {"env": ENV, "machine": machine.describe(), "versions": machine.versions()}
    for seed in told.seeds:
        for share in told.share:
            row = measure(share, seed, told.steps)
            print(row, flush=True)
            with RESULT.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"date": time.strftime("%Y-%m-%d"), **about, **row}) + "\n")


if __name__ == "__main__":
    main()
