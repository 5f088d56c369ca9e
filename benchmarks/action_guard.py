"""Does the action guard let a forbidden action through: a million steps of random policies, each checked apart.

python -m benchmarks.action_guard                     a million steps of each case, appended to the results
python -m benchmarks.action_guard --steps 20000 --out some.jsonl

What reached the environment is written down by the environment itself, and what was allowed is computed a second time,
here, from its observations and the action before, in float64. An action outside the bounds, further from the one
before than it may, or with A x > b, counts as forbidden: no tolerance. Wanted are the actions of a policy that likes
to be outside: uniform over the whole space.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from benchmarks import machine
from shoal.envs.action_guard.guarded import guarded
from shoal.envs.action_guard.settings import ActionGuard
from shoal.envs.registry import make

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from shoal.types import Floats

RESULT = Path(__file__).parent / "results" / "action_guard.jsonl"
SIZE, ROWS, EPISODE = 3, 64, 50
LOW, HIGH, CHANGE = -0.7, 0.9, 0.3
SAFE = 0.0


class Witness(gym.Env[Any, Any]):
    """Observes numbers that are drawn anew in each step, and keeps every action that came."""

    observation_space = spaces.Box(-1, 1, (4,), np.float32)
    action_space = spaces.Box(-1, 1, (SIZE,), np.float32)

    def __init__(self) -> None:
        self.came: list[tuple[NDArray[Any], NDArray[Any], int]] = []
        """The observation, the action, and the step of the episode."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draws the first observation."""
        super().reset(seed=seed)
        self.number = 0
        return self.see(), {}

    def see(self) -> NDArray[np.float32]:
        """The next observation."""
        self.obs = self.np_random.uniform(-1, 1, 4).astype(np.float32)
        return self.obs

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Keeps the action."""
        self.came.append((self.obs, action.copy(), self.number))
        self.number += 1
        return self.see(), 0.0, self.number == EPISODE, False, {}


def sides(obs: Floats) -> tuple[Floats, Floats]:
    """Four inequalities a row that turn with the observation, and leave the neighborhood of 0 alone."""
    obs = np.asarray(obs, np.float64)
    first = np.stack([obs[:, :3], obs[:, 1:], -obs[:, :3], np.ones((len(obs), 3))], 1)
    return first, np.stack([0.1 + np.abs(obs[:, k]) for k in range(4)], 1)


CASES: dict[str, tuple[ActionGuard, bool]] = {
    "bounds": (ActionGuard(low=(LOW,), high=(HIGH,)), False),
    "bounds and change": (ActionGuard(low=(LOW,), high=(HIGH,), max_change=(CHANGE,)), False),
    "inequalities": (ActionGuard(inequalities=sides, safe_action=(SAFE,)), True),
    "all": (
        ActionGuard(low=(LOW,), high=(HIGH,), max_change=(CHANGE,), inequalities=sides, safe_action=(SAFE,)),
        True,
    ),
}
"""The guards, and whether inequalities must hold."""


def forbidden(guard: ActionGuard, envs: list[Witness], *, inequalities: bool) -> tuple[int, int]:
    """How many of the actions that came were forbidden, and how many were the safe one, which need not be near."""
    count, safe = 0, 0
    for env in envs:
        obs = np.array([seen for seen, _, _ in env.came], np.float64)
        done = np.array([action for _, action, _ in env.came], np.float64)
        first = np.array([number == 0 for _, _, number in env.came])
        is_safe = (done == SAFE).all(1) if guard.safe_action else np.zeros(len(done), np.bool_)
        bad = np.zeros(len(done), np.bool_)
        if guard.low:
            bad |= ((done < LOW) | (done > HIGH)).any(1)
        if guard.max_change:
            before = np.vstack([done[:1], done[:-1]])
            bad |= (np.abs(done - before) > CHANGE).any(1) & ~first & ~is_safe
        if inequalities:
            matrix, bound = sides(obs)
            bad |= (np.einsum("nmd,nd->nm", matrix, done) > bound).any(1)
        count, safe = count + int(bad.sum()), safe + int(is_safe.sum())
    return count, safe


def measure(name: str, steps: int) -> dict[str, Any]:
    """One case: steps, forbidden actions, and how fast it went."""
    guard, inequalities = CASES[name]
    rng = np.random.default_rng(0)
    envs: list[Witness] = []

    def made() -> Witness:
        envs.append(Witness())
        return envs[-1]

    rows = guarded(make(made, ROWS), guard)
    rows.reset(0)
    ready = rows.recv()
    changed, bad, safe, total, seconds = 0, 0, 0, 0, 0.0
    chunk = EPISODE * 40
    for number in range(1, -(-steps // ROWS // EPISODE) * EPISODE + 1):
        action = rng.uniform(-1, 1, (ROWS, SIZE)).astype(np.float32)
        begun = time.perf_counter()
        rows.send(slice(0, ROWS), action)
        ready = rows.recv()
        seconds += time.perf_counter() - begun
        assert ready.changed is not None
        changed += int(ready.changed.sum())
        if number % EPISODE or (number % chunk and number * ROWS < steps):
            continue
        found = forbidden(guard, envs, inequalities=inequalities)
        bad, safe = bad + found[0], safe + found[1]
        for env in envs:
            total += len(env.came)
            env.came.clear()
    rows.close()
    return {
        "case": name,
        "steps": total,
        "forbidden": bad,
        "changed": changed / total,
        "safe_action": safe / total,
        "us_per_step": 1e6 * seconds / total,
    }


def main(check: Callable[[str, int], dict[str, Any]] = measure) -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--cases", choices=list(CASES), nargs="+", default=list(CASES))
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    failed = False
    for name in options.cases:
        row = check(name, options.steps)
        print(row, flush=True)
        failed |= row["forbidden"] > 0
        with options.out.open("a") as file:
            about = {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe()}
            file.write(json.dumps(row | about) + "\n")
    if failed:
        raise SystemExit("a forbidden action came through")


if __name__ == "__main__":
    main()
