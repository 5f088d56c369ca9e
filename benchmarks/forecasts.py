"""How often a forecast to the threshold holds: recorded runs are cut where a part of the way to it is over.

    python -m benchmarks.forecasts [FOLDER OF RUNS]

Without a folder: the healthy runs that the tests of `shoal doctor` keep. Of runs that never reached their threshold the
return is taken that has nine tenths of what they gained.
"""

from __future__ import annotations

import sys
from collections import Counter
from math import inf, isfinite
from pathlib import Path

import numpy as np

from shoal.report.cost.forecast import forecast
from shoal.run.directory import RunDirectory, list_runs
from shoal.run.records import Line, read_metrics

KEPT = Path(__file__).parents[1] / "tests" / "report" / "doctor" / "runs"
SHARES = (0.3, 0.5, 0.7, 0.9)
FEW = 15


def points_of(run: RunDirectory) -> list[Line]:
    """The lines that have a return and a time."""
    lines = read_metrics(run.metrics).lines
    return [line for line in lines if None not in (line.get("episode/return"), line.get("time/elapsed"))]


def threshold_of(run: RunDirectory, returns: np.ndarray) -> float:
    """What the run reached."""
    threshold = run.read_status().get("threshold")
    if threshold is None or not isfinite(threshold) or returns.max() < threshold:
        return float(returns[0] + 0.9 * (returns.max() - returns[0]))
    return float(threshold)


def judged(run: RunDirectory) -> list[tuple[float, str, float]]:
    """Of each cut: the share of the way, what became of the forecast, and the time that it took by what was likely."""
    lines = points_of(run)
    if len(lines) < FEW:
        return []
    returns = np.array([line["episode/return"] for line in lines])
    time_s = np.array([line["time/elapsed"] for line in lines])
    threshold = threshold_of(run, returns)
    reached = int(np.argmax(returns >= threshold))
    if reached < FEW:
        return []
    found: list[tuple[float, str, float]] = []
    for share in SHARES:
        count = int(np.searchsorted(time_s, time_s[reached] * share))
        said = forecast(lines[:count], threshold, int(lines[-1]["step"]))
        if said is None or said.likely_s == inf:
            found.append((share, "none", inf))
            continue
        true_s = float(time_s[reached] - time_s[count - 1])
        place = "inside" if said.soonest_s <= true_s <= said.latest_s else "outside"
        found.append((share, place, true_s / max(said.likely_s, 1e-9)))
    return found


def main(arguments: list[str]) -> None:
    """Prints a line for each share of the way, and one for all."""
    folder = Path(arguments[0]) if arguments else KEPT
    runs = list_runs(folder)
    if not arguments:
        runs = [run for run in runs if "healthy" in run.path.name]
    every = [one for run in runs for one in judged(run)]
    for share in (*SHARES, None):
        own = [one for one in every if share in (one[0], None)]
        counts = Counter(place for _, place, _ in own)
        ratios = [ratio for _, place, ratio in own if place != "none"]
        said = "-" if not ratios else f"{np.median(ratios):.2f}"
        name = "all" if share is None else f"{share:.0%} of the way"
        print(
            f"{name:>14}: {counts['inside']} inside the range, {counts['outside']} outside, {counts['none']} without a "
            f"forecast; time taken / likely, median {said}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
