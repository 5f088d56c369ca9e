"""The backend `mujoco`: Gymnasium's MuJoCo environments, whose simulations native threads step, with the same bits.

Each row has Gymnasium's own environment, which resets and draws it. Between resets MuJoCo's C functions are called by
shoal's native core, which also computes observations, rewards and ends: no Python runs in a step.
"""

from __future__ import annotations

import ctypes
import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from shoal import _native
from shoal.envs.factories import factory_of
from shoal.envs.finite import LARGEST, check_finite, put_last_finite
from shoal.envs.mujoco.tasks import READERS, Unlike, reading_of
from shoal.envs.python_env import close_after, make_envs
from shoal.envs.serial import SerialEnv
from shoal.envs.steps import Steps
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.envs.masks import RowMasks
    from shoal.envs.resets import Resets
    from shoal.types import Tree

MODULE = "gymnasium.envs.mujoco."
CALLBACKS = (
    "act_bias",
    "act_dyn",
    "act_gain",
    "contactfilter",
    "control",
    "passive",
    "sensor",
    "time",
)
"""MuJoCo's global callbacks, which may be Python functions."""


def is_known(env: object) -> bool:
    """Whether this is an id of Gymnasium's own class that can be stepped here."""
    if not isinstance(env, str) or env not in READERS or find_spec("mujoco") is None:
        return False
    registered = gym.registry.get(env)
    if registered is None or registered.additional_wrappers:
        return False
    return registered.entry_point == MODULE + READERS[env][0]


def make(
    env_id: object,
    num_envs: int,
    *,
    num_threads: int = 1,
    env_kwargs: dict[str, Any] | None = None,
) -> SerialEnv:
    """`num_envs` rows of one of Gymnasium's MuJoCo environments.

    Args:
        env_id: one of `tasks.READERS`.
        num_envs: rows.
        num_threads: that step them; it changes no result.
        env_kwargs: keywords of Gymnasium's class and of `gymnasium.make`.

    Raises:
        ConfigError: no such id, MuJoCo is not there, a bad keyword; Unlike where native code would do something else
            than Gymnasium's class.
    """
    if not isinstance(env_id, str) or env_id not in READERS:
        raise ConfigError(
            f"backend='mujoco' steps {', '.join(READERS)}, not {env_id!r}; backend='serial' runs others"
        )
    if find_spec("mujoco") is None:
        raise ConfigError(f"{env_id} needs MuJoCo: pip install 'shoal-rl[mujoco]'")
    made = make_envs(factory_of(env_id, env_kwargs or {}), num_envs, name=env_id)
    try:
        return Simulations(made, env_id, num_threads)
    except BaseException as error:
        close_after(error, made)
        if isinstance(error, Unlike):
            raise Unlike(f"{env_id}: {error}; backend='serial' runs it") from error
        raise


class Simulations(SerialEnv):
    """Rows of MuJoCo simulations. They are saved and come back as those of the backend `serial` do."""

    def __init__(
        self, envs: list[gym.Env[Any, Any]], name: str, num_threads: int
    ) -> None:
        """`envs`: what gymnasium.make made, one a row; Unlike as `make`."""
        self._name, self._num_threads = name, num_threads
        super().__init__(envs, name)
        self.python_rows = None  # whose infos a step would have to write

    def make_steps(self, limits: Sequence[int | None]) -> Steps:
        """Native ones."""
        bare: list[Any] = self.envs
        for env in bare:
            _check(env, self._name)
        simulated = _native_rows(self._name, bare, min(self._num_threads, len(bare)))
        return SimulatedSteps(self.envs, limits, self.resets, self.masks, simulated)


