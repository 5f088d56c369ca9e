"""GRPO of shoal beside TRL's GRPOTrainer: cost of an update, reward at equal rollouts and at equal seconds.

python -m benchmarks.language_models --model FOLDER        every arm, five seeds, appended to the results
python -m benchmarks.language_models --arms sync "async 4" --seeds 0 1 --updates 30
python -m benchmarks.language_models --summary             what the file holds

Every run is a process of its own. For each seed the arms follow one another, so that what else the machine does meets
all alike; ratios are of the runs of one seed. All start from the same folder of a model in transformers' layout
(`--model tiny` has shoal make one for the task), in float32, with the same prompts in the same order, the same judge
of answers, batch, loss, advantages, optimizer (Adam without decay) and learning rate. TRL has the settings that
measured best here (peers/peers.toml) and logs and saves nothing; shoal writes its metrics, and a checkpoint at the end.

Costs are means over the updates after the first few, on a clock that begins at the end of the first update: loading of
models and starting of processes stay outside. Processor seconds are of all threads and of the sampler's process.
Rewards at equal rollouts are means over tenths of the updates; at equal seconds, over tenths of the time that the
quickest arm took for all its updates. Both are interquartile means over seeds, with a 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import machine
from benchmarks.peers.run_peers import last_json, measure, run_worker, worker_environment, worker_options
from shoal.report.statistics import band

if TYPE_CHECKING:
    from shoal.types import Floats

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "language_models.jsonl"
WARM_UP = 3
"""Updates that the costs leave out."""
PARTS = 10
FEW = 3
"""Seeds below which intervals are not compared."""
BARS = {"core_seconds": 0.6, "seconds": 0.4}
"""Of shoal's costs beside TRL's."""
OURS = {"core_seconds": "sync", "seconds": "async 1"}
"""The arm that each cost is claimed for."""
TRL = ("trl 1", "trl 2")
SHOAL: dict[str, dict[str, Any]] = {
    "sync": {"schedule": "sync", "cores": 1},
    "async 1": {"schedule": "async", "max_staleness": 1},
    "async 4": {"schedule": "async", "max_staleness": 4},
    "async 1, not corrected": {"schedule": "async", "max_staleness": 1, "correction": "none"},
    "async 4, not corrected": {"schedule": "async", "max_staleness": 4, "correction": "none"},
}
"""Arms of shoal, one thread in each process: options of grpo_once.py."""
ARMS = (*SHOAL, *TRL)
DEFAULT = ("sync", *TRL[:1], "async 1", *TRL[1:])
TASK = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
HELD_OUT = 1_000_000_007
"""Between the seeds of training and of evaluation, as shoal's tasks have it."""


def run_shoal(arm: str, work: dict[str, Any]) -> dict[str, Any]:
    """One run of shoal; RuntimeError with what it said when it failed."""
    options = {"threads": 1} | work | SHOAL[arm]
    command = [sys.executable, "-m", "benchmarks.grpo_once", *worker_options(options)]
    environ = worker_environment(options) | {"PYTHONPATH": str(ROOT)}
    status, out, said = run_worker(command, environ, 600.0)
    result = last_json(out)
    if status or result is None:
        raise RuntimeError(f"{arm}: exit status {status}\n{said[-2000:]}")
    return result


def run_trl(arm: str, work: dict[str, Any]) -> dict[str, Any]:
    """One run of TRL on as many threads, and cores, as the arm's name says; RuntimeError when it failed."""
    threads = int(arm.split()[1])
    seeds = {"task_seed": work["seed"], "held_out_seed": (work["seed"] + HELD_OUT) % 2**31}
    record = measure("trl", "chain_sum", timeout_s=600.0, threads=threads, cores=threads, **work, **seeds)
    if record["status"] != "ok":
        raise RuntimeError(f"{arm}: {record['error']}")
    return record


