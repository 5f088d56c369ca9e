"""What a fleet comes to, from measured service times: a simulation, checked for 1, 2 and 4 servers on this machine.

    python -m benchmarks.simulate_fleet measure     service times here, and runs through 1, 2 and 4 servers beside
                                                    the prediction; appends to benchmarks/results/simulate_fleet.jsonl
    python -m benchmarks.simulate_fleet             10 to 10,000 servers and actors, from the last measurement

Events, not formulas, as a message may wait for a core, for the network or for the learner. Environments of the check
sleep in their steps, so that servers share a machine as if each had its own.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import sys
import tempfile
import time
from collections import deque
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import shoal
from benchmarks import machine
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make, on_servers
from shoal.remote.settings import Terms

RESULT = Path(__file__).parent / "results" / "simulate_fleet.jsonl"
ROWS, SLEEP_S = 32, 500e-6
SERVERS = (1, 2, 4)
ROLLOUT = 128
STEPS = ROLLOUT * ROWS * 6
COUNTS = (10, 30, 100, 300, 1_000, 3_000, 10_000)
BAR = 0.2


class Sleeper(gym.Env[Any, Any]):
    """Four numbers, two actions, and a step that takes its time without taking a core."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """An episode of 200 steps."""
        super().reset(seed=seed)
        self.left = 200
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Sleeps."""
        time.sleep(SLEEP_S)
        self.left -= 1
        return np.zeros(4, np.float32), float(action), self.left == 0, False, {}


@dataclass(frozen=True, slots=True)
class Times:
    """Service times in seconds, as measured."""

    row_cpu: float
    """Of a core, for a step of one row."""
    row_wait: float
    """And without one."""
    message: float
    """The learner's for one message and its reply."""
    serve: float
    """A server's for one message, besides its rows."""
    learn: float
    """The learner's for one step of one row: acting, recording, and its share of the updates."""
    bytes_up: float = 8.0
    bytes_down: float = 43.0
    """Of a row's step."""


@dataclass(frozen=True, slots=True)
class Site:
    """The machines: how many cores learner and servers have, and what lies between."""

    cores: int
    """Of the learner's machine."""
    shared: bool
    """Whether servers are there too; else each has a core of its own."""
    latency_s: float = 0.0
    bytes_per_s: float = math.inf
    """Of the learner's network."""


class Clock:
    """Events in order of time; processes are generators that say what they wait for."""

    def __init__(self) -> None:
        """At 0."""
        self.now = 0.0
        self._events: list[tuple[float, int, Generator[Any, None, None]]] = []
        self._numbers = count()

    def at(self, when: float, process: Generator[Any, None, None]) -> None:
        """Goes on with a process."""
        heapq.heappush(self._events, (when, next(self._numbers), process))

    def run(self) -> None:
        """Until nobody waits for a time any more."""
        while self._events:
            self.now, _, process = heapq.heappop(self._events)
            asked = next(process, None)
            if asked is not None:
                asked(process)

    def wait(self, seconds: float) -> Any:
        """So long."""

        def asked(process: Generator[Any, None, None]) -> None:
            self.at(self.now + seconds, process)

        return asked


class Pool:
    """Cores, or a network: so many are served at a time, others wait in line."""

    def __init__(self, clock: Clock, size: int) -> None:
        """`size`: at a time."""
        self._clock, self._free = clock, [0.0] * size
        self.busy_s = 0.0

    def take(self, seconds: float) -> Any:
        """One of them for so long."""

        def asked(process: Generator[Any, None, None]) -> None:
            begin = max(self._clock.now, heapq.heappop(self._free))
            heapq.heappush(self._free, begin + seconds)
            self.busy_s += seconds
            self._clock.at(begin + seconds, process)

        return asked


