"""`make`: from a name or a callable to rows of environments, on the fastest backend that can hold them."""

from __future__ import annotations

import importlib
import inspect
import warnings
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator
from gymnasium.wrappers import TimeLimit

from shoal.envs import native, randomization, serial
from shoal.envs.agents.games import is_game
from shoal.envs.agents.rows import AgentsEnv
from shoal.envs.libraries import atari, envpool_rows, gymnasium_vector
from shoal.envs.libraries.batched import BatchedEnv
from shoal.envs.preprocessing import ShapedEnv, Shaping
from shoal.envs.python_env import make_envs
from shoal.envs.workers import rows as processes
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from shoal.envs.vec_env import VecEnv
    from shoal.envs.workers.crew import Workers

BATCHED = ("ale", "envpool", "vector")
BACKENDS = ("native", "serial", "workers", *BATCHED)
ATARI = "ALE/"
# Built in where Box2D's sources were there at the build.
_ON_BOX2D = ("LunarLander-v3", "LunarLanderContinuous-v3")
_LACK = "was built without the sources of Box2D: `make setup` fetches them, a bare `make` then builds it in"
# Keywords of `gymnasium.make` itself, which an environment's constructor need not know.
_MAKE_KEYWORDS = ("max_episode_steps", "disable_env_checker", "render_mode")


def make(
    env: str | Callable[..., Any],
    num_envs: int,
    *,
    backend: str = "auto",
    num_threads: int = 1,
    env_kwargs: dict[str, Any] | None = None,
    info_keys: tuple[str, ...] = (),
    workers: Workers | None = None,
    shaping: Shaping | None = None,
) -> VecEnv:
    """`num_envs` rows of an environment.

    Args:
        env: a built-in or Gymnasium id, `package.module:function`, or a callable that returns a `gymnasium.Env` or a
            PettingZoo environment (parallel or AEC); for the backend `vector` one that takes `num_envs` and returns a
            VectorEnv.
        num_envs: environments, at least 1; one of several agents has a row for each of them.
        backend: `native` (C++), `serial` (Python, in this process), `workers` (Python, in processes), or a library that
            batches itself: `ale` (Atari), `envpool`, `vector` (a gymnasium.vector.VectorEnv). `auto`: native where the
            id is built in, ale for ids ALE/*, else serial.
        num_threads: threads that step native rows, or the library's; it changes no result.
        env_kwargs: keywords of the environment's constructor, or parameters of the native one. A distribution, or its
            text (`uniform:-12,-8`), has every episode draw that parameter; `Ready.info` has it as env/NAME.
        info_keys: numbers that every episode's last info holds; `Ready.info` has them at ended rows (not native).
        workers: how many processes, and what follows when one of them fails (workers only).
        shaping: frame stack, sticky actions, the reward's scale and clip, another time limit.

    Raises:
        ConfigError: an unknown id, backend or keyword (with the nearest names), or a setting that cannot work.
    """
    _check(backend, num_envs, num_threads)
    shaping = shaping or Shaping()
    fixed, ranges = randomization.split(env_kwargs or {}, num_envs)
    built_in = isinstance(env, str) and env in native.ids()
    if not built_in:
        _check_absence(env, backend)
    if isinstance(env, str) and built_in and backend in ("auto", "native"):
        if info_keys:
            raise ConfigError(
                f"the native {env} has no infos; backend='serial' has the keys {info_keys}"
            )
        if shaping.max_episode_steps:
            fixed |= {"max_episode_steps": shaping.max_episode_steps}
        made: dict[str, Any] = {"env_kwargs": fixed, "ranges": ranges}
        made |= {"shaping": shaping, "num_threads": num_threads}
        return native.make(env, num_envs, **made)
    if is_batched(env, backend):
        if ranges or shaping.max_episode_steps:
            raise ConfigError(
                f"{env}: a library that batches itself draws no parameters and keeps its own time limit"
            )
        rows = _batched(env, num_envs, backend, num_threads, fixed, info_keys)
        return _shaped(rows, shaping)
    name = env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)
    settings: dict[str, Any] = {"name": name, "info_keys": info_keys, "ranges": ranges}
    if backend == "workers":
        settings |= {"workers": workers}
    return _python_rows(factory_of(env, fixed), num_envs, backend, shaping, settings)


