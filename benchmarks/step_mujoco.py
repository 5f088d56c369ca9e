"""What a step of Gymnasium's MuJoCo environments costs: in a bare loop over Gymnasium's own, and in shoal's rows.

python -m benchmarks.step_mujoco                       all four, 4 rows, by 1 and 2 threads
python -m benchmarks.step_mujoco Ant-v5 --threads 1 2 4 --rows 16

Both do the same work, bit for bit. Each figure is the median of turns in which all take part one after another.
Processor time counts all threads and does not change with what else the machine does; seconds on the clock do.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from benchmarks import machine
from shoal.envs.registry import make

if TYPE_CHECKING:
    from collections.abc import Callable

ENVS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5")


def alone(env_id: str, rows: int) -> Callable[[Any], None]:
    """A step of Gymnasium's own environments, as many as there are rows, without any wrapper."""
    envs: list[Any] = [gym.make(env_id).unwrapped for _ in range(rows)]
    for row, env in enumerate(envs):
        env.reset(seed=row)
    lengths = [0] * rows

    def step(actions: Any) -> None:
        for row, env in enumerate(envs):
            _, _, terminated, _, _ = env.step(actions[row])
            lengths[row] += 1
            if terminated or lengths[row] == 1000:
                env.reset()
                lengths[row] = 0

    return step


def batched(env_id: str, rows: int, backend: str, threads: int) -> Callable[[Any], None]:
    """A step of shoal's rows."""
    env = make(env_id, rows, backend=backend, num_threads=threads)
    env.reset(0)
    env.recv()
    everything = slice(0, rows)

    def step(actions: Any) -> None:
        env.send(everything, actions)
        env.recv()

    return step


def measure(env_id: str, rows: int, threads: list[int], steps: int, turns: int) -> dict[str, tuple[float, float]]:
    """Microseconds a row's step: of the processor, and on the clock."""
    sides = {"gymnasium, a bare loop": alone(env_id, rows), "serial": batched(env_id, rows, "serial", 1)}
    for count in threads:
        sides[f"mujoco, {count} threads"] = batched(env_id, rows, "mujoco", count)
    space: Any = gym.make(env_id).action_space
    rng = np.random.default_rng(0)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(turns):
        actions = rng.uniform(space.low, space.high, (steps, rows, *space.shape)).astype(np.float32)
        for name, step in sides.items():
            begun, clock = time.process_time(), time.perf_counter()
            for action in actions:
                step(action)
            spent = time.process_time() - begun, time.perf_counter() - clock
            found[name].append((spent[0] / (steps * rows) * 1e6, spent[1] / (steps * rows) * 1e6))
    return {
        name: (statistics.median(cpu for cpu, _ in turns), statistics.median(clock for _, clock in turns))
        for name, turns in found.items()
    }


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("envs", nargs="*", default=ENVS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--steps", type=int, default=500, help="of each turn")
    parser.add_argument("--turns", type=int, default=7)
    given = parser.parse_args()
    print(machine.describe())
    for env_id in given.envs:
        found = measure(env_id, given.rows, given.threads, given.steps, given.turns)
        for name, (cpu, clock) in found.items():
            print(f"{env_id:16} {name:24} {cpu:7.1f} us of the processor {clock:7.1f} us on the clock")


if __name__ == "__main__":
    main()
