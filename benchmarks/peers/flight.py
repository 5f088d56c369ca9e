"""Flying a lander under a policy of plain NumPy, timed without the policy: the same work on both sides.

This runs inside a peer's virtual environment too, so it needs nothing but NumPy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Obs = NDArray[np.float32]
Choose = Callable[[Obs], NDArray[np.int64]]
ACTION_SETS = 256


def at_random(num_rows: int) -> Choose:
    """A function that gives one of the sets of random actions drawn beforehand."""
    sets = np.random.default_rng(0).integers(0, 4, (ACTION_SETS, num_rows))
    tick = 0

    def choose(_: Obs) -> NDArray[np.int64]:
        nonlocal tick
        tick += 1
        return sets[tick % ACTION_SETS]

    return choose


def by_policy(path: str | Path) -> Choose:
    """The likeliest action of the network in an .npz: weights w0, w1, ... and biases b0, b1, ..., tanh between."""
    with np.load(path) as file:
        layers = [(file[f"w{i}"], file[f"b{i}"]) for i in range(len(file.files) // 2)]

    def choose(obs: Obs) -> NDArray[np.int64]:
        x: Any = obs
        for weight, bias in layers[:-1]:
            x = np.tanh(x @ weight.T + bias)
        weight, bias = layers[-1]
        return (x @ weight.T + bias).argmax(axis=-1)

    return choose


def time_flight(
    first: Obs, step: Callable[[NDArray[np.int64]], Obs], choose: Choose, *, seconds: float, warmup_steps: int = 300
) -> dict[str, Any]:
    """Steps a second while `step` runs, over `seconds` of it. `step` returns the observations to act on next.

    `cpu_us` is the processor time of a step, of all threads, in microseconds: it shows more than the rate where others
    use the machine. The warm-up is long enough for rows to stand in all phases of a flight.
    """
    obs, count, spent, cpu, calls = first, 0, 0.0, 0.0, 0
    while spent < seconds:
        action = choose(obs)
        cpu_begun, begun = time.process_time(), time.perf_counter()
        obs = step(action)
        taken, cpu_taken = time.perf_counter() - begun, time.process_time() - cpu_begun
        calls += 1
        if calls > warmup_steps:
            count, spent, cpu = count + len(obs), spent + taken, cpu + cpu_taken
    return {"steps": count, "seconds": spent, "sps": count / spent, "cpu_us": 1e6 * cpu / count}
