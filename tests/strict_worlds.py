"""Environments that insist on what Gymnasium's SyncVectorEnv would hand over, or return unusual observations."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3, start=-1),
    "discrete-int32": spaces.Discrete(3, dtype=np.int32),
    "multi-int8": spaces.MultiDiscrete([8, 8], dtype=np.int8),
    "multi-int32": spaces.MultiDiscrete([8, 8], dtype=np.int32),
    "multi-axes": spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), dtype=np.int16),
    "binary": spaces.MultiBinary(3),
    "box": spaces.Box(-0.1, 0.1, (2,), np.float64),
    "box-float16": spaces.Box(-0.1, 0.1, (1, 2), np.float16),
    "tuple": spaces.Tuple((spaces.Discrete(2, dtype=np.int16), spaces.MultiDiscrete([3, 3], dtype=np.int8))),
    "dict": spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1, 1, (2,), np.float32)}),
}


def same_form(one: Any, other: Any) -> bool:
    """Whether two actions are of the same types, dtypes and shapes."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return all(same_form(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return all(map(same_form, one, other))
    return (one.dtype, one.shape) == (other.dtype, other.shape)


class Strict(gym.Env[Any, Any]):
    """Refuses an action of another form than its space samples, or outside the space."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, kind: str = "discrete", render_mode: str | None = None) -> None:
        self.action_space = ACTIONS[kind]
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        assert same_form(action, self.action_space.sample()), f"{action!r}"
        assert self.action_space.contains(action), f"{action!r}"
        self.count += 1
        return np.zeros(1, np.float32), 1.0, self.count == 2, False, {}

    def render(self) -> Any:
        return np.zeros((16, 16, 3), np.uint8)


class PythonsInt(Strict):
    """Takes Python's int only."""

    def step(self, action: Any) -> Any:
        if not isinstance(action, int):
            raise TypeError(f"no int: {action!r}")
        return np.zeros(1, np.float32), 1.0, True, False, {}


class Protocol:
    """Offers itself as an array."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self.values, dtype)


SEEN: dict[str, tuple[spaces.Space[Any], Any]] = {
    "box-list": (spaces.Box(-1, 1, (2,), np.float32), [0.1, 0.3]),
    "box-integers": (spaces.Box(-1, 1, (2,), np.float32), [0, 1]),
    "image-lists": (spaces.Box(0, 255, (2, 2), np.uint8), [[0, 255], [1, 2]]),
    "box-protocol": (spaces.Box(-1, 1, (2,), np.float32), Protocol([0.1, 0.3])),
    "multi-list": (spaces.MultiDiscrete([3, 3]), [2, 0]),
    "binary-int64": (spaces.MultiBinary(3), np.array([1, 0, 1])),
    "binary-list": (spaces.MultiBinary(3), [1, 0, 1]),
    "dict-lists": (
        spaces.Dict({"a": spaces.MultiBinary(2), "b": spaces.Box(-1, 1, (1,), np.float64)}),
        {"a": [0, 1], "b": [0.1]},
    ),
}


class Seen(gym.Env[Any, Any]):
    """Returns one observation always."""

    action_space = spaces.Discrete(2)

    def __init__(self, kind: str = "box-list", seen: Any = None) -> None:
        self.observation_space, self.seen = SEEN[kind]
        if seen is not None:
            self.seen = seen

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self.seen, {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return self.seen, 1.0, self.count == 3, False, {}
