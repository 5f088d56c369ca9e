"""The guard's twelve failures in other libraries: Stable-Baselines3 and RLlib, each in an environment of its own.

python -m benchmarks.guard_peers                                      CartPole, both libraries, 5 seeds
python -m benchmarks.guard_peers --peers sb3 --seeds 1 --set check_nan=1 --failures none nan_reward
python -m benchmarks.guard_peers --peers sb3 --envs LunarLander-v3 --seeds 1 --set updates=10
python -m benchmarks.guard_peers --peers rllib --seeds 1 --set runners=4 --failures none nan_weights
python -m benchmarks.guard_peers --table                              what has been measured, as the docs show it

Each seed is trained by the library's own settings until its greedy return is good, and saved; then loaded again for
each failure, which lasts as in benchmarks/guard.py: one update, then the failure, then 60 updates with it. Measured is
what the library says, whether it raises, stops or goes back, and the greedy return over 100 episodes of a sound
environment of the policy that it leaves, of the one when the failure began, and of the one that its own keeper of the
best kept. `none` is the same without a failure. Appended to benchmarks/results/guard_peers.jsonl.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.peers.run_peers import run_worker, unavailable, worker_environment, worker_options
from benchmarks.peers.setup_peers import HERE, load_peers, venv_python

RESULTS = Path(__file__).parent / "results"
RESULT, OURS = RESULTS / "guard_peers.jsonl", RESULTS / "guard.jsonl"
DEPRECATED = re.compile(r"DeprecationWarning|^warnings\.warn\($")
"""What libraries say of themselves, and not of a failure."""
FAILURES = {
    "none": "none, for comparison",
    "learning_rate": "learning rate × 1,000",
    "entropy": "logits × 100",
    "nan_weights": "weights NaN",
    "optimizer": "optimizer corrupted",
    "gradient": "gradients × 1,000, not cut",
    "nan_reward": "reward NaN",
    "reward_sign": "reward's sign",
    "obs_freeze": "observation frozen",
    "reward_scale": "reward × 1,000",
    "obs_swapped": "sensors swapped",
    "dead_actuator": "actuator dead",
    "slow_worker": "a worker slow",
}


def measure(peer: str, env: str, seed: int, failures: list[str], given: dict[str, str], limit_s: float) -> int:
    """One seed of a library; appends a line for each failure and returns how many there are."""
    entry = load_peers()[peer]
    if reason := unavailable(peer, entry):
        raise SystemExit(f"{peer}: {reason}")
    chosen = entry["guard"][env]
    settings = chosen["settings"] | given | {"env": env, "seeds": seed, "failures": failures}
    command = [str(venv_python(peer)), str(HERE / chosen["script"]), *worker_options(settings)]
    about = {"machine": machine.describe() | {"load": f"{os.getloadavg()[0]:.2f}"}, "source": chosen["source"]}
    status, out, err = run_worker(command, worker_environment(settings), limit_s)
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    with RESULT.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({"kind": "peer_failure", "peer": peer} | row | about) + "\n")
    if status != 0:
        why = f"no end within {limit_s:g} s" if status is None else f"exit status {status}"
        print(f"{peer} {env} seed {seed}: {why}\n{err[-2000:]}", flush=True)
    return len(rows)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of results."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def newest(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The last line of each seed."""
    return {row["seed"]: row for row in rows}


def number(value: Any) -> float:
    """A return; of a policy that cannot act, nothing."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else -math.inf


def shown(values: list[float]) -> str:
    """The median and, where there are several that differ, the range; a policy that cannot act is a dash."""
    known = [value for value in values if value > -math.inf]
    if not known:
        return "–"
    low, high = min(known), max(known)
    middle = f"{median(known):.0f}"
    lost = f", {len(values) - len(known)} cannot act" if len(known) < len(values) else ""
    return (middle if round(low) == round(high) else f"{middle} ({low:.0f} to {high:.0f})") + lost


def voice(rows: list[dict[str, Any]]) -> str:
    """Whether a library raised an error, warned or was silent."""
    words: list[str] = []
    raised = sum(bool(row["raised"]) for row in rows)
    said = sum(any(not DEPRECATED.search(line) for line in row["said"]) for row in rows)
    for count, word in ((raised, "raises"), (said, "warns")):
        if count:
            words.append(word if count == len(rows) else f"{word} in {count} of {len(rows)}")
    return ", ".join(words) or "silent"


def peer_cells(rows: list[dict[str, Any]]) -> list[str]:
    """What a library said in a failure, what it left and what it kept, over its seeds."""
    if not rows:
        return ["not measured", "", ""]
    if "last" not in rows[0]:
        before, after = ([median(row["rollout_seconds"][part]) for row in rows] for part in (slice(1, 5), slice(6, 15)))
        return [f"{voice(rows)}; an update {median(before):.2g} s, then {median(after):.2g} s", "", ""]
    ends = [number(row["last"]) if row["finite"] else -math.inf for row in rows]
    kept = [number(row.get("best_sound", row["best_alike"])) for row in rows]
    return [voice(rows), shown(ends), shown(kept)]


def our_cells(rows: list[dict[str, Any]]) -> list[str]:
    """What shoal did in a failure and what it left, over its seeds."""
    if not rows:
        return ["", ""]
    acted = sum(row["acted"] for row in rows)
    ends = [number(row["final_greedy"]) for row in rows if "final_greedy" in row]
    return [f"{acted} of {len(rows)}", shown(ends) if ends else ""]


def table(env: str) -> str:
    """All that was measured for an environment, as a table."""
    peers = [row for row in read(RESULT) if row["env"] == env and not row.get("check_nan") and not row.get("runners")]
    ours = [row for row in read(OURS) if row["kind"] == "failure" and row["env"] == env]
    heads = ["failure", "shoal acts", "leaves", "SB3", "leaves", "best kept", "RLlib", "leaves", "best kept"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in FAILURES:
        cells = our_cells(list(newest([row for row in ours if row["failure"] == name]).values()))
        for peer in ("sb3", "rllib"):
            rows = newest([row for row in peers if row["peer"] == peer and row["failure"] == name])
            cells += peer_cells(list(rows.values()))
        lines.append(f"| {FAILURES[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measures, or shows what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", nargs="+", default=["sb3", "rllib"], choices=["sb3", "rllib"])
    parser.add_argument("--envs", nargs="+", default=["CartPole-v1"], choices=["CartPole-v1", "LunarLander-v3"])
    parser.add_argument("--failures", nargs="+", default=list(FAILURES), choices=list(FAILURES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of the worker")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds of a seed")
    parser.add_argument("--table", action="store_true")
    told = parser.parse_args()
    if told.table:
        for env in told.envs:
            print(f"{env}\n\n{table(env)}\n")
        return
    given = dict(pair.split("=", 1) for pair in told.set)
    for seed in told.seeds:
        for peer in told.peers:
            for env in told.envs:
                if env in load_peers()[peer]["guard"]:
                    count = measure(peer, env, seed, told.failures, given, told.limit)
                    print(f"{peer} {env} seed {seed}: {count} of {len(told.failures)}", flush=True)


if __name__ == "__main__":
    main()
