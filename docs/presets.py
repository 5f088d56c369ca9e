"""Writes docs/presets.md's tables and draws its pictures from benchmarks/results: a curve for each preset that has run.

.venv/bin/python docs/presets.py            # writes the page and docs/assets/presets-*.png
.venv/bin/python docs/presets.py --check    # exit status 1 where the page's tables are not those of the results
"""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from shoal.algos.presets import presets
from shoal.report.statistics import iqm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results"
PAGE, ASSETS = DOCS / "presets.md", DOCS / "assets"
MUJOCO = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5")
BUDGET = 1_000_000
"""Steps of a whole run on MuJoCo."""
PONG = "ALE/Pong-v5"
ALGORITHMS = ("ppo", "dqn")
"""Whose presets are shown."""
LIBRARIES = {"shoal": "shoal", "sb3": "Stable-Baselines3"}
NAMES = {"shoal.envs.noughts:Noughts": "shoal.envs.agents.tictactoe:TicTacToe"}
"""What environments were called when their results were taken."""
GROUPS = {
    "mujoco": MUJOCO,
    "minatar": ("MinAtar/",),
    "minigrid": ("MiniGrid-",),
    "games": ("shoal/", "ALE/", "mpe2.", "shoal.envs."),
    "control": ("",),
}
"""The pictures, and how the names of their environments begin; the first that fits."""


@dataclass(frozen=True, slots=True)
class Training:
    """One seed of one library and algorithm: its steps, seconds, curve and what its greedy episodes came to."""

    library: str
    algo: str
    env: str
    seed: int
    steps: int
    seconds: float
    cpu_seconds: float | None
    curve: list[tuple[float, float]]
    greedy: list[float]

    @property
    def whole(self) -> bool:
        """Whether it was not ended before its budget, where that is known."""
        return self.env not in MUJOCO or self.steps >= BUDGET


def rows() -> Iterator[dict[str, Any]]:
    """The rows of shoal's PPO and DQN in the results, oldest first, and the peer's on MuJoCo."""
    for name in ("learn", "spread", "self_play", "pong", "presets"):
        path = RESULTS / f"{name}.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            row = json.loads(line)
            row.setdefault("env", PONG)
            if row.setdefault("algo", "ppo") in ALGORITHMS:
                yield row


def points(curve: list[Any]) -> list[tuple[float, float]]:
    """Steps and mean returns, the first and the last column; none where a curve has no steps."""
    return [(float(p[0]), float(p[-1])) for p in curve if isinstance(p, list) and None not in p]


def trainings() -> list[Training]:
    """Each seed's last run."""
    found: dict[tuple[str, str, str, int], Training] = {}
    for row in rows():
        env = NAMES.get(row["env"], row["env"])
        greedy = row.get("greedy_returns", row.get("greedy_return"))
        if row["env"] == PONG:
            greedy = row["tries"][-1]["scores"]
        done = Training(
            library=row.get("library", "shoal"),
            algo=row["algo"],
            env=env,
            seed=row["seed"],
            steps=row["steps"],
            seconds=row["seconds"],
            cpu_seconds=row.get("cpu_seconds"),
            curve=points(row["curve"]),
            greedy=[greedy] if isinstance(greedy, float) else greedy or [],
        )
        found[done.library, done.algo, env, done.seed] = done
    return list(found.values())


def span(values: list[int]) -> str:
    """The least and the largest of numbers, or the one that they all are."""
    return f"{min(values):,}" if min(values) == max(values) else f"{min(values):,} to {max(values):,}"


def returns(runs: list[Training]) -> str:
    """The interquartile mean of all greedy episodes, and the mean of each seed."""
    if not all(run.greedy for run in runs):
        return "–"
    episodes = np.concatenate([run.greedy for run in runs])
    means = ", ".join(digits(mean(run.greedy)) for run in runs)
    return f"{digits(float(iqm(episodes)))} ({means})"


def digits(value: float) -> str:
    """A number with three digits or so."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def seconds(runs: list[Training]) -> tuple[str, str]:
    """Medians of the seconds on the clock and of the processor's."""
    spent = [run.cpu_seconds for run in runs if run.cpu_seconds is not None]
    return digits(median(run.seconds for run in runs)), digits(median(spent)) if spent else "–"


def environments(algo: str, preset: str, runs: list[Training]) -> list[str]:
    """The environments that have run with a preset of their own name or of their family's."""
    if not preset.endswith("*"):
        return [preset]
    others = [run.env for run in runs if run.env not in presets(algo)]
    return [env for env in dict.fromkeys(others) if env.startswith(preset[:-1])]


def is_environment(preset: str) -> bool:
    """Whether a preset has an environment's name or a family's, so that it is taken without being named."""
    return re.search(r"-v\d|[*:]", preset) is not None


