"""What `workers` does when an environment fails: seconds until it is named, and until it is closed, for each fault.

    python -m benchmarks.faults [--rounds N]

Four rows in two processes; in one row an environment dies, stops, hangs, raises, or returns what it may not. For each
fault: the longest of the rounds between the send and the error, beside the bound on it; then how long `close` took.
Writes benchmarks/results/faults.json; exits 1 where a bound is broken, a fault is not named as it should be, or a
process, a descriptor or a file in /dev/shm is left behind.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
from gymnasium import spaces

from benchmarks import machine
from benchmarks.__main__ import row
from shoal.envs.registry import make
from shoal.envs.workers.settings import Workers

RESULT = Path(__file__).parent / "results" / "faults.json"
TIMEOUT_S = 1.0
CLOSE_S = 5.0
AT_ONCE_S, AFTER_TIMEOUT_S = 1.0, TIMEOUT_S + 1.0
FOUR = slice(0, 4)


class BrokenError(Exception):
    """A user's own exception."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, how long it may take to be named, and a word of the message."""

    name: str
    bound_s: float
    says: str
    kind: str = "EnvError"


FAULTS = [
    Fault("SIGKILL", AT_ONCE_S, "was killed by SIGKILL"),
    Fault("SIGSEGV", AT_ONCE_S, "was killed by SIGSEGV"),
    Fault("exit", AT_ONCE_S, "exited with status 3"),
    Fault("SIGSTOP", AFTER_TIMEOUT_S, "it is stopped"),
    Fault("sleep", AFTER_TIMEOUT_S, "its stack"),
    Fault("endless loop", AFTER_TIMEOUT_S, "its stack"),
    Fault("raise", AT_ONCE_S, "the wheel came off", "BrokenError"),
    Fault("NaN observation", AT_ONCE_S, "returned the observation"),
    Fault("NaN reward", AT_ONCE_S, "returned the reward nan"),
    Fault("observation (5,) for (4,)", AT_ONCE_S, "of shape (5,)"),
    Fault("observation (1,) for (4,)", AT_ONCE_S, "of shape (1,)"),
    Fault("observation None", AT_ONCE_S, "observation None"),
]
RETURNED: dict[str, tuple[int, Any]] = {
    "NaN observation": (0, np.full(4, np.nan, np.float32)),
    "observation (5,) for (4,)": (0, np.zeros(5, np.float32)),
    "observation (1,) for (4,)": (0, np.zeros(1, np.float32)),
    "observation None": (0, None),
    "NaN reward": (1, float("nan")),
}


class Faulty(gym.Env[Any, Any]):
    """Does what its fault says in its third step, where it was seeded with 3."""

    def __init__(self, fault: str) -> None:
        """`fault`: a name in FAULTS."""
        self.observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.fault, self.bad, self.count = fault, False, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Whether it is the bad one depends on its seed."""
        self.bad, self.count = seed == 3, 0
        return np.zeros(4, np.float32), {}

    def step(self, action: int) -> Any:
        """Three steps are good, but for the bad one's."""
        self.count += 1
        made: list[Any] = [np.zeros(4, np.float32), 1.0, False, False, {}]
        if self.bad and self.count == 3:
            self.fail(made)
        return tuple(made)

    def fail(self, made: list[Any]) -> None:
        """Fails, or puts what is wrong into `made`."""
        match self.fault:
            case "exit":
                os._exit(3)
            case "sleep":
                time.sleep(1000)
            case "endless loop":
                while True:
                    pass
            case "raise":
                raise BrokenError("the wheel came off")
            case name if name.startswith("SIG"):
                os.kill(os.getpid(), getattr(signal, name))
            case name:
                place, value = RETURNED[name]
                made[place] = value


def measure(fault: Fault) -> dict[str, Any]:
    """One failure: how it was named, and the seconds."""
    settings = Workers(2, step_timeout_s=TIMEOUT_S)
    env = make(Faulty, 4, backend="workers", env_kwargs={"fault": fault.name}, workers=settings)
    env.reset(0)
    env.recv()
    found: dict[str, Any] = {"error": "none"}
    begun = time.perf_counter()
    for _ in range(3):
        begun = time.perf_counter()
        env.send(FOUR, np.zeros(4, np.int64))
        try:
            env.recv()
        except Exception as error:  # whatever it is, it is the finding
            found = {"error": type(error).__name__, "message": str(error).splitlines()[0]}
            found["named"] = found["error"] == fault.kind and fault.says in str(error)
    found["seconds"] = time.perf_counter() - begun
    begun = time.perf_counter()
    env.close()
    return found | {"close_seconds": time.perf_counter() - begun}


def close_of_a_sleeper() -> float:
    """Seconds to close while a worker sleeps in a step and its time-out is far."""
    env = make(Faulty, 4, backend="workers", env_kwargs={"fault": "sleep"}, workers=Workers(2))
    env.reset(0)
    env.recv()
    for count in range(3):
        env.send(FOUR, np.zeros(4, np.int64))
        if count < 2:
            env.recv()
    begun = time.perf_counter()
    env.close()
    return time.perf_counter() - begun


def left_behind() -> tuple[int, int, int]:
    """Children, open descriptors, files in /dev/shm."""
    me = psutil.Process()
    return len(me.children(recursive=True)), me.num_fds(), len(os.listdir("/dev/shm"))


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    measure(FAULTS[0])
    before = left_behind()
    rows: list[dict[str, Any]] = []
    broken: list[str] = []

    def note(claim: str, seconds: float, bound_s: float, what: str, *, good: bool = True) -> None:
        rows.append(row(claim, round(seconds, 4), None, "seconds", f"at most {bound_s:g}; {what}"))
        good = good and seconds <= bound_s
        broken.extend([] if good else [claim])
        print(f"{'ok ' if good else 'BAD'} {claim:45} {seconds:8.4f} s", flush=True)

    closed = close_of_a_sleeper()
    for fault in FAULTS:
        found = [measure(fault) for _ in range(rounds)]
        slowest = max(one["seconds"] for one in found)
        closed = max(closed, *(one["close_seconds"] for one in found))
        named = all(one.get("named") for one in found)
        note(f"{fault.name}, until it is named", slowest, fault.bound_s, str(found[0]["error"]), good=named)
    note("close, the longest", closed, CLOSE_S, "a worker sleeps in its step")
    left = dict(zip(("processes", "descriptors", "shm files"), left_behind(), strict=True))
    for (what, after), then in zip(left.items(), before, strict=True):
        rows.append(row(f"{what} left behind", float(after - then), None, "", "must be 0"))
        broken.extend([what] if after != then else [])
    result: dict[str, Any] = {"name": "faults", "date": time.strftime("%Y-%m-%d"), "machine": machine.describe()}
    result |= {"versions": machine.versions(), "rows": rows}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(", ".join(broken) or 0)


if __name__ == "__main__":
    main()
