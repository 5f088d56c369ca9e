"""Pictures: what rows look like, where their environment can draw itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from shoal.envs.native import NativeEnv
from shoal.envs.preprocessing import ShapedEnv
from shoal.envs.serial import SerialEnv
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.envs.vec_env import VecEnv

RENDER_MODE = "rgb_array"
FRAMES_PER_S = 30.0
"""Where the environment's metadata names no `render_fps`."""


class Pictures:
    """Draws rows: those of `serial` made with render_mode="rgb_array", and any that offer `render(row)`."""

    def __init__(self, rows: VecEnv) -> None:
        """ConfigError where the rows draw nothing."""
        rows = rows.env if isinstance(rows, ShapedEnv) else rows
        self.rows: Any = rows
        self._serial = isinstance(rows, SerialEnv)
        env: Any = rows.envs[0] if isinstance(rows, SerialEnv) else rows
        metadata: dict[str, Any] = getattr(env, "metadata", None) or {}
        self.frames_per_s = float(metadata.get("render_fps") or FRAMES_PER_S)
        name = rows.spec.env_id
        if self._serial and env.render_mode != RENDER_MODE:
            modes = ", ".join(map(str, metadata.get("render_modes") or ())) or "none"
            raise ConfigError(
                f"{name} draws no pictures: made with render_mode={RENDER_MODE!r}, it has render_mode="
                f"{env.render_mode!r}; its metadata names the render_modes {modes}"
            )
        if not (self._serial or hasattr(rows, "render")) or (
            isinstance(rows, NativeEnv) and not rows.draws
        ):
            raise ConfigError(
                f"rows of {name} draw no pictures; backend='serial' draws Gymnasium's environments"
            )
        if isinstance(rows, SerialEnv):
            rows.envs[:] = [_BeforeReset(env) for env in rows.envs]

    def now(self, row: int) -> NDArray[np.uint8]:
        """The row as it is, uint8 [height, width, 3]; EnvError when its environment returns something else."""
        return self._read(
            row, self.rows.envs[row].render() if self._serial else self.rows.render(row)
        )

    def at_end(self, row: int) -> NDArray[np.uint8] | None:
        """The row as its last ended episode left it; None where only the next episode's beginning is to be had."""
        return self._read(row, self.rows.envs[row].drawn) if self._serial else None

    def _read(self, row: int, made: Any) -> NDArray[np.uint8]:
        drawn = np.array(made)
        if (
            drawn.dtype != np.uint8
            or drawn.ndim != 3
            or drawn.shape[2] != 3
            or not drawn.size
        ):
            got = (
                type(made).__name__
                if drawn.dtype == object
                else f"an array {drawn.dtype} {drawn.shape}"
            )
            where = f"{self.rows.spec.env_id}: row {row}"
            raise EnvError(
                f"{where}: render() returned {got}; return an array uint8 [height, width, 3]"
            )
        return drawn


class _BeforeReset(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that is drawn before each reset but the first, as autoreset leaves no other time for it."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.drawn: Any = None
        self._begun = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Draws, then resets."""
        if self._begun:
            self.drawn = self.env.render()
        self._begun = True
        return self.env.reset(seed=seed, options=options)
