"""Does the small model learn its tasks: five seeds of the presets, success at the start and the end, and seconds.

    python -m benchmarks.tiny_tasks [--tasks chain_sum products spell_backward] [--seeds 0 1 2 3 4] [--schedule sync]

Each run is `shoal.train("reasoning-gym:TASK", algo="grpo", model="tiny")` with the task's preset, to the end of its
answers. `before` is the share of right answers, drawn at temperature 1, that the model of the first update gives to 512
prompts that are held out; `start` the mean reward of the first two batches, before and after the first update; `end`
that of the last ten; `greedy` the share of right answers to 100 prompts that training did not have. Seconds are those
of training; the model is made before (minutes of one core, once for each task). Appends to
benchmarks/results/tiny_tasks.jsonl.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import shoal
from benchmarks import machine
from shoal.algos.presets import preset
from shoal.llm.pretraining import answers_to
from shoal.llm.tasks.registry import make_task
from shoal.llm.tiny import tiny_model
from shoal.report.statistics import iqm

RESULT = Path(__file__).parent / "results" / "tiny_tasks.jsonl"
TASKS = ("chain_sum", "products", "spell_backward")
PAID = 0.7
PROMPTS = 512


class Batches:
    """The mean reward of each batch, and when it was there."""

    def __init__(self, size: int) -> None:
        """Of so many answers each."""
        self.size = size
        self.rewards: list[float] = []
        self.means: list[float] = []
        self.times: list[float] = []
        self.begun = time.perf_counter()

    def __call__(self, run: Any, record: Any) -> None:
        """Takes an answer in."""
        if hasattr(record, "episode_return"):
            self.rewards.append(record.episode_return)
            if len(self.rewards) == self.size:
                self.means.append(float(np.mean(self.rewards)))
                self.times.append(time.perf_counter() - self.begun)
                self.rewards.clear()


def success_before(task: str, seed: int) -> float:
    """The share of right answers of the model that training begins with."""
    name = f"reasoning-gym:{task}"
    chosen = preset("grpo", None, name)
    model = tiny_model(make_task(name, kwargs=chosen["env_kwargs"]))
    asked = make_task(name, seed=seed, kwargs=chosen["env_kwargs"], held_out=True)
    prompts = [asked.prompt(index) for index in range(PROMPTS)]
    tokens = [tuple(model.tokenizer.encode_prompt(prompt)) for prompt in prompts]
    drawn = answers_to(model, tokens, chosen["max_completion_length"], torch.Generator().manual_seed(seed))
    right = [asked.score(p, model.tokenizer.decode(a)) >= 1 for p, a in zip(prompts, drawn, strict=True)]
    return float(np.mean(right))


def train(task: str, seed: int, schedule: Literal["sync", "async"]) -> dict[str, Any]:
    """One run."""
    before = success_before(task, seed)
    batches = Batches(64)
    with tempfile.TemporaryDirectory() as folder:
        result = shoal.train(
            f"reasoning-gym:{task}", algo="grpo", model="tiny", seed=seed, schedule=schedule, panel="none",
            run_dir=folder, stop_at=float("inf"), callbacks=[batches],
        )  # fmt: skip
    smooth = np.convolve(batches.means, np.ones(9) / 9, mode="valid")
    reached = np.flatnonzero(smooth >= PAID)
    first = int(reached[0]) + 8 if len(reached) else None
    return {
        "before": before,
        "start": float(np.mean(batches.means[:2])),
        "end": float(np.mean(batches.means[-10:])),
        "greedy": result.greedy_return,
        "seconds": result.seconds,
        "batch_at_70": first,
        "seconds_at_70": None if first is None else batches.times[first],
    }


def main() -> None:
    """Runs what the command line names, and sums it up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--schedule", choices=["sync", "async"], default="sync")
    args = parser.parse_args()
    for task in args.tasks:
        rows: list[dict[str, Any]] = []
        for seed in args.seeds:
            row = {"task": task, "seed": seed, "schedule": args.schedule} | train(task, seed, args.schedule)
            rows.append(row)
            print({name: round(x, 3) if isinstance(x, float) else x for name, x in row.items()}, flush=True)
            whole = {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe()} | row
            with RESULT.open("a") as file:
                file.write(json.dumps(whole) + "\n")
        told = {name: np.array([row[name] for row in rows]) for name in ("before", "start", "end", "greedy", "seconds")}
        print(task, {n: f"{iqm(x):.2f} ({x.min():.2f} to {x.max():.2f})" for n, x in told.items()}, flush=True)


if __name__ == "__main__":
    main()
