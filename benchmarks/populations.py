"""Does learning get steadier where agents share: m = 1, 2, 4, 9 agents on equal steps, updates and memory in all.

python -m benchmarks.populations                       five seeds of DQN on one memory, appended as each ends
python -m benchmarks.populations --memory private --seeds 0 1 --agents 4 9
python -m benchmarks.populations --algo sac            SAC on Pendulum-v1
python -m benchmarks.populations --algo ppo            PPO on LunarLander-v3: each agent learns from its own rows alone
python -m benchmarks.populations --summary             what the file holds; with --plot FILE.png also its picture

m agents divide 36 environments, `total_timesteps` steps, the updates that these allow (one of 64 transitions for every
8 steps, counted over all rows) and 36,000 transitions among them, shared by all or private. All explore alike, without
the ladder that agents of one memory have by default: returns are those of training. DQN has the settings of
benchmarks.deck. Of a run are kept, for each of 20 equal parts of its steps, the returns of the episodes that each agent
ended in it.

The summary takes the mean over agents of their mean returns in each part, and of the runs of each m: the interquartile
mean over seeds in the last fifth; the spread across seeds there, a standard deviation; the spread across time, the
standard deviation around a straight line over the last half, a mean over seeds. Where an agent ended no episode, its
mean goes straight on. A mean over m agents is steadier for that alone, so the last is given of single agents too.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import shoal
from benchmarks import deck, machine
from shoal.report.statistics import iqm

if TYPE_CHECKING:
    from shoal.types import Floats

RESULT = Path(__file__).parent / "results" / "populations.jsonl"
ROWS, MEMORY, PARTS = 36, 36_000, 20
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "dqn": deck.SETTINGS
    | {
        "env": "LunarLander-v3",
        "num_envs": ROWS,
        "replay": {"buffer_size": MEMORY, "learning_starts": 504, "samples_per_insert": 8},
        "target_update_interval": 6,
        "exploration_fraction": 0.1,
        "epsilon_end": 0.05,
        "total_timesteps": 300_000,
    },
    "sac": {
        "env": "Pendulum-v1",
        "num_envs": ROWS,
        "batch_size": 64,
        "network": {"hidden": (64, 64)},
        "replay": {"buffer_size": MEMORY, "learning_starts": 1_008, "samples_per_insert": 32},
        "total_timesteps": 43_200,
    },
    "ppo": {
        "env": "LunarLander-v3",
        "num_envs": ROWS,
        "num_steps": 128,
        "num_minibatches": ROWS,
        "update_epochs": 8,
        "learning_rate": 5e-4,
        "gae_lambda": 0.98,
        "gamma": 0.995,
        "ent_coef": 0.005,
        "reward_scale": 0.05,
        "network": {"activation": "tanh"},
        "total_timesteps": 304_128,
    },
}
"""With one agent; m agents of PPO have the same minibatches of 128 steps, each of its own rows."""


@dataclass(slots=True)
class Returns:
    """Sums and numbers of the returns of each agent's episodes, by part of the run."""

    agents: int
    steps: int
    sums: Floats = field(init=False)
    counts: Floats = field(init=False)

    def __post_init__(self) -> None:
        """Nothing yet."""
        self.sums, self.counts = np.zeros((PARTS, self.agents)), np.zeros((PARTS, self.agents))

    def __call__(self, run: Any, record: Any) -> None:
        """Counts an episode."""
        if hasattr(record, "episode_return"):
            part = min(record.step * PARTS // self.steps, PARTS - 1)
            agent = record.row * self.agents // ROWS
            self.sums[part, agent] += record.episode_return
            self.counts[part, agent] += 1

    def means(self) -> list[list[float | None]]:
        """[parts, agents]; None where an agent ended no episode."""
        pairs = zip(self.sums.tolist(), self.counts.tolist(), strict=True)
        return [[s / n if n else None for s, n in zip(*pair, strict=True)] for pair in pairs]


def train(algo: str, agents: int, memory: str, seed: int, steps: int) -> dict[str, Any]:
    """One run."""
    settings = dict(EXPERIMENTS[algo])
    env = settings.pop("env")
    settings["total_timesteps"] = steps
    if agents > 1:
        settings["population"] = {"memory": memory} if "replay" in settings else {}
        settings["agents"] = agents
        if "num_minibatches" in settings:
            settings["num_minibatches"] //= agents
        if "epsilon_end" in settings:
            ends = ",".join([str(settings["epsilon_end"])] * agents)
            settings["population"] |= {"vary": (f"epsilon_end={ends}",)}
    watch = Returns(agents, steps)
    with tempfile.TemporaryDirectory() as folder:
        cpu = time.process_time()
        run = shoal.train(env, algo=algo, seed=seed, panel="none", preset="none", run_dir=folder, stop_at=math.inf,
                          final_episodes=0, num_threads=1, callbacks=[watch], **settings)  # fmt: skip
        cpu = time.process_time() - cpu
        lines = (run.path / "metrics.jsonl").read_text().splitlines()
    return {"algo": algo, "env": env, "agents": agents, "memory": memory, "seed": seed, "steps": run.steps,
            "updates": int(json.loads(lines[-1])["update"]), "cpu_seconds": cpu, "returns": watch.means()}  # fmt: skip


def filled(returns: list[list[float | None]]) -> Floats:
    """[parts, agents]: where an agent ended no episode, as in the part before; the first parts as their next."""
    array = np.array(returns, np.float64)
    for column in array.T:
        known = np.flatnonzero(~np.isnan(column))
        if not len(known):
            raise SystemExit("an agent ended no episode: --steps must be more")
        column[:] = np.interp(np.arange(len(column)), known, column[known])
    return array


def around_a_line(curve: Floats) -> float:
    """The standard deviation of a curve around its straight line."""
    x = np.arange(len(curve))
    return float((curve - np.polyval(np.polyfit(x, curve, 1), x)).std())


def numbers_of(runs: list[Floats]) -> dict[str, float]:
    """The summary of the runs [parts, agents] of one m."""
    means = np.stack([run.mean(axis=1) for run in runs])
    last, half = means[:, -PARTS // 5 :].mean(axis=1), PARTS // 2
    return {
        "seeds": len(runs),
        "iqm": float(iqm(last)),
        "across_seeds": float(last.std(ddof=1)) if len(runs) > 1 else math.nan,
        "across_time": float(np.mean([around_a_line(curve[half:]) for curve in means])),
        "across_time_of_one": float(np.mean([around_a_line(own[half:]) for run in runs for own in run.T])),
        "across_agents": float(np.mean([run[-PARTS // 5 :].mean(axis=0).std() for run in runs])),
    }


def read(path: Path) -> dict[tuple[str, str, int], list[Floats]]:
    """The runs of a file by algorithm, memory and m; of runs of equal settings and seed the last."""
    found: dict[tuple[str, str, int, int], Floats] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        found[row["algo"], row["memory"], row["agents"], row["seed"]] = filled(row["returns"])
    groups: dict[tuple[str, str, int], list[Floats]] = {}
    for (algo, memory, agents, _), returns in sorted(found.items()):
        groups.setdefault((algo, memory, agents), []).append(returns)
    return groups


def plot(groups: dict[tuple[str, str, int], list[Floats]], algo: str, path: Path) -> None:
    """The curves of each m, a line for each seed and a thick one for their interquartile mean."""
    memories = sorted({memory for name, memory, agents in groups if name == algo and agents > 1})
    counts = sorted({agents for name, _, agents in groups if name == algo})
    figure = Figure(figsize=(2.8 * len(counts), 2.6 * len(memories) + 0.4), layout="constrained")
    axes = figure.subplots(len(memories), len(counts), sharey=True, squeeze=False)
    steps = (np.arange(PARTS) + 0.5) / PARTS
    for across, memory in zip(axes, memories, strict=True):
        for one, agents in zip(across, counts, strict=True):
            runs = groups.get((algo, memory, agents)) or groups.get((algo, "shared", agents), [])
            curves = [run.mean(axis=1) for run in runs]
            for curve in curves:
                one.plot(steps, curve, linewidth=0.8, alpha=0.5)
            if curves:
                one.plot(steps, iqm(np.stack(curves)), color="black", linewidth=2)
            one.set_title("1 agent" if agents == 1 else f"{agents} agents, {memory} memory", fontsize="small")
            one.grid(alpha=0.3)
            one.set_xlabel("share of all steps", fontsize="small")
        across[0].set_ylabel("mean return of the agents", fontsize="small")
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def main() -> None:
    """Runs, or sums up, what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", choices=list(EXPERIMENTS), default="dqn")
    parser.add_argument("--memory", choices=["shared", "private"], default="shared")
    parser.add_argument("--agents", type=int, nargs="+", default=[1, 2, 4, 9])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    if not options.summary:
        steps = options.steps or EXPERIMENTS[options.algo]["total_timesteps"]
        for seed in options.seeds:
            for agents in options.agents:
                row = train(options.algo, agents, options.memory, seed, steps)
                with options.out.open("a") as file:
                    row |= {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe()}
                    file.write(json.dumps(row) + "\n")
                print({name: row[name] for name in ("agents", "seed", "steps", "updates", "cpu_seconds")}, flush=True)
    groups = read(options.out)
    for (algo, memory, agents), runs in groups.items():
        numbers = {name: round(value, 1) for name, value in numbers_of(runs).items()}
        print(algo, "-" if agents == 1 else memory, f"m={agents}", numbers)
    if options.plot:
        plot(groups, options.algo, options.plot)


if __name__ == "__main__":
    main()
