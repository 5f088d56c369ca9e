"""How long training stands still when an actor is killed, and when its rows collect again.

    python -m benchmarks.kill_actors [--kills N] [--update-s S]

Two actors of CartPole collect rollouts; an update takes S seconds. Kills (SIGKILL) come at random moments, with
`on_fault=restart`. Of each: the longest time between two rollouts that the learner gets, from the kill until the first
one that the new process collected, less the update; and the time until that one. Appends a line for each schedule to
benchmarks/results/kill_actors.jsonl.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
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
from shoal.stream.schedules import Async, Sync

if TYPE_CHECKING:
    from shoal.envs.vec_env import VecEnv
    from shoal.stream.schedules import Schedule

RESULT = Path(__file__).parent / "results" / "kill_actors.jsonl"
SCHEDULES: list[Schedule] = [Sync(), Async(1), Async(8)]
WAIT_S = 120.0


def cartpoles(num_envs: int) -> VecEnv:
    """Native rows."""
    return make("CartPole-v1", num_envs)


def measure(schedule: Schedule, kills: int, update_s: float) -> tuple[list[float], list[float]]:
    """Of each kill: the longest stall of the learner, and the time until the new process's first rollout."""
    rng = np.random.default_rng(5)
    stalls: list[float] = []
    firsts: list[float] = []
    settings = ActorSettings(2, on_fault="restart", max_restarts=kills + 1)
    with closing(ActorRows(cartpoles, 8, settings)) as env:
        policy = make_policy(env.spec, Network(hidden=(64, 64)), 1)
        stream = rollouts(env, Learner(policy, Adam, lr=1e-3), num_steps=64, schedule=schedule, acting=Acting(1))
        for _ in range(kills):
            for _ in range(20):
                next(stream)
                time.sleep(update_s)
                stream.publish()
            number = int(rng.integers(2))
            killed = env.processes[number]
            assert isinstance(killed, ActorProcess)
            time.sleep(float(rng.random()) * update_s)
            os.kill(killed.pid, signal.SIGKILL)
            begun = time.perf_counter()
            stall_s = 0.0
            while env.processes[number] is killed and time.perf_counter() - begun < WAIT_S:
                asked = time.perf_counter()
                next(stream)
                stall_s = max(stall_s, time.perf_counter() - asked)
                if env.processes[number] is killed:
                    time.sleep(update_s)
                stream.publish()
            stalls.append(stall_s)
            firsts.append(time.perf_counter() - begun)
    return stalls, firsts


def main() -> None:
    """Measures all schedules."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--update-s", type=float, default=0.2)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    for schedule in SCHEDULES:
        stalls, firsts = measure(schedule, given.kills, given.update_s)
        line = {
            "schedule": str(schedule),
            "kills": given.kills,
            "update_s": given.update_s,
            "stall_s": {"median": round(float(np.median(stalls)), 2), "most": round(max(stalls), 2)},
            "first_rollout_s": {"median": round(float(np.median(firsts)), 2), "most": round(max(firsts), 2)},
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine.describe(),
        }
        print(json.dumps(line))
        with RESULT.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
