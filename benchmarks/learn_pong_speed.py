"""PPO on Pong with NatureCNN: steps per second of shoal beside Stable-Baselines3, in one run.

    python -m benchmarks.learn_pong_speed [--pairs N] [--steps N]

Both sides: 8 environments x 128 steps, 4 minibatches of 256, 4 epochs, the same network, all cores.
shoal runs its preset for Pong, which normalizes images place by place, where the peer scales them by 1/255; its layers
compute in bfloat16 unless --precision says float32, its weights are float32. The sides alternate; what is claimed is
the ratio of the medians. Writes benchmarks/results/pong_learn_speed.json. The peer runs in its own virtual environment
(benchmarks/peers/setup_peers.py sb3).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.peers.run_peers import measure as peer
from shoal.algos import ppo
from shoal.algos.presets import preset
from shoal.experiment.experiment import Experiment
from shoal.experiment.session import opened
from shoal.report.panel import Silent
from shoal.run import directory
from shoal.run.log import read
from shoal.stream.meter import cores

RESULT = Path(__file__).parent / "results" / "pong_learn_speed.json"
BAR = 2.0
ENV_ID = "ALE/Pong-v5"
WARM_UP = 2048
SETTINGS = {"num_envs": 8, "num_steps": 128, "num_minibatches": 4, "update_epochs": 4}


def shoal_rate(steps: int, precision: str) -> float:
    """Steps per second of a run after its first two updates: logging and checkpoints included."""
    settings: dict[str, Any] = preset("ppo", None, ENV_ID) | SETTINGS | {"total_timesteps": steps + WARM_UP}
    settings["network"] = {**settings["network"], "precision": precision}
    with tempfile.TemporaryDirectory() as folder:
        given = settings | {"stop_at": math.inf, "run_dir": folder}
        experiment = Experiment.new(ENV_ID, settings=given)
        where = directory.create(Path(folder), env=ENV_ID, algo="ppo", seed=1, name=None, config=experiment.to_file())
        with (
            closing(experiment.rows(experiment.options.num_envs)) as rows,
            opened(experiment, rows, where, Silent(), callbacks=(), fresh=True, report=False) as run,
        ):
            ppo.train(experiment.config, rows, run)
        lines = read(where.metrics)
    warm = next(line for line in lines if line["step"] >= WARM_UP)
    return (lines[-1]["step"] - warm["step"]) / (lines[-1]["time/elapsed"] - warm["time/elapsed"])


def sb3_rate(steps: int) -> float | None:
    """The peer's; None where it is not available."""
    record = peer("sb3", "pong_sps", timeout_s=600, steps=steps)
    if record["status"] != "ok":
        print(f"sb3: {record['status']}: {record['error'].splitlines()[-1]}", flush=True)
        return None
    return record["sps"]


def measure(*, pairs: int, steps: int, precision: str) -> dict[str, Any]:
    """Medians over alternating runs, and their ratio."""
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(pairs):
        ours.append(shoal_rate(steps, precision))
        theirs.append(sb3_rate(steps) or math.nan)
        print(f"shoal {ours[-1]:.0f}, sb3 {theirs[-1]:.0f} steps/s", flush=True)
    mine, other = statistics.median(ours), statistics.median(theirs)
    runs = ", ".join(f"{a:.0f} and {b:.0f}" for a, b in zip(ours, theirs, strict=True))
    row = {
        "claim": "PPO on Pong, NatureCNN, 4 epochs",
        "ours": round(mine),
        "theirs": None if math.isnan(other) else round(other),
        "ratio": None if math.isnan(other) else round(mine / other, 3),
        "bar": BAR,
        "unit": "steps/s",
        "note": f"Stable-Baselines3; both 8 environments x 128 steps, minibatch 256, {cores()} threads; shoal's "
        f"layers in {precision}, images normalized; medians of {pairs} alternating runs of {steps:,} steps: {runs}",
    }
    return {
        "name": "pong_learn_speed",
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "rows": [row],
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=16_384)
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    result = measure(**vars(parser.parse_args()))
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
