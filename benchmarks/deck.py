"""The experiment of the parallel DQN system: DQN on LunarLander-v3, one agent beside two other libraries, and nine.

python -m benchmarks.deck                     plain PyTorch, Stable-Baselines3 and shoal, alternating; appends JSON
python -m benchmarks.deck --rounds 3 --episodes 200 --threads 1
python -m benchmarks.deck --sides torch,private,shared --population-episodes 400
python -m benchmarks.deck --report            the ratios of the medians of what the file holds of so many episodes
python -m benchmarks.deck --one native        a single run of shoal in this process: native or serial environments

All sides: two hidden layers of 300 ReLU, Adam 3e-4, one update of 64 transitions for every 8 environment steps from
the 64th on, target copied after every 6 updates (48 steps; the experiment's 50 are no multiple of 8), epsilon from 1 to
0.05 over 10,000 steps, discount 0.99, 4,000 transitions, no clipping of gradients, one core. Their updates are printed
and checked: the same number for as many steps. shoal runs on Gymnasium's LunarLander and on its own native one, with 8
rows of which each steps once between two updates; the others know one environment. A run ends after so many episodes.

The sides private and shared are nine such agents in one process, each with 8 native rows of its own and 4,000
transitions of its own, or all on one memory of 36,000: as many updates for each agent's steps. What an agent costs is
the processor time for each of its steps, beside that of plain PyTorch. The side servers is shared with the environments
on three gRPC servers, processes beside it, whose processor time counts too; it is run when it is named.
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
from benchmarks.remote_training import start_server

RESULT = Path(__file__).parent / "results" / "deck.jsonl"
MOST_STEPS = 300_000
EVERY, WARM_UP = 8, 64
SIDES = ("torch", "sb3", "serial", "native", "private", "shared")
SERVED = "servers"
AGENTS = {"private": 9, "shared": 9, SERVED: 9}
SERVERS = 3
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
    "grad_shards": 1,
}


def settings_of(side: str) -> dict[str, Any]:
    """The settings of a side of shoal; nine agents have nine times the rows, the memory and the steps."""
    count = AGENTS.get(side, 1)
    if count == 1:
        return SETTINGS | {"backend": side}
    replay = {name: SETTINGS["replay"][name] * count for name in ("buffer_size", "learning_starts")}
    return SETTINGS | {
        "backend": "auto" if side == SERVED else "native",
        "agents": count,
        "population": {"memory": "shared" if side == SERVED else side},
        "num_envs": SETTINGS["num_envs"] * count,
        "total_timesteps": MOST_STEPS * count,
        "replay": SETTINGS["replay"] | replay,
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


def updates_of(steps: int, agents: int) -> int:
    """Updates after so many environment steps of all agents, on every side."""
    return agents * max(0, (steps // agents - WARM_UP) // EVERY + 1)


def train(side: str, seed: int, *, threads: int, episodes: int) -> dict[str, Any]:
    """One run of shoal in this process."""
    keep_to_cores(threads)
    watch = Episodes(episodes)
    shoal.train("CartPole-v1", algo="dqn", panel="none", total_timesteps=1_500, final_episodes=0,
                run_dir=tempfile.mkdtemp())  # fmt: skip
    servers = [start_server("LunarLander-v3") for _ in range(SERVERS)] if side == SERVED else []
    env = "grpc://" + ",".join(address for _, address in servers) if servers else "LunarLander-v3"
    with tempfile.TemporaryDirectory() as folder:
        cpu = time.process_time()
        run = shoal.train(
            env, algo="dqn", seed=seed, panel="none", preset="none", run_dir=folder, stop_at=float("inf"),
            final_episodes=0, num_threads=threads, callbacks=[watch], **settings_of(side),
        )  # fmt: skip
        cpu = time.process_time() - cpu
        for process, _ in servers:
            process.terminate()
            process.communicate()
        beside = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu += beside.ru_utime + beside.ru_stime if servers else 0.0
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
    count = AGENTS.get(side, 1)
    due = updates_of(row["steps"], count)
    # The run of several ends with an update of one of them; the others were not asked for theirs. Stable-Baselines3
    # ends a run before the update that is due at its last step.
    if not due - (side == "sb3") <= row["updates"] < due + count:
        raise SystemExit(f"{side}: {row['updates']} updates in {row['steps']} steps, not {due}")
    return row


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", choices=[*SIDES[2:], SERVED])
    parser.add_argument("--sides", type=lambda names: names.split(","), default=list(SIDES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--population-episodes", type=int, default=1_800, help="of nine agents together")
    parser.add_argument("--report", action="store_true", help="only the ratios of what the file holds")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(train(options.one, options.seed, threads=options.threads, episodes=options.episodes)))
        return
    rows: dict[str, list[dict[str, Any]]] = {side: [] for side in options.sides}
    if options.report:
        for line in options.out.read_text().splitlines():
            row = json.loads(line)
            if row["side"] in AGENTS or row["episodes"] == options.episodes:
                rows.setdefault(row["side"], []).append(row)
        report({side: of_side for side, of_side in rows.items() if of_side})
        return
    for seed in range(options.seed, options.seed + options.rounds):
        for side in options.sides:
            episodes = options.population_episodes if side in AGENTS else options.episodes
            row = measure_side(side, seed, threads=options.threads, episodes=episodes)
            rows[side].append(row)
            at = {
                "side": side,
                "seed": seed,
                "threads": options.threads,
                "episodes": episodes,
                "date": time.strftime("%Y-%m-%d"),
            }
            with options.out.open("a") as file:
                file.write(json.dumps(at | row | {"machine": machine.describe()}) + "\n")
            print(side, {name: round(value, 2) for name, value in row.items()}, flush=True)
    report(rows)


def report(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Prints the ratios, of medians over the rounds."""
    rates = {side: float(np.median([row["sps"] for row in of_side])) for side, of_side in rows.items()}
    each = {side: float(np.median([r["steps"] / r["cpu_seconds"] for r in found])) for side, found in rows.items()}
    for side in ("serial", "native"):
        for other in ("torch", "sb3"):
            if side not in rows or other not in rows:
                continue
            print(f"{side}: {rates[side] / rates[other]:.2f} x {other} in steps/s, {each[side] / each[other]:.2f} x in "
                  "steps per core-second")  # fmt: skip
    for side in ("private", "shared"):
        if side in rows and "torch" in rows:
            cost = each["torch"] / each[side]
            print(f"{side}: {cost:.2f} x the core-seconds of plain PyTorch for each of {AGENTS[side]} agents")


if __name__ == "__main__":
    main()
