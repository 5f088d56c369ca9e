"""Factories: from an id, `package.module:function` or a callable to a callable that makes one environment."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from shoal.envs import native
from shoal.envs.agents.games import is_game
from shoal.envs.told import is_told, tell
from shoal.types import ConfigError, misfit, refuse_leaving
from shoal.types.leaving import LEAVES
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Sequence
    from types import ModuleType

HIGHWAY = (
    "highway",
    "merge",
    "roundabout",
    "parking",
    "intersection",
    "racetrack",
    "exit",
)
FAMILIES = {
    "MiniGrid": "minigrid",
    "BabyAI": "minigrid",
    "MinAtar": "minatar.gym",
    **dict.fromkeys(HIGHWAY, "highway_env"),
}
"""The module that registers the ids of a family when it is imported, or by its `register_envs`."""
OLD_ATARI = re.compile(r"(\w+)(?:NoFrameskip|Deterministic)-v\d")
"""Ids of Atari games before they had a namespace."""
ON_PYPI = {"cv2": "opencv-python", "PIL": "pillow", "yaml": "pyyaml"}
"""Packages that are called otherwise than their modules."""
MOST_NAME = 60
"""Letters of the name of a callable: a folder is called by it."""
# Keywords of `gymnasium.make` itself, which an environment's constructor need not know.
_MAKE_KEYWORDS = ("max_episode_steps", "disable_env_checker", "render_mode")


def name_of(env: str | Callable[..., Any]) -> str:
    """An environment's name in messages and files."""
    if isinstance(env, str):
        return env
    return printable(getattr(env, "__name__", type(env).__name__), MOST_NAME)


def factory_of(
    env: str | Callable[..., Any], env_kwargs: dict[str, Any]
) -> Callable[[], Any]:
    """A callable without arguments that makes one environment; ConfigError when there is no such environment."""
    if isinstance(env, gym.Env):
        raise ConfigError(
            f"{env} is one environment; pass a function that makes a new one each time, such as {_maker(env)}"
        )
    refuse_instances(env)
    if not isinstance(env, str):
        return _calling(env, env_kwargs, getattr(env, "__name__", repr(env)))
    module_name, colon, attribute = env.partition(":")
    if colon and (attribute.isidentifier() or not attribute):
        return _calling(import_object(env), env_kwargs, env)
    env_id = attribute if colon else env
    try:
        if colon:
            _import(module_name, env)
        register_family(env_id)
        registered = gym.spec(env_id)
    except gym.error.Error as error:
        raise ConfigError(
            f"no environment {env!r} ({_without_guess(error)}){hint_of(env)}"
        ) from error
    if registered.entry_point is None:
        raise ConfigError(f"{env!r} is registered without an entry point")
    creator = registered.entry_point
    with _needed(env):
        if isinstance(creator, str):
            creator = load_env_creator(creator)
    _check_keywords(creator, env_kwargs, env, also=_MAKE_KEYWORDS)

    def made() -> Any:
        with _needed(env):
            return gym.make(registered, **{"disable_env_checker": True, **env_kwargs})

    return made


def refuse_instances(env: object) -> None:
    """ConfigError for a vector environment or a list in the place of a function."""
    if isinstance(env, gym.vector.VectorEnv):
        raise ConfigError(
            f"{env} is one vector environment; pass a function of num_envs that makes it, with backend='vector'"
        )
    if isinstance(env, list | tuple):
        raise ConfigError(
            f"env is a {type(env).__name__}; pass one function that makes an environment, and num_envs={len(env)}"
        )


def register_family(env_id: str) -> None:
    """Has the package of a well-known family register its ids, where it is installed and has not.

    Raises:
        ConfigError: the package lacks another one.
    """
    family = _family(env_id)
    module_name = FAMILIES.get(family)
    known = any(_family(name) == family for name in gym.registry)
    if known or module_name is None or not _is_installed(module_name):
        return
    with _needed(env_id):
        module = importlib.import_module(module_name)
    if env_id not in gym.registry and hasattr(module, "register_envs"):
        module.register_envs()


def _family(env_id: str) -> str:
    return re.split(r"[/:-]", env_id)[0]


def _is_installed(module_name: str) -> bool:
    return importlib.util.find_spec(module_name.partition(".")[0]) is not None


def _without_guess(error: Exception) -> str:
    """Gymnasium's message without its own guess at what was meant."""
    return str(error).partition(" Did you mean")[0]


