"""Several learners beside one process: environment steps per second of PPO, and what an exchange takes.

    python -m benchmarks.learners [--rounds 3] [--only small wide] [--learners 2]

`small` is the preset of CartPole-v1; `wide` has two layers of 512 and minibatches of 1,024 steps, whose updates take
long; `torch` is that without native code, with torch's one thread a process; `serial` is Gymnasium's LunarLander-v3,
whose steps are Python's. One process with one thread, one with as many threads as there are learners, and the learners
take turns; a run's start is not counted. Core-seconds are of the first process: another one has as many. Appends to
benchmarks/results/learners.jsonl.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import shoal
from benchmarks import machine
from shoal.run.log import read

RESULT = Path(__file__).parent / "results" / "learners.jsonl"
WIDE: dict[str, Any] = {
    "preset": "none",
    "num_envs": 32,
    "num_steps": 128,
    "num_minibatches": 4,
    "network": {"hidden": (512, 512)},
}
TASKS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "small": ("CartPole-v1", 60_000, {}),
    "wide": ("CartPole-v1", 40_960, WIDE),
    "torch": ("CartPole-v1", 40_960, WIDE | {"native": False}),
    "serial": ("LunarLander-v3", 65_536, {"backend": "serial"}),
}


def measured(task: str, side: dict[str, int]) -> dict[str, float]:
    """Steps per second of a run, core-seconds of its first process, the share of time for exchanging and waiting."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    env, steps, own = TASKS[task]
    settings: dict[str, Any] = own | side
    with tempfile.TemporaryDirectory() as folder:
        result = shoal.train(
            env,
            **settings,
            total_timesteps=steps,
            stop_at=math.inf,
            final_episodes=0,
            panel="none",
            run_dir=folder,
        )
        lines = read(result.path / "metrics.jsonl")
    shares = [line["speed/exchange"] for line in lines if "speed/exchange" in line]
    exchange = mean(shares[-1:]) if shares else 0.0
    after = resource.getrusage(resource.RUSAGE_SELF)
    core_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"steps_per_s": result.steps / result.seconds, "core_s": core_s, "exchange": exchange}


def main() -> None:
    """Measures, prints and appends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--learners", type=int, default=2)
    given = parser.parse_args()
    count = given.learners
    sides = {
        "one thread": {"learners": 1, "num_threads": 1},
        f"{count} threads": {"learners": 1, "num_threads": count},
        f"{count} learners": {"learners": count, "num_threads": count},
    }
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # which imports a good part of torch
    for task in given.only:
        for number in range(given.rounds):
            for name, side in sides.items():
                found = measured(task, side)
                load = os.getloadavg()[0]
                said = {
                    "task": task,
                    "side": name,
                    "round": number,
                    "load": load,
                    **found,
                    "machine": machine.describe(),
                }
                with RESULT.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(said) + "\n")
                print(
                    f"{task:8} {name:12} {found['steps_per_s']:10,.0f} steps/s  {found['core_s']:5.1f} core-s  "
                    f"exchange {found['exchange']:.0%}  "
                    f"load {load:.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
