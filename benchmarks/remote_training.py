"""Training through two environment servers beside training in one process: LunarLander-v3, steps per second.

    python -m benchmarks.remote_training [--rounds 3]

DQN with its preset over gRPC and over the Unix socket, PPO with its preset over both; each server is a process of its
own with half of the environments. Weights must be equal on all sides of an algorithm. The sides take turns. Appends to
benchmarks/results/remote_training.jsonl.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import shoal
from benchmarks import machine

RESULT = Path(__file__).parent / "results" / "remote_training.jsonl"
ENV = "LunarLander-v3"
STEPS = {"dqn": 30_000, "ppo": 150_000}
SIDES = ("here", "unix", "grpc")


def start_server() -> tuple[subprocess.Popen[str], str]:
    """A server of 64 environments, and where it listens."""
    command = [sys.executable, "-m", "shoal", "serve", ENV, "--listen", "127.0.0.1:0", "--num-threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split(" at ")[1].split(";")[0]


def run(algo: str, side: str, addresses: list[str]) -> tuple[float, str]:
    """Steps per second of a run, and the sha256 of its weights."""
    env = ENV if side == "here" else "grpc://" + ",".join(addresses)
    remote: dict[str, Any] = {} if side == "here" else {"remote": {"plane": side}}
    with tempfile.TemporaryDirectory() as folder:
        trained = shoal.train(env, algo=algo, seed=0, panel="none", preset=ENV, run_dir=folder, stop_at=math.inf,
                              final_episodes=0, total_timesteps=STEPS[algo], **remote)  # fmt: skip
        policy = shoal.load(trained.path).policy
        numbers = b"".join(tensor.numpy().tobytes() for tensor in policy.state_dict().values())
    return trained.steps / trained.seconds, hashlib.sha256(numbers).hexdigest()


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--algos", nargs="+", choices=list(STEPS), default=list(STEPS))
    options = parser.parse_args()
    servers = [start_server() for _ in range(2)]
    addresses = [address for _, address in servers]
    try:
        for algo in options.algos:
            rates: dict[str, list[float]] = {side: [] for side in SIDES}
            weights: set[str] = set()
            for _ in range(options.rounds):
                for side in SIDES:
                    rate, found = run(algo, side, addresses)
                    rates[side].append(rate)
                    weights.add(found)
            if len(weights) != 1:
                raise SystemExit(f"{algo}: the sides came to different weights")
            medians = {side: float(np.median(found)) for side, found in rates.items()}
            row = {"algo": algo, "env": ENV, "steps": STEPS[algo], "steps_per_s": medians, "rounds": rates}
            with RESULT.open("a") as file:
                row |= {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe()}
                file.write(json.dumps(row) + "\n")
            for side, rate in medians.items():
                print(f"{algo} {side:>5} {rate:>10,.0f} steps/s, {rate / medians['here']:.2f} x in this process")
    finally:
        for process, _ in servers:
            process.terminate()
            process.communicate()


if __name__ == "__main__":
    main()
