"""The backend `native`: environments written in C++, stepped in place by a pool of threads."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal import _native
from shoal.envs.actions import ActionCheck
from shoal.envs.in_flight import InFlight
from shoal.envs.outputs import Outputs, check_rows
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.randomization import Ranges, info_keys_of, native_draws
from shoal.envs.vec_env import Capabilities, NativePool, row_seeds
from shoal.types import ConfigError, Spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from shoal.types import Bools, Ready, Tree


def ids() -> list[str]:
    """The environments that are built in."""
    return _native.env_ids()


def spec_of(env_id: str, params: Mapping[str, float] | None = None) -> Spec:
    """The specification of a built-in environment under `params`; its spaces equal Gymnasium's."""
    info = _native.env_info(env_id)
    observation = _box(info["obs_low"], info["obs_high"])
    action: spaces.Space[Any] = observation
    if info["discrete"]:
        action = spaces.Discrete(info["num_actions"])
    else:
        action = _box(info["action_low"], info["action_high"])
    limit = int((info["params"] | dict(params or {}))["max_episode_steps"])
    return Spec.of(
        env_id,
        observation,
        action,
        max_episode_steps=limit or None,
        reward_threshold=info["reward_threshold"],
        num_agents=info["num_agents"],
    )


def make(
    env_id: str,
    num_envs: int,
    *,
    num_threads: int = 1,
    env_kwargs: Mapping[str, Any] | None = None,
    ranges: Ranges | None = None,
    preprocessing: Preprocessing | None = None,
) -> NativeEnv:
    """`num_envs` built-in environments, a row for each agent; `env_kwargs` sets their `Params`, `ranges` draws them."""
    return NativeEnv(
        env_id,
        num_envs,
        num_threads=num_threads,
        env_kwargs=env_kwargs or {},
        ranges=ranges or {},
        preprocessing=preprocessing or Preprocessing(),
    )


