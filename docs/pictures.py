"""Draws the pictures of the README from benchmarks/results/: learning curves, and seconds of training beside peers.

    .venv/bin/python docs/pictures.py    # draws docs/assets/*.png and names them in README.md and docs/benchmarks.md
    .venv/bin/python docs/pictures.py runs/CartPole-v1 --threshold 475 --out curve.png    # curves of run directories

Read are `*.json` and `*.jsonl`, also in folders below. A row of shoal's, as benchmarks/learn.py writes it, holds
{"claim", "seed", "seconds", "reached", "greedy_return", "curve": [[step, return], ...]}; of rows with one claim and
seed the last counts. A peer's record, as benchmarks/peers/run_peers.py writes it, holds {"peer", "task", "seeds":
[{"seed", "seconds", "solved"}, ...]}.
A picture whose rows are not there is not drawn and not named.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parents[1]
RESULTS, ASSETS = ROOT / "benchmarks" / "results", ROOT / "docs" / "assets"
START, END = "<!-- pictures:start -->", "<!-- pictures:end -->"
README, PAGE = ROOT / "README.md", ROOT / "docs" / "benchmarks.md"
PEERS = {
    "sb3": "Stable-Baselines3",
    "pufferlib": "PufferLib\n(its own CartPole:\n200 steps)",
    "cleanrl": "CleanRL",
    "sample_factory": "Sample Factory",
}
ALT = {
    "cartpole.png": "PPO on CartPole-v1: mean return over environment steps, and seconds of training of each library",
    "lunarlander.png": "PPO on LunarLander-v3: mean return over environment steps for each seed",
}


@dataclass(frozen=True, slots=True)
class Training:
    """One seed of one library: its curve, and the seconds until its goal was confirmed (None: never)."""

    who: str
    seed: int
    curve: list[tuple[float, float]]
    seconds: float | None
    greedy_return: float | None = None


@dataclass(slots=True)
class Findings:
    """What the results hold: shoal's trainings by claim, the peers' by task."""

    claims: dict[str, dict[int, Training]] = field(default_factory=dict)
    tasks: dict[str, list[Training]] = field(default_factory=dict)


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object inside `value`, outermost first."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            if isinstance(part, dict | list):
                yield from objects(part)


def read_documents(folder: Path) -> Iterator[Any]:
    """The JSON documents of a folder, oldest file name first; ValueError names a file that is none."""
    for path in sorted([*folder.rglob("*.json"), *folder.rglob("*.jsonl")]):
        text = path.read_text(encoding="utf-8")
        try:
            yield from [json.loads(text)] if path.suffix == ".json" else map(json.loads, text.splitlines())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: {error}") from error


def collect(documents: Iterable[Any]) -> Findings:
    """Sorts rows into shoal's and the peers'."""
    found = Findings()
    for row in (row for document in documents for row in objects(document)):
        if "claim" in row and "curve" in row:
            if any(len(point) != 2 for point in row["curve"]):
                continue  # another benchmark's, with more numbers to a point
            seconds = row["seconds"] if row.get("reached", True) else None
            done = Training("shoal", row["seed"], points(row["curve"]), seconds, row.get("greedy_return"))
            found.claims.setdefault(row["claim"], {})[row["seed"]] = done
        elif "peer" in row and isinstance(row.get("seeds"), list):
            who = PEERS.get(str(row["peer"]), str(row["peer"]))
            theirs = [Training(who, s["seed"], [], s["seconds"] if s.get("solved") else None) for s in row["seeds"]]
            others = [t for t in found.tasks.get(row["task"], []) if t.who != who]
            found.tasks[row["task"]] = others + theirs
    return found


def points(pairs: Iterable[Any]) -> list[tuple[float, float]]:
    """Steps and returns, without those that have no return yet."""
    return [(float(step), float(value)) for step, value in pairs if value is not None]


def draw_curves(axes: Axes, trainings: list[Training], threshold: float) -> None:
    """Mean returns over steps, a line for each seed; the threshold is dashed."""
    for training in trainings:
        label = f"seed {training.seed}"
        if training.greedy_return is not None:
            label += f": greedy {training.greedy_return:.0f}"
        steps, returns = [p[0] for p in training.curve], [p[1] for p in training.curve]
        axes.plot(steps, returns, label=label, alpha=0.8, linewidth=1.2)
    axes.axhline(threshold, color="gray", linestyle="--", linewidth=0.8)
    axes.set(xlabel="environment steps", ylabel="mean return of the last 100 episodes")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def draw_seconds(axes: Axes, trainings: list[Training]) -> None:
    """A dot for each seed that reached its goal, a bar at the median, on a logarithmic axis."""
    names = list(dict.fromkeys(training.who for training in trainings))
    labels: list[str] = []
    for at, name in enumerate(names):
        own = [training for training in trainings if training.who == name]
        reached = [training.seconds for training in own if training.seconds is not None]
        labels.append(f"{name}\n{len(reached)} of {len(own)} seeds")
        axes.scatter([at] * len(reached), reached, s=18, alpha=0.7)
        if reached:
            axes.hlines(median(reached), at - 0.25, at + 0.25, color="black")
            axes.annotate(f"{median(reached):.2g} s", (at + 0.28, median(reached)), va="center", fontsize="small")
    axes.set_xticks(range(len(names)), labels)
    axes.set(yscale="log", ylabel="seconds of training to the goal", xlim=(-0.6, len(names) - 0.2))
    axes.grid(axis="y", alpha=0.3)


def draw_cartpole(found: Findings) -> Figure | None:
    """Learning curves of shoal's seeds and the seconds to the goal beside the peers'."""
    own = [training for _, training in sorted(found.claims.get("cartpole", {}).items())]
    if not own:
        return None
    peers = found.tasks.get("cartpole_solve", [])
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set_title(f"CartPole-v1, PPO, {len(own)} seeds")
    draw_curves(left, own, 475.0)
    draw_seconds(right, own + peers)
    return figure


def draw_lunarlander(found: Findings) -> Figure | None:
    """A learning curve for each of shoal's seeds."""
    own = [training for _, training in sorted(found.claims.get("lunarlander", {}).items())]
    if not own:
        return None
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_title("LunarLander-v3, PPO")
    draw_curves(axes, own, 200.0)
    return figure


