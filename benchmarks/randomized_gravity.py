"""LunarLander under gravities that a policy was and was not trained for: randomized gravity against a fixed one.

python -m benchmarks.randomized_gravity              seeds 0 to 4; appends to results/randomized_gravity.jsonl
python -m benchmarks.randomized_gravity --seeds 100  another seed
python -m benchmarks.randomized_gravity --seeds      only sums up what stands there, in randomized_gravity.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import shoal
from benchmarks import machine

RESULTS = Path(__file__).parent / "results"
ENV = "LunarLander-v3"
DRAWN = "uniform:-15,-4"
LOW, HIGH = -14.0, -4.0
GRID = (-14.0, -13.0, -12.0, -11.0, -10.0, -9.0, -8.0, -7.0, -6.0, -5.0, -4.0)
BAR = 200.0
EPISODES = 100
ARMS: dict[str, dict[str, Any]] = {
    "fixed": {},
    "randomized": {"gravity": DRAWN},
}
"""What differs between the two; the settings are the preset's for both. Without a range, gravity is always -10.

The range that is drawn from is a little wider than the one that is tested: at its very ends a policy sees few episodes.
"""
SETTINGS: dict[str, Any] = {"total_timesteps": 1_000_000, "stop_at": float("inf")}


def measure(arm: str, seed: int) -> dict[str, Any]:
    """One training, and the greedy return under each gravity of the grid."""
    with tempfile.TemporaryDirectory() as folder:
        result = shoal.train(ENV, seed=seed, panel="none", run_dir=folder, env_kwargs=ARMS[arm], **SETTINGS)
        returns: dict[str, float] = {}
        for gravity in GRID:
            loaded = shoal.load(result.path, env_kwargs={"gravity": shoal.Choice((gravity,))})
            returns[str(gravity)] = round(loaded.evaluate(episodes=EPISODES, seed=seed + 1000).mean, 2)
    return {
        "arm": arm,
        "seed": seed,
        "steps": result.steps,
        "seconds": round(result.seconds, 2),
        "returns": returns,
        "least": min(returns.values()),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "versions": machine.versions(),
    }


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The results file: the least return of each seed, and the mean over seeds under each gravity."""
    least = {arm: [line["least"] for line in lines if line["arm"] == arm] for arm in ARMS}
    note = "; ".join(
        f"{arm}: {', '.join(f'{value:.1f}' for value in values)}, "
        f"{sum(value >= BAR for value in values)} of {len(values)} seeds keep {BAR:g} everywhere"
        for arm, values in least.items()
    )
    means = {arm: float(np.mean(values)) for arm, values in least.items()}
    rows = [_row(f"least return under gravity {LOW:g} to {HIGH:g}, trained with {DRAWN} beside -10 alone", means, note)]
    for gravity in map(str, GRID):
        found = {arm: [line["returns"][gravity] for line in lines if line["arm"] == arm] for arm in ARMS}
        means = {arm: float(np.mean(values)) for arm, values in found.items()}
        note = "; ".join(f"{arm}: {min(values):.1f} to {max(values):.1f}" for arm, values in found.items())
        rows.append(_row(f"return under gravity {gravity}", means, note))
    info = {"machine": machine.describe(), "versions": machine.versions()}
    return {"name": "randomized gravity", "date": lines[-1]["date"], **info, "rows": rows}


def _row(what: str, means: dict[str, float], note: str) -> dict[str, Any]:
    """One claim: with randomization, and beside it without."""
    figures = {"ours": round(means["randomized"], 1), "theirs": round(means["fixed"], 1), "ratio": None, "bar": None}
    return {"claim": f"{ENV}, {what}", **figures, "unit": "", "note": note}


def main() -> None:
    """Trains and evaluates both arms of each seed, and sums up all that was ever run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)))
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--out", type=Path, default=RESULTS / "randomized_gravity.jsonl")
    options = parser.parse_args()
    for seed in options.seeds:
        for arm in options.arms:
            line = measure(arm, seed)
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print({k: v for k, v in line.items() if k not in ("machine", "versions")}, flush=True)
    lines = [json.loads(line) for line in options.out.read_text().splitlines()]
    if {line["arm"] for line in lines} == set(ARMS):
        result = summary(lines)
        options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        print(result["rows"][0]["note"])


if __name__ == "__main__":
    main()
