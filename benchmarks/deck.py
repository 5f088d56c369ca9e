"""The experiment of the parallel DQN system: DQN on LunarLander-v3, first 200 episodes, one agent, beside two others.

python -m benchmarks.deck                     plain PyTorch, Stable-Baselines3 and shoal, alternating; appends JSON
python -m benchmarks.deck --rounds 3 --episodes 200 --threads 1
python -m benchmarks.deck --one native        a single run of shoal in this process: native or serial environments

All sides: two hidden layers of 300 ReLU, Adam 3e-4, one update of 64 transitions for every 8 environment steps from
the 64th on, target copied after every 6 updates (48 steps; the experiment's 50 are no multiple of 8), epsilon from 1 to
0.05 over 10,000 steps, discount 0.99, 4,000 transitions, no clipping of gradients, one core. Their updates are printed
and checked: the same number for as many steps. shoal runs on Gymnasium's LunarLander and on its own native one, with 8
rows of which each steps once between two updates; the others know one environment.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import shoal
from benchmarks import machine
from benchmarks.peers.run_peers import measure
from benchmarks.peers.worker import keep_to_cores

RESULT = Path(__file__).parent / "results" / "deck.jsonl"
MOST_STEPS = 300_000
EVERY, WARM_UP = 8, 64
SIDES = ("torch", "sb3", "serial", "native")
SETTINGS: dict[str, Any] = {
    "num_envs": 8,
    "num_steps": 1,
    "batch_size": 64,
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "target_update_interval": 6,
    "double": False,
    "exploration_fraction": 10_000 / MOST_STEPS,
    "max_grad_norm": float("inf"),
    "network": {"hidden": (300, 300)},
    "replay": {"buffer_size": 4_000, "learning_starts": WARM_UP - EVERY, "samples_per_insert": 8},
    "total_timesteps": MOST_STEPS,
}


class Episodes:
    """Ends a run after so many episodes."""

    def __init__(self, episodes: int) -> None:
        """Nothing yet."""
        self.left, self.returns = episodes, list[float]()

    def __call__(self, run: Any, record: Any) -> None:
        """Counts."""
        if hasattr(record, "episode_return"):
            self.returns.append(record.episode_return)
            if len(self.returns) >= self.left:
                run.stop("episodes")


def updates_of(steps: int) -> int:
    """Updates after so many environment steps, on every side."""
    return max(0, (steps - WARM_UP) // EVERY + 1)


def train(side: str, seed: int, *, threads: int, episodes: int) -> dict[str, Any]:
    """One run of shoal in this process."""
    keep_to_cores(threads)
    watch = Episodes(episodes)
    shoal.train("CartPole-v1", algo="dqn", panel="none", total_timesteps=1_500, final_episodes=0,
                run_dir=tempfile.mkdtemp())  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        cpu = time.process_time()
        run = shoal.train(
            "LunarLander-v3", algo="dqn", seed=seed, backend=side, panel="none", preset="none", run_dir=folder,
            stop_at=float("inf"), final_episodes=0, num_threads=threads, callbacks=[watch], **SETTINGS,
        )  # fmt: skip
        cpu = time.process_time() - cpu
        lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"steps": run.steps, "updates": int(lines[-1]["update"]), "seconds": run.seconds,
            "sps": run.steps / run.seconds, "cpu_seconds": cpu, "peak_mib": peak,
            "mean_return": float(np.mean(watch.returns[-100:]))}  # fmt: skip


def measure_side(side: str, seed: int, *, threads: int, episodes: int) -> dict[str, Any]:
    """One run of a side, in a process of its own. SystemExit where it failed, or its updates are not those of all."""
    if side in ("torch", "sb3"):
        task = "deck_torch" if side == "torch" else "deck"
        record = measure("sb3", task, timeout_s=900, seeds=[seed], threads=threads, episodes=episodes)
        if record["status"] != "ok":
            raise SystemExit(f"{side}: {record['error']}")
        names = ("steps", "updates", "seconds", "sps", "cpu_seconds", "peak_mib", "mean_return")
        row = {name: record[name] for name in names}
    else:
        command = [sys.executable, "-m", "benchmarks.deck", "--one", side, "--seed", str(seed)]
        command += ["--threads", str(threads), "--episodes", str(episodes)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
    if row["updates"] != updates_of(row["steps"]):
        raise SystemExit(f"{side}: {row['updates']} updates in {row['steps']} steps, not {updates_of(row['steps'])}")
    return row


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", choices=["serial", "native"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(train(options.one, options.seed, threads=options.threads, episodes=options.episodes)))
        return
    rows: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for seed in range(options.seed, options.seed + options.rounds):
        for side in SIDES:
            row = measure_side(side, seed, threads=options.threads, episodes=options.episodes)
            rows[side].append(row)
            at = {
                "side": side,
                "seed": seed,
                "threads": options.threads,
                "episodes": options.episodes,
                "date": time.strftime("%Y-%m-%d"),
            }
            with options.out.open("a") as file:
                file.write(json.dumps(at | row | {"machine": machine.describe()}) + "\n")
            print(side, {name: round(value, 2) for name, value in row.items()}, flush=True)
    rates = {side: float(np.median([row["sps"] for row in of_side])) for side, of_side in rows.items()}
    each = {side: float(np.median([r["steps"] / r["cpu_seconds"] for r in found])) for side, found in rows.items()}
    for side in ("serial", "native"):
        for other in ("torch", "sb3"):
            print(f"{side}: {rates[side] / rates[other]:.2f} x {other} in steps/s, {each[side] / each[other]:.2f} x in "
                  "steps per core-second")  # fmt: skip


if __name__ == "__main__":
    main()