class NativeEnv:
    """A pool of C++ rows behind the VecEnv contract."""

    python_rows = None

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        *,
        num_threads: int,
        env_kwargs: Mapping[str, Any],
        ranges: Ranges,
        preprocessing: Preprocessing,
    ) -> None:
        """`num_threads` counts the calling thread; results do not depend on it."""
        params = _params(env_id, env_kwargs)
        _params(env_id, dict.fromkeys(ranges, 0.0))
        keys = info_keys_of(ranges)
        seen = preprocessing.spec(spec_of(env_id, params))
        self.spec = replace(seen, info_keys=keys)
        self.num_rows = num_rows = num_envs * self.spec.num_agents
        check_rows(self.spec, num_rows)
        reward_low, reward_high = preprocessing.reward_bounds
        try:
            self.pool = _native.Pool(
                env_id,
                num_rows,
                num_threads,
                params,
                native_draws(ranges),
                frame_stack=preprocessing.frame_stack,
                sticky_actions=preprocessing.sticky_actions,
                reward_scale=preprocessing.reward_scale,
                reward_sign=preprocessing.reward_sign,
                reward_low=reward_low,
                reward_high=reward_high,
            )
        except ValueError as error:
            raise ConfigError(f"{env_id}: {error}") from error
        self.capabilities = Capabilities(
            restartable=True,
            can_render=self.pool.frame != (0, 0),
            always_valid=True,
        )
        self._action = ActionCheck(self.spec)
        self._in_flight = InFlight(num_rows)
        self._slots: list[int] = []
        self.out = out = Outputs(self.spec, num_rows)
        self.obs: NDArray[np.float32] = out.obs
        drawn = np.full((num_rows, len(keys)), np.nan)
        out.info = {key: drawn[:, column] for column, key in enumerate(keys)}
        self.pool.attach(
            out.obs.reshape(num_rows, -1),
            out.reward,
            out.terminated,
            out.truncated,
            out.final_obs.reshape(num_rows, -1),
            out.episode_return,
            out.episode_length,
            drawn,
        )

    @property
    def native_pool(self) -> NativePool:
        """The pool and its observations."""
        return NativePool(self.pool, self.obs)

    @property
    def dropped(self) -> Bools:
        """No row is ever dropped."""
        return np.zeros(self.num_rows, np.bool_)

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every row anew."""
        seeds = row_seeds(seed, self.num_rows)
        self._drain()
        self.pool.reset(np.array(seeds, np.uint64))
        self._begin()

    def restart(
        self,
        seeds: Sequence[int | None],
        rows: Bools,
        *,
        held: Bools,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Begins new episodes in some rows; ConfigError for options, which native resets do not take."""
        if options:
            raise ConfigError(
                f"{self.spec.env_id}: native resets take no options; backend='serial' takes {options}"
            )
        if not self._in_flight.started:
            if not rows.all():
                raise RuntimeError("every row must be reset once before some are")
            seeds = _without_gaps(seeds)
        self._drain()
        seeded = rows & np.array([seed is not None for seed in seeds])
        given = row_seeds([seed or 0 for seed in seeds], self.num_rows)
        begun = np.array(given, np.uint64)
        if seeded.all():
            self.pool.reset(begun)
        else:
            self.pool.restart(begun, seeded, rows & ~seeded & ~held)
        self._begin()

    def recv(self) -> Ready:
        """Waits for the oldest rows under way, helping to step them."""
        rows = self._in_flight.recv()
        if self._slots:
            self.pool.recv(self._slots.pop(0))
        return self.out.view(rows)

    def send(self, rows: slice, action: Tree) -> None:
        """Starts one step of `rows`; the pool refuses a bad action before it steps any row."""
        rows = self._in_flight.send(rows)
        try:
            array = np.ascontiguousarray(self._action.cast(rows, action))
            slot = int(0 in self._slots)
            self.pool.send(slot, rows.start, rows.stop - rows.start, array)
        except ValueError:
            self._in_flight.undo()
            raise
        self._slots.append(slot)

    def state(self) -> dict[str, Any]:
        """The rows' structs, or what they are played again from, as bytes; and the observations not yet acted on."""
        self._in_flight.quiet()
        return {
            "layout": self.pool.layout,
            "rows": self.pool.state(),
            "obs": self.obs.copy(),
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state` exactly; a row that is played again and comes out different is cut and said so.

        ConfigError where the state holds what these rows cannot have come to; they must be reset then.
        """
        self._drain()
        self._check_saved(state)
        self.out.clear()
        try:
            cut = self.pool.restore(np.ascontiguousarray(state["rows"]))
        except ValueError as error:
            self._in_flight.stop()
            raise ConfigError(
                f"{self.spec.env_id}: the saved rows do not fit: {error}"
            ) from error
        kept = np.setdiff1d(np.arange(self.num_rows), cut)
        self.obs[kept] = state["obs"][kept]
        self._in_flight.begin()
        why = "did not come back to its saved observation and return; its episode is cut as truncated"
        return [f"{self.spec.env_id}: row {row} {why}" for row in cut]

    def _check_saved(self, state: dict[str, Any]) -> None:
        """ConfigError unless the state is of rows like these, with observations that can be theirs."""
        env_id, saved, own = self.spec.env_id, state.get("layout"), self.pool.layout
        if saved != own:
            raise ConfigError(
                f"{env_id}: the saved rows are of another build of the environment: "
                f"they hold {saved}; this one has {own}"
            )
        obs = np.asarray(state["obs"])
        if obs.shape != self.obs.shape or obs.dtype != self.obs.dtype:
            raise ConfigError(
                f"{env_id}: the saved observations are {obs.dtype} of shape {obs.shape}, "
                f"but these rows have {self.obs.dtype} of shape {self.obs.shape}"
            )
        if not np.isfinite(obs).all():
            raise ConfigError(f"{env_id}: the saved observations are not all finite")

    def render(self, row: int) -> NDArray[np.uint8]:
        """An RGB image of a row: [height, width, 3]. ConfigError where the environment cannot be rendered."""
        if not self.capabilities.can_render:
            raise ConfigError(
                f"the native {self.spec.env_id} cannot be rendered; backend='serial' renders Gymnasium's version"
            )
        self._in_flight.quiet()
        try:
            return self.pool.render(row)
        except ValueError as error:
            raise ConfigError(f"{self.spec.env_id}: {error}") from error

    def close(self) -> None:
        """Waits for the rows under way."""
        self._drain()
        self._in_flight.stop("the environment is closed")

    def _begin(self) -> None:
        self.out.clear()
        self._in_flight.begin()

    def _drain(self) -> None:
        while self._slots:
            self.pool.recv(self._slots.pop(0))


def _box(low: Sequence[float], high: Sequence[float]) -> spaces.Box:
    return spaces.Box(np.array(low, np.float32), np.array(high, np.float32))


def _without_gaps(seeds: Sequence[int | None]) -> list[int]:
    """The seeds, with drawn ones where there are none."""
    fresh = np.random.SeedSequence().generate_state(len(seeds), np.uint64).tolist()
    given = list[int]()
    for seed, drawn in zip(seeds, fresh, strict=True):
        given.append(drawn if seed is None else seed)
    return given


def _params(env_id: str, env_kwargs: Mapping[str, Any]) -> dict[str, float]:
    """The native parameters, all as floats; ConfigError for one that is not there or not a number."""
    known = _native.env_info(env_id)["params"]
    params: dict[str, float] = {}
    for name, value in env_kwargs.items():
        if name not in known:
            near = get_close_matches(name, known, n=3) or sorted(known)
            raise ConfigError(
                f"the native {env_id} has no parameter {name!r}; did you mean {', '.join(near)}? "
                "backend='serial' takes the keywords of Gymnasium's own environment"
            )
        if not isinstance(value, int | float | np.number):
            raise ConfigError(
                f"the native {env_id} needs a number for {name}, got {value!r}"
            )
        params[name] = float(value)
    return params
