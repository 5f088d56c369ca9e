"""What does learning from older weights cost: PPO and IMPALA at equal steps, with and without their corrections.

python -m benchmarks.staleness                         every arm on CartPole and LunarLander, five seeds, appended
python -m benchmarks.staleness --env CartPole-v1 --arms ppo impala --staleness 0 4 --seeds 0 1
python -m benchmarks.staleness --summary               what the file holds; with --plot also docs/assets/staleness.png
python -m benchmarks.staleness --steps 8000 --seeds 0 --out some.jsonl    to see that it works

An arm is an algorithm with a way of correcting what older weights chose: PPO's own ratio (`ppo`), the decoupled
objective (`ppo decoupled`), V-trace (`impala`), and both taking all steps for those of the weights that learn (`ppo,
nothing corrected`, `impala, nothing corrected`). `--staleness k` is `schedule="async", max_staleness=k` with two
actors; the actors of k > 0 run ahead as far as they may, so that nearly all is learned k rollouts late. With k = 0 it
is `sync`, bit for bit. Settings are the presets', the same for every k, but for PPO on LunarLander: the preset's
rollouts of 16 x 256 steps are cut to 16 x 128, with minibatches of the same size, so that data is less old in steps,
and the network has tanh; IMPALA's on CartPole is `small-rollouts`. A run goes on to the end of its steps whatever it
reaches, and the same number of rollouts is learned from; only the guard may end it before.

Of a run are kept the mean return of the episodes that ended in each of 20 equal parts of its steps, the greedy mean of
100 episodes at the end, and the mean staleness that was measured. The summary gives, for each arm and k, the
interquartile mean over seeds of the returns in the last fifth, what share of the same arm's with k = 0 it is, and that
of the greedy returns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import shoal
from benchmarks import machine
from shoal.algos import ppo
from shoal.learn.current import current
from shoal.report.statistics import iqm
from shoal.run.log import read as read_lines

if TYPE_CHECKING:
    from shoal.learn.learner import Learner
    from shoal.types import Floats, Steps

RESULT = Path(__file__).parent / "results" / "staleness.jsonl"
PICTURE = Path(__file__).parents[1] / "docs" / "assets" / "staleness.png"
PARTS, ACTORS, GREEDY = 20, 2, 100
ARMS: dict[str, dict[str, Any]] = {
    "ppo": {"algo": "ppo"},
    "ppo decoupled": {"algo": "ppo", "decoupled_clip": 2.0},
    "ppo, nothing corrected": {"algo": "ppo"},
    "impala": {"algo": "impala"},
    "impala, nothing corrected": {"algo": "impala", "corrected": False},
}
STEPS = {"CartPole-v1": 300_000, "LunarLander-v3": 1_000_000}

OWN: dict[tuple[str, str], dict[str, Any]] = {
    ("ppo", "LunarLander-v3"): {"num_steps": 128, "num_minibatches": 8, "network": {"activation": "tanh"}},
    ("impala", "CartPole-v1"): {"preset": "small-rollouts"},
}
"""What an algorithm has on an environment in the place of its preset's."""


def as_if_fresh(learner: Learner, steps: Steps, *, most: float | None) -> Steps:
    """A rollout as if the learner's weights had chosen it, in the place of what PPO asks for: its ratios begin at 1."""
    return replace(steps, log_prob=current(learner, steps).log_prob)


def uncorrected(arm: str) -> contextlib.AbstractContextManager[object]:
    """In which PPO corrects nothing, where the arm says so; IMPALA has a setting for that."""
    if arm != "ppo, nothing corrected":
        return contextlib.nullcontext()
    return mock.patch.object(ppo, "with_proximal_policy", as_if_fresh)