class Mail:
    """Messages that processes wait for."""

    def __init__(self, clock: Clock) -> None:
        """Empty."""
        self._clock, self._there = clock, 0
        self._waiting: deque[Generator[Any, None, None]] = deque()

    def put(self) -> None:
        """One more."""
        if self._waiting:
            self._clock.at(self._clock.now, self._waiting.popleft())
        else:
            self._there += 1

    def take(self) -> Any:
        """The next one."""

        def asked(process: Generator[Any, None, None]) -> None:
            if self._there:
                self._there -= 1
                self._clock.at(self._clock.now, process)
            else:
                self._waiting.append(process)

        return asked


class Fleet:
    """A learner that acts for all rows of its servers, and their machines."""

    def __init__(self, times: Times, site: Site, rows: int, servers: int) -> None:
        """`rows`: of all servers together."""
        self.clock = Clock()
        self._times, self._site, self._rows = times, site, rows
        self._here, self._network = Pool(self.clock, site.cores), Pool(self.clock, 1)
        bounds = [rows * number // servers for number in range(servers + 1)]
        self._parts = [bounds[number + 1] - bounds[number] for number in range(servers)]
        self._asked = [Mail(self.clock) for _ in range(servers)]
        self._answered = [Mail(self.clock) for _ in range(servers)]

    def begin(self, steps: int) -> None:
        """All of them, for so many steps of each row."""
        for number in range(len(self._parts)):
            self.clock.at(0.0, self._serve(number, steps))
        self.clock.at(0.0, self._learn(steps))

    def _serve(self, number: int, steps: int) -> Generator[Any, None, None]:
        """A server: rows after rows, on cores that it may share."""
        times, part = self._times, self._parts[number]
        own = self._here if self._site.shared else Pool(self.clock, 1)
        turns, share = (part, 1) if self._site.shared else (1, part)
        for _ in range(steps):
            yield self._asked[number].take()
            yield own.take(times.serve)
            for _ in range(turns):
                yield own.take(times.row_cpu * share)
                yield self.clock.wait(times.row_wait * share)
            self.clock.at(self.clock.now, self._delivered(self._answered[number]))

    def _learn(self, steps: int) -> Generator[Any, None, None]:
        """The learner: messages to all servers, replies of all, then its own work."""
        times = self._times
        for _ in range(steps):
            for asked, part in zip(self._asked, self._parts, strict=True):
                yield self._here.take(times.message / 2)
                yield self._network.take(part * times.bytes_up / self._site.bytes_per_s)
                self.clock.at(self.clock.now, self._delivered(asked))
            for answered, part in zip(self._answered, self._parts, strict=True):
                yield answered.take()
                yield self._network.take(part * times.bytes_down / self._site.bytes_per_s)
                yield self._here.take(times.message / 2)
            yield self._here.take(times.learn * self._rows)

    def _delivered(self, mail: Mail) -> Generator[Any, None, None]:
        yield self.clock.wait(self._site.latency_s)
        mail.put()


def simulate(times: Times, site: Site, rows: int, servers: int, steps: int = 50) -> tuple[float, float]:
    """Environment steps per second through so many servers with `rows` in all, and the learner's share of the time."""
    fleet = Fleet(times, site, rows, servers)
    fleet.begin(steps)
    fleet.clock.run()
    working_s = steps * (times.learn * rows + servers * times.message)
    return rows * steps / fleet.clock.now, working_s / fleet.clock.now


def measure_rows() -> tuple[float, float]:
    """A row's step, in this process: seconds of a core, and without one."""
    with closing(make(Sleeper, ROWS, backend="serial")) as env:
        return measure_steps(env, 200)


def measure_steps(env: Any, steps: int) -> tuple[float, float]:
    """The same for all rows of an environment."""
    action = np.zeros(env.num_rows, np.int64)
    env.reset(1)
    env.recv()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        env.send(slice(None), action)
        env.recv()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    each = steps * env.num_rows
    return cpu / each, max(wall - cpu, 0.0) / each


def measure_message() -> tuple[float, float]:
    """The learner's and a server's seconds for a message of a row that does nothing: CartPole in native code."""
    with shoal.serve("CartPole-v1", num_envs=1) as server:
        terms = Terms()
        with closing(on_servers(server.name, 1, None, (), Preprocessing(), terms=terms)) as env:
            measure_steps(env, 2_000)
            cpu, _ = measure_steps(env, 5_000)
    return cpu / 2, cpu / 2  # both sides are in this process


def train(fleet: dict[str, Any]) -> tuple[float, float]:
    """Environment steps per second of PPO, and its process's seconds of a core for each."""
    marks: list[tuple[int, float, float]] = []

    def mark(run: Any, _: Any) -> None:
        marks.append((run.updates, time.perf_counter(), time.process_time()))

    with tempfile.TemporaryDirectory() as folder:
        shoal.train(
            Sleeper,
            algo="ppo",
            num_envs=ROWS,
            num_steps=ROLLOUT,
            total_timesteps=STEPS,
            final_episodes=0,
            num_threads=1,
            run_dir=folder,
            panel="none",
            stop_at=math.inf,
            callbacks=[mark],
            **fleet,
        )
    first = next(one for one in marks if one[0])
    last = next(one for one in marks if one[0] == marks[-1][0])
    steps = (last[0] - first[0]) * ROLLOUT * ROWS
    return steps / (last[1] - first[1]), (last[2] - first[2]) / steps


def measure(rounds: int) -> None:
    """Service times, predictions and measurements."""
    cpu, wait = np.median([measure_rows() for _ in range(3)], axis=0)
    message, serve = np.median([measure_message() for _ in range(3)], axis=0)
    alone, core = np.median([train({}) for _ in range(rounds)], axis=0)
    learn = max(core - cpu, 0.0)
    times = Times(float(cpu), float(wait), float(message), float(serve), float(learn))
    print(json.dumps(asdict(times)))
    row: dict[str, Any] = {"times": asdict(times), "alone": float(alone), "rows": ROWS, "servers": {}}
    site = Site(cores=2, shared=True)
    for servers in SERVERS:
        predicted, _ = simulate(times, site, ROWS, servers)
        placement = {"servers": servers, "cpus": 0.1}
        fleet = {"fleet": "local", "placement": placement}
        measured, _ = np.median([train(fleet) for _ in range(rounds)], axis=0)
        row["servers"][servers] = {
            "predicted": predicted,
            "measured": float(measured),
            "ratio": predicted / float(measured),
        }
        print(f"{servers} servers: predicted {predicted:,.0f}, measured {measured:,.0f} steps/s: "
              f"{predicted / measured:.2f}")  # fmt: skip
    with RESULT.open("a") as file:
        file.write(json.dumps(row | {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe()}) + "\n")
    missed = [servers for servers, found in row["servers"].items() if abs(found["ratio"] - 1) > BAR]
    if missed:
        sys.exit(f"the prediction for {missed} servers is more than {BAR:.0%} away")


NETWORK = Site(cores=1, shared=False, latency_s=100e-6, bytes_per_s=1.25e9)
"""Between machines of a data center: 10 Gbit/s at the learner, 0.1 ms."""
STEP_BYTES = 64
"""Of a row's step in a rollout that actors send: observation, action, reward, value, log-probability, flags."""
WEIGHTS = {"40 kB (two layers of 64)": 40e3, "7 MB (images)": 7e6}
FAN_OUT = 8
"""Children of a node in a tree of those who pass weights on."""
PLANNED_ROW_S = 100e-6
"""A row's step in the plan: an environment in Python, such as Gymnasium's LunarLander."""
UPDATE_SHARE = 0.5
"""Of the learner's time for a step: what is left where actors act themselves."""
CALL_S = 0.9e-3
"""Of the caller, for a call of an actor of Ray (facts: 71 k steps/s at 64 rows a call)."""
NODE_CORES = 16
PRICE = 0.04
"""Of a core for an hour, in dollars; a learner has 16."""


def scale_servers(times: Times) -> list[dict[str, Any]]:
    """The learner acts for all: what becomes of it as servers are added, 32 rows each."""
    found: list[dict[str, Any]] = []
    for servers in COUNTS:
        rate, share = simulate(times, NETWORK, ROWS * servers, servers, steps=5 if servers > 1_000 else 20)
        carried = rate * (times.bytes_up + times.bytes_down)
        cost = (servers + NODE_CORES) * PRICE / 3600 / rate * 1e9
        found.append({"servers": servers, "steps_per_s": rate, "learner": share, "bytes_per_s": carried, "cost": cost})
    return found


def scale_actors(times: Times, weights: float) -> list[dict[str, Any]]:
    """Actors have the weights and send rollouts: what is asked of the learner, of its network, and of the fan-out."""
    own = 1 / (times.row_cpu + times.row_wait + times.learn * (1 - UPDATE_SHARE))
    update_s = times.learn * UPDATE_SHARE
    speed = NETWORK.bytes_per_s
    found: list[dict[str, Any]] = []
    for actors in COUNTS:
        produced = actors * own
        learned = min(produced, 1 / update_s, speed / STEP_BYTES)
        version_s = actors * ROWS * ROLLOUT / learned
        nodes = max(1, math.ceil(actors / NODE_CORES))
        direct = actors * weights / speed
        depth = math.ceil(math.log(max(nodes, 2), FAN_OUT))
        tree = depth * (FAN_OUT * weights / speed + NETWORK.latency_s)
        store = math.ceil(math.log2(max(nodes, 2))) * (weights / speed + 1e-3)
        used = {
            "learner's updates": produced * update_s,
            "its network": produced * STEP_BYTES / speed,
            "weights, sent to each": direct / version_s,
            "weights, by a tree": tree / version_s,
            "calls through Ray": produced / (ROWS * ROLLOUT) * CALL_S,
        }
        found.append(
            {
                "actors": actors,
                "steps_per_s": learned,
                "version_s": version_s,
                "direct_s": direct,
                "tree_s": tree,
                "store_s": store,
                "used": used,
                "breaks": max(used, key=lambda name: used[name]),
                "cost": (actors + NODE_CORES) * PRICE / 3600 / learned * 1e9,
            }
        )
    return found


def show(measured: Times) -> None:
    """The tables, as the documentation has them."""
    times = replace(measured, row_cpu=PLANNED_ROW_S, row_wait=0.0)
    print("| servers | steps/s | learner's time | network | dollars for 1e9 steps |\n|---|---|---|---|---|")
    for row in scale_servers(times):
        print(
            f"| {row['servers']:,} | {row['steps_per_s']:,.0f} | {row['learner']:.0%} "
            f"| {row['bytes_per_s'] / 1e6:,.1f} MB/s | {row['cost']:,.2f} |"
        )
    for name, weights in WEIGHTS.items():
        print(f"\nweights of {name}")
        print("| actors | steps/s learned | a version every | to each | by a tree | object store | busiest | dollars |")
        print("|---|---|---|---|---|---|---|---|")
        for row in scale_actors(times, weights):
            busiest = f"{row['breaks']} ({row['used'][row['breaks']]:.0%})"
            print(
                f"| {row['actors']:,} | {row['steps_per_s']:,.0f} | {row['version_s']:.2f} s | {row['direct_s']:.3f} s "
                f"| {row['tree_s']:.3f} s | {row['store_s']:.3f} s | {busiest} | {row['cost']:,.2f} |"
            )


def last_times() -> Times:
    """Of the last measurement."""
    lines = RESULT.read_text().splitlines()
    return Times(**json.loads(lines[-1])["times"])


def main() -> None:
    """Measures, or shows what the last measurement comes to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("measure", "show"), default="show")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.what == "measure":
        measure(options.rounds)
    show(last_times())


if __name__ == "__main__":
    main()
