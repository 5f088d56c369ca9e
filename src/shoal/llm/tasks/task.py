"""What a task is: prompts by their number, and what an answer earns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat, as chat templates take it."""

    role: str
    """system, user, assistant or tool."""
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a task asks once."""

    index: int
    """Which prompt of the task it is, counted from 0."""
    question: str | tuple[Message, ...]
    """Plain text, which the model continues, or a chat, which its template turns into text."""
    truth: Any = None
    """What the scorer compares an answer with; the model never sees it. It must be representable as JSON."""
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What else a scorer may want to know of this prompt, by name: of a file's line its further fields."""


@runtime_checkable
class Task(Protocol):
    """Prompts and their scores. Equal settings give equal prompts: a resumed run asks for them by number.

    A task may also have `solution(prompt) -> str`, an answer that earns the most, and `threshold`, the mean reward at
    which it counts as solved.
    """

    name: str

    def prompt(self, index: int) -> Prompt:
        """The prompt of this number, from 0 on without an end: a task of n prompts begins again at n."""
        ...

    def score(self, prompt: Prompt, answer: str) -> float:
        """What an answer earns, a finite number; usually from 0 to 1. `answer` ends before the end-of-text token.

        A `Score` of `shoal.llm.scorers.score` says besides what it is made of, for the metrics.
        """
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What the world says to a turn of the model. It is read by the model, and never learned."""

    message: Message
    """A tool's output (role `tool`), or what a user says next."""
    done: bool = False
    """The conversation is over; the message is not shown then."""


@runtime_checkable
class Dialogue(Task, Protocol):
    """A task of several turns: the model speaks, the task replies, until it says that it is done.

    `score` is given the last turn of the model, unless the task has `answer_of(prompt, turns) -> str`, which says what
    of the conversation is scored.
    """

    max_turns: int
    """Turns of the model, at most; after the last one nothing is replied."""

    def reply(self, prompt: Prompt, turns: tuple[Message, ...]) -> Reply:
        """What follows a turn of the model. Equal turns get equal replies: a resumed run asks for them again.

        Args:
            prompt: what was asked.
            turns: what was said since: turns of the model (role `assistant`) and replies by turns; the last one is the
                model's.
        """
        ...


def is_text(given: object) -> bool:
    """Whether it is a text, and none with half a character (one surrogate alone), which no tokenizer reads."""
    if not isinstance(given, str):
        return False
    try:
        given.encode()
    except UnicodeEncodeError:
        return False
    return True
