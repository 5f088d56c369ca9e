"""What the guard does where a reward's sign turns early in training, before there is much that could be lost.

    python -m benchmarks.guard_early                      every task, seeds 1 to 5
    python -m benchmarks.guard_early --tasks track ppo    one environment and one algorithm

After a tenth of the training every reward of the environment has the other sign, for good: the run is learning the
opposite of what was meant. `track` is an environment of this file: a point that is to stay near a mark, whose returns
are above 0 from the start. Written down for each run: the mean return when the sign turned, after how many updates the
guard acted and how, and the greedy return over 100 episodes of a sound environment of the policy that the run leaves,
beside that of the same run without a guard. Appended to benchmarks/results/guard_early.jsonl.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

import shoal
from benchmarks import machine
from benchmarks.peers.broken_env import Breakable, breakable, fault
from shoal.algos.presets import preset
from shoal.learn.acting import Acting
from shoal.run.evaluate import evaluate
from shoal.run.guard.notes import read_notes

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.experiment.result import Result
    from shoal.run.run import Run

RESULT = Path(__file__).parent / "results" / "guard_early.jsonl"
EARLY = 0.1
"""The share of the training after which the sign turns."""
EPISODES, ROWS = 100, 20
TASKS: tuple[tuple[str, str, int], ...] = (
    ("track", "ppo", 200_000),
    ("track", "a2c", 200_000),
    ("track", "dqn", 50_000),
    ("CartPole-v1", "ppo", 200_000),
    ("CartPole-v1", "dqn", 50_000),
    ("Pendulum-v1", "ppo", 200_000),
)
"""Environment, algorithm, steps."""


class Track(gym.Env[Any, Any]):
    """A point on a line is pushed, or not, for 40 steps; near a mark it earns 0.5, far from it it pays."""

    def __init__(self) -> None:
        """Two numbers, three actions."""
        self.observation_space = spaces.Box(-4, 4, (2,), np.float32)
        self.action_space = spaces.Discrete(3)
        self._at = self._mark = 0.0
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The mark is drawn; the point is near it."""
        super().reset(seed=seed)
        self._mark = self.np_random.uniform(-1, 1)
        self._at, self._steps = self._mark + self.np_random.uniform(-0.2, 0.2), 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """A push of 0.05."""
        self._at = float(np.clip(self._at + 0.05 * (int(action) - 1), -2, 2))
        self._steps += 1
        return self._seen(), 0.5 - abs(self._at - self._mark), False, self._steps == 40, {}

    def _seen(self) -> Any:
        return np.array([self._at, self._mark], np.float32)


def track() -> gym.Env[Any, Any]:
    """It, where it can be broken."""
    return Breakable(Track())


class Turning:
    """Turns the sign when so many steps are done, and remembers where the run stood."""

    episodes = False

    def __init__(self, at: int) -> None:
        """`at`: steps."""
        self.at, self.update, self.before = at, -1, math.nan

    def __call__(self, run: Run, record: Any) -> None:
        """At every line."""
        if self.update < 0 and record["step"] >= self.at:
            self.update, self.before = run.updates, record.get("episode/return", math.nan)
            fault.name = "reward_sign"


def trained(env: str, algo: str, steps: int, seed: int, folder: str, *, guard: str) -> tuple[Result, Turning]:
    """A run whose sign turns."""
    made: Callable[[], Any] = track if env == "track" else partial(breakable, env)
    told: dict[str, Any] = {"num_envs": 16} if env == "track" else preset(algo, None, env)
    told = told | {"seed": seed, "run_dir": folder, "panel": "none", "num_threads": 1, "stop_at": math.inf}
    told |= {"final_episodes": 0, "confirm_episodes": 0, "backend": "serial", "preset": "none"}
    told |= {"total_timesteps": steps, "guard": guard}
    fault.name, turning = "", Turning(round(EARLY * steps))
    try:
        return shoal.train(made, algo=algo, callbacks=[turning], **told), turning
    finally:
        fault.name = ""


def greedy(result: Result, env: str) -> float:
    """The mean return over 100 greedy episodes of a sound environment."""
    from shoal.envs.registry import make

    made: Any = track if env == "track" else partial(breakable, env)
    rows = make(made, ROWS, backend="serial")
    try:
        return evaluate(result.policy, rows, episodes=EPISODES, acting=Acting(7)).mean
    finally:
        rows.close()


def measure(env: str, algo: str, steps: int, seed: int) -> dict[str, Any]:
    """One run with a guard, and one without."""
    with tempfile.TemporaryDirectory() as folder:
        result, turning = trained(env, algo, steps, seed, folder, guard="on")
        acted = [x for x in read_notes(result.path).interventions if x.action != "tell"]
        left = greedy(result, env)
        other, _ = trained(env, algo, steps, seed, folder, guard="off")
        alone = greedy(other, env)
    return {
        "env": env,
        "algo": algo,
        "seed": seed,
        "turned_at": turning.update,
        "return_before": round(turning.before, 2),
        "acted_after": acted[0].update - turning.update if acted else None,
        "actions": [f"{x.update - turning.update} {x.rule} {x.action}" for x in acted],
        "said": acted[0].said if acted else "",
        "reason": result.stop_reason,
        "greedy": round(left, 2),
        "greedy_without_guard": round(alone, 2),
    }


def main() -> None:
    """All tasks and seeds that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=[], help="names of environments and algorithms; none: all")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3, 4, 5])
    told = parser.parse_args()
    about = {"machine": machine.describe(), "versions": machine.versions()}
    for env, algo, steps in TASKS:
        if told.tasks and not {env, algo} <= set(told.tasks):
            continue
        for seed in told.seeds:
            row = measure(env, algo, steps, seed)
            RESULT.parent.mkdir(exist_ok=True)
            with RESULT.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row | about) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
