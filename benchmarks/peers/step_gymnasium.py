"""Step Gymnasium's own environments: a bare loop, SyncVectorEnv, AsyncVectorEnv, NumPy vector environments."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from worker import emit, keep_to_cores, time_steps

ACTION_SETS = 256


def single_stepper(env_id: str) -> tuple[Callable[[], int], Callable[[], None]]:
    """Return a function that steps one environment 64 times and resets it where episodes end."""
    env: Any = gymnasium.make(env_id)
    n_actions = int(env.action_space.n)
    actions = np.random.default_rng(0).integers(0, n_actions, 65_536).tolist()
    env.reset(seed=0)
    position = 0

    def step() -> int:
        nonlocal position
        for action in actions[position : position + 64]:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        position = (position + 64) % len(actions)
        return 64

    return step, env.close


def vector_stepper(env_id: str, mode: str, num_envs: int) -> tuple[Callable[[], int], Callable[[], None]]:
    """Return a function that steps all rows once with actions drawn beforehand."""
    entry = {"sync": "sync", "async": "async", "numpy": "vector_entry_point"}[mode]
    env: Any = gymnasium.make_vec(env_id, num_envs=num_envs, vectorization_mode=entry)
    n_actions = int(env.single_action_space.n)
    sets = ACTION_SETS if num_envs <= 4096 else 16
    actions = np.random.default_rng(0).integers(0, n_actions, (sets, num_envs))
    env.reset(seed=0)
    tick = 0

    def step() -> int:
        nonlocal tick
        env.step(actions[tick % sets])
        tick += 1
        return num_envs

    return step, env.close


def main() -> None:
    """Measure one environment in one mode and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env_id", default="CartPole-v1")
    parser.add_argument("--mode", choices=["single", "sync", "async", "numpy"], default="sync")
    parser.add_argument("--num_envs", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--cores", type=int, default=1)
    args = parser.parse_args()
    args.cores = keep_to_cores(args.cores)
    if args.mode == "single":
        step, close = single_stepper(args.env_id)
    else:
        step, close = vector_stepper(args.env_id, args.mode, args.num_envs)
    result = time_steps(step, seconds=args.seconds)
    close()
    emit(result, vars(args), "gymnasium", "numpy")


if __name__ == "__main__":
    main()