def row_of(arm: str, result: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run: the figures of each update as lists."""
    curve = result["curve"]
    kept = {name: [round(one[name], 4) for one in curve] for name in ("seconds", "core_seconds", "reward", "tokens")}
    told = {name: result[name] for name in ("greedy", "idle", "staleness", "settings", "versions") if name in result}
    return {"arm": arm, "updates": len(curve), **kept, **told}


def cost(row: dict[str, Any], kind: str) -> float:
    """Mean seconds of an update, by the clock or of the processor."""
    return float(np.mean(row[kind][WARM_UP:]))


def elapsed(row: dict[str, Any]) -> Floats:
    """When each update ended [updates], in seconds from the end of the first."""
    return np.cumsum([0.0, *row["seconds"][1:]])


def by_rollouts(row: dict[str, Any], updates: int) -> Floats:
    """Mean reward in each of ten equal parts of the first `updates` updates [PARTS]."""
    parts = np.array_split(np.array(row["reward"][:updates]), PARTS)
    return np.array([part.mean() for part in parts])


def by_seconds(row: dict[str, Any], seconds: float) -> Floats:
    """Mean reward of the updates that ended in each tenth of so many seconds [PARTS]; where none did, as before."""
    place = np.ceil(elapsed(row) / seconds * PARTS).astype(int).clip(1) - 1
    reward = np.array(row["reward"])
    found: list[float] = []
    for part in range(PARTS):
        here = reward[place == part]
        found.append(float(here.mean()) if len(here) else found[-1])
    return np.array(found)


Runs = dict[str, dict[int, dict[str, Any]]]


def read(path: Path) -> dict[str, Runs]:
    """The rows of a file by the work that was the same, arm and seed; of equal ones the last."""
    found: dict[str, Runs] = {}
    for text in path.read_text().splitlines():
        row = json.loads(text)
        work = json.dumps(row["work"], sort_keys=True)
        found.setdefault(work, {}).setdefault(row["arm"], {})[row["seed"]] = row
    return found


def costs(runs: Runs) -> list[str]:
    """A line for each arm, and each claim."""
    lines: list[str] = []
    for arm, rows in runs.items():
        core, wall = (np.array([cost(row, kind) for row in rows.values()]) for kind in ("core_seconds", "seconds"))
        greedy = [row["greedy"] for row in rows.values() if row["greedy"] is not None]
        says = f"{arm}: {len(rows)} seeds, core-seconds of an update {spread(core)}, seconds {spread(wall)}"
        says += f", greedy {np.mean(greedy):.3f}" if greedy else ""
        if "idle" in next(iter(rows.values())):
            idle, late = (float(np.mean([row[name] for row in rows.values()])) for name in ("idle", "staleness"))
            says += f", waits {idle:.0%}, staleness {late:.2f}"
        lines.append(says)
    peers = [runs[arm] for arm in TRL if arm in runs]
    for kind, arm in OURS.items():
        seeds = set(runs.get(arm, {})).intersection(*peers) if peers else set[int]()
        ratios = [cost(runs[arm][s], kind) / min(cost(peer[s], kind) for peer in peers) for s in sorted(seeds)]
        if ratios:
            says = f"{arm} / TRL at its best of {len(peers)}, {kind}: {spread(np.array(ratios))}, bar {BARS[kind]}"
            lines.append(f"{says}: {'met' if np.median(ratios) <= BARS[kind] else 'MISSED'}")
    return lines


def spread(values: Floats) -> str:
    """The median, and the least and the most."""
    return f"{np.median(values):.3f} ({values.min():.3f} to {values.max():.3f})"


def rewards(runs: Runs) -> list[str]:
    """Curves of each arm, and whether the last fifth's intervals of shoal's arms overlap with TRL's."""
    updates = min(row["updates"] for rows in runs.values() for row in rows.values())
    seconds = min(float(np.median([elapsed(row)[-1] for row in rows.values()])) for rows in runs.values())
    lines = [f"reward in tenths of {updates} updates: interquartile mean over seeds"]
    lines += curves({arm: [by_rollouts(row, updates) for row in rows.values()] for arm, rows in runs.items()})
    lines.append(f"reward in tenths of {seconds:.1f} s")
    return lines + curves({arm: [by_seconds(row, seconds) for row in rows.values()] for arm, rows in runs.items()})


def curves(found: dict[str, list[Floats]]) -> list[str]:
    """Lines of curves [seeds, PARTS] by arm, with the interval of the mean over the last fifth."""
    lines: list[str] = []
    intervals: dict[str, tuple[float, float]] = {}
    for arm, rows in found.items():
        array = np.stack(rows)
        points = " ".join(f"{value:.2f}" for value in band(array, np.random.default_rng(0)).middle)
        last = band(array[:, -PARTS // 5 :].mean(1, keepdims=True), np.random.default_rng(0))
        intervals[arm] = float(last.low[0]), float(last.high[0])
        low, high = intervals[arm]
        says = f"last fifth {last.middle[0]:.3f} ({low:.3f} to {high:.3f}), {len(rows)} seeds"
        lines.append(f"  {arm:24s} {points}   {says}")
    theirs = [intervals[arm] for arm in TRL if arm in intervals]
    for arm in SHOAL:
        if arm in intervals and theirs and len(found[arm]) >= FEW:
            low, high = intervals[arm]
            shared = any(low <= other[1] and other[0] <= high for other in theirs)
            better = all(low > other[1] for other in theirs)
            words = "overlaps with" if shared else "is above" if better else "is below"
            lines.append(f"  {arm}: the interval {words} TRL's")
    return lines


def summary(path: Path) -> list[str]:
    """Costs and rewards of all that a file holds."""
    lines: list[str] = []
    for work, runs in read(path).items():
        lines += [work, *costs(runs), *rewards(runs), ""]
    return lines


def named(model: str) -> str:
    """A model's name in the results: tiny is another one whenever its recipe is."""
    from shoal.llm.tiny import RECIPE

    return f"tiny, recipe {RECIPE}" if model == "tiny" else Path(model).name


def make_tiny(task: str, settings: dict[str, Any], folder: Path) -> Path:
    """Has shoal make its small model for the task, in transformers' layout."""
    from shoal.llm.loading import load_model, save_model
    from shoal.llm.tasks.registry import make_task

    model = load_model("tiny", task=make_task(f"reasoning-gym:{task}", kwargs=settings), report=print)
    save_model(model, folder)
    return folder


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="a folder in transformers' layout, or tiny")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(DEFAULT))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--task", default="chain_sum", help="its name in reasoning-gym")
    parser.add_argument("--task-settings", type=json.loads, default=TASK, help="its keywords, as JSON")
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=8, help="of an answer")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--loss", default="dapo", choices=["grpo", "dapo", "dr_grpo"])
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--summary", action="store_true", help="only say what the file holds")
    options = parser.parse_args()
    if options.updates < 2 * PARTS:
        parser.error(f"--updates must be at least {2 * PARTS}")
    return options


