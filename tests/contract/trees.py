"""An environment with nested observations and actions, shown to the contract test as plain arrays, leaf beside leaf."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from shoal.types import Layout, Ready, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.envs.vec_env import Capabilities, VecEnv
    from shoal.types import Bools


class Crane(gym.Env[Any, Any]):
    """A Dict with a Tuple inside as observation, a Dict with a Tuple as action; ends and cuts by chance."""

    observation_space = spaces.Dict(
        {
            "count": spaces.Discrete(7, start=1),
            "parts": spaces.Tuple((spaces.Box(-9, 9, (2,), np.float32), spaces.MultiBinary(3))),
        }
    )
    action_space = spaces.Dict(
        {"arm": spaces.Discrete(3, start=1), "legs": spaces.Tuple((spaces.MultiDiscrete([2, 2], start=[1, 1]),))}
    )

    def __init__(self) -> None:
        self.place = np.zeros(2, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self._seen(1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = np.clip(self.place + np.float32(0.1) * action["legs"][0] * (action["arm"] - 2), -9, 9)
        action["legs"][0][:] = 0  # the array is the environment's own
        draw = self.np_random.random()
        return self._seen(int(action["arm"])), float(self.place.sum()), bool(draw < 0.05), bool(draw > 0.96), {}

    def _seen(self, count: int) -> dict[str, Any]:
        place = self.place.astype(np.float32)
        return {"count": np.int64(count), "parts": (place, self.np_random.integers(0, 2, 3).astype(np.int8))}


def side_by_side(layout: Layout, tree: Any) -> NDArray[Any]:
    """The leaves [n, ...] of a batch as [n, D]."""
    return np.concatenate([np.float64(x).reshape(len(x), -1) for x in layout.flat(tree)], axis=1)


def apart(action: Any) -> dict[str, Any]:
    """The inverse for the crane's actions [n, 3]."""
    return {"arm": action[:, 0], "legs": (action[:, 1:],)}


class FlatRows:
    """Rows of cranes whose observations are [B, 6] and whose actions are [B, 3]."""

    def __init__(self, rows: VecEnv) -> None:
        self.rows, self.num_rows = rows, rows.num_rows
        flat = spaces.MultiDiscrete([3, 2, 2], start=[1, 1, 1])
        self.spec = replace(self.rows.spec, action_space=flat, action=Layout.of(flat))

    @property
    def capabilities(self) -> Capabilities:
        return self.rows.capabilities

    @property
    def native_pool(self) -> None:
        return

    @property
    def python_rows(self) -> Any:
        return self.rows.python_rows

    @property
    def dropped(self) -> Bools:
        return self.rows.dropped

    def restart(self, *given: Any, **settings: Any) -> None:
        self.rows.restart(*given, **settings)

    def render(self, row: int) -> Any:
        return self.rows.render(row)

    def reset(self, seed: int | Sequence[int]) -> None:
        self.rows.reset(seed)

    def recv(self) -> Ready:
        ready, layout = self.rows.recv(), self.rows.spec.observation
        return replace(ready, obs=side_by_side(layout, ready.obs), final_obs=side_by_side(layout, ready.final_obs))

    def send(self, rows: slice, action: Any) -> None:
        self.rows.send(rows, apart(action))

    def state(self) -> dict[str, Any]:
        return self.rows.state()

    def restore(self, state: dict[str, Any]) -> list[str]:
        return self.rows.restore(state)

    def close(self) -> None:
        self.rows.close()


class FlatCrane(gym.Wrapper[Any, Any, Any, Any]):
    """One crane in plain Gymnasium, seen and steered by the same arrays."""

    def __init__(self) -> None:
        super().__init__(Crane())
        assert len(leaf_spaces(self.env.observation_space)) == 3

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        return self._flat(obs), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        given = {"arm": int(action[0]), "legs": (action[1:].copy(),)}
        obs, reward, terminated, truncated, info = self.env.step(given)
        return self._flat(obs), reward, terminated, truncated, info

    def _flat(self, obs: Any) -> NDArray[Any]:
        return np.concatenate([[np.float64(obs["count"])], obs["parts"][0], obs["parts"][1]])
