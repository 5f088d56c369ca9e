"""Step EnvPool's LunarLander at random or under a policy, timed without the policy."""

from __future__ import annotations

import argparse
from typing import Any

import envpool
import numpy as np
from flight import Obs, at_random, by_policy, time_flight
from numpy.typing import NDArray
from worker import emit, keep_to_cores


def main() -> None:
    """Measure and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="", help="an .npz of flight.py; without it, random actions")
    parser.add_argument("--num_envs", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--num_threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    args.cores = keep_to_cores(args.cores)
    env: Any = envpool.make(
        "LunarLander-v3", env_type="gymnasium", num_envs=args.num_envs, batch_size=args.batch_size,
        num_threads=args.num_threads, seed=0,
    )  # fmt: skip
    choose = by_policy(args.policy) if args.policy else at_random(args.batch_size)
    if args.batch_size == args.num_envs:
        first = env.reset()[0]

        def step(action: NDArray[np.int64]) -> Obs:
            return env.step(action.astype(np.int32))[0]

    else:
        env.async_reset()
        first, *_, info = env.recv()

        def step(action: NDArray[np.int64]) -> Obs:
            nonlocal info
            env.send(action.astype(np.int32), info["env_id"])
            obs, *_, info = env.recv()
            return obs

    emit(time_flight(first, step, choose, seconds=args.seconds), vars(args), "envpool", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
