"""A soak of `workers`: processes are killed, stopped and poisoned at random, and no step of any row may be lost.

    python -m benchmarks.soak_workers [--seed S] [--minutes M]

Rows observe which episode they are in and which step it is; the parent keeps a ledger of what each must be handed next.
A thread kills (SIGKILL) or stops (SIGSTOP) a process at random moments, actions make environments raise, return NaN,
exit or sleep, and every process that fails is replaced. A third of the time each: all rows in a send, two sends under
way, and batches as they are done (`batch_rows`). Appends a line with seed, counts and duration to
benchmarks/results/soak_workers.jsonl; exits 1, with the mistake, where the ledger and the rows differ.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import psutil
from gymnasium import spaces

from shoal.envs.registry import make
from shoal.envs.workers.rows import WorkersEnv
from shoal.envs.workers.settings import Workers

if TYPE_CHECKING:
    from shoal.types import Ready

RESULT = Path(__file__).parent / "results" / "soak_workers.jsonl"
NUM_ROWS, NUM_WORKERS, LENGTH = 12, 4, 17
TIMEOUT_S, START_TIMEOUT_S = 0.5, 10.0
FAULT_EVERY_S = 1.5
POISONS = ("nothing", "raise", "NaN", "exit", "sleep")
POISONED_ONCE_IN = 50_000
MODES = ("whole", "halves", "batches")


class Counting(gym.Env[Any, Any]):
    """Observes (its seed, its episode, its step); an action other than 0 is poison."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = spaces.Discrete(len(POISONS))
        self.seeded, self.episode, self.count = 0, 0, 0

    def observe(self) -> Any:
        """Exact in float64."""
        return np.array([self.seeded, self.episode, self.count], np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """The next episode, or the first of a seed."""
        if seed is not None:
            self.seeded, self.episode = seed % 2**50, 0
        self.episode, self.count = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action: int) -> Any:
        """The next step, unless it is poisoned."""
        self.count += 1
        obs = self.observe()
        match POISONS[action]:
            case "raise":
                raise ValueError("poisoned")
            case "NaN":
                obs[1] = np.nan
            case "exit":
                os._exit(3)
            case "sleep":
                time.sleep(1000)
            case _:
                pass
        return obs, 1.0, self.count == LENGTH, False, {}


class Ledger:
    """What each row was handed last, and what it must be handed next."""

    def __init__(self, obs: Any) -> None:
        """`obs`: the first observations [B, 3]."""
        self.last = obs.copy()
        self.sent = np.zeros(NUM_ROWS, np.int64)
        self.counts = Counter[str]()

    def check(self, ready: Ready) -> None:
        """Every row goes on by one step, or was cut and begins from another seed."""
        for at, row in enumerate(range(ready.rows.start, ready.rows.stop)):
            self.sent[row] -= 1
            seed, episode, count = self.last[row]
            obs, ended = ready.obs[at], bool(ready.terminated[at] or ready.truncated[at])
            step = (bool(ready.valid[at]), bool(ready.terminated[at]), bool(ready.truncated[at]), ready.reward[at])
            if step[0]:
                ends = count + 1 == LENGTH
                good = step == (True, ends, False, 1.0)
                good = good and obs.tolist() == ([seed, episode + 1, 0] if ends else [seed, episode, count + 1])
                last, length = [seed, episode, LENGTH], LENGTH
                self.counts["steps"] += 1
            else:
                good = step == (False, False, True, 0.0) and obs[0] != seed and obs[1:].tolist() == [1, 0]
                last, length = [seed, episode, count], count
                self.counts["cuts"] += 1
            if ended:
                good = good and ready.final_obs[at].tolist() == last and ready.episode_length[at] == length
                good = good and ready.episode_return[at] == length
                self.counts["episodes"] += 1
            if not good:
                raise AssertionError(
                    f"row {row} was handed {obs}, {step}, {ready.final_obs[at]} after {self.last[row]}"
                )
            self.last[row] = obs

    def send(self, env: WorkersEnv, rows: slice, rng: np.random.Generator) -> None:
        """Sends rows, some poisoned; none of them may be under way."""
        self.sent[rows] += 1
        assert self.sent.max() == 1
        poisoned = rng.random(rows.stop - rows.start) < 1 / POISONED_ONCE_IN
        action = np.where(poisoned, rng.integers(1, len(POISONS), len(poisoned)), 0)
        for poison in action[poisoned]:
            self.counts[f"poisoned: {POISONS[poison]}"] += 1
        env.send(rows, action)


def harass(env: WorkersEnv, rng: np.random.Generator, over: threading.Event, counts: Counter[str]) -> None:
    """Kills or stops one process after the other, at random moments."""
    while not over.wait(rng.exponential(FAULT_EVERY_S)):
        what = ("kill", "suspend")[int(rng.integers(2))]
        try:
            getattr(psutil.Process(env.pids[int(rng.integers(NUM_WORKERS))]), what)()
            counts["SIGKILL" if what == "kill" else "SIGSTOP"] += 1
        except psutil.NoSuchProcess:
            counts["came too late"] += 1


def soak(mode: str, seed: list[int], seconds: float) -> dict[str, int]:
    """Steps rows in one way for so long; the counts."""
    rng, other = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    batch_rows = NUM_ROWS // NUM_WORKERS if mode == "batches" else 0
    timeouts: dict[str, Any] = {"step_timeout_s": TIMEOUT_S, "start_timeout_s": START_TIMEOUT_S}
    settings = Workers(NUM_WORKERS, on_fault="restart", max_restarts=10**9, batch_rows=batch_rows, **timeouts)
    env = make(Counting, NUM_ROWS, backend="workers", workers=settings)
    assert isinstance(env, WorkersEnv)
    over, faults = threading.Event(), Counter[str]()
    with closing(env):
        env.reset(int(rng.integers(2**40)))
        ledger = Ledger(env.recv().obs)
        thread = threading.Thread(target=harass, args=(env, other, over, faults))
        thread.start()
        try:
            groups = [slice(0, 5), slice(5, NUM_ROWS)] if mode == "halves" else [slice(0, NUM_ROWS)]
            for group in groups:
                ledger.send(env, group, rng)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                ready = env.recv()
                ledger.check(ready)
                ledger.send(env, ready.rows, rng)
            while ledger.sent.any():
                ledger.check(env.recv())
        finally:
            over.set()
            thread.join()
    return dict(sorted((ledger.counts + faults).items()))


def main() -> None:
    """Runs and writes the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10.0)
    args = parser.parse_args()
    logging.getLogger("shoal").setLevel(logging.ERROR)
    begun, mistake = time.monotonic(), ""
    counts: dict[str, dict[str, int]] = {}
    for number, mode in enumerate(MODES):
        try:
            counts[mode] = soak(mode, [args.seed, number], args.minutes * 60 / len(MODES))
        except Exception as error:
            mistake = f"{mode}: {type(error).__name__}: {error}"
            break
        print(mode, counts[mode], flush=True)
    left = len(psutil.Process().children(recursive=True))
    line = {"seed": args.seed, "minutes": args.minutes, "seconds": round(time.monotonic() - begun, 1)}
    line |= {"rows": NUM_ROWS, "workers": NUM_WORKERS, "counts": counts, "processes_left": left, "mistake": mistake}
    with RESULT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line))
    sys.exit(bool(mistake or left))


if __name__ == "__main__":
    main()
