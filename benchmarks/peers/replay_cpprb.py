"""cpprb's replay memory on LunarLander transitions: blocks inserted, uniform batches, prioritized batches with updates.

A transition is eight floats, an action, a reward, the next eight floats, and whether it ended.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import cpprb
import numpy as np
from worker import answer_slices, emit, keep_to_cores, time_steps

FORM: dict[str, dict[str, Any]] = {
    "obs": {"shape": 8},
    "act": {"dtype": np.int64},
    "rew": {},
    "next_obs": {"shape": 8},
    "done": {"dtype": np.uint8},
}


def block_of(count: int, episode: float) -> dict[str, Any]:
    """So many transitions, of which one in `episode` ends its episode."""
    rng = np.random.default_rng(0)
    return {
        "obs": rng.normal(size=(count, 8)).astype(np.float32),
        "act": rng.integers(0, 4, count),
        "rew": rng.normal(size=count).astype(np.float32),
        "next_obs": rng.normal(size=(count, 8)).astype(np.float32),
        "done": (rng.random(count) < 1 / episode).astype(np.uint8),
    }


def worker_of(args: argparse.Namespace) -> Callable[[], int]:
    """A function that does the task once and returns what it counts."""
    prioritized = args.task == "prioritized"
    memory: Any = (
        cpprb.PrioritizedReplayBuffer(args.capacity, FORM, alpha=args.alpha)
        if prioritized
        else cpprb.ReplayBuffer(args.capacity, FORM)
    )
    block = block_of(args.block, args.episode)
    for _ in range(args.capacity // args.block + 1):
        memory.add(**block)
    errors = np.random.default_rng(1).random((64, args.batch)).astype(np.float32)
    tick = 0

    def insert() -> int:
        memory.add(**block)
        return args.block

    def sample() -> int:
        memory.sample(args.batch)
        return 1

    def sample_and_update() -> int:
        nonlocal tick
        batch = memory.sample(args.batch, beta=args.beta)
        memory.update_priorities(batch["indexes"], errors[tick % 64])
        tick += 1
        return 1

    return {"insert": insert, "uniform": sample, "prioritized": sample_and_update}[args.task]


def main() -> None:
    """Measure one task and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=["insert", "uniform", "prioritized"], required=True)
    parser.add_argument("--capacity", type=int, default=100_000)
    parser.add_argument("--block", type=int, default=2_048)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--episode", type=float, default=200.0)
    parser.add_argument("--alpha", type=float, default=0.6)
    parser.add_argument("--beta", type=float, default=0.4)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--slices", type=int, default=0, help="1: work when the input says, as `LivePeer` does")
    args = parser.parse_args()
    keep_to_cores(1)
    work = worker_of(args)
    if args.slices:
        answer_slices(work)
        return
    emit(time_steps(work, seconds=args.seconds), vars(args), "cpprb", "numpy")


if __name__ == "__main__":
    main()