def overview(algo: str, runs: list[Training]) -> list[str]:
    """A row for each environment with a preset of an algorithm; `runs` are of that."""
    lines = ["| preset | seeds | steps | seconds | greedy return |", "|---|---|---:|---:|---|"]
    for preset in filter(is_environment, presets(algo)):
        for env in environments(algo, preset, runs) or ["–"]:
            own = [run for run in runs if (run.env, run.library) == (env, "shoal")]
            seeds, steps, on_clock, greedy = "has not run", "–", "–", "–"
            if own:
                seeds, steps = (span([getattr(run, name) for run in own]) for name in ("seed", "steps"))
                (on_clock, _), greedy = seconds(own), returns(own)
            shown = f"`{preset}`" if env in (preset, "–") else f"`{preset}`: {env}"
            lines.append(f"| {shown} | {seeds} | {steps} | {on_clock} | {greedy} |")
    return lines


def beside(runs: list[Training]) -> list[str]:
    """A row for each library on each MuJoCo environment."""
    head = "| environment | library | seeds | steps | greedy return | seconds | processor | a step |"
    lines = [head, "|---|---|---|---:|---|---:|---:|---:|"]
    for env in MUJOCO:
        for library, title in LIBRARIES.items():
            own = [run for run in runs if (run.env, run.library) == (env, library)]
            if not own:
                lines.append(f"| {env} | {title} | has not run | – | – | – | – | – |")
                continue
            on_clock, spent = seconds(own)
            each = median(1e6 * (run.cpu_seconds or math.nan) / run.steps for run in own)
            seeds = ", ".join(f"{run.seed}{'' if run.whole else ' (ended early)'}" for run in own)
            steps = span([run.steps for run in own])
            lines.append(
                f"| {env} | {title} | {seeds} | {steps} | {returns(own)} | {on_clock} | {spent} | {each:,.0f} µs |"
            )
    return lines


def group_of(env: str) -> str:
    """The picture that an environment's curve is in."""
    return next(group for group, starts in GROUPS.items() if env.startswith(starts))


def short(env: str) -> str:
    """An environment's name without its function."""
    return env.partition(":")[0]


def draw(axes: Axes, env: str, runs: list[Training]) -> None:
    """Mean returns over steps: shoal's seeds in blue, the peer's in orange."""
    axes.set_title(short(env), fontsize="small")
    for run in runs:
        color = "C0" if run.library == "shoal" else "C1"
        steps, means = zip(*run.curve, strict=True) if run.curve else ((), ())
        first = next(other for other in runs if other.library == run.library) is run
        axes.plot(steps, means, color=color, linewidth=1, alpha=0.8, label=LIBRARIES[run.library] if first else None)
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize="x-small")
    axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 4))
    if {run.library for run in runs} - {"shoal"}:
        axes.legend(fontsize="x-small")


def pictures(runs: list[Training]) -> list[str]:
    """Draws a picture for each group that has runs; the lines that show them."""
    lines: list[str] = []
    for group in GROUPS:
        own = [run for run in runs if group_of(run.env) == group]
        lines += [*picture(group, own), ""] if any(run.curve for run in own) else []
    return lines[:-1]


def picture(name: str, runs: list[Training]) -> list[str]:
    """Draws a picture of all environments that have curves; the line that shows it."""
    envs = list(dict.fromkeys(run.env for run in runs if run.curve))
    columns = min(3, len(envs))
    deep = -(-len(envs) // columns)
    figure = Figure(figsize=(3.3 * columns, 2.4 * deep), layout="constrained")
    grid = figure.subplots(deep, columns, squeeze=False).ravel()
    for axes, env in zip(grid, envs, strict=False):
        draw(axes, env, [run for run in runs if run.env == env])
    for axes in grid[len(envs) :]:
        axes.set_axis_off()
    figure.savefig(ASSETS / f"presets-{name}.png", format="png", dpi=110, metadata={"Software": None})
    shown = ", ".join(map(short, envs))
    return [f"![Mean return of training over environment steps: {shown}](assets/presets-{name}.png)"]


def main() -> int:
    """Writes or checks the page; the exit status."""
    by_algo = {algo: [run for run in trainings() if run.algo == algo] for algo in ALGORITHMS}
    runs = by_algo["ppo"]
    blocks = {
        "overview": overview("ppo", runs),
        "beside": beside(runs),
        "dqn-overview": overview("dqn", by_algo["dqn"]),
    }
    checking = "--check" in sys.argv[1:]
    if not checking:
        blocks["curves"] = pictures(runs)
        blocks["dqn-curves"] = picture("dqn", by_algo["dqn"])
    text = updated = PAGE.read_text(encoding="utf-8")
    for name, lines in blocks.items():
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        block = "\n".join([start, "", *lines, "", end])
        updated = re.sub(f"{re.escape(start)}.*?{re.escape(end)}", lambda _, b=block: b, updated, flags=re.DOTALL)
    if checking and updated != text:
        print("docs/presets.md is not of the results; run python docs/presets.py")
        return 1
    PAGE.write_text(updated, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
