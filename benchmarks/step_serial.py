"""Python CartPole in `serial`, 64 rows, beside a bare Gymnasium loop: environment steps per second, as JSON.

    python -m benchmarks.step_serial [--pairs N] [--num_envs N]

The bare loop steps `gymnasium.make("CartPole-v1")` alone, with actions drawn beforehand, and resets it where episodes
end. Both sides run in this process, one after the other in pairs; the ratio is the median over the pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from shoal.envs.registry import make

if TYPE_CHECKING:
    from collections.abc import Callable

ENV_ID = "CartPole-v1"
STEPS = 16_384
BAR = 0.9


def bare_loop(actions: list[int]) -> Callable[[], None]:
    """A function that takes all the actions in one environment."""
    env: Any = gymnasium.make(ENV_ID)
    env.reset(seed=0)

    def run() -> None:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return run


def serial_rows(actions: np.ndarray[Any, np.dtype[np.int64]]) -> Callable[[], None]:
    """A function that takes the actions [T, B] in B rows."""
    rows = make(ENV_ID, actions.shape[1], backend="serial")
    rows.reset(0)
    rows.recv()
    everything = slice(0, rows.num_rows)

    def run() -> None:
        for action in actions:
            rows.send(everything, action)
            rows.recv()

    return run


def rate(run: Callable[[], None], num_steps: int) -> float:
    """Steps per second of one run."""
    begun = time.perf_counter()
    run()
    return num_steps / (time.perf_counter() - begun)


def measure(*, pairs: int, num_envs: int) -> dict[str, Any]:
    """Medians over alternating pairs of both rates, and of their ratio."""
    actions = np.random.default_rng(0).integers(0, 2, (STEPS // num_envs, num_envs))
    sides = [bare_loop(actions.ravel().tolist()), serial_rows(actions)]
    for run in sides:
        run()
    rates = [[rate(run, actions.size) for run in sides] for _ in range(pairs)]
    ratios = [serial / bare for bare, serial in rates]
    return {
        "env_id": ENV_ID,
        "num_envs": num_envs,
        "pairs": pairs,
        "steps": actions.size,
        "bare_steps_per_second": round(statistics.median(bare for bare, _ in rates)),
        "serial_steps_per_second": round(statistics.median(serial for _, serial in rates)),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
        "bar": BAR,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--num_envs", type=int, default=64)
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
