"""Python environments in `workers` beside Gymnasium's own ways to step them: environment steps per second, as JSON.

    python -m benchmarks.step_workers [--rounds N] [--num_envs N] [--num_workers N]

CartPole: 64 rows in 2 worker processes, against `SyncVectorEnv` and `AsyncVectorEnv` of as many environments.
LunarLander: the same rows against a bare loop over one `gymnasium.make`, reset where episodes end. Actions are drawn
beforehand. The rows are stepped in three ways: all of them in each send (`workers`), two halves under way as the
schedule overlap has them (`halves`), and each worker's rows whenever they are done (`batches`, with `batch_rows`).

All sides run in one process, one after the other in rounds; a ratio is the median over the rounds. Prints and writes
benchmarks/results/step_workers.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import ExitStack, closing
from pathlib import Path
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

RESULT = Path(__file__).parent / "results" / "step_workers.json"
STEPS = 16_384
OURS = ("workers", "halves", "batches")
BARS = {"sync": 1.3, "async": 8.0, "bare": 1.6}


def worker_rows(rows: VecEnv, actions: Actions, parts: int = 1) -> Callable[[], None]:
    """A function that takes the actions [T, B] in B rows, with as many sends under way as there are parts."""
    rows.reset(0)
    rows.recv()
    size = rows.num_rows // parts
    slices = [slice(first, first + size) for first in range(0, rows.num_rows, size)]

    def run() -> None:
        for part in slices:
            rows.send(part, actions[0, part])
        for action in actions[1:]:
            for _ in slices:
                part = rows.recv().rows
                rows.send(part, action[part])
        for _ in slices:
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
    """Steps per second of each side, and how many times those of OURS are of each other's."""
    for run, _ in sides.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (run, num_steps) in sides.items():
            begun = time.perf_counter()
            run()
            rates[name].append(num_steps / (time.perf_counter() - begun))
    result: dict[str, Any] = {f"{name}_steps_per_second": round(statistics.median(rates[name])) for name in sides}
    for name in sides:
        if name in BARS:
            result[f"bar_to_{name}"] = BARS[name]
            for own in OURS:
                ratios = [one / other for one, other in zip(rates[own], rates[name], strict=True)]
                result[f"{own}_to_{name}"] = round(statistics.median(ratios), 3)
    return result


def measure(*, rounds: int, num_envs: int, num_workers: int) -> dict[str, Any]:
    """Both comparisons."""
    rng = np.random.default_rng(0)
    result: dict[str, Any] = {"num_envs": num_envs, "num_workers": num_workers, "rounds": rounds}
    with ExitStack() as held:

        def ours(env_id: str, actions: Actions) -> dict[str, tuple[Callable[[], None], int]]:
            sides: dict[str, tuple[Callable[[], None], int]] = {}
            for name, (parts, batch_rows) in zip(
                OURS, ((1, 0), (2, 0), (num_workers, num_envs // num_workers)), strict=True
            ):
                settings = Workers(num_workers, batch_rows=batch_rows)
                rows = held.enter_context(closing(make(env_id, num_envs, backend="workers", workers=settings)))
                sides[name] = worker_rows(rows, actions, parts), actions.size
            return sides

        two = rng.integers(0, 2, (STEPS // num_envs, num_envs))
        makers = [lambda: gymnasium.make("CartPole-v1")] * num_envs
        sync: Any = held.enter_context(closing(SyncVectorEnv(makers)))
        forked: Any = held.enter_context(closing(AsyncVectorEnv(makers)))
        short = two[: len(two) // 8]
        result["CartPole-v1"] = compare(
            ours("CartPole-v1", two)
            | {"sync": (vector(sync, two), two.size), "async": (vector(forked, short), short.size)},
            rounds,
        )
        four = rng.integers(0, 4, (STEPS // num_envs, num_envs))
        lander: Any = held.enter_context(closing(gymnasium.make("LunarLander-v3")))
        result["LunarLander-v3"] = compare(
            ours("LunarLander-v3", four) | {"bare": (bare_loop(lander, four.ravel().tolist()), four.size)},
            rounds,
        )
    return result


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--num_envs", type=int, default=64)
    parser.add_argument("--num_workers", type=int, default=2)
    result = measure(**vars(parser.parse_args()))
    print(json.dumps(result))
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
