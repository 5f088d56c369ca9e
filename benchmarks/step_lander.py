"""Native LunarLander beside EnvPool's: steps per second under random actions and under a trained policy.

    python benchmarks/peers/setup_peers.py envpool
    python -m benchmarks.step_lander [--rounds N] [--seconds S]

A policy is trained first (PPO's preset, about half a minute) and flies both sides by the same few lines of NumPy. Only
stepping is timed. EnvPool's threads go on stepping while the policy acts where its batch is half of its rows: that is
in its favor. Each round measures every setting of both sides; a ratio is the median over rounds of the best of ours
over the best of theirs in that round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import shoal
from benchmarks import machine
from benchmarks.peers.flight import at_random, by_policy, time_flight
from benchmarks.peers.run_peers import measure
from shoal.envs.registry import make

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENV = "LunarLander-v3"
NUM_ENVS = 64
BAR = 1.4
RESULTS = Path(__file__).parent / "results" / "lander.json"
OURS = {"one thread": 1, "two threads": 2}
THEIRS: dict[str, list[str]] = {
    "one thread": ["lunarlander_flight_one_thread"],
    "two threads": ["lunarlander_flight", "lunarlander_flight_async"],
}


def train(path: Path) -> float:
    """Trains PPO's preset and leaves its actor in an .npz; returns the greedy return over 100 episodes."""
    with tempfile.TemporaryDirectory() as folder:
        result = shoal.train(ENV, seed=0, panel="none", run_dir=folder)
        actor: Any = shoal.load(result.path).policy.get_submodule("actor")
    arrays: dict[str, NDArray[np.float32]] = {}
    for index, layer in enumerate(actor[::2]):
        arrays[f"w{index}"], arrays[f"b{index}"] = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    np.savez(path, allow_pickle=False, **arrays)
    return float(result.greedy_return)


def fly(policy: Path | None, *, num_threads: int, seconds: float) -> dict[str, Any]:
    """Steps per second of native rows, and processor time."""
    with closing(make(ENV, NUM_ENVS, backend="native", num_threads=num_threads)) as env:
        env.reset(0)
        everything = slice(0, NUM_ENVS)

        def step(action: NDArray[np.int64]) -> NDArray[np.float32]:
            env.send(everything, action)
            obs: Any = env.recv().obs
            return obs

        first: Any = env.recv().obs
        choose = at_random(NUM_ENVS) if policy is None else by_policy(policy)
        return time_flight(first, step, choose, seconds=seconds)


def fly_envpool(task: str, policy: Path | None, *, seconds: float) -> dict[str, Any]:
    """The same of EnvPool; RuntimeError where it cannot run here."""
    record = measure("envpool", task, seconds=seconds, policy="" if policy is None else str(policy))
    if record["status"] != "ok":
        raise RuntimeError(f"EnvPool: {record['status']}: {record['error']}")
    return record


def compare(policy: Path | None, threads: str, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Rates and ratios of all rounds, with the settings that were best."""
    ours: list[dict[str, Any]] = []
    theirs: list[list[dict[str, Any]]] = []
    for _ in range(rounds):
        ours.append(fly(policy, num_threads=OURS[threads], seconds=seconds))
        theirs.append([fly_envpool(task, policy, seconds=seconds) for task in THEIRS[threads]])
    best = [max(records, key=lambda record: record["sps"]) for records in theirs]
    return {
        "ours": middle([record["sps"] for record in ours]),
        "theirs": middle([record["sps"] for record in best]),
        "ratio": middle([one["sps"] / other["sps"] for one, other in zip(ours, best, strict=True)]),
        "note": f"EnvPool 1.2.5, the better of {' and '.join(THEIRS[threads])}; {rounds} rounds of {NUM_ENVS} rows; "
        f"processor time of a step {middle([record['cpu_us'] for record in ours]):.1f} and "
        f"{middle([record['cpu_us'] for record in best]):.1f} us",
    }


def middle(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)


def main() -> None:
    """Trains, measures, prints, and writes the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy.npz"
        greedy = train(policy)
        for threads in OURS:
            for flown, given in (("random actions", None), (f"a policy with a return of {greedy:.0f}", policy)):
                compared = compare(given, threads, rounds=arguments.rounds, seconds=arguments.seconds)
                claim = f"stepping {ENV}, {flown}, {threads}"
                rows.append({"claim": claim, "bar": BAR, "unit": "steps/s", **compared})
                print(json.dumps(rows[-1]), flush=True)
    result = {"name": "lander", "date": time.strftime("%Y-%m-%d"), "machine": machine.describe()}
    RESULTS.write_text(json.dumps(result | {"versions": machine.versions(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
