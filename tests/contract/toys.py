"""Small Python environments whose spaces, ends and infos differ from the classic ones."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray


class Corridor(gym.Env[Any, Any]):
    """Seven places in a row and a slippery floor; Discrete observation, and Discrete actions that start at 1."""

    def __init__(self) -> None:
        self.observation_space = spaces.Discrete(7)
        self.action_space = spaces.Discrete(2, start=1)
        self.place = 3

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = (options or {}).get("place", int(self.np_random.integers(2, 5)))
        return np.int64(self.place), {"began_at": self.place}

    def step(self, action: int) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        step = 2 * int(action) - 3
        self.place += step if self.np_random.random() < 0.8 else 0
        info: dict[str, Any] = {"slipped": step == 0, "trail": np.array([self.place, step])}
        if self.place in (0, 6):
            info["side"] = {"name": "left" if self.place == 0 else "right", "number": float(self.place)}
        return np.int64(self.place), -0.1 if 0 < self.place < 6 else 1.0, self.place in (0, 6), False, info


class Lamps(gym.Env[Any, Any]):
    """MultiDiscrete actions, a two-dimensional float64 observation, ends by chance and by a cut of its own."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2, 3), np.float64)
        self.action_space = spaces.MultiDiscrete([3, 2])
        self.lamps = np.zeros((2, 3))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[NDArray[Any], Any]:
        super().reset(seed=seed)
        self.lamps = self.np_random.normal(size=(2, 3))
        return self.lamps.copy(), {}

    def step(self, action: NDArray[np.int64]) -> tuple[NDArray[Any], np.float32, bool, bool, dict[str, Any]]:
        assert action.shape == (2,)
        self.lamps[action[1], action[0]] += 1
        action += 1  # the array is the environment's own: what it does with it is its business
        draw = self.np_random.random()
        reward = np.float32(self.lamps.sum())
        return self.lamps.copy(), reward, bool(draw < 0.05), bool(draw > 0.97), {"total": float(self.lamps.sum())}


class Gates(Corridor):
    """A corridor whose infos mask one option or none; who chooses it all the same is moved."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        place, info = super().reset(seed=seed, options=options)
        return place, info | {"action_mask": np.ones(2, np.int8)}

    def step(self, action: int) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        place, reward, ended, _, info = super().step(action)
        draw = self.np_random.integers(3)
        mask = np.array([draw != 0, draw != 1], np.int8)
        return place, reward, ended, bool(self.np_random.random() < 0.03), info | {"action_mask": mask}


class Pointer(gym.Env[Any, Any]):
    """Box actions; episodes end at the border, or after 40 steps by the TimeLimit around it."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-3, 3, (4,), np.float32)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self.point = np.zeros(4, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[NDArray[Any], Any]:
        super().reset(seed=seed)
        self.point = self.np_random.uniform(-1, 1, 4).astype(np.float32)
        return self.point, {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[Any], float, Any, bool, dict[str, Any]]:
        self.point[:2] += action * np.float32(0.5)  # the same array is returned each time
        self.point[2:] = np.clip(self.np_random.normal(size=2), -3, 3)
        out = np.abs(self.point[:2]).max() > 2
        return self.point, float(self.point.sum()), out, False, {"is_success": bool(out), "distance": 1.5}


def make_pointer() -> gym.Env[Any, Any]:
    """The pointer with its time limit."""
    return TimeLimit(Pointer(), 40)


class Alone:
    """A Gymnasium environment as a game of one agent, in the interface of `pettingzoo.ParallelEnv`."""

    possible_agents = ("agent_0",)

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.env = env
        self.agents: list[str] = []

    @property
    def unwrapped(self) -> Any:
        return self.env.unwrapped

    def observation_space(self, agent: str) -> Any:
        return self.env.observation_space

    def action_space(self, agent: str) -> Any:
        return self.env.action_space

    def reset(self, **start: Any) -> Any:
        self.agents = ["agent_0"]
        return tuple({"agent_0": part} for part in self.env.reset(**start))

    def step(self, actions: dict[str, Any]) -> Any:
        made = self.env.step(actions["agent_0"])
        self.agents = [] if made[2] or made[3] else ["agent_0"]
        return tuple({"agent_0": part} for part in made)

    def close(self) -> None:
        self.env.close()
