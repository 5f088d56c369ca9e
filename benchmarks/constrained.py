"""Do costs stay under their limit where plain PPO's do not: on the Crossing, at equal steps.

python -m benchmarks.constrained                       every arm, five seeds, appended to the results
python -m benchmarks.constrained --seeds 0 --arms ppo
python -m benchmarks.constrained --summary --plot      what the file holds, and docs/assets/constrained.png

The Crossing (shoal.envs.costs.crossing) is a point that goes from goal to goal; the straight way leads through a disc
in which every step costs 1. An episode may cost 5 on average. Arms are plain PPO, and PPO under a limit of 5, and of 4:
a multiplier brings costs to its limit on average, so that it stays under 5 in every stretch with a margin only.
Settings are the same but for that. Of a run are kept the mean return and the mean cost of the episodes that ended in
each of 25 equal parts of its steps, as they were while it trained, with the actions that it drew. The summary gives,
over seeds, the mean return and the mean cost of the last fifth, the largest mean cost of a seed there, and in how many
parts of it a seed was above 5.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import shoal
from benchmarks import machine

RESULT = Path(__file__).parent / "results" / "constrained.jsonl"
PICTURE = Path(__file__).parents[1] / "docs" / "assets" / "constrained.png"
ENV = "shoal.envs.costs.crossing:Crossing"
LIMIT, PARTS, STEPS = 5.0, 25, 600_000
SAME: dict[str, Any] = {
    "num_envs": 32,
    "num_steps": 128,
    "num_minibatches": 8,
    "update_epochs": 4,
    "learning_rate": 3e-4,
    "preprocessing": {"cost_key": "cost"},
    "num_threads": 1,
    "final_episodes": 0,
    "panel": "none",
    "stop_at": math.inf,
}
ARMS: dict[str, dict[str, Any]] = {
    "ppo": {"algo": "ppo"},
    "limit 5": {"algo": "ppo_lagrangian", "cost_limit": 5.0},
    "limit 4": {"algo": "ppo_lagrangian", "cost_limit": 4.0},
}


class Curves:
    """Returns and costs of episodes by part of the run."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.found: list[list[tuple[float, float]]] = [[] for _ in range(PARTS)]

    def __call__(self, run: Any, record: Any) -> None:
        """Keeps an episode."""
        if hasattr(record, "episode_return"):
            part = min(record.step * PARTS // self.steps, PARTS - 1)
            self.found[part].append((record.episode_return, record.info["cost"]))

    def means(self) -> list[list[float]]:
        """The mean return and the mean cost of each part."""
        return [np.mean(part, axis=0).tolist() for part in self.found]


def train(arm: str, seed: int, steps: int) -> dict[str, Any]:
    """One run."""
    curves = Curves(steps)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        settings: dict[str, Any] = SAME | ARMS[arm] | {"run_dir": folder, "seed": seed, "total_timesteps": steps}
        shoal.train(ENV, callbacks=[curves], **settings)
        seconds = time.perf_counter() - begun
    returns, costs = zip(*curves.means(), strict=True)
    return {"arm": arm, "seed": seed, "steps": steps, "seconds": seconds, "returns": returns, "costs": costs}


def read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of a file by arm; of rows of one seed and equal steps the last."""
    found: dict[tuple[str, int, int], dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        found[row["arm"], row["steps"], row["seed"]] = row
    groups: dict[str, list[dict[str, Any]]] = {}
    for (arm, _, _), row in sorted(found.items()):
        groups.setdefault(arm, []).append(row)
    return groups


def table(groups: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A line of Markdown for each arm."""
    lines = [f"| | seeds | return | cost (may be {LIMIT:g}) | costliest seed | parts above |", "|---|" + "---:|" * 5]
    for arm, rows in groups.items():
        last = PARTS // 5
        returns = np.array([row["returns"] for row in rows])[:, -last:]
        costs = np.array([row["costs"] for row in rows])[:, -last:]
        cells = [arm, str(len(rows)), f"{returns.mean():.1f}", f"{costs.mean():.2f}", f"{costs.mean(1).max():.2f}"]
        lines.append(f"| {' | '.join(cells)} | {(costs > LIMIT).sum()} of {costs.size} |")
    return lines


def plot(groups: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Costs and returns over steps: means over seeds, and all between the least and the greatest."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for arm, rows in groups.items():
        steps = (np.arange(PARTS) + 0.5) / PARTS * rows[0]["steps"] / 1000
        for axes, name in ((left, "costs"), (right, "returns")):
            curves = np.array([row[name] for row in rows])
            (line,) = axes.plot(steps, curves.mean(0), label=arm)
            axes.fill_between(steps, curves.min(0), curves.max(0), alpha=0.15, color=line.get_color())
    left.axhline(LIMIT, color="black", linestyle="--", linewidth=1, label=f"may cost {LIMIT:g}")
    left.set_ylabel("cost of an episode")
    right.set_ylabel("return of an episode")
    left.legend(fontsize="small")
    for axes in (left, right):
        axes.set_xlabel("environment steps, in thousands")
        axes.grid(alpha=0.3)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def main() -> None:
    """Runs, or sums up, what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", choices=list(ARMS), nargs="+", default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--plot", type=Path, nargs="?", const=PICTURE)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    pairs = [] if options.summary else [(arm, seed) for seed in options.seeds for arm in options.arms]
    for arm, seed in pairs:
        row = train(arm, seed, options.steps)
        with options.out.open("a") as file:
            about = {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe()}
            file.write(json.dumps(row | about) + "\n")
        print({name: row[name] for name in ("arm", "seed", "seconds")}, row["costs"][-3:], flush=True)
    groups = read(options.out)
    print("\n".join(table(groups)))
    if options.plot:
        plot(groups, options.plot)


if __name__ == "__main__":
    main()