def is_batched(env: Any, backend: str) -> bool:
    """Whether these rows are those of a library that batches itself."""
    return backend in BATCHED or (
        backend == "auto" and isinstance(env, str) and env.startswith(ATARI)
    )


def _check_absence(env: Any, backend: str) -> None:
    """What follows where the environment is not built in: native is refused; auto is told of one that could be."""
    if env in _ON_BOX2D:
        if backend == "native":
            raise ConfigError(
                f"the native {env} {_LACK}; backend='serial' runs Gymnasium's own"
            )
        if backend == "auto":
            warnings.warn(
                f"the native {env} {_LACK}; Gymnasium's own runs instead", stacklevel=3
            )
    if backend == "native":
        hint = _near(env, native.ids()) if isinstance(env, str) else ""
        raise ConfigError(
            f"{env!r} has no native version{hint}; backend='serial' runs it. Native: {', '.join(native.ids())}"
        )


def _python_rows(
    factory: Callable[[], Any],
    num_envs: int,
    backend: str,
    shaping: Shaping,
    settings: dict[str, Any],
) -> VecEnv:
    if shaping.max_episode_steps:
        factory = limited(factory, shaping.max_episode_steps)
    if backend == "workers":
        rows = processes.make(factory, num_envs, **settings)
    else:
        rows = _in_process(factory, num_envs, **settings)
    return _shaped(rows, shaping)


def _shaped(rows: VecEnv, shaping: Shaping) -> VecEnv:
    if shaping.plain:
        return rows
    try:
        if rows.spec.agents:
            raise ConfigError(
                f"{rows.spec.env_id} has several agents, which take no shaping: leave {shaping} out"
            )
        return ShapedEnv(rows, shaping)
    except ConfigError:
        rows.close()
        raise


def limited(factory: Callable[[], Any], max_episode_steps: int) -> Callable[[], Any]:
    """The factory's environments with another time limit in the place of Gymnasium's outermost one."""

    def made() -> Any:
        env = factory()
        if is_game(env):
            raise ConfigError(
                "environments of several agents have a time limit of their own; leave the other one out"
            )
        inner, _ = serial.strip(env)
        return TimeLimit(inner, max_episode_steps)

    return made


def _in_process(
    factory: Callable[[], Any],
    num_envs: int,
    *,
    name: str,
    ranges: Any,
    **settings: Any,
) -> serial.SerialEnv | AgentsEnv:
    """Rows of one agent or of several, which shows in what the factory makes."""
    envs = make_envs(factory, num_envs, name=name)
    try:
        if not is_game(envs[0]):
            return serial.SerialEnv(envs, name, ranges=ranges, **settings)
        if ranges:
            raise ConfigError(
                f"{name} has several agents, whose parameters cannot be drawn: {', '.join(ranges)}"
            )
        return AgentsEnv(envs, name, **settings)
    except BaseException:
        for made in envs:
            made.close()
        raise


def _check(backend: str, num_envs: int, num_threads: int) -> None:
    if backend not in ("auto", *BACKENDS):
        hint = _near(backend, ("auto", *BACKENDS))
        raise ConfigError(
            f"unknown backend {backend!r}{hint}; use auto, {' or '.join(BACKENDS)}"
        )
    if num_envs < 1 or num_threads < 1:
        raise ConfigError(
            f"num_envs and num_threads must be at least 1, got {num_envs} and {num_threads}"
        )


def _batched(
    env: str | Callable[..., Any],
    num_envs: int,
    backend: str,
    num_threads: int,
    env_kwargs: dict[str, Any],
    info_keys: tuple[str, ...],
) -> BatchedEnv:
    """Rows of a library that batches itself."""
    if info_keys:
        raise ConfigError(
            f"libraries that batch themselves hand over no infos; backend='serial' has {info_keys}"
        )
    if backend == "vector":
        named = (
            env
            if isinstance(env, str)
            else getattr(env, "__name__", type(env).__name__)
        )
        module_name, colon, attribute = named.partition(":")
        if isinstance(env, str) and colon and module_name and attribute.isidentifier():
            env = import_object(env)
        return gymnasium_vector.make(env, num_envs, name=named, env_kwargs=env_kwargs)
    if not isinstance(env, str):
        raise ConfigError(
            f"backend={backend!r} makes environments by their id, got {env!r}"
        )
    library = envpool_rows if backend == "envpool" else atari
    return library.make(env, num_envs, num_threads=num_threads, env_kwargs=env_kwargs)


