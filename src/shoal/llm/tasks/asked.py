"""A task is asked in this process: what it raises is told whose it is."""

from __future__ import annotations

from typing import Any, Protocol

from shoal.llm.tasks.task import Message, Prompt
from shoal.types import RAISED, ConfigError, refuse_leaving


class Prompts(Protocol):
    """What has prompts by their number: a task, a dialogue, a game."""

    @property
    def name(self) -> str:
        """In messages."""
        ...

    def prompt(self, index: int) -> Prompt:
        """The prompt of a number."""
        ...


def prompt_of(task: Prompts, index: int) -> Prompt:
    """The prompt of a number; ConfigError where asking for it raised StopIteration or SystemExit, or it is none."""
    try:
        given = task.prompt(index)
    except RAISED as error:
        where = f"{task.name}: prompt({index})"
        refuse_leaving(error, where, "begin again after the last one: prompt(i % n)")
        error.add_note(f"shoal: raised by {where}")
        raise
    if why := _wrong(given, index):
        raise ConfigError(f"{task.name}: prompt({index}) {why}")
    return given


def _wrong(given: object, index: int) -> str:
    """What is wrong with a prompt; empty where nothing is."""
    if not isinstance(given, Prompt):
        return f"is a {type(given).__name__}; return a shoal.llm.tasks.task.Prompt"
    if given.index != index:
        return (
            f"has the index {given.index!r}: a resumed run would ask for another one; give it the number that it was "
            "asked by"
        )
    question: Any = given.question
    said = [question]
    if not isinstance(question, str):
        chat = isinstance(question, tuple | list) and question
        if not chat or not all(isinstance(one, Message) for one in question):
            return (
                f"has a question of type {type(question).__name__}; a question is a text, or a tuple of Messages, at "
                "least one"
            )
        said = [one.content for one in question]
    for text in said:
        if not isinstance(text, str):
            return f"has a message whose content is a {type(text).__name__}, not a text"
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return f"has a question with half a character ({error.reason}); a text read with errors='replace' has none"
    return ""
