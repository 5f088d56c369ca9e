"""Environments that start processes, fork and come back twice, close descriptors, or raise what is hard to tell."""

import os
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(1000)"]


class Plain(gym.Env[Any, Any]):
    """Observes how often it was stepped since its reset."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.count = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> Any:
        self.count += 1
        return np.full(1, self.count, np.float32), 1.0, False, False, {}


class Starter(Plain):
    """Starts a process in each way there is, and notes their ids; the second step ends the worker where it is told."""

    def __init__(self, notes: str, *, ends: bool = False) -> None:
        super().__init__()
        self.notes, self.ends = Path(notes), ends
        self.own = self.notes / str(os.getpid())
        forked = os.fork()
        if not forked:
            time.sleep(1000)
        started = subprocess.Popen(SLEEP)
        alone = subprocess.Popen(SLEEP, start_new_session=True)
        self.processes = (started, alone)
        orphan = os.fork()
        if not orphan:
            os.setsid()
            with open(f"{self.own}.orphan", "w", encoding="ascii") as file:
                file.write(str(subprocess.Popen(SLEEP).pid))
            os._exit(0)
        os.waitpid(orphan, 0)
        left = int(Path(f"{self.own}.orphan").read_text(encoding="ascii"))
        self.own.write_text(f"{forked} {started.pid} {alone.pid} {left}", encoding="ascii")

    def step(self, action: int) -> Any:
        made = super().step(action)
        if self.ends and self.count == 2:
            os._exit(3)
        return made


class Slow(Plain):
    """Its step takes a while; it notes that it was closed."""

    def __init__(self, notes: str) -> None:
        super().__init__()
        self.notes = Path(notes)

    def step(self, action: int) -> Any:
        time.sleep(0.4)
        return super().step(action)

    def close(self) -> None:
        (self.notes / f"{os.getpid()}").write_text(f"closed after {self.count}", encoding="ascii")


class Twice(Plain):
    """Forks in its second call of what `where` names, and both processes come back."""

    def __init__(self, where: str = "step") -> None:
        super().__init__()
        self.where, self.calls = where, 0

    def _fork(self, where: str) -> None:
        self.calls += where == self.where
        if where == self.where and self.calls == 2:
            self.calls += 1
            child = os.fork()
            if child:
                time.sleep(0.1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._fork("reset")
        return super().reset(seed=seed)

    def step(self, action: int) -> Any:
        self._fork("step")
        return super().step(action)


class Closer(Plain):
    """Its second step closes every descriptor; with a file, opens that in their place."""

    def __init__(self, once: str, file: str = "") -> None:
        super().__init__()
        self.once, self.file = Path(once), file

    def step(self, action: int) -> Any:
        made = super().step(action)
        if self.count == 2 and not self.once.exists():
            self.once.write_text("closed", encoding="ascii")
            last = max(map(int, os.listdir("/proc/self/fd")))
            os.closerange(3, last + 1)
            for _ in range(last if self.file else 0):
                os.open(self.file, os.O_RDWR | os.O_CREAT)
        return made


class SilentError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise ZeroDivisionError


class Raiser(Plain):
    """Raises in its second step, or in close."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def step(self, action: int) -> Any:
        made = super().step(action)
        if self.count == 2 and self.what == "silent":
            raise SilentError
        if self.count == 2 and self.what == "only there":
            module = types.ModuleType("only_there")
            sys.modules["only_there"] = module
            exec("class LostError(Exception): pass", module.__dict__)
            raise module.LostError("nobody knows me", 7)
        return made

    def close(self) -> None:
        if self.what == "close":
            raise OSError(5, "the display is gone")


class Doomed(Plain):
    """Its `__init__` forks a child that stays, then dies or hangs."""

    def __init__(self, how: str) -> None:
        super().__init__()
        if not os.fork():
            time.sleep(1000)
        if how == "dies":
            os._exit(5)
        time.sleep(1000)
