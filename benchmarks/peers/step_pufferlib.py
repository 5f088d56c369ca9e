"""Step PufferLib's C CartPole in process through its Python class, on one core.

Its episodes end at 200 steps, its state is float32 and its resets come from libc's generator,
so it is a peer of shoal's CartPole in kind and speed, not the same environment.
"""

from __future__ import annotations

import argparse

import numpy as np
from pufferlib.ocean.cartpole.cartpole import Cartpole
from worker import emit, keep_to_cores, time_steps

ACTION_SETS = 256


def main() -> None:
    """Measure `env.step(actions)` with actions drawn beforehand and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_envs", type=int, default=4096)
    parser.add_argument("--report_interval", type=int, default=128, help="steps between its statistics")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--cores", type=int, default=1)
    args = parser.parse_args()
    args.cores = keep_to_cores(args.cores)
    env = Cartpole(num_envs=args.num_envs, report_interval=args.report_interval, seed=0)
    actions = np.random.default_rng(0).integers(0, 2, (ACTION_SETS, args.num_envs)).astype(np.float32)
    env.reset(seed=0)
    tick = 0

    def step() -> int:
        nonlocal tick
        env.step(actions[tick % ACTION_SETS])
        tick += 1
        return args.num_envs

    before = env.observations.copy()
    step()
    if np.array_equal(before, env.observations):
        raise RuntimeError("the observations did not change in a step: nothing was stepped")
    result = time_steps(step, seconds=args.seconds)
    env.close()
    emit(result, vars(args), "pufferlib", "numpy")


if __name__ == "__main__":
    main()
