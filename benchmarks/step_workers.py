"""Python environments in `workers` beside Gymnasium's own ways to step them: environment steps per second, as JSON.

    python -m benchmarks.step_workers [--rounds N] [--num_envs N] [--num_workers N]

CartPole: 64 rows in 2 worker processes, against `SyncVectorEnv` and `AsyncVectorEnv` of as many environments.
LunarLander: the same rows against a bare loop over one `gymnasium.make`, reset where episodes end. Actions are drawn
beforehand. All sides run in one process, one after the other in rounds; a ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from shoal.envs.crew import Workers
from shoal.envs.make import make

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.envs.vec_env import VecEnv

    Actions = np.ndarray[Any, np.dtype[np.int64]]

STEPS = 16_384
BARS = {"sync": 1.3, "async": 8.0, "bare": 1.6}


def worker_rows(rows: VecEnv, actions: Actions) -> Callable[[], None]:
    """A function that takes the actions [T, B] in B rows."""
    rows.reset(0)
    rows.recv()
    everything = slice(0, rows.num_rows)

    def run() -> None:
        for action in actions:
            rows.send(everything, action)
            rows.recv()

    return run


def vector(envs: Any, actions: Actions) -> Callable[[], None]:
    """The same in a Gymnasium vector environment."""
    envs.reset(seed=0)

    def run() -> None:
        for action in actions:
            envs.step(action)

    return run


def bare_loop(env: Any, actions: list[int]) -> Callable[[], None]:
    """A function that takes all the actions in one environment."""
    env.reset(seed=0)

    def run() -> None:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return run


def compare(sides: dict[str, tuple[Callable[[], None], int]], rounds: int) -> dict[str, Any]:
    """Steps per second of each side, and how many times those of the first are of each other's."""
    for run, _ in sides.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (run, num_steps) in sides.items():
            begun = time.perf_counter()
            run()
            rates[name].append(num_steps / (time.perf_counter() - begun))
    first, *others = sides
    result: dict[str, Any] = {f"{name}_steps_per_second": round(statistics.median(rates[name])) for name in sides}
    for name in others:
        ratios = [one / other for one, other in zip(rates[first], rates[name], strict=True)]
        result[f"ratio_to_{name}"] = round(statistics.median(ratios), 3)
        result[f"bar_to_{name}"] = BARS[name]
    return result


def measure(*, rounds: int, num_envs: int, num_workers: int) -> dict[str, Any]:
    """Both comparisons."""
    settings = Workers(num_workers=num_workers)
    rng = np.random.default_rng(0)
    result: dict[str, Any] = {"num_envs": num_envs, "num_workers": num_workers, "rounds": rounds}
    with ExitStack() as held:

        def rows_of(env_id: str) -> VecEnv:
            return held.enter_context(closing(make(env_id, num_envs, backend="workers", workers=settings)))

        two = rng.integers(0, 2, (STEPS // num_envs, num_envs))
        makers = [lambda: gymnasium.make("CartPole-v1")] * num_envs
        sync: Any = held.enter_context(closing(SyncVectorEnv(makers)))
        forked: Any = held.enter_context(closing(AsyncVectorEnv(makers)))
        short = two[: len(two) // 8]
        result["CartPole-v1"] = compare(
            {
                "workers": (worker_rows(rows_of("CartPole-v1"), two), two.size),
                "sync": (vector(sync, two), two.size),
                "async": (vector(forked, short), short.size),
            },
            rounds,
        )
        four = rng.integers(0, 4, (STEPS // num_envs, num_envs))
        lander: Any = held.enter_context(closing(gymnasium.make("LunarLander-v3")))
        result["LunarLander-v3"] = compare(
            {
                "workers": (worker_rows(rows_of("LunarLander-v3"), four), four.size),
                "bare": (bare_loop(lander, four.ravel().tolist()), four.size),
            },
            rounds,
        )
    return result


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--num_envs", type=int, default=64)
    parser.add_argument("--num_workers", type=int, default=2)
    print(json.dumps(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
