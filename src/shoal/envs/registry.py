"""`make`: from a name or a callable to rows of environments, on the fastest backend that can hold them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnasium.wrappers import TimeLimit

from shoal.envs import native, packages, randomization
from shoal.envs.agents.games import is_game
from shoal.envs.agents.rows import AgentsEnv
from shoal.envs.costs.env import costing, keys_of
from shoal.envs.factories import factory_of, import_object, name_of, near
from shoal.envs.lasting import warn_of_lasting
from shoal.envs.libraries import atari, envpool_rows, gymnasium_vector
from shoal.envs.mujoco import rows as simulations
from shoal.envs.mujoco.tasks import Unlike
from shoal.envs.observed import observing
from shoal.envs.preprocessed import PreprocessedEnv
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.python_env import (
    close_after,
    make_envs,
    shortest_limit,
    strip,
    without_limits,
)
from shoal.envs.serial import SerialEnv
from shoal.envs.told import is_told
from shoal.envs.workers import rows as processes
from shoal.remote.address import is_address
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.envs.finite import Tolerance
    from shoal.envs.libraries.batched import BatchedEnv
    from shoal.envs.randomization import Ranges
    from shoal.envs.vec_env import VecEnv
    from shoal.envs.workers.settings import Workers
    from shoal.remote.settings import Terms

BATCHED = ("ale", "envpool", "vector")
BACKENDS = ("native", "serial", "mujoco", "workers", "remote", *BATCHED)
ATARI = "ALE/"
# Built in where Box2D's sources were there at the build.
_ON_BOX2D = ("LunarLander-v3", "LunarLanderContinuous-v3")
_ROOT = Path(__file__).parents[3]


def make(
    env: str | Callable[..., Any],
    num_envs: int,
    *,
    backend: str = "auto",
    num_threads: int = 1,
    env_kwargs: dict[str, Any] | None = None,
    info_keys: tuple[str, ...] = (),
    workers: Workers | None = None,
    preprocessing: Preprocessing | None = None,
) -> VecEnv:
    """`num_envs` rows of an environment.

    Args:
        env: a built-in or Gymnasium id, `package.module:function`, or a callable that returns a `gymnasium.Env` or a
            PettingZoo environment; for the backend `vector` one that takes `num_envs` and returns a VectorEnv.
        num_envs: environments, at least 1; one of several agents has a row for each of them.
        backend: `native` (C++), `serial` (Python, in this process), `mujoco` (Gymnasium's, stepped by native threads),
            `workers` (Python, in processes), or a library that batches itself: `ale` (Atari), `envpool`, `vector` (a
            gymnasium.vector.VectorEnv); `remote` (on servers). `auto`: native where the id is built in, ale for ids
            ALE/*, mujoco for ids that it steps the same way, remote for grpc://..., else serial.
        num_threads: threads that step native rows, MuJoCo's, or the library's; it changes no result.
        env_kwargs: keywords of the environment's constructor, or parameters of the native one. A distribution, or its
            text (`uniform:-12,-8`), has every episode draw that parameter; `Ready.info` has it as env/NAME.
        info_keys: numbers that every episode's last info holds; `Ready.info` has them at ended rows (not native).
        workers: how many processes, and what follows when one of them fails (workers only).
        preprocessing: frame stack, sticky actions, the reward's scale and clip, another time limit; chosen keys of
            observations, and texts as integers (serial and workers).

    Raises:
        ConfigError: an unknown id, backend or keyword (with the nearest names), or a setting that cannot work.
    """
    _check(backend, num_envs, num_threads, workers)
    seen = preprocessing or Preprocessing()
    if is_address(env) or backend == "remote":
        return on_servers(env, num_envs, env_kwargs, info_keys, seen, backend=backend)
    fixed, ranges = randomization.split(env_kwargs or {}, num_envs)
    if not isinstance(env, str) or not packages.has(env):
        _check_absence(env, backend)
    elif backend in ("auto", "native"):
        return _native_rows(env, num_envs, num_threads, fixed, ranges, info_keys, seen)
    if is_batched(env, backend):
        _check_batched(env, ranges, seen)
        rows = _batched(env, num_envs, backend, num_threads, fixed, info_keys)
        rows.keeper.tolerance = seen.tolerance
        return _preprocessed(rows, seen)
    rows = _simulated(
        env, num_envs, backend, num_threads, fixed, ranges, seen, info_keys
    ) or _in_python(env, num_envs, backend, fixed, ranges, seen, info_keys, workers)
    return _preprocessed(rows, seen)


def _in_python(
    env: str | Callable[..., Any],
    num_envs: int,
    backend: str,
    env_kwargs: dict[str, Any],
    ranges: Ranges,
    preprocessing: Preprocessing,
    info_keys: tuple[str, ...],
    workers: Workers | None,
) -> VecEnv:
    """Rows of Python environments, in this process or in others."""
    name, tolerance = name_of(env), preprocessing.tolerance
    factory, keys = _as_seen(
        factory_of(env, env_kwargs), name, preprocessing, info_keys
    )
    if backend != "workers":
        return _in_process(factory, num_envs, name, keys, ranges, tolerance)
    return processes.make(
        factory,
        num_envs,
        name=name,
        info_keys=keys,
        ranges=ranges,
        workers=workers,
        tolerance=tolerance,
    )


def _as_seen(
    factory: Callable[[], Any],
    name: str,
    preprocessing: Preprocessing,
    info_keys: tuple[str, ...],
) -> tuple[Callable[[], Any], tuple[str, ...]]:
    """The factory's environments with costs, chosen keys, texts as integers, a time limit; and the info's keys."""
    costed = costing(factory, name, preprocessing.cost_key)
    observed = observing(costed, name, preprocessing)
    keys = (*info_keys, *keys_of(preprocessing.cost_key))
    return limited(observed, preprocessing.max_episode_steps), keys


def is_batched(env: object, backend: str) -> bool:
    """Whether these rows are those of a library that batches itself."""
    if backend == "auto":
        return isinstance(env, str) and env.startswith(ATARI)
    return backend in BATCHED


def backend_of(env: object, backend: str) -> str:
    """The backend of rows that native code does not step, where `auto` was asked for: ale, remote or serial."""
    if backend != "auto":
        return backend
    if is_address(env):
        return "remote"
    return "ale" if is_batched(env, backend) else "serial"


def are_native(env: object, backend: str) -> bool:
    """Whether `make` makes native rows of it."""
    known = isinstance(env, str) and packages.has(env)
    return known and backend in ("auto", "native")


def are_simulated(env: object, backend: str) -> bool:
    """Whether `make` may have native threads step MuJoCo's simulations."""
    return backend == "mujoco" or (backend == "auto" and simulations.is_known(env))


def limited(factory: Callable[[], Any], max_episode_steps: int) -> Callable[[], Any]:
    """The factory's environments with another time limit (0: their own) in the place of Gymnasium's, wherever it is."""
    if not max_episode_steps:
        return factory

    def made() -> Any:
        env = factory()
        if is_game(env):
            raise ConfigError(
                "environments of several agents have a time limit of their own; leave the other one out"
            )
        inner = without_limits(strip(env)[0])
        own = shortest_limit(inner)
        if own is not None and own < max_episode_steps:
            env.close()
            raise ConfigError(
                f"max_episode_steps={max_episode_steps} would change nothing: a wrapper derived from Gymnasium's "
                f"TimeLimit ends episodes after {own} steps; give that one another limit"
            )
        return TimeLimit(inner, max_episode_steps)

    return made


def _check(
    backend: str, num_envs: int, num_threads: int, workers: Workers | None
) -> None:
    if backend not in ("auto", *BACKENDS):
        hint = near(backend, ("auto", *BACKENDS))
        raise ConfigError(
            f"unknown backend {backend!r}{hint}; use auto, {' or '.join(BACKENDS)}"
        )
    if num_envs < 1 or num_threads < 1:
        raise ConfigError(
            f"num_envs and num_threads must be at least 1, got {num_envs} and {num_threads}"
        )
    if workers is not None and backend != "workers":
        raise ConfigError(
            f"{workers} is for backend='workers', but this is {backend!r}; leave it out"
        )


def on_servers(
    env: object,
    num_envs: int,
    env_kwargs: dict[str, Any] | None,
    info_keys: tuple[str, ...],
    preprocessing: Preprocessing,
    *,
    backend: str = "auto",
    terms: Terms | None = None,
) -> VecEnv:
    """Rows of servers.

    Args:
        env: `grpc://HOST:PORT,...`, or `grpcs://` for servers with a certificate.
        num_envs: environments, shared among the servers.
        env_kwargs: refused: a server's own command line says them.
        info_keys: likewise.
        preprocessing: as of `make`.
        backend: `remote` or `auto`.
        terms: how the rows are asked for.

    Raises:
        ConfigError: there is no gRPC, `env` names no server, or a setting is for whoever makes the environments.
    """
    if not is_address(env) or backend not in ("auto", "remote"):
        raise ConfigError(
            f"{env!r} with backend={backend!r}: rows on servers are named by where these listen, such as "
            "grpc://127.0.0.1:50051, with backend='remote' or 'auto'"
        )
    settings = {
        "env_kwargs": env_kwargs,
        "info_keys": info_keys,
        "max_episode_steps": preprocessing.max_episode_steps,
        "keep_keys, text or one_hot": preprocessing.observes,
        "cost_key": preprocessing.cost_key,
    }
    elsewhere = [name for name, value in settings.items() if value]
    if elsewhere:
        raise ConfigError(
            f"{env}: {', '.join(elsewhere)} is for whoever makes the environments; say it where the server is started "
            "(shoal serve --help)"
        )
    try:
        from shoal.remote import rows
    except ImportError as error:
        raise ConfigError(
            f"{env} needs gRPC: pip install 'shoal-rl[remote]' ({error})"
        ) from error
    made = rows.make(str(env), num_envs, terms)
    return _preprocessed(made, preprocessing)


def _check_absence(env: object, backend: str) -> None:
    """What follows where the environment is not built in: native is refused; auto is told of one that could be."""
    if env in _ON_BOX2D:
        lack = f"the native {env} was built without the sources of Box2D: {_how_to_build()}"
        if backend == "native":
            raise ConfigError(f"{lack}; backend='serial' runs Gymnasium's own")
        if backend == "auto" and not is_told():
            # Located here, not at the caller: once a process.
            warnings.warn(f"{lack}; Gymnasium's own runs instead", stacklevel=1)
    if backend == "native":
        hint = near(env, native.ids()) if isinstance(env, str) else ""
        raise ConfigError(
            f"{env!r} has no native version{hint}; backend='serial' runs it. Native: {', '.join(native.ids())}"
        )


def _how_to_build() -> str:
    """What brings Box2D's sources in: in a checkout, and where shoal was installed."""
    if (_ROOT / "Makefile").exists() and (_ROOT / "native").is_dir():
        return "`make setup` fetches them, a bare `make` then builds it in"
    return "a build where PyPI can be reached fetches them; install shoal-rl from such a wheel"


def _native_rows(
    env_id: str,
    num_envs: int,
    num_threads: int,
    env_kwargs: dict[str, Any],
    ranges: Ranges,
    info_keys: tuple[str, ...],
    preprocessing: Preprocessing,
) -> VecEnv:
    """Rows in C++, which preprocess themselves."""
    _check_whole(env_id, preprocessing)
    if info_keys:
        raise ConfigError(
            f"the native {env_id} has no infos; backend='serial' has the keys {info_keys}"
        )
    if preprocessing.final_nan != "raise":
        raise ConfigError(
            f"final_nan={preprocessing.final_nan!r} would change nothing: the native {env_id} gives finite "
            "numbers alone; leave it out"
        )
    if preprocessing.max_episode_steps:
        limit = {"max_episode_steps": preprocessing.max_episode_steps}
        env_kwargs = env_kwargs | limit
    return native.make(
        env_id,
        num_envs,
        num_threads=num_threads,
        env_kwargs=env_kwargs,
        ranges=ranges,
        preprocessing=preprocessing,
    )


def _simulated(
    env: str | Callable[..., Any],
    num_envs: int,
    backend: str,
    num_threads: int,
    env_kwargs: dict[str, Any],
    ranges: Ranges,
    preprocessing: Preprocessing,
    info_keys: tuple[str, ...],
) -> SerialEnv | None:
    """MuJoCo's rows; None where another backend is to step these. ConfigError where it was named and cannot."""
    if not are_simulated(env, backend):
        return None
    lacks = {
        "info_keys": info_keys,
        "parameters that episodes draw": ranges,
        "preprocessing.cost_key": preprocessing.cost_key,
        "keep_keys, text or one_hot": preprocessing.observes,
    }
    asked = [name for name, value in lacks.items() if value]
    try:
        if asked:
            raise Unlike(
                f"{name_of(env)}: backend='mujoco' has no {', '.join(asked)}; backend='serial' has"
            )
        if preprocessing.max_episode_steps:
            limit = {"max_episode_steps": preprocessing.max_episode_steps}
            env_kwargs = env_kwargs | limit
        rows = simulations.make(
            env, num_envs, num_threads=num_threads, env_kwargs=env_kwargs
        )
    except Unlike:
        if backend == "mujoco":
            raise
        return None
    rows.keeper.tolerance = preprocessing.tolerance
    return rows


def _check_whole(name: str, preprocessing: Preprocessing) -> None:
    """ConfigError where a backend is to read costs or change observations that hands over whole batches."""
    if preprocessing.cost_key:
        raise ConfigError(
            f"{name}: preprocessing.cost_key={preprocessing.cost_key!r} is for Python environments, stepped by "
            "backend='serial' or 'workers'; native rows and libraries that batch themselves hand over no costs"
        )
    if preprocessing.observes:
        raise ConfigError(
            f"{name}: keep_keys, text and one_hot are for Python environments, stepped by backend='serial' or "
            "'workers'; native rows and libraries that batch themselves hand over observations whole"
        )


def _in_process(
    factory: Callable[[], Any],
    num_envs: int,
    name: str,
    info_keys: tuple[str, ...],
    ranges: Ranges,
    tolerance: Tolerance,
) -> SerialEnv | AgentsEnv:
    """Python rows of one agent or of several, which shows in what the factory makes."""
    envs: list[Any] = make_envs(factory, num_envs, name=name)
    try:
        warn_of_lasting(envs[0], name)
        if not is_game(envs[0]):
            rows = SerialEnv(envs, name, info_keys=info_keys, ranges=ranges)
            rows.keeper.tolerance = tolerance
            return rows
        if ranges:
            raise ConfigError(
                f"{name} has several agents, whose parameters cannot be sampled: {', '.join(ranges)}"
            )
        games = AgentsEnv(envs, name, info_keys=info_keys)
        games.keeper.tolerance = tolerance
        return games
    except BaseException as error:
        close_after(error, envs)
        raise


def _check_batched(
    env: str | Callable[..., Any], ranges: Ranges, preprocessing: Preprocessing
) -> None:
    """ConfigError for what a library that batches itself lacks."""
    _check_whole(name_of(env), preprocessing)
    if ranges:
        raise ConfigError(
            f"{env}: a library that batches itself draws no parameters ({', '.join(ranges)}); backend='serial' does"
        )
    if preprocessing.max_episode_steps:
        raise ConfigError(
            f"{env}: a library that batches itself keeps its own time limit; give it as the environment's keyword: "
            "env_kwargs with max_num_frames_per_episode for backend='ale', max_episode_steps for envpool and vector"
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
        name = name_of(env)
        module_name, colon, attribute = name.partition(":")
        if isinstance(env, str) and colon and module_name and attribute.isidentifier():
            env = import_object(env)
        return gymnasium_vector.make(env, num_envs, name=name, env_kwargs=env_kwargs)
    if not isinstance(env, str):
        raise ConfigError(
            f"backend={backend!r} makes environments by their id, got {env!r}"
        )
    library = envpool_rows if backend == "envpool" else atari
    return library.make(env, num_envs, num_threads=num_threads, env_kwargs=env_kwargs)


def _preprocessed(rows: VecEnv, preprocessing: Preprocessing) -> VecEnv:
    seen = rows.spec.observation.leaves
    try:
        if preprocessing.final_nan != "raise" and all(
            x.dtype.kind != "f" for x in seen
        ):
            raise ConfigError(
                f"final_nan={preprocessing.final_nan!r} would change nothing: {rows.spec.env_id} observes no floats, "
                "and others are always finite; leave it out"
            )
        if preprocessing.plain:
            return rows
        if rows.spec.agents:
            raise ConfigError(
                f"{rows.spec.env_id} has several agents, which take no preprocessing: leave {preprocessing} out"
            )
        return PreprocessedEnv(rows, preprocessing)
    except ConfigError:
        rows.close()
        raise
