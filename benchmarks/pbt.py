"""Population-based training of learning rate and gamma, from bad starting values, beside the same agents without it.

python -m benchmarks.pbt                 seeds 0 to 4, both arms; appended to benchmarks/results/pbt.jsonl as each ends
python -m benchmarks.pbt --seeds 100     another seed
python -m benchmarks.pbt --seeds         only sums up what stands there

Eight agents learn Acrobot-v1 by DQN on one replay memory, each from a learning rate and a gamma of its own, drawn log-
uniformly from 1e-6 to 1e-2 and uniformly from 0.5 to 0.999; most are bad. Both arms begin with the same values and
weights and take the same number of environment steps and gradient steps. When a run is over, every agent plays 100
greedy episodes that nothing was chosen by; the best agent is the one that the run kept, by other episodes. The steps
of the comparisons are no steps of training: they stand beside the results.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

import shoal
from benchmarks import machine
from shoal.algos import dqn
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.nets.network import QNet
from shoal.report.lineage import takeovers_of
from shoal.report.statistics import iqm
from shoal.run import checkpoint
from shoal.run.evaluate import evaluate
from shoal.run.log import read

RESULT = Path(__file__).parent / "results" / "pbt.jsonl"
ENV, AGENTS, EPISODES = "Acrobot-v1", 8, 100
HIDDEN = (64,)
SETTINGS: dict[str, Any] = {
    "algo": "dqn",
    "preset": "none",
    "agents": AGENTS,
    "num_envs": AGENTS,
    "num_threads": 1,
    "total_timesteps": 100_000,
    "stop_at": math.inf,
    "final_episodes": 1,
    "network": {"hidden": HIDDEN},
    "target_update_interval": 200,
    "replay": {"buffer_size": 20_000, "learning_starts": 1_000, "samples_per_insert": 16.0},
}
VARY = ("learning_rate=loguniform(1e-6,1e-2)", "gamma=uniform(0.5,0.999)")
POPULATION: dict[str, Any] = {"vary": VARY, "evaluation_episodes": 10}
ARMS: dict[str, dict[str, Any]] = {
    "without": {},
    "pbt": {"exploit_interval": 25_000, "quantile": 0.375},
}


def measure(arm: str, seed: int) -> dict[str, Any]:
    """One training, and the greedy returns of all of its agents."""
    with tempfile.TemporaryDirectory() as folder:
        population = POPULATION | ARMS[arm]
        begun = time.process_time()
        result = shoal.train(ENV, seed=seed, panel="none", run_dir=folder, population=population, **SETTINGS)
        seconds = time.process_time() - begun
        lines = read(result.path / "metrics.jsonl")
        returns = play_all(result.path, seed)
    agents = {name: round(value, 2) for name, value in returns.items()}
    return {
        "arm": arm,
        "seed": seed,
        "steps": result.steps,
        "updates": int(lines[-1]["update"]),
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
    returns: dict[str, float] = {}
    with closing(make(ENV, 20)) as rows:
        policy = dqn.make_policy(rows.spec, dqn.DQN(network=QNet(hidden=HIDDEN)), 0)
        for name, saved in found.tree["learner"].items():
            policy.load_state_dict(saved["networks"]["policy"]["module"])
            acting = Acting(seed + 1_000, stream=1)
            returns[name] = evaluate(policy, rows, episodes=EPISODES, acting=acting).mean
    return returns


def main() -> None:
    """Trains both arms of each seed, and sums up all that was ever run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)))
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    for seed in options.seeds:
        for arm in options.arms:
            line = measure(arm, seed)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print({key: x for key, x in line.items() if key not in ("machine", "versions", "takeovers")}, flush=True)
    lines = [json.loads(line) for line in options.out.read_text(encoding="utf-8").splitlines()]
    for arm, what in ((arm, what) for what in ("best", "mean") for arm in ARMS):
        values = np.array([line[what] for line in lines if line["arm"] == arm])
        if len(values):
            spread = f"{values.min():.1f} to {values.max():.1f}"
            print(f"{what} agent, {arm}: {iqm(values):.1f} (interquartile mean of {len(values)} seeds; {spread})")


if __name__ == "__main__":
    main()