def read_runs(folder: Path) -> list[Training]:
    """The curves of the run directories at and below `folder`."""
    found: list[Training] = []
    for path in sorted(folder.glob("**/metrics.jsonl")):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        status_file = path.with_name("run.json")
        status = json.loads(status_file.read_text(encoding="utf-8")) if status_file.exists() else {}
        curve = points((line["step"], line.get("episode/return")) for line in lines)
        if curve:
            seed = int(status.get("seed", len(found)))
            found.append(Training(str(path.parent), seed, curve, status.get("seconds"), status.get("greedy_return")))
    return found


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG."""
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=130, metadata={"Software": None})
    print(path)


def name_pictures(drawn: list[str]) -> None:
    """Names the pictures between the marks of each page; the README shows the first alone."""
    for page, prefix, names in ((README, "docs/assets/", drawn[:1]), (PAGE, "assets/", drawn)):
        text = page.read_text(encoding="utf-8")
        before, _, rest = text.partition(START)
        _, mark, after = rest.partition(END)
        if mark:
            lines = "".join(f"\n![{ALT[name]}]({prefix}{name})\n" for name in names)
            page.write_text(before + START + "\n" + (f"{lines}\n" if lines else "") + END + after, encoding="utf-8")


def main() -> None:
    """Draws what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", type=Path, help="a run directory, or a folder of them")
    parser.add_argument("--threshold", type=float, default=0.0, help="the dashed line of a picture of runs")
    parser.add_argument("--out", type=Path, default=Path("curves.png"), help="the picture of runs")
    options = parser.parse_args()
    if options.runs is not None:
        trainings = read_runs(options.runs)
        if not trainings:
            sys.exit(f"no metrics below {options.runs}")
        figure = Figure(figsize=(7, 4), layout="constrained")
        draw_curves(figure.subplots(), trainings, options.threshold)
        save(figure, options.out)
        return
    found = collect(read_documents(RESULTS))
    figures = {"cartpole.png": draw_cartpole(found), "lunarlander.png": draw_lunarlander(found)}
    for name, figure in figures.items():
        if figure is not None:
            save(figure, ASSETS / name)
    name_pictures([name for name, figure in figures.items() if figure is not None])


if __name__ == "__main__":
    main()