def hint_of(env: str) -> str:
    """What may have been meant by an environment that is not there; each name in it can be given as it stands."""
    if env.endswith(".py"):
        return f"; an environment of your own is a class in a module; write {as_module(env, 'Class')}"
    family = FAMILIES.get(_family(env), "")
    if family and not _is_installed(family):
        package = family.partition(".")[0].replace("_", "-")
        return (
            f"; such ids are of a package that is not installed: pip install {package}"
        )
    game = OLD_ATARI.fullmatch(env)
    if game:
        return f"; did you mean ALE/{game[1]}-v5?"
    near_by = _package_hint(env) or _near_id(env)
    return near_by or "; `shoal envs` lists what is there"


def _near_id(env: str) -> str:
    """A hint at ids like this one; of those that the module before its colon may register, with the module."""
    module_name, _, env_id = env.rpartition(":")
    plain = {*native.ids()}
    for name, registered in gym.registry.items():
        own = str(registered.entry_point).startswith("gymnasium.")
        if not module_name or own or name.startswith("ALE/"):
            plain.add(name)
    known = sorted(plain | gym.registry.keys())
    close = [name for name in known if name.rpartition("/")[2] == env_id]
    close = close or get_close_matches(env_id, known, n=3)
    found = [name if name in plain else f"{module_name}:{name}" for name in close]
    class_name = env_id.partition("-v")[0]
    if callable(getattr(sys.modules.get(module_name), class_name, None)):
        found.append(f"{module_name}:{class_name}")
    return _did_you_mean(found)


@contextmanager
def _needed(name: str) -> Generator[None]:
    """ConfigError where a package that an environment needs is not installed."""
    try:
        yield
    except (ModuleNotFoundError, gym.error.DependencyNotInstalled) as error:
        raise ConfigError(
            f"{name} needs a package that is not installed here: {error}{_install(error)}"
        ) from error
    except ImportError as error:
        raise ConfigError(f"{name} cannot be imported: {error}") from error


