"""shoal and its peers in one run: pairs alternate, medians are compared, both sides' settings are printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import learn, speed, step_serial
from benchmarks.peers.run_peers import measure

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeRow = Callable[..., dict[str, Any]]

ROUNDS = 3
PEER_RECORDS = Path(__file__).parent / "results" / "peers"
SEEDS = list(range(10))
ALONE = (
    ("gymnasium", "cartpole_single"),
    ("gymnasium", "cartpole_sync"),
    ("gymnasium", "cartpole_async"),
    ("gymnasium", "cartpole_numpy"),
    ("gymnasium", "lunarlander_single"),
    ("gymnasium", "lunarlander_sync"),
    ("gymnasium", "lunarlander_async"),
    ("envpool", "cartpole_sync_best"),
    ("envpool", "cartpole_async"),
    ("envpool", "lunarlander_sync"),
    ("envpool", "lunarlander_async"),
    ("sample_factory", "cartpole_sps"),
    ("pufferlib", "cartpole_sps"),
    ("pufferlib", "cartpole_sps_4_epochs"),
    ("cleanrl", "cartpole_sps"),
)


def peer_rows(row: MakeRow) -> list[dict[str, Any]]:
    """Every claim beside a peer, then each peer's own figures."""
    claims = [*stepping_rows(row), serial_row(row), *ppo_rows(row), *solve_rows(row)]
    return [*claims, *(alone(row, *pair) for pair in ALONE)]


def stepping_rows(row: MakeRow) -> list[dict[str, Any]]:
    """CartPole, 4,096 rows, random actions: shoal on one and two cores, PufferLib in process on one."""
    one: list[float] = []
    two: list[float] = []
    theirs: list[dict[str, Any]] = []
    for _ in range(ROUNDS):
        one.append(speed.stepping("CartPole-v1"))
        theirs.append(measure("pufferlib", "cartpole_step_4096"))
        two.append(speed.stepping("CartPole-v1", num_threads=2))
    note = "PufferLib 3.0's C CartPole in process, one core; " + said(theirs)
    return [
        row("stepping CartPole, 4,096 rows, one core", middle(one), sps(theirs), "steps/s", note, bar=1.1),
        row("stepping CartPole, 4,096 rows, two cores", middle(two), sps(theirs), "steps/s", note, bar=2.0),
    ]


def serial_row(row: MakeRow) -> dict[str, Any]:
    """Python CartPole, 64 rows in `serial`, beside a bare loop over one."""
    result = step_serial.measure(pairs=9, num_envs=64)
    note = "a bare Gymnasium loop over one environment in the same process; medians of 9 alternating pairs"
    claim = "stepping Python CartPole in serial, 64 rows"
    return row(claim, result["serial_steps_per_second"], result["bare_steps_per_second"], "steps/s", note, bar=0.9)


def ppo_rows(row: MakeRow) -> list[dict[str, Any]]:
    """PPO on CartPole, two towers of 64x64, 4 epochs: shoal beside Stable-Baselines3, the same work on both sides."""
    small: list[dict[str, Any]] = []
    large: list[dict[str, Any]] = []
    small_sb3: list[dict[str, Any]] = []
    large_sb3: list[dict[str, Any]] = []
    for _ in range(ROUNDS):
        small.append(speed.ppo(num_envs=8, num_steps=32, num_minibatches=1, num_threads=2, steps=500_000))
        small_sb3.append(measure("sb3", "cartpole_sps_8"))
        large.append(speed.ppo(num_envs=512, num_steps=32, num_minibatches=2, num_threads=2, steps=4_000_000))
        large_sb3.append(measure("sb3", "cartpole_sps_best"))
    return [
        row(
            "PPO on CartPole, 8 envs, minibatch 256",
            middle([r["sps"] for r in small]),
            sps(small_sb3),
            "steps/s",
            f"Stable-Baselines3; both 32 steps a rollout, 4 epochs; shoal 2 threads; {said(small_sb3)}",
            bar=15.0,
        ),
        row(
            "PPO on CartPole, each at its best",
            middle([r["sps"] for r in large]),
            sps(large_sb3),
            "steps/s",
            f"Stable-Baselines3 512 envs, minibatch 8,192, 2 threads; shoal the same; {said(large_sb3)}",
            bar=3.0,
        ),
    ]


def solve_rows(row: MakeRow) -> list[dict[str, Any]]:
    """Seconds of training to a confirmed greedy 475 of 500 on CartPole, 10 seeds."""
    rows: list[dict[str, Any]] = []
    ours = [learn.measure("cartpole", "CartPole-v1", "ppo", seed) for seed in SEEDS]
    seconds = middle([r["seconds"] for r in ours])
    reached = sum(r["reached"] for r in ours)
    for peer, name in (("sb3", "Stable-Baselines3"), ("pufferlib", "PufferLib 3.0 (episodes of 200, bar 190)")):
        theirs = measure(peer, "cartpole_solve", timeout_s=900, seeds=SEEDS)
        PEER_RECORDS.mkdir(exist_ok=True)
        (PEER_RECORDS / f"{peer}_cartpole_solve.json").write_text(json.dumps(theirs, indent=1) + "\n")
        runs = theirs.get("seeds", [])
        other = middle([r["seconds"] for r in runs]) if runs else None
        solved = sum(r["solved"] for r in runs)
        note = f"{name}; medians of 10 seeds; reached: {reached} of 10, {solved} of {len(runs)}; {said([theirs])}"
        rows.append(row("seconds of training to 475 on CartPole", seconds, other, "s", note))
    return rows


def alone(row: MakeRow, peer: str, task: str) -> dict[str, Any]:
    """A peer's own figure."""
    record = measure(peer, task)
    settings = ", ".join(f"{k} {v}" for k, v in record["settings"].items())
    return row(f"{peer}: {task}", None, record["sps"], "steps/s", f"{settings}; {said([record])}")


def sps(records: list[dict[str, Any]]) -> float | None:
    """The median rate of the runs that worked."""
    good = [r["sps"] for r in records if r["status"] == "ok"]
    return middle(good) if good else None


def said(records: list[dict[str, Any]]) -> str:
    """What is to be known of a peer's runs: whether they worked, and whether they were slower than expected."""
    last = records[-1]
    if last["status"] != "ok":
        return f"{last['status']}: {last['error'].splitlines()[0]}"
    if all(r["suspect"] for r in records):
        return f"suspect: below 80 % of {last['expected_sps']:,}, reached on another kind of CPU (Zen 5)"
    return "as expected" if last["expected_sps"] else "no figure to expect"


def middle(values: list[float]) -> float:
    """The median."""
    return float(np.median(values))
