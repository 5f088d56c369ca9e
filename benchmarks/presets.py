"""Presets on MuJoCo, MinAtar and minigrid, measured: a JSON row for each run, of shoal's and of the peer's.

python -m benchmarks.presets shoal HalfCheetah-v5 --seeds 0 1    appends to benchmarks/results/presets.jsonl
python -m benchmarks.presets shoal MinAtar/Breakout-v1 --algo dqn --seeds 0 1 2
python -m benchmarks.presets sb3 HalfCheetah-v5 --seeds 0        Stable-Baselines3 with rl-zoo3's settings, MuJoCo only
python -m benchmarks.presets                                     only sums up what stands there

Both sides are played by the same function (peers/greedy.py): greedy episodes of Gymnasium's own environment on the same
seeds, with the environment's own rewards. Seconds go from the first step to the last update; those of the processor are
given too, as they do not change with what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import shoal
from benchmarks import machine
from benchmarks.peers.greedy import play
from benchmarks.peers.run_peers import measure as measure_peer
from shoal.report.statistics import iqm
from shoal.run.log import read

RESULT = Path(__file__).parent / "results" / "presets.jsonl"
EPISODES = 10
TASKS: dict[str, str | None] = {
    "HalfCheetah-v5": "halfcheetah",
    "Hopper-v5": "hopper",
    "Walker2d-v5": "walker2d",
    "Ant-v5": "ant",
    "MinAtar/Asterix-v1": None,
    "MinAtar/Breakout-v1": None,
    "MinAtar/Freeway-v1": None,
    "MinAtar/Seaquest-v1": None,
    "MinAtar/SpaceInvaders-v1": None,
    "MiniGrid-Empty-8x8-v0": None,
    "MiniGrid-DoorKey-5x5-v0": None,
    "MiniGrid-MemoryS7-v0": None,
}
"""The environments, and the peer's task of peers.toml where there is one."""


def cpu_seconds() -> float:
    """Seconds of the processor that this process and those that it has waited for have used."""
    kinds = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in kinds)


def measure(env: str, seed: int, *, algo: str = "ppo", **settings: Any) -> dict[str, Any]:
    """One run of shoal's preset for an algorithm, to the end of its budget; `settings` go over it."""
    with tempfile.TemporaryDirectory() as folder:
        begun = cpu_seconds()
        kept = {"panel": "none", "run_dir": folder, "stop_at": math.inf, "final_episodes": 0}
        result = shoal.train(env, algo=algo, seed=seed, **kept, **settings)
        spent = cpu_seconds() - begun
        agent = shoal.load(result.path)

        def act(obs: Any) -> Any:
            return agent.act(obs)

        returns = play(env, act, EPISODES, begin=agent.reset)
        lines = read(result.path / "metrics.jsonl")
    curve = [[line["step"], round(line["episode/return"], 2)] for line in lines if "episode/return" in line]
    return {
        "library": "shoal",
        "env": env,
        "algo": algo,
        "seed": seed,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "cpu_seconds": round(spent, 1),
        "greedy_returns": returns,
        "curve": curve[:: max(1, len(curve) // 100)],
        "settings": settings,
        "versions": machine.versions(),
    }


def measure_sb3(env: str, seed: int, **limits: Any) -> dict[str, Any]:
    """One run of Stable-Baselines3 in its own environment; RuntimeError says why there is none."""
    task = TASKS[env]
    if task is None:
        raise RuntimeError(f"{env}: rl-zoo3 has no settings that are measured here")
    record = measure_peer("sb3", task, seeds=[seed], **limits)
    if record["status"] != "ok":
        raise RuntimeError(f"sb3/{task}: {record['error']}")
    (one,) = record["seeds"]
    told = {"settings": record["settings"], "versions": record["versions"]}
    return {"library": "sb3", "env": env, **one, **told}


def kind(line: dict[str, Any]) -> tuple[str, str, str]:
    """The environment, library and algorithm of a row."""
    return line["env"], line["library"], line.get("algo", "ppo")


def summary(lines: list[dict[str, Any]]) -> list[str]:
    """A line for each environment, library and algorithm: returns and seconds of each seed's last run."""
    said: list[str] = []
    for env, library, algo in dict.fromkeys(map(kind, lines)):
        runs = list({r["seed"]: r for r in lines if kind(r) == (env, library, algo)}.values())
        returns = np.array([r["greedy_returns"] for r in runs])
        means = ", ".join(f"{mean:,.2f}" for mean in returns.mean(1))
        seconds, cpu = (float(np.median([r[name] for r in runs])) for name in ("seconds", "cpu_seconds"))
        said.append(
            f"{env} {library} {algo.upper()}: {len(runs)} seeds, interquartile mean of {returns.size} greedy episodes "
            f"{float(iqm(returns.ravel())):,.2f} (means {means}); {seconds:,.0f} s, processor {cpu:,.0f} s"
        )
    return said


def main() -> None:
    """Runs what is named on the command line, one run after another, and sums up the last run of every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", nargs="?", choices=["shoal", "sb3"])
    parser.add_argument("envs", nargs="*", choices=[[], *TASKS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--algo", default="ppo", help="shoal's algorithm, by its preset")
    parser.add_argument("--threads", type=int, default=0, help="shoal's num_threads; 0: one a core")
    parser.add_argument("--most-seconds", type=float, default=math.inf, help="the peer's training ends then")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    for env in options.envs:
        for seed in options.seeds:
            at = {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe()}
            if options.library == "sb3":
                line = measure_sb3(env, seed, most_seconds=options.most_seconds)
            else:
                line = measure(env, seed, algo=options.algo, num_threads=options.threads)
            with options.out.open("a") as file:
                file.write(json.dumps(line | at) + "\n")
            print({k: v for k, v in line.items() if k not in ("curve", "versions")}, flush=True)
    if options.out.exists():
        print("\n".join(summary([json.loads(line) for line in options.out.read_text().splitlines()])))


if __name__ == "__main__":
    main()
