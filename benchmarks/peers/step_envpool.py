"""Step EnvPool's C++ environments: synchronous where the batch is every row, else asynchronous."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Protocol

import envpool
import numpy as np
from worker import answer_slices, emit, keep_to_cores, time_steps

ACTION_SETS = 256


class Pool(Protocol):
    """What is used of EnvPool's class."""

    action_space: Any

    def reset(self) -> tuple[Any, ...]:
        """Reset every row and return the first observations."""
        ...

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        """Step every row."""
        ...

    def async_reset(self) -> None:
        """Begin the reset of every row."""
        ...

    def recv(self) -> tuple[Any, ...]:
        """Return a batch of rows that are ready."""
        ...

    def send(self, action: np.ndarray, env_id: np.ndarray) -> None:
        """Begin a step of these rows."""
        ...


def sync_stepper(env: Pool, num_envs: int, n_actions: int) -> Callable[[], int]:
    """Return a function that steps every row once."""
    actions = np.random.default_rng(0).integers(0, n_actions, (ACTION_SETS, num_envs)).astype(np.int32)
    env.reset()
    tick = 0

    def step() -> int:
        nonlocal tick
        env.step(actions[tick % ACTION_SETS])
        tick += 1
        return num_envs

    return step


def async_stepper(env: Pool, batch_size: int, n_actions: int) -> Callable[[], int]:
    """Return a function that answers the rows that are ready, `batch_size` at a time."""
    actions = np.random.default_rng(0).integers(0, n_actions, (ACTION_SETS, batch_size)).astype(np.int32)
    env.async_reset()
    tick = 0

    def step() -> int:
        nonlocal tick
        info = env.recv()[4]
        env.send(actions[tick % ACTION_SETS], info["env_id"])
        tick += 1
        return batch_size

    return step


def main() -> None:
    """Measure one environment and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env_id", default="CartPole-v1")
    parser.add_argument("--num_envs", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--num_threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--slices", type=int, default=0, help="1: step when the input says, as `LivePeer` does")
    args = parser.parse_args()
    args.cores = keep_to_cores(args.cores)
    env: Pool = envpool.make(
        args.env_id, env_type="gymnasium", num_envs=args.num_envs, batch_size=args.batch_size,
        num_threads=args.num_threads, seed=0,
    )  # fmt: skip
    n_actions = int(env.action_space.n)
    if args.batch_size == args.num_envs:
        step = sync_stepper(env, args.num_envs, n_actions)
    else:
        step = async_stepper(env, args.batch_size, n_actions)
    if args.slices:
        answer_slices(step)
        return
    emit(time_steps(step, seconds=args.seconds), vars(args), "envpool", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
