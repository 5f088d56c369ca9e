"""shoal and its peers in one run: pairs alternate, medians are compared, both sides' settings are printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import learn, speed, step_serial
from benchmarks.limits import rounds
from benchmarks.peers.run_peers import measure
from shoal.nets.policy import Network

if TYPE_CHECKING:
    from collections.abc import Callable

    Row = dict[str, Any]
    MakeRow = Callable[..., Row]

ROUNDS = 5
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
    ("pufferlib", "cartpole_sps_lstm"),
    ("cleanrl", "cartpole_sps"),
)


def stepping_rows(row: MakeRow) -> list[Row]:
    """CartPole, 4,096 rows, random actions: shoal on one and two cores, PufferLib in process on one."""
    one: list[float] = []
    two: list[float] = []
    theirs: list[Row] = []
    for _ in range(3):
        one.append(speed.stepping("CartPole-v1"))
        theirs.append(measure("pufferlib", "cartpole_step_4096"))
        two.append(speed.stepping("CartPole-v1", num_threads=2))
    note = "PufferLib 3.0's C CartPole in process, one core; " + said(theirs)
    return [
        row("stepping CartPole, 4,096 rows, one core", middle(one), sps(theirs), "steps/s", note, bar=1.1),
        row("stepping CartPole, 4,096 rows, two cores", middle(two), sps(theirs), "steps/s", note, bar=2.0),
    ]


def serial_rows(row: MakeRow) -> list[Row]:
    """Python CartPole, 64 rows in `serial`, beside a bare loop over one."""
    result = step_serial.measure(pairs=9, num_envs=64)
    note = "a bare Gymnasium loop over one environment in the same process; medians of 9 alternating pairs"
    claim = "stepping Python CartPole in serial, 64 rows"
    return [row(claim, result["serial_steps_per_second"], result["bare_steps_per_second"], "steps/s", note, bar=0.9)]


def sb3_small_rows(row: MakeRow) -> list[Row]:
    """PPO on CartPole, two towers of 64x64, 4 epochs, 8 environments: shoal beside Stable-Baselines3."""

    def ours() -> float:
        run = speed.ppo(num_envs=8, num_steps=32, num_minibatches=1, num_threads=2, steps=500_000)
        return run["sps"]

    note = "Stable-Baselines3; both 32 steps a rollout, 4 epochs; shoal 2 threads"
    claim = "PPO on CartPole, 8 envs, minibatch 256"
    return [_pairs(row, claim, ours, "sb3", "cartpole_sps_8", note, bar=32.0)]


def sb3_best_rows(row: MakeRow) -> list[Row]:
    """The same work with the environments and the minibatch that suit Stable-Baselines3 best."""

    def ours() -> float:
        run = speed.ppo(num_envs=512, num_steps=32, num_minibatches=2, num_threads=2, steps=4_000_000)
        return run["sps"]

    note = "Stable-Baselines3 512 envs, minibatch 8,192, 2 threads; shoal the same"
    claim = "PPO on CartPole, each at its best"
    return [_pairs(row, claim, ours, "sb3", "cartpole_sps_best", note, bar=22.0)]


def lstm_rows(row: MakeRow) -> list[Row]:
    """PPO with an LSTM of 128 behind one layer of 128, one epoch: shoal beside PufferLib's LSTMWrapper."""
    settings: dict[str, Any] = {"num_envs": 1024, "num_steps": 64, "num_minibatches": 8, "update_epochs": 1}
    network = Network(hidden=(128,), recurrent="lstm", recurrent_size=128)

    def ours() -> float:
        return speed.ppo(**settings, num_threads=2, steps=1_000_000, network=network)["sps"]

    note = (
        "both 1,024 rows x 64 steps, 1 epoch, minibatch 8,192, Adam, 2 threads, a layer of 128, an LSTM of 128, linear "
        "heads; shoal tanh, memory kept from rollout to rollout and cleared at every end of an episode; PufferLib 3.0 "
        "GELU, its own C CartPole in process, memory cleared at the start of a rollout alone"
    )
    claim = "PPO on CartPole, LSTM 128, one epoch"
    return [_pairs(row, claim, ours, "pufferlib", "cartpole_sps_lstm", note, bar=1.5)]


def _pairs(
    row: MakeRow, claim: str, measure_ours: Callable[[], float], peer: str, task: str, note: str, *, bar: float
) -> Row:
    """Steps per second in turns: the medians of both, and in the note the ratio of each round."""
    ours: list[float] = []
    theirs: list[Row] = []
    for _ in range(ROUNDS):
        ours.append(measure_ours())
        theirs.append(measure(peer, task))
        print(f"{claim}: {ours[-1]:,.0f} beside {theirs[-1]['sps'] or 0:,.0f} steps/s", flush=True)
    pairs = zip(ours, theirs, strict=True)
    ratios = [rate / record["sps"] for rate, record in pairs if record["status"] == "ok"]
    parts = [note, said(theirs), rounds(ratios)]
    return row(claim, middle(ours), sps(theirs), "steps/s", "; ".join(filter(None, parts)), bar=bar)


def solve_rows(row: MakeRow) -> list[Row]:
    """Seconds of training to a confirmed greedy 475 of 500 on CartPole, 10 seeds."""
    rows: list[Row] = []
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


def alone_rows(row: MakeRow) -> list[Row]:
    """Each peer's own figures."""
    return [alone(row, *pair) for pair in ALONE]


def alone(row: MakeRow, peer: str, task: str) -> Row:
    """A peer's own figure."""
    record = measure(peer, task)
    settings = ", ".join(f"{k} {v}" for k, v in record["settings"].items())
    return row(f"{peer}: {task}", None, record["sps"], "steps/s", f"{settings}; {said([record])}")


def sps(records: list[Row]) -> float | None:
    """The median rate of the runs that worked."""
    good = [r["sps"] for r in records if r["status"] == "ok"]
    return middle(good) if good else None


def said(records: list[Row]) -> str:
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
