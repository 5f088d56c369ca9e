"""`make_task`: from a name or a function to a task, and to another one like it whose prompts are held out."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from shoal.llm.tasks.game import is_game
from shoal.llm.tasks.levels import LeveledTask, checked_levels
from shoal.llm.tasks.names import ARENA, FILE, REASONING, is_task_name
from shoal.llm.tasks.task import Task
from shoal.types import ConfigError, misfit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["HELD_OUT", "is_task_name", "make_task"]
HELD_OUT = 1_000_000_007
"""Between the seeds of training and of evaluation: a run would ask for so many prompts before the two meet."""
MAX_SEED = 2**31 - 1


def make_task(
    source: str | Callable[..., Task] | Task,
    *,
    seed: int = 0,
    kwargs: Mapping[str, object] | None = None,
    held_out: bool = False,
) -> Task:
    """A task.

    Held-out prompts are those of a seed far from this one (reasoning-gym, and functions that take a seed), or of
    another file (`eval_file` of jsonl). Where they cannot be told from those of training, a UserWarning says so.

    Args:
        source: `reasoning-gym:NAME`, `jsonl:PATH`, `textarena:GAME`, `package.module:function`, a callable that
            returns a Task, or one.
        seed: of its prompts, from 0 to 2**31 - 1; a function is given it where it has a parameter `seed`.
        kwargs: keywords of the task; `levels`, a list of such keywords from the easiest to the hardest, makes a task
            whose prompt i is of level i % len(levels), unless a function has a parameter of this name.
        held_out: for evaluation; a function is given it where it has a parameter `held_out`.

    Raises:
        ConfigError: there is no such task, it takes no such keyword, or it is none.
    """
    given = dict(kwargs or {})
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"seed must be between 0 and {MAX_SEED}, got {seed}")
    if "levels" in given and not _takes_levels(source):
        name = str(getattr(source, "__name__", source))
        levels = checked_levels(given.pop("levels"), name)
        each = [given | level for level in levels]
        return LeveledTask(
            [make_task(source, seed=seed, kwargs=x, held_out=held_out) for x in each]
        )
    if isinstance(source, str) and source.startswith(REASONING):
        return _reasoning(source, seed, given, held_out=held_out)
    if isinstance(source, str) and source.startswith(FILE):
        return _file(source, seed, given, held_out=held_out)
    if isinstance(source, str) and source.startswith(ARENA):
        return _arena(source, seed, given, held_out=held_out)
    if _is_made(source):
        if given:
            raise ConfigError(
                f"{source.name} is made already, and takes no keywords: {', '.join(given)}"
            )
        if held_out:
            _warn_of_same(source.name, "give a function of a seed that makes the task")
        return source
    maker = cast("str | Callable[..., Task]", source)
    return _called(maker, seed, given, held_out=held_out)


def _reasoning(
    source: str, seed: int, given: dict[str, Any], *, held_out: bool
) -> Task:
    from shoal.llm.tasks.reasoning import ReasoningTask

    scoring = str(given.pop("scoring", "auto"))
    extract = str(given.pop("extract", "whole"))
    return ReasoningTask(
        source.removeprefix(REASONING),
        seed=_other(seed) if held_out else seed,
        scoring=scoring,
        extract=extract,
        settings=given,
    )


def _file(source: str, seed: int, given: dict[str, Any], *, held_out: bool) -> Task:
    from shoal.llm.tasks.prompts_file import PromptsFile

    path = source.removeprefix(FILE)
    other = given.pop("eval_file", None)
    if other is not None and not isinstance(other, str):
        raise ConfigError(f"{source}: eval_file is a path, got {other!r}")
    why = misfit(PromptsFile, path, seed=seed, **given)
    if why:
        known = list(inspect.signature(PromptsFile).parameters)[1:]
        raise ConfigError(f"{source}: {why}; it takes {', '.join(known)}, eval_file")
    if held_out and other is None:
        _warn_of_same(source, "give eval_file=PATH, a file of other prompts")
    seed = _other(seed) if held_out else seed
    if other is None:
        return PromptsFile(path, seed=seed, **given)
    if Path(other).expanduser().resolve() == Path(path).expanduser().resolve():
        raise ConfigError(
            f"{source}: eval_file is the file of training; name another one, or leave it out"
        )
    # Read in training too: it would be a pity to hear of a wrong line when all is trained.
    evaluated = PromptsFile(other, seed=seed, **given)
    return evaluated if held_out else PromptsFile(path, seed=seed, **given)


def _arena(source: str, seed: int, given: dict[str, Any], *, held_out: bool) -> Task:
    from shoal.llm.tasks.textarena import TextArenaGame
    from shoal.llm.tasks.textarena_match import TextArenaMatch

    made = TextArenaGame if given.get("num_players") == 1 else TextArenaMatch
    name = source.removeprefix(ARENA)
    given["seed"] = _other(seed) if held_out else seed
    why = misfit(made, name, **given)
    if why:
        known = [*inspect.signature(made).parameters][1:]
        raise ConfigError(f"{source}: {why}; it takes {', '.join(known)}")
    return cast("Task", made(name, **given))


def _called(
    source: str | Callable[..., Task],
    seed: int,
    given: dict[str, Any],
    *,
    held_out: bool,
) -> Task:
    """What a function makes."""
    function: Any = source
    name = getattr(source, "__name__", type(source).__name__)
    if isinstance(source, str):
        if not all(source.partition(":")):
            raise ConfigError(
                f"no task {source!r}; a task is reasoning-gym:NAME, jsonl:PATH, textarena:GAME or "
                "package.module:function"
            )
        from shoal.envs.factories import import_object

        name, function = source, import_object(source)
    if not callable(function):
        if hasattr(function, "prompt") and hasattr(function, "score"):
            _checked(function, name)  # a task but for its name, say
        raise ConfigError(
            f"{name} is a {type(function).__name__}; pass a function that returns a Task"
        )
    takes = _parameters(function)
    if "held_out" in takes:
        given["held_out"] = held_out
    elif held_out:
        seed = _other(seed)
    if "seed" in takes:
        given.setdefault("seed", seed)
    elif held_out and "held_out" not in takes:
        _warn_of_same(name, "give its function a parameter `seed` or `held_out`")
    why = misfit(function, **given)
    if why:
        raise ConfigError(
            f"{name} is called with {', '.join(given) or 'nothing'}: {why}"
        )
    return _checked(function(**given), name)


def _parameters(function: Callable[..., object]) -> set[str]:
    """Parameters that can be given by name, as far as the signature is known."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return set()
    by_name = (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    return {one.name for one in parameters if one.kind in by_name}


def _takes_levels(source: str | Callable[..., Task] | Task) -> bool:
    """Whether `levels` is for whatever makes the task to read."""
    if _is_made(source):
        return True  # it is made already, and says so of any keyword
    if not isinstance(source, str):
        return "levels" in _parameters(cast("Callable[..., object]", source))
    if source.startswith((REASONING, FILE, ARENA)) or not all(source.partition(":")):
        return False
    from shoal.envs.factories import import_object

    return "levels" in _parameters(import_object(source))


def _is_made(source: str | Callable[..., Task] | Task) -> TypeGuard[Task]:
    """Whether it is a task or a game, not what makes one."""
    return not isinstance(source, str | type) and (
        isinstance(source, Task) or is_game(source)
    )


def _checked(made: object, name: str) -> Task:
    if is_game(made):
        return cast("Task", made)
    if not isinstance(made, Task):
        missing = [
            part for part in ("name", "prompt", "score") if not hasattr(made, part)
        ]
        raise ConfigError(
            f"{name} gave a {type(made).__name__}, which is no task: it has no {' and no '.join(missing)}"
        )
    return made


def _other(seed: int) -> int:
    return (seed + HELD_OUT) % (MAX_SEED + 1)


def _warn_of_same(name: str, advice: str) -> None:
    warnings.warn(
        f"{name}: evaluation asks what training asks too, and its score says nothing about other prompts; {advice}",
        stacklevel=4,
    )
