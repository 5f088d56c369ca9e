"""A soak of actors: processes are slowed, stopped and killed at random; nothing that is learned from may be too old.

    python -m benchmarks.soak_actors [--seed S] [--minutes M] [--staleness K]

Rows observe which episode they are in and which step it is, so that every step of a row must follow the one before it,
or begin an episode where its actor was replaced. A thread slows (SIGSTOP for a moment), stops (SIGSTOP) or kills
(SIGKILL) an actor at random moments. Of each rollout the versions of all steps are compared with the learner's. Appends
a line to benchmarks/results/soak_actors.jsonl; exits 1, with the mistake, where a bound or an order is broken.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch.optim import Adam

from benchmarks import machine
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.nets.network import Network
from shoal.nets.policy import make_policy
from shoal.stream.actors.process import ActorProcess
from shoal.stream.actors.rows import ActorRows, ActorSettings
from shoal.stream.rollouts import rollouts
from shoal.stream.schedules import Async

if TYPE_CHECKING:
    from shoal.envs.vec_env import VecEnv
    from shoal.types import Steps

RESULT = Path(__file__).parent / "results" / "soak_actors.jsonl"
NUM_ROWS, NUM_ACTORS, LENGTH, NUM_STEPS = 8, 4, 17, 8
TIMEOUT_S, FAULT_EVERY_S = 1.0, 1.5


class Counting(gym.Env[Any, Any]):
    """Observes (its episode, its step); ends after 17 steps."""

    observation_space = spaces.Box(0, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.episode, self.count = -1, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """The next episode."""
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action: Any) -> Any:
        """Counts on."""
        self.count += 1
        return np.array([self.episode, self.count], np.float32), 1.0, self.count == LENGTH, False, {}


def counting(num_envs: int) -> VecEnv:
    """Rows that count."""
    return make(Counting, num_envs)


class Ledger:
    """What each row did last."""

    def __init__(self) -> None:
        self.last: dict[int, tuple[int, int]] = {}
        self.counts: Counter[str] = Counter()

    def check(self, steps: Steps, number: int, most: int) -> None:
        """Every step follows the one before it, and none is too old; SystemExit says which is not."""
        behind = number - steps.version
        if int(behind.max()) > most or int(behind.min()) < 0:
            raise SystemExit(f"rollout {number}: versions {steps.version.unique().tolist()}, at most {most} behind")
        self.counts.update(f"behind {n}" for n in behind.unique().tolist())
        obs = steps.obs.numpy().astype(int)
        for row in range(obs.shape[1]):
            for t in range(obs.shape[0]):
                seen = (int(obs[t, row, 0]), int(obs[t, row, 1]))
                self._follows(row, seen, first=bool(steps.start[t, row]), place=(number, t))
                self.last[row] = seen
        self.counts["steps"] += obs.shape[0] * obs.shape[1]

    def _follows(self, row: int, seen: tuple[int, int], *, first: bool, place: tuple[int, int]) -> None:
        before = self.last.get(row)
        if first and seen == (0, 0) and before is not None and place[1] == 0:
            self.counts["begun anew"] += 1
            return
        if before is None or (not first and seen == (before[0], before[1] + 1)):
            return
        if first and before[1] == LENGTH - 1 and seen == (before[0] + 1, 0):
            return
        raise SystemExit(f"rollout {place[0]}, step {place[1]}, row {row}: {seen} after {before}")


def disturb(env: ActorRows, rng: np.random.Generator, counts: Counter[str], over: threading.Event) -> None:
    """Slows, stops or kills an actor now and then."""
    while not over.wait(rng.exponential(FAULT_EVERY_S)):
        actor = env.processes[int(rng.integers(NUM_ACTORS))]
        assert isinstance(actor, ActorProcess)
        pid = actor.pid
        what = ("slowed", "stopped", "killed")[rng.integers(3)]
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if what == "killed" else signal.SIGSTOP)
            counts[what] += 1
            if what == "slowed":
                time.sleep(0.3 * TIMEOUT_S)
                os.kill(pid, signal.SIGCONT)


def main() -> None:
    """Soaks for as long as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--staleness", type=int, default=1)
    options = parser.parse_args()
    logging.getLogger("shoal").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    settings = ActorSettings(NUM_ACTORS, timeout_s=TIMEOUT_S, on_fault="restart", max_restarts=1_000_000)
    ledger, over = Ledger(), threading.Event()
    begun = time.monotonic()
    with closing(ActorRows(counting, NUM_ROWS, settings)) as env:
        learner = Learner(make_policy(env.spec, Network(hidden=(8,)), 1), Adam, lr=1e-3)
        stream = rollouts(env, learner, num_steps=NUM_STEPS, schedule=Async(options.staleness), acting=Acting(1))
        rng = np.random.default_rng(options.seed)
        thread = threading.Thread(target=disturb, args=(env, rng, ledger.counts, over), daemon=True)
        thread.start()
        number = 0
        try:
            while time.monotonic() - begun < options.minutes * 60:
                ledger.check(next(stream), number, options.staleness)
                stream.publish()
                number += 1
        finally:
            over.set()
            thread.join()
    row: dict[str, Any] = {"seed": options.seed, "staleness": options.staleness, "rollouts": number}
    row |= dict(ledger.counts) | {"seconds": round(time.monotonic() - begun)}
    row |= {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe()}
    with RESULT.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
