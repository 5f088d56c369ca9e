"""Rendering: what rows look like, where their environment can draw itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from shoal.envs.vec_env import VecEnv

    Frame = NDArray[np.uint8]

RENDER_MODE = "rgb_array"
"""The render mode in which environments give frames as arrays."""
FRAMES_PER_S = 30.0
"""Where an environment's metadata names no `render_fps`."""


class Renderer:
    """Renders rows whose capabilities say `can_render`."""

    def __init__(self, rows: VecEnv) -> None:
        """ConfigError where the rows cannot be rendered."""
        self.rows = rows
        self._name = rows.spec.env_id
        self._envs: list[gym.Env[Any, Any]] | None = None
        if rows.python_rows is not None:
            self._envs = rows.python_rows.envs
        if not rows.capabilities.can_render:
            if self._envs is not None:
                raise ConfigError(why_not_rendered(self._name, self._envs[0]))
            raise ConfigError(
                f"{self._name} cannot be rendered on this backend; backend='serial' renders Gymnasium environments"
            )
        self.frames_per_s = rows.capabilities.frames_per_s
        if self._envs is not None:
            self._envs[:] = [_RenderedBeforeReset(env) for env in self._envs]

    def now(self, row: int) -> Frame:
        """The row as it is, uint8 [height, width, 3]; EnvError when its environment returns something else."""
        return self._checked(row, self.rows.render(row))

    def at_end(self, row: int) -> Frame | None:
        """The row as its last ended episode left it; None where only the next episode's beginning is to be had."""
        if self._envs is None:
            return None
        env: Any = self._envs[row]
        return self._checked(row, env.last_frame)

    def _checked(self, row: int, made: object) -> Frame:
        frame = np.array(made)
        is_image = frame.dtype == np.uint8 and frame.ndim == 3 and frame.size > 0
        if is_image and frame.shape[2] == 3:
            return frame
        got = f"an array {frame.dtype} {frame.shape}"
        if frame.dtype == object:
            got = type(made).__name__
        raise EnvError(
            f"{self._name}: row {row}: render() returned {got}; return an array uint8 [height, width, 3]"
        )


def frames_per_s(metadata: Mapping[str, Any] | None) -> float:
    """The rate at which an environment with this metadata wants to be shown."""
    return float((metadata or {}).get("render_fps") or FRAMES_PER_S)


def why_not_rendered(name: str, env: object) -> str:
    """Why an environment gives no frames as arrays, and what to do."""
    metadata: Mapping[str, Any] = getattr(env, "metadata", None) or {}
    mode: str | None = getattr(env, "render_mode", None)
    modes = ", ".join(map(str, metadata.get("render_modes") or ())) or "none"
    return (
        f"{name} cannot be rendered: made with render_mode={RENDER_MODE!r}, it has render_mode={mode!r}; "
        f"its metadata lists the render_modes {modes}"
    )


class _RenderedBeforeReset(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that is rendered before each reset but the first, as autoreset leaves no other time for it."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.last_frame: object = None
        self._begun = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Renders, then resets."""
        if self._begun:
            self.last_frame = self.env.render()
        self._begun = True
        return self.env.reset(seed=seed, options=options)
