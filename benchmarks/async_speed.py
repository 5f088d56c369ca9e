"""Actors that collect while the learner learns, beside rollouts and updates in turns: steps per second.

    python -m benchmarks.async_speed [--rounds 3] [--only lander sleeper log_sleeper wide_sleeper pong] [--core-time]

`lander`: PPO's preset for LunarLander-v3 with Gymnasium's environment (backend serial), on all cores. E and U are the
processor's seconds of a step's environment and acting, and of its share of the updates, in a run with one thread;
cores / (E + U) is what the machine could do if nobody ever waited. `sleeper`: eight environments whose steps sleep 0.2
to 2 ms, one a process; uniform between the two, so that the slowest of eight takes 1.64 times as long as the mean, and
no schedule can be faster than another by more than that for its sleeping alone. `log_sleeper`: the same with the
logarithm uniform, as latencies mostly are (2.03 times). `wide_sleeper`: the sleeper with two layers of 256, whose
updates take a sixth of the time in `sync`. `pong`: PPO's preset for ALE's Pong, NatureCNN, 4 epochs. `sync` is the best
of the backends serial and workers, with one thread and with two, and of `overlap`. The sides take turns. `--core-time`:
instead the processor's microseconds of a step in all processes of each side, from the difference of a long and a short
run. Appends to benchmarks/results/async_speed.jsonl.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

import shoal
from benchmarks import machine
from shoal.run.log import read

RESULT = Path(__file__).parent / "results" / "async_speed.jsonl"
SLEEPERS = 8
STEPS = {"lander": 1_000_000, "sleeper": 49_152, "log_sleeper": 49_152, "wide_sleeper": 49_152, "pong": 20_480}
SHORT = 0.3
"""The part of its steps that the short run takes where core time is measured."""


class Sleeper(gym.Env[Any, Any]):
    """Ends after 200 steps, each of which sleeps for 0.2 to 2 ms; the reward is for the sign of what is seen."""

    observation_space = spaces.Box(-1, 1, (4,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins anew."""
        super().reset(seed=seed)
        self.count = 0
        return self._obs(), {}

    def step(self, action: Any) -> Any:
        """Sleeps."""
        time.sleep(self.drawn_s())
        self.count += 1
        right = float((self.seen[0] > 0) == bool(action))
        return self._obs(), right, self.count == 200, False, {}

    def drawn_s(self) -> float:
        """Seconds of the next step."""
        return self.np_random.uniform(0.2e-3, 2e-3)

    def _obs(self) -> Any:
        self.seen = self.np_random.uniform(-1, 1, 4).astype(np.float32)
        return self.seen


class LogSleeper(Sleeper):
    """The same, mostly short: their logarithm is uniform."""

    def drawn_s(self) -> float:
        """Seconds of the next step."""
        return 0.2e-3 * 10 ** self.np_random.random()


def task_of(name: str) -> tuple[Any, dict[str, Any]]:
    """The environment and what all sides share."""
    if name == "lander":
        return "LunarLander-v3", {"backend": "serial"}
    if name == "pong":
        return "ALE/Pong-v5", {}
    shared: dict[str, Any] = {"num_envs": SLEEPERS, "num_steps": 128, "num_minibatches": 4}
    if name == "wide_sleeper":
        shared["network"] = {"hidden": [256, 256]}
    return LogSleeper if name == "log_sleeper" else Sleeper, shared


def sides_of(name: str) -> dict[str, dict[str, Any]]:
    """The settings of each side."""
    if name == "pong":
        return pong_sides()
    workers: dict[str, Any] = {"backend": "workers"}
    sleeps = name != "lander"
    if sleeps:
        workers["num_workers"] = SLEEPERS
    actors = SLEEPERS if sleeps else (os.cpu_count() or 1)
    sides: dict[str, dict[str, Any]] = {}
    if name == "lander":
        sides |= {f"sync {n} threads": {"num_threads": n} for n in (1, 2)}
    sides |= {f"sync workers {n} threads": workers | {"num_threads": n} for n in (1, 2)}
    sides["sync overlap"] = workers | {"num_threads": 1, "schedule": "overlap"}
    for ahead in (1, 2):
        for threads in (1, 2):
            own = {"schedule": "async", "actors": actors, "max_staleness": ahead, "num_threads": threads}
            sides[f"async {ahead} {threads} threads"] = own
    return sides


