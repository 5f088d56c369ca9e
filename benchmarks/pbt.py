"""Population-based training of learning rate and gamma, from bad starting values, beside the same agents without it.

python -m benchmarks.pbt                 seeds 0 to 4, all arms; appended to benchmarks/results/pbt.jsonl as each ends
python -m benchmarks.pbt --seeds 100     another seed
python -m benchmarks.pbt --seeds         only sums up what stands there

Eight agents learn Acrobot-v1 by PPO, each from a learning rate and a gamma of its own, drawn log-uniformly from 1e-6 to
1e-2 and uniformly from 0.5 to 0.999; most are bad. The arms begin with the same values and weights:

- pbt: the agents are compared every 40,000 steps of training, and the comparisons' episodes are no such steps;
- without: nobody copies; as many steps of training;
- longer: nobody copies; as many steps more as the comparisons took, which is the fair price.

When a run is over, every agent plays 100 greedy episodes that nothing was chosen by. The best agent is the one that the
run kept, by other episodes. Settings were chosen on seed 100.
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

import shoal
from benchmarks import machine
from shoal.report.lineage import takeovers_of
from shoal.report.statistics import iqm
from shoal.run import checkpoint
from shoal.run.log import read

RESULT = Path(__file__).parent / "results" / "pbt.jsonl"
ENV, EPISODES, STEPS = "Acrobot-v1", 100, 400_000
SETTINGS: dict[str, Any] = {
    "algo": "ppo",
    "preset": "none",
    "agents": 8,
    "num_envs": 64,
    "num_steps": 64,
    "num_minibatches": 4,
    "update_epochs": 4,
    "ent_coef": 0.01,
    "gae_lambda": 0.95,
    "network": {"hidden": (64, 64), "normalize_obs": True},
    "num_threads": 1,
    "stop_at": math.inf,
    "final_episodes": 1,
}
VARY = ("learning_rate=loguniform(1e-6,1e-2)", "gamma=uniform(0.5,0.999)")
POPULATION: dict[str, Any] = {"vary": VARY, "evaluation_episodes": 10}
ARMS: dict[str, dict[str, Any]] = {"pbt": {"exploit_interval": 40_000}, "without": {}, "longer": {}}


def measure(arm: str, seed: int, steps: int) -> dict[str, Any]:
    """One training, and the greedy returns of all of its agents."""
    population = POPULATION | ARMS[arm]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        result = shoal.train(
            ENV, seed=seed, panel="none", run_dir=folder, population=population, total_timesteps=steps, **SETTINGS
        )
        seconds = time.process_time() - begun
        lines = read(result.path / "metrics.jsonl")
        returns = play_all(result.path, seed)
    agents = {name: round(value, 2) for name, value in returns.items()}
    return {
        "arm": arm,
        "seed": seed,
        "steps": result.steps,
        "comparison_steps": int(sum(line.get("population/evaluation_steps", 0) for line in lines)),
        "processor_seconds": round(seconds, 1),
        "kept": result.agent,
        "best": agents[result.agent],
        "mean": round(float(np.mean(list(returns.values()))), 2),
        "agents": agents,
        "takeovers": [str(taken) for taken in takeovers_of(lines)],
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "versions": machine.versions(),
    }


def play_all(path: Path, seed: int) -> dict[str, float]:
    """The mean greedy return of each agent in a run's newest checkpoint, over the same episodes for all of them."""
    found = checkpoint.load(path / "checkpoints")
    assert found is not None
    agent = shoal.load(path)
    returns: dict[str, float] = {}
    for name, saved in found.tree["learner"].items():
        agent.policy.load_state_dict(saved["networks"]["policy"]["module"])
        returns[name] = agent.evaluate(episodes=EPISODES, seed=seed + 1_000).mean
    return returns


def summary(lines: list[dict[str, Any]]) -> list[str]:
    """What came of each arm: the interquartile mean over seeds of the best agent and of the mean agent."""
    said: list[str] = []
    for what in ("best", "mean"):
        for arm in ARMS:
            values = np.array([line[what] for line in lines if line["arm"] == arm])
            if len(values):
                middle, spread = float(iqm(values)), f"{values.min():.1f} to {values.max():.1f}"
                said.append(f"{what} agent, {arm}: {middle:.1f} (interquartile mean of {len(values)} seeds; {spread})")
    return said


def main() -> None:
    """Trains all arms of each seed, and sums up all that was ever run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)))
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    for seed in options.seeds:
        more = 0
        for arm in ARMS:
            line = measure(arm, seed, STEPS + (more if arm == "longer" else 0))
            more = max(more, line["comparison_steps"])
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print({key: x for key, x in line.items() if key not in ("machine", "versions", "takeovers")}, flush=True)
    print("\n".join(summary([json.loads(line) for line in options.out.read_text(encoding="utf-8").splitlines()])))


if __name__ == "__main__":
    main()
