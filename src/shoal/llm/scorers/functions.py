"""Scorers from functions and tasks: what makes them goes to the processes of a pool, and makes them there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from shoal.types import ConfigError, misfit

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.llm.scorers.score import Scorer
    from shoal.llm.tasks.task import Task


def task_scorer(task: Task) -> Callable[[], Scorer]:
    """Makes the scorer of a task: its own `score`. The task goes to each process."""
    return partial(_score_of, task)


def named_scorer(
    source: str | Callable[..., object], **kwargs: object
) -> Callable[[], Scorer]:
    """Makes a scorer from a function of a prompt and an answer.

    Args:
        source: `package.module:function`, or the function. With keywords it is called with them once in each process,
            and returns the scorer.
        kwargs: its keywords.

    Raises:
        ConfigError: there is no such function, or it does not take what it is called with.
    """
    function: Any = source
    name = getattr(source, "__name__", type(source).__name__)
    if isinstance(source, str):
        if not all(source.partition(":")):
            raise ConfigError(
                f"no scorer {source!r}; write package.module:function, a function of a prompt and an answer"
            )
        from shoal.envs.factories import import_object

        name, function = source, import_object(source)
    if not callable(function):
        raise ConfigError(
            f"{name} is a {type(function).__name__}; a scorer is a function of a prompt and an answer"
        )
    how = ", ".join(kwargs) if kwargs else "a prompt and an answer"
    why = misfit(function, **kwargs) if kwargs else misfit(function, None, "")
    if why:
        raise ConfigError(f"{name} is called with {how}: {why}")
    return partial(_made, function, kwargs)


def _score_of(task: Task) -> Scorer:
    return task.score


def _made(function: Callable[..., Any], kwargs: dict[str, object]) -> Scorer:
    return function(**kwargs) if kwargs else function