def pong_sides() -> dict[str, dict[str, Any]]:
    """The settings of each side on Pong, whose emulators run in threads of this process."""
    sides: dict[str, dict[str, Any]] = {f"sync {n} threads": {"num_threads": n} for n in (1, 2)}
    for actors in (1, 2):
        for threads in (1, 2):
            own = {"schedule": "async", "actors": actors, "max_staleness": 1, "num_threads": threads}
            sides[f"async {actors} actors {threads} threads"] = own
    return sides


def run(name: str, side: dict[str, Any], part: float = 1.0) -> dict[str, float]:
    """Steps per second, and where the time went; of so large a `part` of the steps."""
    env, shared = task_of(name)
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {
            "total_timesteps": int(part * STEPS[name]),
            "stop_at": math.inf,
            "final_episodes": 0,
        }
        given: dict[str, Any] = settings | {"seed": 1, "panel": "none", "run_dir": folder} | shared | side
        ended = shoal.train(env, **given)
        line = list(read(ended.path / "metrics.jsonl"))[-1]
    times = {key: value for key, value in line.items() if key.startswith("time/")}
    return {"steps_per_s": ended.steps / ended.seconds, "steps": ended.steps, "seconds": ended.seconds} | times


def core_time(name: str, side: str) -> dict[str, float]:
    """Microseconds of the processor that a step takes in all processes, and how many cores were busy."""
    spent: list[tuple[float, float, float]] = []
    for part in (SHORT, 1.0):
        command = [sys.executable, "-m", "benchmarks.async_speed", "--side", side, "--only", name, "--part", str(part)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        said = json.loads(child.stdout.read().strip().splitlines()[-1]) if child.stdout else {}
        _, _, used = os.wait4(child.pid, 0)
        spent.append((used.ru_utime + used.ru_stime, said["steps"], said["seconds"]))
    (less_s, fewer, shorter_s), (more_s, many, longer_s) = spent
    return {"core_us": 1e6 * (more_s - less_s) / (many - fewer), "cores": (more_s - less_s) / (longer_s - shorter_s)}


def limit_of(cores: int) -> dict[str, float]:
    """What the machine could do at LunarLander if nobody ever waited."""
    alone = run("lander", {"num_threads": 1})
    each = {key: value / alone["steps"] for key, value in alone.items() if key.startswith("time/")}
    stepping = each["time/environment"] + each["time/acting"]
    return {"E": stepping, "U": each["time/learning"], "limit": cores / (stepping + each["time/learning"])}


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--core-time", action="store_true")
    parser.add_argument("--side", help="one run of one side, as JSON")
    parser.add_argument("--part", type=float, default=1.0, help="of its steps")
    options = parser.parse_args()
    if options.side:
        name = options.only[0]
        print(json.dumps(run(name, sides_of(name)[options.side], options.part)))
        return
    for name in options.only:
        if options.core_time:
            print_core_times(name)
        else:
            print_speeds(name, options.rounds)


def print_core_times(name: str) -> None:
    """Of each side."""
    for side in sides_of(name):
        found = core_time(name, side)
        print(f"{name} {side:>24} {found['core_us']:>7.2f} us a step, {found['cores']:.2f} cores busy", flush=True)


def print_speeds(name: str, rounds: int) -> None:
    """Of all sides, which take turns."""
    cores = os.cpu_count() or 1
    sides = sides_of(name)
    rates: dict[str, list[float]] = {side: [] for side in sides}
    limits: list[dict[str, float]] = []
    for _ in range(rounds):
        if name == "lander":
            limits.append(limit_of(cores))
        for side, settings in sides.items():
            rates[side].append(run(name, settings)["steps_per_s"])
    medians = {side: float(np.median(found)) for side, found in rates.items()}
    sync = max(rate for side, rate in medians.items() if side.startswith("sync"))
    best = max(rate for side, rate in medians.items() if side.startswith("async"))
    row: dict[str, Any] = {"task": name, "rounds": rates, "medians": medians, "async_over_sync": best / sync}
    if limits:
        row["limits"] = limits
        row["of_limit"] = best / float(np.median([found["limit"] for found in limits]))
    row |= {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe()}
    with RESULT.open("a") as file:
        file.write(json.dumps(row) + "\n")
    for side, rate in medians.items():
        print(f"{name} {side:>24} {rate:>9,.0f} steps/s")
    print(f"{name}: async {row['async_over_sync']:.2f} x the best sync", *(
        [f"and {row['of_limit']:.2f} of cores / (E + U)"] if limits else []
    ))  # fmt: skip


if __name__ == "__main__":
    main()
