"""The speed of this checkout beside an older version's, in alternating runs.

python benchmarks/versions.py --other PATH/TO/OTHER/CHECKOUT/.venv/bin/python
python benchmarks/versions.py --other ... --only lstm --rounds 3 --out results.json

Each run is a process of its own, which trains twice: a short run to warm up, then the one that counts. The two versions
take turns, and which goes first changes every round. A case's figure is the median of the rounds' ratios; the spread
stands beside it. Only public names of shoal are used, so that older versions run the same file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import shoal
from shoal.nets.policy import Network


@dataclass(frozen=True, slots=True)
class Case:
    """A training whose steps per second are compared."""

    name: str
    env: str
    steps: int
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    algo: str = "ppo"
    bar: float = 0.97


def recurrent(rnn: str, size: int) -> dict[str, Any]:
    """CartPole, 64 rows x 64 steps, 4 epochs, with a recurrent network."""
    shape = {"num_envs": 64, "num_steps": 64, "num_minibatches": 4, "update_epochs": 4}
    return {**shape, "network": {"recurrent": rnn, "recurrent_size": size}}


WHOLE = {"num_envs": 1024, "num_steps": 128, "num_minibatches": 16, "update_epochs": 4, "learning_rate": 3e-4}
# As 87e8447's preset had them: the same work on both sides.
CARTPOLE = {"update_epochs": 10, "learning_rate": 2e-3}
LANDER = {"num_steps": 512, "num_minibatches": 32, "network": {"activation": "tanh"}}
CASES = (
    Case("PPO 64x64, 1,024 rows, minibatch 8,192", "CartPole-v1", 4_000_000, WHOLE, bar=1.3),
    Case("PPO, GRU 64", "CartPole-v1", 100_000, recurrent("gru", 64), bar=8.0),
    Case("PPO, LSTM 64", "CartPole-v1", 100_000, recurrent("lstm", 64), bar=8.0),
    Case("PPO, preset CartPole", "CartPole-v1", 1_000_000, CARTPOLE),
    Case("PPO, preset CartPole, serial", "CartPole-v1", 200_000, {**CARTPOLE, "backend": "serial"}),
    Case(
        "PPO, preset CartPole, workers",
        "CartPole-v1",
        300_000,
        {**CARTPOLE, "backend": "workers", "num_workers": 2},
    ),
    Case("PPO, preset LunarLander", "LunarLander-v3", 600_000, LANDER),
    Case("PPO, preset Pendulum", "Pendulum-v1", 200_000),
    Case("PPO, preset MountainCarContinuous", "MountainCarContinuous-v0", 1_000_000),
    Case("A2C, preset CartPole", "CartPole-v1", 1_000_000, algo="a2c"),
    Case("PPO, torch's own update", "CartPole-v1", 200_000, {**CARTPOLE, "native": False}),
)


def train(case: Case, steps: int) -> float:
    """Steps per second of one training on 2 threads, checkpoints and metrics included."""
    settings = dict(case.settings)
    if "network" in settings:
        settings["network"] = Network(**settings["network"])
    with tempfile.TemporaryDirectory() as folder:
        result = shoal.train(
            case.env,
            algo=case.algo,
            total_timesteps=steps,
            num_threads=2,
            seed=1,
            panel="none",
            run_dir=folder,
            stop_at=math.inf,
            **settings,
        )
    return result.steps / result.seconds


def measure(python: str, case: Case) -> float:
    """Steps per second in a new process of `python`."""
    command = [python, str(Path(__file__).resolve()), "--worker", json.dumps(asdict(case))]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    if done.returncode:
        sys.exit(f"{case.name} with {python}:\n{done.stderr}")
    return float(done.stdout.split()[-1])


def compare(case: Case, other: str, rounds: int) -> dict[str, Any]:
    """Both versions in turns: medians of the rates, and the ratio of every round."""
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(rounds):
        sides = [(ours, sys.executable), (theirs, other)]
        for rates, python in sides if number % 2 else reversed(sides):
            rates.append(measure(python, case))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "case": case.name,
        "ours": statistics.median(ours),
        "theirs": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "bar": case.bar,
    }


def main() -> None:
    """Compares, prints, and writes where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", help="the Python interpreter of the other checkout")
    parser.add_argument("--only", action="append", default=[], help="part of a case's name; may be given again")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="append the figures to this file, one JSON object a line")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        case = Case(**json.loads(options.worker))
        train(case, max(1, case.steps // 10))
        print(train(case, case.steps))
        return
    if options.other is None:
        parser.error("--other is needed")
    for case in CASES:
        if options.only and not any(part.lower() in case.name.lower() for part in options.only):
            continue
        figures = compare(case, options.other, options.rounds)
        print(
            f"{case.name}: {figures['ours']:,.0f} beside {figures['theirs']:,.0f} steps/s, "
            f"{figures['ratio']:.3f} x (rounds {figures['ratios']}, bar {case.bar})",
            flush=True,
        )
        if options.out is not None:
            line = {"date": time.strftime("%Y-%m-%d %H:%M"), **figures}
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
