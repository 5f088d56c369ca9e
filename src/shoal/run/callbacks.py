"""Callbacks: what a user has called while a run goes on."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, cast

import numpy as np

from shoal.types import RAISED, ConfigError, misfit, refuse_leaving

if TYPE_CHECKING:
    from shoal.run.run import Run
    from shoal.types import Episodes


@dataclass(frozen=True, slots=True)
class EpisodeEnd:
    """An episode that ended."""

    step: int
    """Environment steps of the run at the end of the rollout that it ended in."""
    row: int
    agent: str
    """The agent's name; empty where an environment has one agent alone."""
    episode_return: float
    """The environment's own rewards, summed."""
    length: int
    info: Mapping[str, float]
    """The declared numbers of its last info."""


STOPS = "run.stop(reason) ends a run, with a checkpoint"
Record: TypeAlias = EpisodeEnd | dict[str, float]
"""An episode's end, or a line of metrics as `metrics.jsonl` holds it."""


class Callback(Protocol):
    """Called at every line of metrics and at every episode's end; `run.stop(reason)` ends the run.

    It returns nothing: True and False, by which other libraries' callbacks go on or stop, are refused.
    A callback may also have `warn(message)`, which gets what a user should be told, `note(message)` for what is no
    trouble, `close()`, and an attribute `episodes` that is false where it does without the ends of episodes.
    """

    def __call__(self, run: Run, record: Record, /) -> None:
        """Something happened."""
        ...


def checked(callbacks: object) -> list[Callback]:
    """The callbacks; ConfigError unless they are a list of what can be called."""
    if not isinstance(callbacks, Iterable):
        raise ConfigError(
            f"callbacks is a list of functions (run, record), got {_name(callbacks)}; write callbacks=[...]"
        )
    found: list[Callback] = list(cast("Iterable[Callback]", callbacks))
    for callback in found:
        name = _name(callback)
        if not callable(callback):
            foreign = hasattr(callback, "_on_step")
            hint = f"; in the place of _on_step is a function, and {STOPS}"
            raise ConfigError(
                f"a callback is called with (run, record), but {name} cannot be called{hint if foreign else ''}"
            )
        if why := misfit(callback, None, None):
            hint = (
                "; an object of it may be meant" if isinstance(callback, type) else ""
            )
            raise ConfigError(
                f"a callback is called with (run, record), but {name} does not take these: {why}{hint}"
            )
        for method in ("warn", "note", "close"):
            if not callable(getattr(callback, method, callable)):
                raise ConfigError(
                    f"the callback {name} has {method}, which is called but is no method"
                )
    return found


def _name(callback: object) -> str:
    """A callback in messages: the name of a function or class, else what it shows itself as."""
    try:
        return str(getattr(callback, "__qualname__", None) or repr(callback))
    except Exception:  # its own repr
        return f"a {type(callback).__name__}"


def call(callback: Callback, run: Run, record: Record) -> None:
    """Calls a callback; an error is told whose it is.

    ConfigError for StopIteration, for True or False, none of which ends a run, and for what would have to be awaited.
    """
    try:
        answer = cast("object", callback(run, record))
    except RAISED as error:
        refuse_leaving(error, f"the callback {_name(callback)}", STOPS)
        error.add_note(f"shoal: raised by the callback {_name(callback)}")
        raise
    if answer is not None:
        _check_answer(callback, answer)


def _check_answer(callback: Callback, answer: object) -> None:
    """ConfigError for an answer by which something was meant."""
    if isinstance(answer, bool | np.bool_):
        raise ConfigError(
            f"the callback {_name(callback)} returned {answer}, which ends no run, nor keeps it going (as in "
            f"Stable-Baselines3): {STOPS}; let it return nothing"
        )
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise ConfigError(
            f"the callback {_name(callback)} is async, and nobody awaits it: write a plain function"
        )
    if inspect.isgenerator(answer) or inspect.isasyncgen(answer):
        raise ConfigError(
            f"the callback {_name(callback)} has a yield, so that calling it runs nothing of it: take that out"
        )


def wants_episodes(callback: Callback) -> bool:
    """Whether a callback is called at ends of episodes: always, unless its `episodes` is false."""
    return bool(getattr(callback, "episodes", True))


def tell(run: Run, message: str, *, how: Literal["warn", "note"]) -> None:
    """Tells the user something, by every callback that takes it: a warning, or a note of what is no trouble."""
    for callback in run.callbacks:
        method = getattr(callback, how, None)
        if method is not None:
            method(message)


def tell_episodes(run: Run, episodes: Episodes, step: int) -> None:
    """Calls the callbacks that want them with each episode that ended by `step`."""
    if not len(episodes.rows):
        return
    watching = [callback for callback in run.callbacks if wants_episodes(callback)]
    if not watching:
        return
    agents = run.settings.agents
    for number, row in enumerate(episodes.rows.tolist()):
        end = EpisodeEnd(
            step=step,
            row=row,
            agent=agents[row % len(agents)] if agents else "",
            episode_return=float(episodes.returns[number]),
            length=int(episodes.lengths[number]),
            info={key: float(x[number]) for key, x in episodes.info.items()},
        )
        for callback in watching:
            call(callback, run, end)


def close_callbacks(run: Run) -> None:
    """Closes those that can be closed; one that fails is warned of, as the run itself is whole."""
    for callback in run.callbacks:
        close = getattr(callback, "close", None)
        if close is None:
            continue
        try:
            close()
        except RAISED as error:  # whatever it is, it is not the run's
            name = getattr(callback, "__name__", type(callback).__name__)
            warnings.warn(
                f"the callback {name} was not closed: {type(error).__name__}: {error}",
                stacklevel=2,
            )
