"""PPO with actors that never stop, beside Sample Factory 2.1: steps per second, and seconds until a task is solved.

    python -m benchmarks.beside_sample_factory [--only cartpole lander] [--rounds 3] [--seeds 0 1 2] [--search]

Speed: both sides have two layers of 64, rollouts of 32 steps, minibatches of 512 and one epoch; Sample Factory runs as
it is fastest on this machine (`--search` tries its workers, its environments a worker and its modes, and says which),
shoal with its schedules `sync` and `async`. LunarLander is Gymnasium's on both sides, in Python and Box2D; CartPole is
shoal's native one beside Gymnasium's, as each library runs it. Seconds to solve: each side with what it ships for the
task (Sample Factory its example's settings and default network, shoal its preset), from the first update to a mean
return of the last 100 episodes of 475 and 200; a run that takes longer than `--most-seconds` counts with those.
The sides take turns. Appends to benchmarks/results/sample_factory.jsonl.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import shoal
from benchmarks import machine
from benchmarks.peers.run_peers import measure

RESULT = Path(__file__).parent / "results" / "sample_factory.jsonl"
SOLVED = {"cartpole": 475.0, "lander": 200.0}
ENVS: dict[str, tuple[str, dict[str, Any]]] = {
    "cartpole": ("CartPole-v1", {}),
    "lander": ("LunarLander-v3", {"backend": "serial"}),
}
"""The environment and shoal's backend: CartPole native, LunarLander in Python as the peer has it."""
STEPS = {"cartpole": 4_000_000, "lander": 500_000}
ROWS = {"cartpole": 256, "lander": 32}
SAME_WORK: dict[str, Any] = {"num_steps": 32, "update_epochs": 1, "network": {"hidden": [64, 64]}}
SCHEDULES: dict[str, dict[str, Any]] = {
    "sync": {"num_threads": 2},
    "async": {"schedule": "async", "actors": 2, "max_staleness": 1, "num_threads": 1},
}
MINIBATCH = 512
SEARCHED: dict[str, tuple[Any, ...]] = {
    "num_workers": (1, 2),
    "num_envs_per_worker": (8, 20, 64, 128, 256),
    "policy_workers": (1, 2),
}


def our_speed(task: str, schedule: str) -> float:
    """Steps per second of a whole run of shoal's."""
    env, backend = ENVS[task]
    rows = ROWS[task]
    minibatches = rows * SAME_WORK["num_steps"] // MINIBATCH
    given = SAME_WORK | backend | SCHEDULES[schedule]
    with tempfile.TemporaryDirectory() as folder:
        ended = shoal.train(
            env,
            num_envs=rows,
            num_minibatches=minibatches,
            total_timesteps=STEPS[task],
            stop_at=math.inf,
            final_episodes=0,
            panel="none",
            run_dir=folder,
            preset="none",
            **given,
        )
    return ended.steps / ended.seconds


def our_race(task: str, seed: int) -> dict[str, Any]:
    """Seconds of shoal's preset until the mean return of 100 episodes is there."""
    env, backend = ENVS[task]
    with tempfile.TemporaryDirectory() as folder:
        ended = shoal.train(
            env, seed=seed, stop_at=SOLVED[task], final_episodes=0, panel="none", run_dir=folder, **backend
        )
        return {
            "seconds": ended.seconds,
            "steps": ended.steps,
            "why": ended.stop_reason,
            "mean_return": ended.mean_return,
        }


def peer_speed(task: str, **settings: Any) -> float:
    """Steps per second of Sample Factory; nan where it gave none."""
    found = measure("sample_factory", f"{task}_best", **settings)
    if found["status"] != "ok":
        print(f"sample_factory {task} {settings}: {found['error'].splitlines()[0]}", flush=True)
        return math.nan
    return float(found["sps"])


def search(task: str) -> None:
    """Steps per second of Sample Factory with each combination of what may make it faster."""
    combinations = [dict(zip(SEARCHED, values, strict=True)) for values in itertools.product(*SEARCHED.values())]
    combinations.append({"serial": True, "async_rl": True, "policy_workers": 1, "num_envs_per_worker": 64})
    for settings in combinations:
        print(f"{task} {settings}: {peer_speed(task, **settings):,.0f} steps/s", flush=True)


def compare(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """All sides in turns."""
    speeds: dict[str, list[float]] = {side: [] for side in (*SCHEDULES, "peer")}
    for _ in range(options.rounds):
        for schedule in SCHEDULES:
            speeds[schedule].append(our_speed(task, schedule))
        speeds["peer"].append(peer_speed(task))
        print(task, {side: round(rates[-1]) for side, rates in speeds.items()}, "steps/s", flush=True)
    races: dict[str, list[dict[str, Any]]] = {"shoal": [], "peer": []}
    for seed in options.seeds:
        races["shoal"].append(our_race(task, seed))
        limits = {"until": SOLVED[task], "most_seconds": options.most_seconds, "seed": seed}
        found = measure("sample_factory", f"{task}_solved", timeout_s=options.most_seconds + 120, **limits)
        told = {key: found.get(key) for key in ("status", "seconds", "steps", "reached", "mean_return")}
        if found["status"] != "ok":  # it ended itself too late, or not at all
            told |= {"seconds": options.most_seconds, "reached": False, "error": found["error"].splitlines()[0]}
        races["peer"].append(told)
        print(task, {side: runs[-1] for side, runs in races.items()}, flush=True)
    return {"task": task, "speeds": speeds, "races": races}


def say(row: dict[str, Any]) -> None:
    """The medians of a row and their ratios."""
    medians = {side: float(np.nanmedian(rates)) for side, rates in row["speeds"].items()}
    best = max(medians[schedule] for schedule in SCHEDULES)
    told = ", ".join(f"{side} {rate:,.0f}" for side, rate in medians.items())
    print(f"{row['task']}: {told} steps/s: {best / medians['peer']:.1f} x")
    seconds = {side: float(np.median([run["seconds"] for run in runs])) for side, runs in row["races"].items()}
    reached = sum(bool(run["reached"]) for run in row["races"]["peer"])
    print(
        f"{row['task']} solved: shoal {seconds['shoal']:.2f} s, Sample Factory {seconds['peer']:.1f} s "
        f"({reached} of {len(row['races']['peer'])} got there): {seconds['shoal'] / seconds['peer']:.3f} x"
    )


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(ENVS), default=list(ENVS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--most-seconds", type=int, default=300)
    parser.add_argument("--search", action="store_true")
    options = parser.parse_args()
    for task in options.only:
        if options.search:
            search(task)
            continue
        row = compare(task, options)
        row |= {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe(), "versions": machine.versions()}
        with RESULT.open("a") as file:
            file.write(json.dumps(row) + "\n")
        say(row)


if __name__ == "__main__":
    main()