def work_of(options: argparse.Namespace) -> dict[str, Any]:
    """What all arms do."""
    return {
        "dataset": options.task,
        "task_settings": json.dumps(options.task_settings, sort_keys=True),
        "steps": options.updates,
        "num_prompts": options.prompts,
        "num_generations": options.generations,
        "max_completion_length": options.max_tokens,
        "learning_rate": options.learning_rate,
        "loss_type": options.loss,
    }


def main() -> None:
    """Runs the arms seed by seed, and sums up."""
    options = parse()
    if not options.summary:
        with tempfile.TemporaryDirectory() as folder:
            measure_all(options, Path(folder))
    print("\n".join(summary(options.out)))


def measure_all(options: argparse.Namespace, folder: Path) -> None:
    """Every arm on every seed, appended as it ends."""
    model = Path(options.model).resolve()
    if options.model == "tiny":
        model = make_tiny(options.task, options.task_settings, folder / "tiny")
    work = work_of(options)
    for seed in options.seeds:
        for arm in options.arms:
            given = work | {"model": str(model), "seed": seed}
            begun = time.perf_counter()
            result = run_trl(arm, given) if arm in TRL else run_shoal(arm, given)
            row = row_of(arm, result)
            told = {"work": work | {"model": named(options.model)}, "seed": seed}
            at = {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe()}
            del row["settings"]["model"]
            with options.out.open("a") as file:
                file.write(json.dumps(told | row | at) + "\n")
            print(
                f"seed {seed}, {arm}: {row['updates']} updates, core-seconds {cost(row, 'core_seconds'):.3f}, seconds "
                f"{cost(row, 'seconds'):.3f} an update; reward {np.mean(row['reward'][-10:]):.2f}, greedy "
                f"{row['greedy']}; whole process {time.perf_counter() - begun:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