def _install(error: Exception) -> str:
    """How a module that was not found is installed; empty where the error is another one."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    package = error.name.partition(".")[0]
    return f"; pip install {ON_PYPI.get(package, package)}"


def as_module(file: str, attribute: str = "") -> str:
    """How the module of a file is named: `folder.module`, or `folder.module:attribute`."""
    path = Path(file).with_suffix("")
    end = f":{attribute}" if attribute else ""
    if path.is_absolute() or ".." in path.parts:
        return f"{path.name}{end}, with {path.parent} on PYTHONPATH"
    return ".".join(path.parts) + end


def _maker(env: gym.Env[Any, Any]) -> str:
    """A function that makes an environment like this one, as a user would write it."""
    if env.spec is None:
        return f"lambda: {type(env.unwrapped).__name__}()"
    kwargs = [f"{key}={value!r}" for key, value in env.spec.kwargs.items()]
    return f"lambda: gymnasium.make({', '.join([repr(env.spec.id), *kwargs])})"


def _warn_of_limit(factory: object, name: str) -> None:
    """Says once that a class lacks the time limit that it is registered with."""
    if is_told():
        return
    entry = (
        f"{getattr(factory, '__module__', '')}:{getattr(factory, '__qualname__', '')}"
    )
    limited = [
        registered
        for registered in gym.registry.values()
        if registered.max_episode_steps and registered.entry_point in (entry, factory)
    ]
    if not limited:
        return
    newest = max(limited, key=lambda registered: registered.version or 0)
    tell(
        "time-limit",
        f"{name} itself has no time limit; {newest.id!r}, as which it is registered, ends episodes after "
        f"{newest.max_episode_steps} steps",
        "pass that id, or preprocessing={'max_episode_steps': ...}",
    )


def import_object(path: str) -> Any:
    """The object that `package.module:name` names; ConfigError when there is none."""
    module_name, _, attribute = path.partition(":")
    module = _import(module_name, path)
    if not hasattr(module, attribute):
        public = [
            name
            for name, part in vars(module).items()
            if callable(part) and not name.startswith("_")
        ]
        close = get_close_matches(attribute, public, n=3)
        hint = _did_you_mean([f"{module_name}:{name}" for name in close])
        raise ConfigError(f"{path!r}: {module_name} has no {attribute!r}{hint}")
    return getattr(module, attribute)


def _import(module_name: str, path: str) -> ModuleType:
    if module_name.endswith(".py"):
        meant = as_module(module_name, path.partition(":")[2])
        raise ConfigError(
            f"{path!r}: a module is named as Python imports it, not by its file; write {meant}"
        )
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigError(
            f"{path!r}: {module_name!r} is no module's name; write package.module:function"
        )
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not f"{module_name}.".startswith(f"{missing}."):
            raise ConfigError(
                f"{path!r}: {module_name} needs the module {missing!r}, which is not installed{_install(error)}"
            ) from error
        hint = _newest(missing) or "; is it on PYTHONPATH?"
        raise ConfigError(f"{path!r}: no module {missing!r}{hint}") from error
    except ImportError as error:
        raise ConfigError(
            f"{path!r}: {module_name} cannot be imported: {error}"
        ) from error
    except LEAVES as error:
        refuse_leaving(
            error,
            f"{path!r}: {module_name}, when it was imported,",
            'what it does as a program stands below `if __name__ == "__main__":`',
        )
        raise


def _newest(module_name: str) -> str:
    """A hint at the newest version of a module whose version is not there, as `game_v3` for `game_v1`."""
    parent, _, name = module_name.rpartition(".")
    versioned = re.fullmatch(r"(.+_v)\d+", name)
    if not parent or versioned is None:
        return ""
    folders = getattr(importlib.import_module(parent), "__path__", [])
    there: list[int] = []
    for module in pkgutil.iter_modules(folders):
        if re.fullmatch(rf"{re.escape(versioned[1])}\d+", module.name):
            there.append(int(module.name.removeprefix(versioned[1])))  # noqa: PERF401
    return f"; the newest there is {versioned[1]}{max(there)}" if there else ""


def _package_hint(env_id: str) -> str:
    """A hint at an installed package that registers such ids when it is imported."""
    prefix = _family(env_id)
    family = prefix.lower()
    known = any(_family(name) == prefix for name in gym.registry)
    if known or ":" in env_id or not family.isidentifier():
        return ""
    for package in (family, f"{family}_env", f"{family}_gym", f"gym_{family}"):
        if _is_installed(package):
            return f"; {package} is installed, whose ids are known when it is imported: write {package}:{env_id}"
    return ""


def _task_hint(made: object) -> str:
    """What a task of a language model is trained with, where something looks like one."""
    if not callable(getattr(made, "prompt", None)):
        return ""
    return (
        "; it looks like a task of a language model, which other algorithms train (`shoal algos` lists them); "
        "shoal.llm.tasks.check_task tries it out"
    )


def _calling(
    factory: object, env_kwargs: dict[str, Any], name: str
) -> Callable[[], Any]:
    if not callable(factory):
        raise ConfigError(
            f"{name} is a {type(factory).__name__}; pass a callable that returns a gymnasium.Env"
        )
    _check_keywords(factory, env_kwargs, name)
    _check_call(factory, env_kwargs, name)
    _warn_of_limit(factory, name)

    def made() -> Any:
        with _needed(name):
            env = factory(**env_kwargs)
        if isinstance(env, gym.vector.VectorEnv):
            raise ConfigError(
                f"{name} returned a gymnasium.vector.VectorEnv; backend='vector' runs it"
            )
        if not isinstance(env, gym.Env) and not is_game(env):
            raise ConfigError(
                f"{name} returned {type(env).__name__}, expected a gymnasium.Env or a PettingZoo one{_task_hint(env)}"
            )
        return env

    return made


def _check_call(
    factory: Callable[..., Any], env_kwargs: dict[str, Any], name: str
) -> None:
    """ConfigError where a factory needs more than it is given."""
    why = misfit(factory, **env_kwargs)
    if not why:
        return
    given = f"the keywords {', '.join(env_kwargs)}" if env_kwargs else "nothing"
    hint = "give it in env_kwargs"
    if "num_envs" in why:
        hint = "backend='vector' gives it num_envs"
    raise ConfigError(f"{name} is called with {given}, but {why}; {hint}")


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
    known: list[str] = []
    for key, parameter in parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            return
        if parameter.kind is not parameter.POSITIONAL_ONLY:
            known.append(key)
    for key in env_kwargs:
        if key not in (*known, *also):
            hint = near(key, (*known, *also))
            if not hint:
                hint = f"; it takes {', '.join(known) or 'none'}"
            raise ConfigError(f"{name} has no keyword {key!r}{hint}")


def near(name: str, known: Collection[str]) -> str:
    """A hint at the known names that are like `name`; empty where none is."""
    return _did_you_mean(get_close_matches(name, sorted(set(known)), n=3))


def _did_you_mean(found: Sequence[str]) -> str:
    return f"; did you mean {', '.join(found)}?" if found else ""
