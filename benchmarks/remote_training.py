"""Training through two environment servers beside training in one process: LunarLander-v3, steps per second.

    python -m benchmarks.remote_training [--rounds 3]

DQN and PPO with their presets, over the Unix socket, gRPC, and both of the encrypted ones (TLS and gRPC) where client
and servers show certificates; each server is a process of its own with half of the environments. The side actors
collects whole rollouts beside the environments instead, on a fleet of this machine, over TLS with certificates of both
sides. Weights must be equal on all sides of an algorithm. The sides take turns. Appends to
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
import trustme

import shoal
from benchmarks import machine

RESULT = Path(__file__).parent / "results" / "remote_training.jsonl"
ENV = "LunarLander-v3"
STEPS = {"dqn": 30_000, "ppo": 150_000}
SIDES = ("here", "unix", "grpc", "tls", "mtls grpc", "actors")
OPEN, ENCRYPTED = ("unix", "grpc"), ("tls", "mtls grpc")


def start_server(env: str = ENV, *guard: str) -> tuple[subprocess.Popen[str], str]:
    """A server of 64 environments, and where it listens."""
    command = [sys.executable, "-m", "shoal", "serve", env, "--listen", "127.0.0.1:0", "--num-threads", "1", *guard]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split(" at ")[1].split(";")[0]


def write_certificates(folder: Path) -> dict[str, str]:
    """An authority, and a certificate and key that both sides show."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    paths = {name: str(folder / f"{name}.pem") for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(paths["ca"])
    issued.private_key_pem.write_to_path(paths["key"])
    issued.cert_chain_pems[0].write_to_path(paths["cert"])
    return paths


def reached_by(side: str, addresses: dict[str, list[str]], files: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """The environment of a side, and how it is reached."""
    if side in OPEN:
        return "grpc://" + ",".join(addresses["open"]), {"remote": {"plane": side}}
    if side in ENCRYPTED:
        known = {"plane": side.split()[-1], **files}
        return "grpcs://" + ",".join(addresses["encrypted"]), {"remote": known}
    if side == "actors":
        return ENV, {"fleet": "local", "actors": 2, "placement": {"cpus": 0.5}}
    return ENV, {}


def run(algo: str, side: str, addresses: dict[str, list[str]], files: dict[str, str]) -> tuple[float, str]:
    """Steps per second of a run, and the sha256 of its weights."""
    env, remote = reached_by(side, addresses, files)
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
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    files = write_certificates(folder)
    shown = ("--guard.cert", files["cert"], "--guard.key", files["key"], "--guard.client-ca", files["ca"])
    kinds = {"open": [start_server() for _ in range(2)], "encrypted": [start_server(ENV, *shown) for _ in range(2)]}
    servers = [server for each in kinds.values() for server in each]
    addresses = {kind: [address for _, address in each] for kind, each in kinds.items()}
    try:
        for algo in options.algos:
            rates: dict[str, list[float]] = {side: [] for side in options.sides}
            weights: set[str] = set()
            for _ in range(options.rounds):
                for side in options.sides:
                    rate, found = run(algo, side, addresses, files)
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
