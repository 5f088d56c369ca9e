"""`make`: from a name or a callable to rows of environments, on the fastest backend that can hold them."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from shoal.envs import native, serial
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.envs.vec_env import VecEnv

BACKENDS = ("native", "serial")


def make(
    env: str | Callable[..., gym.Env[Any, Any]],
    num_envs: int,
    *,
    backend: str = "auto",
    num_threads: int = 1,
    env_kwargs: dict[str, Any] | None = None,
) -> VecEnv:
    """`num_envs` rows of an environment.

    Args:
        env: a built-in or Gymnasium id, `package.module:function`, or a callable that returns a `gymnasium.Env`.
        num_envs: rows, at least 1.
        backend: `native` (C++), `serial` (Python, in this process), or `auto`: native where the id is built in.
        num_threads: threads that step native rows, the caller included; it changes no result.
        env_kwargs: keywords of the environment's constructor, or parameters of the native one.

    Raises:
        ConfigError: an unknown id or backend (with the nearest names), or a setting that cannot work.
    """
    if backend not in ("auto", *BACKENDS):
        raise ConfigError(f"unknown backend {backend!r}; use auto, {' or '.join(BACKENDS)}")
    if num_envs < 1 or num_threads < 1:
        raise ConfigError(f"num_envs and num_threads must be at least 1, got {num_envs} and {num_threads}")
    built_in = isinstance(env, str) and env in native.ids()
    if backend == "native" and not built_in:
        raise ConfigError(f"{env!r} has no native version; backend='serial' runs it. Native: {', '.join(native.ids())}")
    if isinstance(env, str) and built_in and backend != "serial":
        return native.make(env, num_envs, num_threads=num_threads, env_kwargs=env_kwargs)
    name = env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)
    return serial.make(factory_of(env, env_kwargs or {}), num_envs, name=name)


def factory_of(env: str | Callable[..., gym.Env[Any, Any]], env_kwargs: dict[str, Any]) -> Callable[[], Any]:
    """A callable without arguments that makes one environment; ConfigError when there is no such environment."""
    if not isinstance(env, str):
        return lambda: _checked(env(**env_kwargs), repr(env))
    module_name, colon, attribute = env.partition(":")
    if colon and attribute.isidentifier():
        factory = import_object(env)
        return lambda: _checked(factory(**env_kwargs), env)
    try:
        if colon:
            importlib.import_module(module_name)
        registered = gym.spec(attribute if colon else env)
    except (gym.error.Error, ModuleNotFoundError) as error:
        near = get_close_matches(env, [*native.ids(), *gym.registry], n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else "; `shoal envs` lists what is there"
        raise ConfigError(f"no environment {env!r} ({error}){hint}") from error
    return lambda: gym.make(registered, disable_env_checker=True, **env_kwargs)


def import_object(path: str) -> Any:
    """The object that `package.module:name` names; ConfigError when there is none."""
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{path!r}: no module {error.name!r}; is it on PYTHONPATH?") from error
    if not hasattr(module, attribute):
        near = get_close_matches(attribute, dir(module), n=3)
        raise ConfigError(f"{path!r}: {module_name} has no {attribute!r}" + (f"; did you mean {near}?" if near else ""))
    return getattr(module, attribute)


def _checked(made: Any, name: str) -> gym.Env[Any, Any]:
    if not isinstance(made, gym.Env):
        raise ConfigError(f"{name} returned {type(made).__name__}, expected a gymnasium.Env")
    return made
