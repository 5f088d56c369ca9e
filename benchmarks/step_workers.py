"""Python environments in `workers` beside Gymnasium's own ways to step them: environment steps per second, as JSON.

    python -m benchmarks.step_workers [--rounds N] [--num_envs N] [--num_workers N] [--no-own_cores]

CartPole: 64 rows in 2 worker processes, against `SyncVectorEnv` and `AsyncVectorEnv` of as many environments.
LunarLander: the same rows against a bare loop over one `gymnasium.make`, reset where episodes end. Actions are drawn
beforehand. The rows are stepped in three ways: all of them in each send (`workers`), two halves under way as the
schedule overlap has them (`halves`), and each worker's rows whenever they are done (`batches`, with `batch_rows`).

All sides run in one process, one after the other in rounds; a ratio is the median over the rounds. Prints and writes
benchmarks/results/step_workers.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from benchmarks import machine
from benchmarks.__main__ import row, write
from shoal.envs.registry import make
from shoal.envs.workers.settings import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.envs.vec_env import VecEnv

    Actions = np.ndarray[Any, np.dtype[np.int64]]
    Side = tuple[Callable[[], None], int]

STEPS = 16_384
OURS = ("workers", "halves", "batches")
BARS = {"sync": 1.3, "async": 8.0, "bare": 1.6}
BESIDE = {"sync": "SyncVectorEnv", "async": "AsyncVectorEnv", "bare": "one bare loop"}


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


def compare(env_id: str, sides: dict[str, Side], rounds: int, note: str) -> list[dict[str, Any]]:
    """Steps per second of each side, each of OURS beside each of the others."""
    for run, _ in sides.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (run, num_steps) in sides.items():
            begun = time.perf_counter()
            run()
            rates[name].append(num_steps / (time.perf_counter() - begun))
    rows: list[dict[str, Any]] = []
    for own in OURS:
        for name in [name for name in sides if name in BARS]:
            ratio = statistics.median(one / other for one, other in zip(rates[own], rates[name], strict=True))
            speed, other = (round(statistics.median(rates[side])) for side in (own, name))
            claim = f"{env_id}, {own}, beside {BESIDE[name]}"
            found = row(claim, speed, other, "steps/s", note, bar=BARS[name])
            rows.append(found | {"ratio": round(ratio, 3)})
    return rows


def ours(held: ExitStack, env_id: str, actions: Actions, settings: dict[str, Any]) -> dict[str, Side]:
    """The three ways to step the rows of one environment."""
    num_envs, num_workers = actions.shape[1], settings["num_workers"]
    sides: dict[str, Side] = {}
    for name, parts, batch_rows in zip(OURS, (1, 2, num_workers), (0, 0, num_envs // num_workers), strict=True):
        workers = Workers(batch_rows=batch_rows, **settings)
        rows = held.enter_context(closing(make(env_id, num_envs, backend="workers", workers=workers)))
        sides[name] = worker_rows(rows, actions, parts), actions.size
    return sides


def measure(*, rounds: int, num_envs: int, **settings: Any) -> list[dict[str, Any]]:
    """Both comparisons."""
    rng = np.random.default_rng(0)
    note = f"{num_envs} rows, {settings['num_workers']} workers; median of {rounds} rounds"
    with ExitStack() as held:
        two, four = (rng.integers(0, most, (STEPS // num_envs, num_envs)) for most in (2, 4))
        makers = [lambda: gymnasium.make("CartPole-v1")] * num_envs
        sync: Any = held.enter_context(closing(SyncVectorEnv(makers)))
        forked: Any = held.enter_context(closing(AsyncVectorEnv(makers)))
        lander: Any = held.enter_context(closing(gymnasium.make("LunarLander-v3")))
        short = two[: len(two) // 8]
        vectors: dict[str, Side] = {
            "sync": (vector(sync, two), two.size),
            "async": (vector(forked, short), short.size),
        }
        bare: dict[str, Side] = {"bare": (bare_loop(lander, four.ravel().tolist()), four.size)}
        pole = ours(held, "CartPole-v1", two, settings)
        found = compare("CartPole-v1", pole | vectors, rounds, note)
        return found + compare("LunarLander-v3", ours(held, "LunarLander-v3", four, settings) | bare, rounds, note)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--num_envs", type=int, default=64)
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--own_cores", action=argparse.BooleanOptionalAction, default=True)
    rows = measure(**vars(parser.parse_args()))
    write("step_workers", rows, {"machine": machine.describe(), "versions": machine.versions()})


if __name__ == "__main__":
    main()
