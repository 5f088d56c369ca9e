"""The backend `serial`: Python environments of any kind, stepped one after another in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from shoal.envs.vec_env import InFlight, check_action, check_finite
from shoal.types import EnvError, Ready, Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import gymnasium as gym
    from numpy.typing import NDArray


def make(factory: Callable[[], gym.Env[Any, Any]], num_envs: int, *, name: str) -> SerialEnv:
    """`num_envs` environments, each made by one call of `factory`."""
    return SerialEnv([factory() for _ in range(num_envs)], name)


class SerialEnv:
    """Python environments behind the VecEnv contract.

    A row is saved as what its episode began from (a seed, or its generator's state) and the actions since; `restore`
    plays them again.
    """

    def __init__(self, envs: list[gym.Env[Any, Any]], name: str) -> None:
        """`envs`: one environment a row, alike in their spaces; `name` stands in messages."""
        stripped = [_strip(env) for env in envs]
        self.envs = [env for env, _ in stripped]
        self._limit = stripped[0][1]
        first = envs[0]
        for row, env in enumerate(envs):
            if env.observation_space != first.observation_space or env.action_space != first.action_space:
                raise EnvError(f"{name}: row {row} has other spaces than row 0; one VecEnv holds one kind")
        registered: Any = first.spec
        limits = {"max_episode_steps": self._limit, "reward_threshold": registered and registered.reward_threshold}
        self.spec = Spec.of(name, first.observation_space, first.action_space, **limits)
        self.num_rows = num_rows = len(envs)
        self._leaf = self.spec.observation.single
        self._scalar_obs = isinstance(first.observation_space, spaces.Discrete)
        self._in_flight = InFlight(num_rows)
        self._actions: list[NDArray[Any]] = []
        self._obs = self.spec.observation.allocate(num_rows)
        self._final_obs = self.spec.observation.allocate(num_rows)
        self._reward = np.zeros(num_rows)
        self._terminated = np.zeros(num_rows, np.bool_)
        self._truncated = np.zeros(num_rows, np.bool_)
        self._valid = np.ones(num_rows, np.bool_)
        self._returns = np.zeros(num_rows)
        self._lengths = np.zeros(num_rows, np.int64)
        self._running_return = np.zeros(num_rows)
        self._running_length = np.zeros(num_rows, np.int64)
        self._starts: list[dict[str, Any]] = [{}] * num_rows
        self._played: list[list[Any]] = [[] for _ in range(num_rows)]
        self.infos: list[dict[str, Any]] = [{}] * num_rows
        self.final_infos: list[dict[str, Any]] = [{}] * num_rows

    def reset(self, seed: int | Sequence[int], *, options: dict[str, Any] | None = None) -> None:
        """Starts every row anew; `options` go to each environment's own reset."""
        seeds = [seed + row for row in range(self.num_rows)] if isinstance(seed, int) else seed
        for row in range(self.num_rows):
            self._begin(row, {"seed": int(seeds[row])}, options)
        self._clear()

    def send(self, rows: slice, action: NDArray[Any]) -> None:
        """Notes the actions; the step itself happens in `recv`."""
        rows = self._in_flight.send(rows)
        try:
            self._actions.append(check_action(self.spec, rows, action).copy())
        except ValueError:
            self._in_flight.undo()
            raise

    def recv(self) -> Ready:
        """Steps the rows of the oldest send."""
        rows = self._in_flight.recv()
        if self._actions:
            self._step(rows, self._actions.pop(0))
        return Ready(
            rows,
            self._obs[rows],
            self._reward[rows],
            self._terminated[rows],
            self._truncated[rows],
            self._valid[rows],
            self._final_obs[rows],
            self._returns[rows],
            self._lengths[rows],
            {},
        )

    def state(self) -> dict[str, Any]:
        """What each row's episode began from, the actions since, and the last observations."""
        self._in_flight.quiet()
        leaf = self.spec.action.single
        played = [np.array(p, leaf.dtype).reshape(len(p), *leaf.shape) for p in self._played]
        return {"starts": list(self._starts), "actions": played, "obs": self._obs.copy()}

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Plays each row's episode again; a row that comes out different is cut as truncated and said so."""
        lost: list[str] = []
        self._clear()
        for row in range(self.num_rows):
            self._begin(row, state["starts"][row])
            saved = state["obs"][row]
            actions = self._as_actions(state["actions"][row])
            if not self._replay(row, actions, saved):
                self._final_obs[row] = saved
                self._truncated[row] = True
                self._begin(row)
                lost.append(
                    f"{self.spec.env_id}: row {row} did not come back to its saved observation after "
                    f"{len(actions)} actions; its episode is cut as truncated"
                )
        return lost

    def close(self) -> None:
        """Closes every environment."""
        for env in self.envs:
            env.close()

    def _step(self, rows: slice, actions: NDArray[Any]) -> None:
        obs_rows, infos, leaf = self._obs, self.infos, self._leaf
        shape, dtype, scalar = leaf.shape, leaf.dtype, self._scalar_obs
        rewards: list[Any] = []
        ended: list[tuple[int, bool, bool]] = []
        last = self._limit - 1 if self._limit else -1
        limited = set(np.flatnonzero(self._running_length[rows] >= last) + rows.start) if last >= 0 else ()
        row = rows.start
        for action in self._as_actions(actions):
            obs, reward, terminated, truncated, infos[row] = self.envs[row].step(action)
            if not scalar and (obs.__class__ is not np.ndarray or obs.shape != shape or obs.dtype != dtype):
                self._refuse(row, obs)
            obs_rows[row] = obs
            rewards.append(reward)
            self._played[row].append(action)
            if terminated or truncated or row in limited:
                ended.append((row, bool(terminated), bool(truncated) or row in limited))
            row += 1
        self._account(rows, rewards, ended)

    def _account(self, rows: slice, rewards: list[Any], ended: list[tuple[int, bool, bool]]) -> None:
        try:
            self._reward[rows] = rewards
        except (TypeError, ValueError):
            row = next(
                r for r, reward in enumerate(rewards) if np.ndim(reward) or not isinstance(reward, SupportsFloat)
            )
            message = f"{self.spec.env_id}: row {rows.start + row} returned the reward {rewards[row]!r}; return a float"
            raise EnvError(message) from None
        self._terminated[rows] = self._truncated[rows] = False
        check_finite(self.spec, rows, self._obs[rows], self._reward[rows])
        self._running_return[rows] += self._reward[rows]
        self._running_length[rows] += 1
        if self._scalar_obs:
            self._check_discrete(rows)
        for row, terminated, truncated in ended:
            self._terminated[row], self._truncated[row] = terminated, truncated
            self._final_obs[row] = self._obs[row]
            self._returns[row], self._lengths[row] = self._running_return[row], self._running_length[row]
            self.final_infos[row] = self.infos[row]
            self._begin(row)

    def _begin(self, row: int, start: dict[str, Any] | None = None, options: dict[str, Any] | None = None) -> None:
        """Resets a row: as `start` says ({"seed"} or {"generator"}), else from where its generator stands."""
        env: Any = self.envs[row]
        unwrapped: Any = env.unwrapped
        if start and "generator" in start:
            generator = np.random.PCG64()
            generator.state = start["generator"]
            unwrapped.np_random = np.random.Generator(generator)
        elif start is None:
            generator = getattr(unwrapped, "np_random", None)
            numpys_own = isinstance(generator, np.random.Generator)
            start = {"generator": generator.bit_generator.state} if numpys_own else {}
        self._starts[row] = start
        seeded = {"seed": start["seed"]} if "seed" in start else {}
        obs, self.infos[row] = env.reset(**seeded, **({"options": options} if options else {}))
        if not self._scalar_obs and (np.shape(obs) != self._leaf.shape or obs.dtype != self._leaf.dtype):
            self._refuse(row, obs)
        self._obs[row] = obs
        check_finite(self.spec, slice(row, row + 1), self._obs[row : row + 1], np.zeros(1))
        self._played[row] = []
        self._running_return[row] = self._running_length[row] = 0

    def _replay(self, row: int, actions: list[Any], saved: NDArray[Any]) -> bool:
        for action in actions:
            obs, reward, terminated, truncated, self.infos[row] = self.envs[row].step(action)
            self._obs[row] = obs
            self._played[row].append(action)
            self._running_return[row] += float(reward)
            self._running_length[row] += 1
            if terminated or truncated:
                return False
        return bool(np.array_equal(self._obs[row], saved))

    def _as_actions(self, actions: NDArray[Any]) -> list[Any]:
        return actions.tolist() if isinstance(self.spec.action_space, spaces.Discrete) else list(actions)

    def _check_discrete(self, rows: slice) -> None:
        space: Any = self.spec.observation_space
        good = (self._obs[rows] >= space.start) & (self._obs[rows] < space.start + space.n)
        if not good.all():
            self._refuse(rows.start + int(np.argmin(good)), self._obs[rows][np.argmin(good)])

    def _refuse(self, row: int, obs: Any) -> None:
        raise EnvError(
            f"{self.spec.env_id}: row {row} returned at step {self._running_length[row] + 1} of its episode an observation "
            f"of shape {np.shape(obs)} and type {getattr(obs, 'dtype', type(obs).__name__)} that is not in its own "
            f"{self.spec.observation_space}; return exactly that shape and dtype"
        )

    def _clear(self) -> None:
        self._actions.clear()
        self._reward[:] = 0
        self._terminated[:] = self._truncated[:] = False
        self._in_flight.begin()


def _strip(env: gym.Env[Any, Any]) -> tuple[gym.Env[Any, Any], int | None]:
    """Takes off Gymnasium's own outermost checks and time limit, which the rows do themselves."""
    limit: int | None = None
    inner: Any = env
    while True:
        if type(inner) is TimeLimit and limit is None:
            limit = inner._max_episode_steps  # noqa: SLF001
        elif type(inner) not in (OrderEnforcing, PassiveEnvChecker):
            return inner, limit
        inner = inner.env