class SimulatedSteps(Steps):
    """Steps in native code; where an episode ends, the environment's own reset begins the next one."""

    def __init__(
        self,
        envs: Sequence[gym.Env[Any, Any]],
        limits: Sequence[int | None],
        resets: Resets,
        masks: RowMasks,
        simulated: _native.MujocoRows,
    ) -> None:
        """`simulated`: the rows of the environments; else as Steps."""
        super().__init__(envs, limits, resets, masks)
        self._simulated = simulated

    def step(self, rows: slice, actions: Tree) -> None:
        """Steps `rows` with checked actions."""
        keeper = self._keeper
        ready, lengths = keeper.out.view(rows), keeper.lengths[rows]
        before: Tree = None
        if keeper.tolerance.last_finite:
            before = np.copy(ready.obs)
        finite = self._simulate(rows.start, actions)
        self._resets.history.record(rows, actions)
        lengths += 1
        if not finite:
            self._look_at(rows, before)
        keeper.returns[rows] += ready.reward
        np.greater_equal(lengths, self._limits[rows], out=ready.truncated)
        over = ready.terminated | ready.truncated
        if over.any():
            self._end(over.nonzero()[0] + rows.start)

    def play(self, row: int, actions: list[Any]) -> float | str:
        """Plays an episode's actions from its reset on: its return, or why it did not go on as it did before."""
        out, total = self._keeper.out, 0.0
        for count, action in enumerate(actions, 1):
            self._simulate(row, action[None])
            total += float(out.reward[row])
            if out.terminated[row]:
                return f"ended its episode after {count} of the {len(actions)} saved actions"
        out.reward[row] = 0
        return total

    def _simulate(self, first: int, actions: Tree) -> bool:
        """One step of the rows from `first` on, into the outputs; whether all is finite that can be learned from."""
        keeper = self._keeper
        out, most = keeper.out, keeper.tolerance.largest_reward
        try:
            return self._simulated.step(
                first, actions, out.obs, out.reward, out.terminated, LARGEST, most
            )
        except RuntimeError as error:
            raise EnvError(f"{self._spec.env_id}: {error}") from error

    def _look_at(self, rows: slice, before: Tree) -> None:
        """EnvError where something is not finite, unless `before`, what was seen last, may stand in for it."""
        keeper = self._keeper
        ready = keeper.out.view(rows)
        if before is not None:
            layout = self._spec.observation
            put_last_finite(layout, ready.obs, before, ready.terminated)
        check_finite(
            self._spec,
            rows,
            ready.obs,
            ready.reward,
            keeper.lengths[rows],
            terminated=ready.terminated,
            largest_reward=keeper.tolerance.largest_reward,
        )


def _check(env: Any, name: str) -> None:
    """Unlike where this is not Gymnasium's own class, or Python is called within a step."""
    mujoco: Any = importlib.import_module("mujoco")
    kind = f"{type(env).__module__}:{type(env).__name__}"
    if kind != MODULE + READERS[name][0]:
        raise Unlike(f"it is made as {kind}, not as Gymnasium's own class")
    for name_of_part, function in _functions(type(env)):
        if not str(function.__module__).startswith(MODULE):
            raise Unlike(f"its {name_of_part} is {function.__module__}'s")
    if env.render_mode == "human":
        raise Unlike("render_mode='human' draws in every step")
    for callback in CALLBACKS:
        if getattr(mujoco, f"get_mjcb_{callback}")() is not None:
            raise Unlike(f"mujoco.set_mjcb_{callback} has put a function into its step")


def _functions(kind: type) -> list[tuple[str, Any]]:
    """What is called of Gymnasium's class, by names; other code may have put functions of its own there."""
    found: list[tuple[str, Any]] = []
    for part in kind.__mro__:
        if part.__module__.startswith(MODULE):
            for name, value in vars(part).items():
                function = value.fget if isinstance(value, property) else value
                if callable(function):
                    found.append((name, function))
    return found


def _native_rows(
    name: str, envs: Sequence[Any], num_threads: int
) -> _native.MujocoRows:
    """The native rows of these environments, which are made alike."""
    library, first = _library(), envs[0]
    readings = [reading_of(name, env) for env in envs]
    reads_forces = readings[0].contacts is not None
    rows = _native.MujocoRows(
        _address(library.mj_step),
        _address(library.mj_rnePostConstraint) if reads_forces else 0,
        ctypes.addressof(ctypes.c_void_p.in_dll(library, "mju_user_error")),
        first.model.nu,
        num_threads,
        frame_skip=first.frame_skip,
        dt=first.dt,
        **readings[0].terms,
    )
    for env, reading in zip(envs, readings, strict=True):
        rows.add(
            env.model._address,
            env.data._address,
            env.data.ctrl,
            reading.place,
            reading.masses,
            reading.contacts,
            reading.shown,
            reading.healthy,
        )
    return rows


def _library() -> ctypes.CDLL:
    """The library that `import mujoco` has loaded."""
    mujoco: Any = importlib.import_module("mujoco")
    folder = Path(mujoco.__file__).parent
    for pattern in ("libmujoco.so*", "libmujoco*.dylib", "mujoco.dll"):
        for file in folder.glob(pattern):
            return ctypes.CDLL(str(file))
    raise Unlike(f"MuJoCo {mujoco.__version__} keeps no library of its own")


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0