def factory_of(
    env: str | Callable[..., Any], env_kwargs: dict[str, Any]
) -> Callable[[], Any]:
    """A callable without arguments that makes one environment; ConfigError when there is no such environment."""
    if isinstance(env, gym.Env):
        kind = type(env.unwrapped).__name__
        raise ConfigError(
            f"{env} is one environment; pass a callable that makes a new one each time, such as {kind}"
        )
    if not isinstance(env, str):
        return _calling(env, env_kwargs, getattr(env, "__name__", repr(env)))
    module_name, colon, attribute = env.partition(":")
    if colon and (attribute.isidentifier() or not attribute):
        return _calling(import_object(env), env_kwargs, env)
    try:
        if colon:
            _import(module_name, env)
        registered = gym.spec(attribute if colon else env)
    except gym.error.Error as error:
        hint = (
            _near(env, [*native.ids(), *gym.registry])
            or "; `shoal envs` lists what is there"
        )
        raise ConfigError(f"no environment {env!r} ({error}){hint}") from error
    if registered.entry_point is None:
        raise ConfigError(f"{env!r} is registered without an entry point")
    creator = registered.entry_point
    creator = load_env_creator(creator) if isinstance(creator, str) else creator
    _check_keywords(creator, env_kwargs, env, also=_MAKE_KEYWORDS)
    return lambda: gym.make(registered, **{"disable_env_checker": True, **env_kwargs})


def import_object(path: str) -> Any:
    """The object that `package.module:name` names; ConfigError when there is none."""
    module_name, _, attribute = path.partition(":")
    module = _import(module_name, path)
    if not hasattr(module, attribute):
        hint = _near(
            attribute, [name for name in dir(module) if not name.startswith("_")]
        )
        raise ConfigError(f"{path!r}: {module_name} has no {attribute!r}{hint}")
    return getattr(module, attribute)


def _import(module_name: str, path: str) -> Any:
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigError(
            f"{path!r}: {module_name!r} is no module's name; write package.module:function"
        )
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{path!r}: no module {error.name!r}; is it on PYTHONPATH?"
        ) from error


def _calling(factory: Any, env_kwargs: dict[str, Any], name: str) -> Callable[[], Any]:
    if not callable(factory):
        raise ConfigError(
            f"{name} is a {type(factory).__name__}; pass a callable that returns a gymnasium.Env"
        )
    _check_keywords(factory, env_kwargs, name)

    def made() -> Any:
        env = factory(**env_kwargs)
        if isinstance(env, gym.vector.VectorEnv):
            raise ConfigError(
                f"{name} returned a gymnasium.vector.VectorEnv; backend='vector' runs it"
            )
        if not isinstance(env, gym.Env) and not is_game(env):
            raise ConfigError(
                f"{name} returned {type(env).__name__}, expected a gymnasium.Env or a PettingZoo one"
            )
        return env

    return made


def _check_keywords(
    factory: Callable[..., Any],
    env_kwargs: dict[str, Any],
    name: str,
    *,
    also: Collection[str] = (),
) -> None:
    """ConfigError for a keyword that the factory does not take, where its signature can be known."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return
    if any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
    ):
        return
    known = [
        key
        for key, parameter in parameters.items()
        if parameter.kind is not parameter.POSITIONAL_ONLY
    ]
    for key in env_kwargs:
        if key not in (*known, *also):
            near = (
                _near(key, (*known, *also))
                or f"; it takes {', '.join(known) or 'none'}"
            )
            raise ConfigError(f"{name} has no keyword {key!r}{near}")


def _near(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, sorted(set(known)), n=3)
    return f"; did you mean {', '.join(near)}?" if near else ""