@dataclass(slots=True)
class Returns:
    """Sums and numbers of the returns of episodes, by part of the run."""

    steps: int
    sums: Floats = field(default_factory=lambda: np.zeros(PARTS))
    counts: Floats = field(default_factory=lambda: np.zeros(PARTS))

    def __call__(self, run: Any, record: Any) -> None:
        """Counts an episode."""
        if hasattr(record, "episode_return"):
            part = min(record.step * PARTS // self.steps, PARTS - 1)
            self.sums[part] += record.episode_return
            self.counts[part] += 1

    def means(self) -> list[float | None]:
        """Of each part; None where no episode ended."""
        pairs = zip(self.sums.tolist(), self.counts.tolist(), strict=True)
        return [s / n if n else None for s, n in pairs]


def train(arm: str, env: str, staleness: int, seed: int, steps: int) -> dict[str, Any]:
    """One run."""
    settings = ARMS[arm] | OWN.get((ARMS[arm]["algo"], env), {})
    watch = Returns(steps)
    with tempfile.TemporaryDirectory() as folder, uncorrected(arm):
        begun = time.perf_counter()
        run = shoal.train(env, seed=seed, panel="none", run_dir=folder, stop_at=math.inf, final_episodes=GREEDY,
                          num_threads=1, actors=ACTORS, schedule="async", max_staleness=staleness,
                          total_timesteps=steps, callbacks=[watch], **settings)  # fmt: skip
        seconds = time.perf_counter() - begun
        lines = list(read_lines(run.path / "metrics.jsonl"))
    late = [line["actors/staleness"] for line in lines if "actors/staleness" in line]
    most = [line["actors/staleness_max"] for line in lines if "actors/staleness_max" in line]
    return {"arm": arm, "env": env, "max_staleness": staleness, "seed": seed, "settings": settings, "steps": run.steps,
            "seconds": seconds,
            "staleness": float(np.mean(late)) if late else 0.0, "staleness_max": max(most, default=0),
            "greedy_return": run.greedy_return, "returns": watch.means()}  # fmt: skip


def filled(returns: list[float | None]) -> Floats:
    """[parts]: where no episode ended, straight on from the part before, or the first as the next."""
    array = np.array(returns, np.float64)
    known = np.flatnonzero(~np.isnan(array))
    if not len(known):
        raise SystemExit("a run ended no episode: --steps must be more")
    return np.interp(np.arange(len(array)), known, array[known])


Runs = dict[tuple[str, str, int], list[dict[str, Any]]]


def read(path: Path) -> Runs:
    """The rows of a file by environment, arm and staleness, of each seed the last: its steps may differ.

    The guard may end a run before its last step.
    """
    found: dict[tuple[str, str, int, int], dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        found[row["env"], row["arm"], row["max_staleness"], row["seed"]] = row
    groups: Runs = {}
    for (env, arm, staleness, _), row in sorted(found.items()):
        groups.setdefault((env, arm, staleness), []).append(row)
    return groups


def last_fifth(rows: list[dict[str, Any]]) -> float:
    """The interquartile mean over seeds of the mean returns there."""
    curves = np.stack([filled(row["returns"]) for row in rows])
    return float(iqm(curves[:, -PARTS // 5 :].mean(axis=1)))


def table(groups: Runs) -> list[str]:
    """A line of Markdown for each environment, arm and staleness."""
    lines = ["| environment | arm | k | measured | seeds | last fifth | of k = 0 | greedy |", "|---|---|" + "---:|" * 6]
    for (env, arm, staleness), rows in groups.items():
        now, fresh = last_fifth(rows), groups.get((env, arm, 0))
        share = f"{now / last_fifth(fresh):.0%}" if fresh else "–"
        greedy = float(iqm(np.array([row["greedy_return"] for row in rows])))
        late = float(np.mean([row["staleness"] for row in rows]))
        cells = [env, arm, str(staleness), f"{late:.2f}", str(len(rows)), f"{now:.1f}", share, f"{greedy:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def plot(groups: Runs, path: Path) -> None:
    """A row for each environment, a column for each arm: curves of each staleness, over seeds."""
    envs = sorted({env for env, _, _ in groups})
    arms = [arm for arm in ARMS if any(arm == other for _, other, _ in groups)]
    colors = {k: f"C{number}" for number, k in enumerate(sorted({k for _, _, k in groups}))}
    figure = Figure(figsize=(3.0 * len(arms), 2.6 * len(envs)), layout="constrained")
    axes = figure.subplots(len(envs), len(arms), sharey="row", squeeze=False)
    for across, env in zip(axes, envs, strict=True):
        for one, arm in zip(across, arms, strict=True):
            for staleness in sorted({k for e, a, k in groups if (e, a) == (env, arm)}):
                rows = groups[env, arm, staleness]
                curves = np.stack([filled(row["returns"]) for row in rows])
                steps = (np.arange(PARTS) + 0.5) / PARTS * max(row["steps"] for row in rows)
                thousands = steps / 1000
                color = colors[staleness]
                one.plot(thousands, iqm(curves), label=f"k = {staleness}", color=color)
                one.fill_between(thousands, curves.min(axis=0), curves.max(axis=0), alpha=0.12, color=color)
            one.set_title(f"{env}: {arm}", fontsize="small")
            one.set_xlabel("thousand environment steps", fontsize="small")
            one.grid(alpha=0.3)
            one.set_visible(any((e, a) == (env, arm) for e, a, _ in groups))
        across[0].set_ylabel("mean return", fontsize="small")
        across[0].legend(fontsize="x-small")
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def measure(options: argparse.Namespace) -> None:
    """Every run that the command line names, appended as it ends; seeds in the outermost loop."""
    for seed in options.seeds:
        for env in options.env:
            for arm in options.arms:
                for staleness in options.staleness:
                    row = train(arm, env, staleness, seed, options.steps or STEPS[env])
                    with options.out.open("a") as file:
                        row |= {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe()}
                        file.write(json.dumps(row) + "\n")
                    told = ("env", "arm", "max_staleness", "seed", "staleness", "greedy_return", "seconds")
                    print({name: row[name] for name in told}, flush=True)


def main() -> None:
    """Runs, or sums up, what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", choices=list(STEPS), nargs="+", default=list(STEPS))
    parser.add_argument("--arms", choices=list(ARMS), nargs="+", default=list(ARMS))
    parser.add_argument("--staleness", type=int, nargs="+", default=[0, 1, 4, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--plot", type=Path, nargs="?", const=PICTURE)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if not options.summary:
        measure(options)
    groups = {group: rows for group, rows in read(options.out).items() if group[0] in options.env}
    print("\n".join(table(groups)))
    if options.plot:
        plot(groups, options.plot)


if __name__ == "__main__":
    main()
