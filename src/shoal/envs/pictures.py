"""Pictures: what a row looks like, where its environment can draw itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.serial import SerialEnv
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.envs.vec_env import VecEnv

RENDER_MODE = "rgb_array"
FRAMES_PER_S = 30.0
"""Where the environment's metadata names no `render_fps`."""


def check_drawable(rows: VecEnv) -> None:
    """ConfigError unless `picture` works: rows of `serial` made with render_mode="rgb_array", or with a `render`."""
    name = rows.spec.env_id
    if isinstance(rows, SerialEnv):
        env = rows.envs[0]
        if env.render_mode != RENDER_MODE:
            modes = ", ".join(map(str, _metadata(rows).get("render_modes") or ())) or "none"
            raise ConfigError(
                f"{name} draws no pictures: made with render_mode={RENDER_MODE!r}, it says render_mode="
                f"{env.render_mode!r}; its metadata has the render_modes {modes}"
            )
    elif not hasattr(rows, "render"):
        raise ConfigError(f"rows of {name} draw no pictures; backend='serial' draws those of Gymnasium's environments")


def picture(rows: VecEnv, row: int) -> NDArray[np.uint8]:
    """What row `row` looks like now, uint8 [height, width, 3]; EnvError when it returns something else."""
    drawing: Any = rows
    made = drawing.envs[row].render() if isinstance(rows, SerialEnv) else drawing.render(row)
    drawn = np.array(made)
    if drawn.dtype != np.uint8 or drawn.ndim != 3 or drawn.shape[2] != 3 or not drawn.size:
        got = type(made).__name__ if drawn.dtype == object else f"an array {drawn.dtype} {drawn.shape}"
        raise EnvError(f"{rows.spec.env_id}: row {row}: render() returned {got}; return uint8 [height, width, 3]")
    return drawn


def frames_per_s(rows: VecEnv) -> float:
    """How many steps pass in a second of watching."""
    return float(_metadata(rows).get("render_fps") or FRAMES_PER_S)


def _metadata(rows: VecEnv) -> dict[str, Any]:
    env: Any = rows.envs[0] if isinstance(rows, SerialEnv) else rows
    return getattr(env, "metadata", None) or {}
