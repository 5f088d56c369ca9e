"""SAC's steps a second beside Stable-Baselines3's at equal updates: Pendulum, 256 x 256, batches of 256, one core.

    python benchmarks/peers/setup_peers.py sb3
    python -m benchmarks.sac_rate [--rounds 3] [--steps 3000] [--threads 1]

One environment, and an update of actor, two critics and temperature for every step after the first 256 on both sides;
updates are counted and must be equal. The sides alternate. Appends to benchmarks/results/sac_rate.jsonl.
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

RESULT = Path(__file__).parent / "results" / "sac_rate.jsonl"
WARM_UP, BATCH, HIDDEN = 257, 256, 256
SETTINGS: dict[str, Any] = {
    "num_envs": 1,
    "num_steps": 1,
    "batch_size": BATCH,
    "learning_rate": 3e-4,
    "critic_learning_rate": 3e-4,
    "network": {"hidden": (HIDDEN, HIDDEN)},
    "replay": {"buffer_size": 100_000, "learning_starts": WARM_UP - 1, "samples_per_insert": float(BATCH)},
}


def train(steps: int, seed: int, *, threads: int) -> dict[str, Any]:
    """One run of shoal in this process, after a short one that loads everything."""
    keep_to_cores(threads)
    shared: dict[str, Any] = SETTINGS | {
        "algo": "sac",
        "panel": "none",
        "preset": "none",
        "stop_at": float("inf"),
        "final_episodes": 0,
        "num_threads": threads,
    }
    with tempfile.TemporaryDirectory() as folder:
        shoal.train("Pendulum-v1", seed=seed, run_dir=folder, total_timesteps=300, **shared)
        cpu = time.process_time()
        run = shoal.train("Pendulum-v1", seed=seed, run_dir=folder, total_timesteps=steps, **shared)
        cpu = time.process_time() - cpu
        lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"steps": run.steps, "updates": int(lines[-1]["update"]), "seconds": run.seconds,
            "sps": run.steps / run.seconds, "cpu_seconds": cpu, "peak_mib": peak}  # fmt: skip


def measure_side(side: str, steps: int, seed: int, *, threads: int) -> dict[str, Any]:
    """One run of a side in a process of its own. SystemExit where it failed, or took another number of updates."""
    if side == "sb3":
        record = measure("sb3", "sac", timeout_s=900, seeds=[seed], threads=threads, steps=steps)
        if record["status"] != "ok":
            raise SystemExit(f"sb3: {record['error']}")
        names = ("steps", "updates", "seconds", "sps", "cpu_seconds", "peak_mib")
        row = {name: record[name] for name in names}
    else:
        command = [sys.executable, "-m", "benchmarks.sac_rate", "--one", "--seed", str(seed)]
        command += ["--threads", str(threads), "--steps", str(steps)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
    expected = steps - WARM_UP + 1
    if row["updates"] != expected:
        raise SystemExit(f"{side}: {row['updates']} updates in {steps} steps, not {expected}")
    return row


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(train(options.steps, options.seed, threads=options.threads)))
        return
    rows: dict[str, list[dict[str, Any]]] = {"sb3": [], "shoal": []}
    for seed in range(options.seed, options.seed + options.rounds):
        for side, found in rows.items():
            row = measure_side(side, options.steps, seed, threads=options.threads)
            found.append(row)
            at = {"side": side, "seed": seed, "threads": options.threads, "date": time.strftime("%Y-%m-%d")}
            with RESULT.open("a") as file:
                file.write(json.dumps(at | row | {"machine": machine.describe()}) + "\n")
            print(side, {name: round(value, 2) for name, value in row.items()}, flush=True)
    rates = {side: float(np.median([row["sps"] for row in found])) for side, found in rows.items()}
    print(f"shoal: {rates['shoal'] / rates['sb3']:.2f} x sb3's steps a second")


if __name__ == "__main__":
    main()
