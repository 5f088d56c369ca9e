"""The backend `native`: environments written in C++, stepped in place by a pool of threads."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal import _native
from shoal.envs.vec_env import InFlight
from shoal.types import ConfigError, Ready, Spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def ids() -> list[str]:
    """The environments that are built in."""
    return _native.env_ids()


def spec_of(env_id: str) -> Spec:
    """The specification of a built-in environment; its spaces equal Gymnasium's."""
    info = _native.env_info(env_id)
    low, high = np.array(info["obs_low"], np.float32), np.array(info["obs_high"], np.float32)
    if info["discrete"]:
        action: spaces.Space[Any] = spaces.Discrete(info["num_actions"])
    else:
        action = spaces.Box(np.array(info["action_low"], np.float32), np.array(info["action_high"], np.float32))
    limits = {"max_episode_steps": info["max_episode_steps"], "reward_threshold": info["reward_threshold"]}
    return Spec.of(env_id, spaces.Box(low, high), action, **limits)


def make(env_id: str, num_envs: int, *, num_threads: int = 1, env_kwargs: dict[str, Any] | None = None) -> NativeEnv:
    """`num_envs` rows of a built-in environment; `env_kwargs` sets fields of its `Params`."""
    return NativeEnv(env_id, num_envs, num_threads=num_threads, env_kwargs=env_kwargs or {})


class NativeEnv:
    """A pool of C++ rows behind the VecEnv contract."""

    def __init__(self, env_id: str, num_envs: int, *, num_threads: int, env_kwargs: dict[str, Any]) -> None:
        """`num_threads` counts the calling thread; results do not depend on it."""
        known = _native.env_info(env_id)["params"]
        for name in env_kwargs:
            if name not in known:
                near = get_close_matches(name, known, n=3) or sorted(known)
                raise ConfigError(f"{env_id} has no parameter {name!r}; did you mean {', '.join(near) or 'none'}?")
        self.spec = spec_of(env_id)
        self.num_rows = num_envs
        self.pool = _native.Pool(env_id, num_envs, num_threads, {key: float(v) for key, v in env_kwargs.items()})
        self._in_flight = InFlight(num_envs)
        self._slots: list[int] = []
        self._next_slot = 0
        self.obs: NDArray[np.float32] = self.spec.observation.allocate(num_envs)
        self._final_obs: NDArray[np.float32] = self.spec.observation.allocate(num_envs)
        self._reward = np.zeros(num_envs)
        self._terminated = np.zeros(num_envs, np.bool_)
        self._truncated = np.zeros(num_envs, np.bool_)
        self._valid = np.ones(num_envs, np.bool_)
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)
        self.pool.attach(
            self.obs,
            self._reward,
            self._terminated,
            self._truncated,
            self._final_obs,
            self._returns,
            self._lengths,
        )

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every row anew."""
        seeds = [seed + row for row in range(self.num_rows)] if isinstance(seed, int) else seed
        self._drain()
        self.pool.reset(np.array(seeds, np.uint64))
        self._clear()

    def recv(self) -> Ready:
        """Waits for the oldest rows under way, helping to step them."""
        rows = self._in_flight.recv()
        if self._slots:
            self.pool.recv(self._slots.pop(0))
        return Ready(
            rows,
            self.obs[rows],
            self._reward[rows],
            self._terminated[rows],
            self._truncated[rows],
            self._valid[rows],
            self._final_obs[rows],
            self._returns[rows],
            self._lengths[rows],
            {},
        )

    def send(self, rows: slice, action: NDArray[Any]) -> None:
        """Starts one step of `rows`; the pool refuses a bad action before it steps any row."""
        rows = self._in_flight.send(rows)
        leaf = self.spec.action.single
        expected = (rows.stop - rows.start, *leaf.shape)
        try:
            if action.shape != expected:
                raise ValueError(f"{self.spec.env_id}: expected actions {expected}, got {action.shape}")
            if action.dtype != leaf.dtype:
                raise ValueError(f"{self.spec.env_id}: actions must be {leaf.dtype}, got {action.dtype}")
            self.pool.send(self._next_slot, rows.start, rows.stop - rows.start, np.ascontiguousarray(action))
        except ValueError:
            self._in_flight.undo()
            raise
        self._slots.append(self._next_slot)
        self._next_slot = 1 - self._next_slot

    def state(self) -> dict[str, Any]:
        """The rows' structs as bytes, and the observations not yet acted on."""
        self._in_flight.quiet()
        return {"rows": self.pool.state(), "obs": self.obs.copy()}

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state` exactly."""
        self._drain()
        self.pool.restore(np.ascontiguousarray(state["rows"]))
        self.obs[:] = state["obs"]
        self._clear()
        return []

    def close(self) -> None:
        """Waits for the rows under way."""
        self._drain()

    def _clear(self) -> None:
        self._reward[:] = 0
        self._terminated[:] = self._truncated[:] = False
        self._in_flight.begin()

    def _drain(self) -> None:
        while self._slots:
            self.pool.recv(self._slots.pop(0))
