"""Environments with one defect each, and a good one: what `check_env` must tell apart."""

from __future__ import annotations

import threading
import time
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class Good(gym.Env[Any, Any]):
    """A drifting point that is pushed left or right; it ends beyond 2, or is cut after 40 steps."""

    def __init__(self) -> None:
        self.observation_space: Any = spaces.Box(-10, 10, (3,), np.float32)
        self.action_space: Any = spaces.Discrete(2)
        self.point = np.zeros(3)
        self.count = 0

    def observe(self) -> Any:
        return self.point.astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.point = self.np_random.uniform(-1, 1, 3)
        self.count = 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        self.move(action)
        out = bool(np.abs(self.point).max() > 2)
        return self.observe(), 1.0 + float(self.point[0]), out, not out and self.count == 40, {"count": self.count}

    def move(self, action: Any) -> None:
        self.point[0] += 0.3 * (2 * action - 1)
        self.point[1:] += self.np_random.normal(size=2) * 0.3
        np.clip(self.point, -5, 5, out=self.point)


class Continuous(Good):
    """The same, pushed by a real number."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def move(self, action: Any) -> None:
        super().move(float(action[0]) / 2 + 0.5)


class WrongShape(Good):
    """(4,) where the space has (3,)."""

    def observe(self) -> Any:
        return np.append(super().observe(), np.float32(0))


class WrongType(Good):
    """float64 where the space has float32."""

    def observe(self) -> Any:
        return self.point.copy()


class NanAtStep(Good):
    """NaN at step 7."""

    def observe(self) -> Any:
        return super().observe() * (np.float32(np.nan) if self.count == 7 else np.float32(1))


class NoObservation(Good):
    """None."""

    def observe(self) -> Any:
        return None


class Outside(Good):
    """Beyond the bounds that it says."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(-1, 1, (3,), np.float32)


class OneBuffer(Good):
    """The same array, written anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = np.zeros(3, np.float32)

    def observe(self) -> Any:
        self.buffer[:] = self.point
        return self.buffer


class SharedBuffer(OneBuffer):
    """The same array in all instances."""

    everyone: ClassVar[NDArray[np.float32]] = np.zeros(3, np.float32)

    def __init__(self) -> None:
        super().__init__()
        self.buffer = self.everyone


class SharedState(Good):
    """Wind that is counted in the class."""

    wind: ClassVar[list[float]] = [0.0]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.wind[0] = 0.0
        return super().reset(seed=seed)

    def move(self, action: Any) -> None:
        super().move(action)
        self.wind[0] += 0.01
        self.point[1] += self.wind[0]


class OwnRandomness(Good):
    """Draws from a generator that nobody seeds."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng()

    def move(self, action: Any) -> None:
        super().move(action)
        self.point[2] += 0.01 * self.rng.normal()


class SeedIgnored(Good):
    """Begins from seed 3 whatever it is told."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=3 if seed is not None else None)


class OwnGenerator(Good):
    """A seeded generator of its own, which a saved state does not hold."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        made = super().reset(seed=seed)
        self.point = self.rng.uniform(-1, 1, 3)
        return self.observe(), made[1]


class NeverEnds(Good):
    """Goes on for ever."""

    def step(self, action: Any) -> Any:
        made = super().step(action)
        return *made[:2], False, False, made[4]


class LimitTerminates(Good):
    """Says that it terminated when the time was up, and ends by nothing else."""

    def step(self, action: Any) -> Any:
        made = super().step(action)
        return *made[:2], self.count == 15, False, made[4]


class ActionChanged(Continuous):
    """Clips the action in place."""

    def move(self, action: Any) -> None:
        np.clip(action, -0.1, 0.1, out=action)
        super().move(action)


class SlowStep(Good):
    """2 ms a step."""

    def move(self, action: Any) -> None:
        time.sleep(0.002)
        super().move(action)


class SlowReset(Good):
    """Most of its time passes in reset."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        time.sleep(0.002)
        return super().reset(seed=seed)


class InfiniteReward(Good):
    """An infinite reward at step 5."""

    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        return obs, np.inf if self.count == 5 else reward, *rest


class OtherReward(Good):
    """A reward of the class's own."""

    reward: Any = 1.0

    def step(self, action: Any) -> Any:
        obs, _, *rest = super().step(action)
        return obs, self.reward, *rest


class TextReward(OtherReward):
    reward = "1.0"


class LargeReward(OtherReward):
    reward = 1e6


class NoReward(OtherReward):
    reward = 0.0


class UnevenScale(Good):
    """One component a hundred times as large as the others."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(-1000, 1000, (3,), np.float32)

    def observe(self) -> Any:
        return super().observe() * np.array([1, 100, 1], np.float32)


class FourValues(Good):
    """Gym's old step of four values."""

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or truncated, info


class ResetWithoutInfo(Good):
    """Gym's old reset."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0]


class ResetWithoutSeed(Good):
    """Takes no seed."""

    def reset(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().reset()


class WrongFlag(Good):
    """None for False."""

    def step(self, action: Any) -> Any:
        *made, info = super().step(action)
        return *made[:3], made[3] or None, info


class RaisesAtStep(Good):
    """Raises at step 6."""

    def move(self, action: Any) -> None:
        super().move({}["coffee"] if self.count == 6 else action)


class RaisesInRows(Good):
    """Raises in the third instance that is stepped, as one that needs a port of its own."""

    made: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.number = len(self.made)
        self.made.append(self.number)

    def move(self, action: Any) -> None:
        if self.number == 4:
            raise OSError("the port is taken")
        super().move(action)


class Leak(Good):
    """Keeps 10 KB of each step."""

    kept: ClassVar[list[bytearray]] = []

    def move(self, action: Any) -> None:
        super().move(action)
        self.kept.append(bytearray(b"x" * 10_000))


class HangsInStep(Good):
    """Waits for an event that never comes, at step 4."""

    def move(self, action: Any) -> None:
        threading.Event().wait() if self.count == 4 else super().move(action)


class HangsInReset(Good):
    """Loops for ever in its second reset, and swallows what it can."""

    resets = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.resets += 1
        while self.resets == 2:
            try:
                time.sleep(0.01)
            except Exception:
                continue
        return super().reset(seed=seed)


class CloseRaises(Good):
    """Frees what it never had."""

    def close(self) -> None:
        raise AttributeError("no window")


class NoSpace(Good):
    """Has no action space."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = None


class TextSpace(Good):
    """Observes a text."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Dict({"seen": self.observation_space, "said": spaces.Text(8)})


class NothingToChoose(Continuous):
    """Acts in a Box of size 0."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(-1, 1, (0,), np.float32)


class Unbounded(Continuous):
    """Acts without bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)


class Nested(Good):
    """Observes a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Dict({"point": spaces.Box(-10, 10, (3,), np.float32), "n": spaces.Discrete(50)})

    def observe(self) -> Any:
        return {"point": super().observe(), "n": self.count}


class NestedWrong(Nested):
    """A dict that lacks a part."""

    def observe(self) -> Any:
        return {"point": super().observe()["point"]}


class Doubles(WrongType):
    """float64 in the space too."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Box(-10, 10, (3,), np.float64)


class RaisesWhenMade(Good):
    """Cannot be made."""

    def __init__(self) -> None:
        super().__init__()
        raise RuntimeError("no license")


ONE = Good()


def make_one() -> gym.Env[Any, Any]:
    """The same object each time."""
    return ONE


def make_nothing() -> Any:
    """No environment."""
    return None
