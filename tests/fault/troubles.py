"""An environment that makes trouble in one row at one step, and what must not be left behind."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
from gymnasium import spaces
from numpy.typing import NDArray

LENGTH = 9
RETURNED: dict[str, tuple[int, Any]] = {
    "NaN observation": (0, np.full(3, np.nan, np.float32)),
    "long observation": (0, np.zeros(4, np.float32)),
    "short observation": (0, np.zeros(1, np.float32)),
    "no observation": (0, None),
    "NaN reward": (1, float("nan")),
}


class OddError(Exception):
    """A user's own exception, with more in it than a text."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text, code)
        self.code = code


class StubbornError(Exception):
    """An exception that pickle cannot make again."""

    def __init__(self, *, why: str) -> None:
        super().__init__(why)
        self.lock = open(os.devnull)  # noqa: SIM115 - an open file cannot be pickled


class Trouble(gym.Env[Any, Any]):
    """Observes (its seed, the step of its episode, its episode); makes trouble where it was seeded with `row`."""

    def __init__(self, what: str = "nothing", row: int = 2, at: int = 3) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.what, self.row, self.at = what, row, at
        self.seeded, self.count, self.episode, self.total = -1, 0, 0, 0

    def observe(self) -> NDArray[np.float32]:
        return np.array([self.seeded, self.count, self.episode], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.seeded, self.episode, self.total = seed % 2**20, 0, 0
        if self.what == "hang at reset" and self.seeded == 2**19:
            time.sleep(1000)
        self.episode, self.count = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action: int) -> Any:
        self.count, self.total = self.count + 1, self.total + 1
        made: list[Any] = [self.observe(), 1.0, self.count == LENGTH, False, {}]
        if self.seeded == self.row and self.total == self.at:
            self.make_trouble(made)
        return tuple(made)

    def make_trouble(self, made: list[Any]) -> None:
        if self.what in RETURNED:
            place, value = RETURNED[self.what]
            made[place] = value
        elif self.what.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, self.what))
        elif self.what == "exit":
            os._exit(3)
        elif self.what.endswith("hang"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN if self.what.startswith("stubborn") else signal.SIG_DFL)
            time.sleep(1000)
        elif self.what == "raise":
            raise OddError("the wheel came off", 42)
        elif self.what == "raise unpicklable":
            raise StubbornError(why="it is stubborn")


def left_behind() -> tuple[set[int], set[str], set[str]]:
    """Children, what open descriptors point at, and named shared memory that this process has mapped.

    What merely lies in /dev/shm may be another test's: they run side by side.
    """
    fds: list[str] = []
    for fd in Path("/proc/self/fd").iterdir():
        try:
            fds.append(f"{fd.name} {fd.readlink()}")
        except OSError:
            continue
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    mapped = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    return children, set(fds), {name for name in mapped if name.startswith("/dev/shm/")}
