"""A sweep of 64 trials for settings that solve LunarLander-v3 sooner, and the same seconds by Optuna alone on SB3.

python -m benchmarks.sweep                  all of it, about 25 minutes on two quiet cores; into results/sweep.jsonl
python -m benchmarks.sweep --parts shoal    only the sweep and its confirmation, about 10 minutes
python -m benchmarks.sweep --file benchmarks/sweeps/cartpole.toml --parts shoal --out short.jsonl    a short one

- shoal: `benchmarks/sweeps/lander.toml`, two trials at a time with a thread each; then the best trials on other seeds,
  and the winner beside the preset on 10 fresh seeds, two runs at a time.
- alone: the winner and the preset on 10 further seeds, one run at a time with all threads, in turns.
- sb3: two processes of `peers/sweep_sb3.py` share Optuna's journal for as many seconds as shoal's search took; then the
  best settings and rl-zoo3's on `--sb3-seeds` fresh seeds, two runs at a time.

What was interrupted is gone on with where `--folder` is given again.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import shoal
from benchmarks import machine
from benchmarks.peers.sweep_sb3 import UNSOLVED_S, ZOO
from shoal.experiment.sweep.confirm import by_chance

HERE = Path(__file__).parent
FILE, RESULT, PEER = HERE / "sweeps" / "lander.toml", HERE / "results" / "sweep.jsonl", HERE / "peers" / "sweep_sb3.py"
FRESH = 3000
"""The first of the seeds that neither the search nor its confirmation has seen."""
BAR = 0.8


def sweep(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Shoal's sweep, from its search to its confirmation."""
    begun = time.monotonic()
    found = shoal.sweep(options.file, out=folder / "sweep", trials=options.trials)
    told = json.loads((found.path / "summary.json").read_text(encoding="utf-8"))
    states = [row["state"] for row in told["trials"]]
    kept = ("objective", "best_trial", "best", "verdict", "confirmed", "ratio", "p", "importance")
    return {
        "trials": {state: states.count(state) for state in dict.fromkeys(states)},
        "search_seconds": round(told["seconds"], 1),
        "training_seconds": round(told["cost_s"], 1),
        "all_seconds": round(time.monotonic() - begun, 1),
        "winner_seeds": told.get("winner_seeds"),
        "base_seeds": told.get("base_seeds"),
    } | {name: told.get(name) for name in kept}


def alone(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The winner beside the preset, one run at a time, in turns."""
    best = folder / "sweep" / "best.toml"
    env = json.loads((folder / "sweep" / "summary.json").read_text(encoding="utf-8"))["env"]
    seconds: dict[str, list[float]] = {"winner": [], "preset": []}
    returns: dict[str, list[float]] = {"winner": [], "preset": []}
    for seed in range(FRESH, FRESH + options.seeds):
        for name in seconds:
            own: dict[str, Any] = {"config": str(best)} if name == "winner" else {}
            result = shoal.train(env, seed=seed, panel="none", run_dir=str(folder / "alone"), **own)
            seconds[name].append(result.seconds if result.solved else math.inf)
            returns[name].append(round(result.greedy_return, 1))
            print(f"alone: {name} seed {seed}: {result.seconds:.2f} s, greedy {result.greedy_return:.1f}", flush=True)
    ratio = median(seconds["winner"]) / median(seconds["preset"])
    return {
        "seconds": {name: [None if math.isinf(x) else round(x, 2) for x in values] for name, values in seconds.items()},
        "greedy": returns,
        "medians": {name: finite(median(values)) for name, values in seconds.items()},
        "ratio": finite(ratio),
        "met": ratio <= BAR,
        "p": by_chance(seconds["winner"], seconds["preset"]),
    }


def finite(value: float) -> float | None:
    """A number as JSON holds it."""
    return round(value, 3) if math.isfinite(value) else None


def sb3(options: argparse.Namespace, folder: Path, seconds: float) -> dict[str, Any]:
    """Optuna alone on SB3 for so many seconds, and what its best settings are worth on fresh seeds."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal = folder / "sb3.journal"
    command = [sys.executable, str(PEER), "--journal", str(journal), "--seconds", str(seconds), "--worker"]
    workers = [subprocess.Popen([*command, str(number)]) for number in range(options.workers)]
    for worker in workers:
        worker.wait()
    study = optuna.load_study(study_name="sb3", storage=JournalStorage(JournalFileBackend(str(journal))))
    trials = study.get_trials(deepcopy=False)
    states = [trial.state.name for trial in trials]
    ended = [trial for trial in trials if trial.state is optuna.trial.TrialState.COMPLETE]
    solved = [trial for trial in ended if trial.value is not None and trial.value < UNSOLVED_S]
    told: dict[str, Any] = {
        "seconds": seconds,
        "trials": {state: states.count(state) for state in dict.fromkeys(states)},
        "solved": len(solved),
    }
    if not solved:
        return told | {"said": "no trial solved it within the budget"}
    best = min(solved, key=lambda trial: trial.value or math.inf)
    settings = {name: value for name, value in best.params.items() if not name.startswith("1 - ")}
    settings |= {name[4:]: 1 - value for name, value in best.params.items() if name.startswith("1 - ")}
    told |= {"best_seconds": best.value, "best": settings}
    seeds = range(FRESH, FRESH + options.sb3_seeds)
    jobs = [(own, seed) for seed in seeds for own in (settings, ZOO)]
    with ThreadPoolExecutor(options.workers) as threads:
        ran = list(threads.map(train_sb3, *zip(*jobs, strict=True)))
    return told | {"winner_seeds": ran[::2], "zoo_seeds": ran[1::2]}


def train_sb3(settings: dict[str, Any], seed: int) -> float | None:
    """The seconds of one run; None where it did not solve."""
    command = [sys.executable, str(PEER), "--settings", json.dumps(settings), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    print(f"sb3 seed {seed}: {told}", flush=True)
    return round(told["seconds"], 1) if told["solved"] else None


def main() -> None:
    """Runs the parts and appends one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["shoal", "alone", "sb3"], default=["shoal", "alone", "sb3"])
    parser.add_argument("--file", type=Path, default=FILE)
    parser.add_argument("--trials", type=int, default=None)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sb3-seeds", type=int, default=3)
    parser.add_argument("--sb3-seconds", type=float, default=None, help="instead of what shoal's search took")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="shoal-sweep-"))
    folder.mkdir(parents=True, exist_ok=True)
    line: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "file": options.file.name,
        "machine": machine.describe(),
        "versions": machine.versions(),
    }
    if "shoal" in options.parts:
        line["shoal"] = sweep(options, folder)
    if "alone" in options.parts:
        line["alone"] = alone(options, folder)
    if "sb3" in options.parts:
        seconds = options.sb3_seconds or line.get("shoal", {}).get("search_seconds", 480.0)
        line["sb3"] = sb3(options, folder, seconds)
    with options.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps({name: x for name, x in line.items() if name not in ("machine", "versions")}, indent=1))
    print(f"run directories: {folder}")


if __name__ == "__main__":
    main()
