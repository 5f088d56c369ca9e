"""Environments of their own: no object is stepped as two rows, nor by training and by evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.envs.action_guard.guarded import GuardedEnv
from shoal.envs.agents.rows import AgentsEnv
from shoal.envs.costs.rows import CostedEnv
from shoal.envs.libraries.batched import BatchedEnv
from shoal.envs.libraries.gymnasium_vector import VectorRows
from shoal.envs.preprocessed import PreprocessedEnv
from shoal.envs.python_env import CLOSED, parts_of
from shoal.envs.serial import SerialEnv
from shoal.types import ConfigError, EnvError, text_of

if TYPE_CHECKING:
    from shoal.envs.vec_env import VecEnv


def check_apart(training: VecEnv, evaluation: VecEnv) -> None:
    """ConfigError where evaluation would step an environment of training."""
    mine = {id(part) for part in _objects(training)}
    if any(id(part) in mine for part in _objects(evaluation)):
        raise ConfigError(
            f"{training.spec.env_id}: evaluation got an environment that training steps; "
            "the callable must make a new environment each time"
        )


def raise_if_reused(rows: VecEnv, error: Exception) -> None:
    """EnvError in the place of another where the rows got environments that were closed before."""
    if any(CLOSED.get(id(part)) is part for part in _objects(rows)):
        raise EnvError(
            f"{rows.spec.env_id}: the callable gave an environment that was closed before, which failed "
            f"({type(error).__name__}: {text_of(error)}); it must make a new environment each time"
        ) from error


def _objects(rows: VecEnv) -> list[object]:
    """The environments of these rows that are stepped in this process."""
    envs: list[Any] = []
    match rows:
        case PreprocessedEnv() | GuardedEnv() | CostedEnv():
            return _objects(rows.env)
        case SerialEnv() | AgentsEnv():
            envs = [*rows.envs]
        case BatchedEnv(library=VectorRows() as library):
            envs = [library.env]
        case _:
            pass
    return [part for env in envs for part in parts_of(env)]
