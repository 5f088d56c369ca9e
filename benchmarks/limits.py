"""What shoal reaches of the machine's own limit: both in turns, so that a slow minute of the host slows both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import machine, speed

if TYPE_CHECKING:
    from collections.abc import Callable

    Row = dict[str, Any]
    MakeRow = Callable[..., Row]

ROUNDS = 5
FORWARD = speed.forward_flops()
NOTE = "beside the multiply-adds it needs at the peak of the cores used, measured before and after it"


def in_turns(
    claim: str, measure: Callable[[], float], *, flops: float, num_threads: int = 1
) -> tuple[float, float, list[float]]:
    """Medians of the rate and of its limit, and the ratio of each round.

    A round is the limit, the rate and the limit again, the limit on `num_threads` cores at the same time. `flops` are
    the operations of one unit.
    """
    ours: list[float] = []
    limits: list[float] = []
    for _ in range(ROUNDS):
        before = machine.fma_gflops(num_threads)
        ours.append(measure())
        limits.append((before + machine.fma_gflops(num_threads)) / 2 * 1e9 / flops)
        print(f"{claim}: {ours[-1]:,.0f} beside a limit of {limits[-1]:,.0f} a second", flush=True)
    ratios = [a / b for a, b in zip(ours, limits, strict=True)]
    return float(np.median(ours)), float(np.median(limits)), ratios


def rounds(ratios: list[float]) -> str:
    """The ratios of the rounds, to stand in a note; nothing where there are none."""
    return "rounds " + " ".join(f"{ratio:.3g}" for ratio in ratios) if ratios else ""


def peak_rows(row: MakeRow) -> list[Row]:
    """The limit itself."""
    note = f"the machine's limit: median of {machine.TIMINGS}"
    one, two = machine.fma_gflops(), machine.fma_gflops(2)
    return [
        row("multiply-adds, one core", one, None, "GFLOP/s", note),
        row("multiply-adds, two cores", two, one, "GFLOP/s", "at the same time; beside one core"),
    ]


def acting_rows(row: MakeRow) -> list[Row]:
    """Forward, sample, log-probability and value of the 64x64 policy."""
    return [
        _row(row, "acting, 64x64, 1,024 rows, 1 thread", "actions/s", speed.acting, flops=FORWARD),
        _row(row, "acting, 64x64, 8 rows, 1 thread", "actions/s", lambda: speed.acting(num_envs=8), flops=FORWARD),
    ]


def learning_rows(row: MakeRow) -> list[Row]:
    """Gradient, clipping and Adam of the 64x64 policy: a backward costs two forwards."""

    def one(minibatch: int, num_threads: int) -> Row:
        return _row(
            row,
            f"learning, minibatch {minibatch:,}, {num_threads} thread{'s' if num_threads > 1 else ''}",
            "samples/s",
            lambda: speed.learning(minibatch=minibatch, num_threads=num_threads),
            flops=3 * FORWARD,
            num_threads=num_threads,
        )

    return [one(256, 1), one(256, 2), one(8192, 2)]


def whole_rows(row: MakeRow) -> list[Row]:
    """All of PPO: a step is acted once and learned from 4 times."""

    def whole() -> float:
        run = speed.ppo(num_envs=1024, num_steps=128, num_minibatches=16, num_threads=2, steps=2_000_000)
        return run["sps"]

    claim = "PPO on CartPole, the whole, 2 threads"
    text = "1,024 rows x 128 steps, minibatch 8,192, 4 epochs; "
    return [_row(row, claim, "steps/s", whole, flops=13 * FORWARD, num_threads=2, bar=0.60, text=text)]


def _row(
    row: MakeRow,
    claim: str,
    unit: str,
    measure: Callable[[], float],
    *,
    flops: float,
    num_threads: int = 1,
    bar: float | None = None,
    text: str = "",
) -> Row:
    ours, limit, ratios = in_turns(claim, measure, flops=flops, num_threads=num_threads)
    note = f"{text}{NOTE}; {rounds(ratios)}"
    return row(claim, ours, limit, unit, note, ratio=float(np.median(ratios)), bar=bar)
