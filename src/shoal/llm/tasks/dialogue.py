"""Conversations: a task's replies, read with care, and whole conversations with anything that speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from shoal.llm.tasks.task import Message, Reply, is_text
from shoal.types import RAISED, ConfigError, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.llm.tasks.task import Dialogue, Prompt, Task

MAX_REPLY = 100_000
"""Characters of a reply: more than a context holds."""
ROLES = ("user", "tool")


class DialogueError(RuntimeError):
    """A task replied what is no reply; the message names the task, the prompt and the turn."""


def is_dialogue(task: Task) -> bool:
    """Whether a task has several turns; ConfigError where it says how many and does not reply, or the other way."""
    replies = callable(getattr(task, "reply", None))
    most: object = getattr(task, "max_turns", None)
    if not replies and most is None:
        return False
    if not replies or isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ConfigError(
            f"{task.name}: a task of several turns has reply(prompt, turns) and max_turns, at least 1; it has "
            f"{'a' if replies else 'no'} reply, and max_turns={most!r}"
        )
    return True


def reply_to(
    dialogue: Dialogue, prompt: Prompt, turns: tuple[Message, ...]
) -> Reply | None:
    """What a task replies to the model's last turn; None where the conversation is over.

    Args:
        dialogue: the task.
        prompt: what was asked.
        turns: what was said since, the model's last turn included.

    Raises:
        DialogueError: it raised, or gave no reply, one that is too long, or one in a role that is not its.
    """
    spoken = sum(turn.role == "assistant" for turn in turns)
    if spoken >= dialogue.max_turns:
        return None
    where = f"{dialogue.name}: the reply to turn {spoken - 1} of prompt {prompt.index}"
    try:
        given = cast("object", dialogue.reply(prompt, turns))
    except RAISED as error:
        raise DialogueError(
            f"{where} failed: {type(error).__name__}: {text_of(error)}"
        ) from error
    if not isinstance(given, Reply):
        raise DialogueError(f"{where} is a {type(given).__name__}; return a Reply")
    if given.done:
        return None
    message = cast("object", given.message)
    if not isinstance(message, Message) or not is_text(message.content):
        raise DialogueError(f"{where} holds no Message of text, but {message!r}"[:500])
    if message.role not in ROLES:
        raise DialogueError(
            f"{where} has the role {message.role!r}; what the world says is {' or '.join(ROLES)}"
        )
    if len(message.content) > MAX_REPLY:
        raise DialogueError(
            f"{where} has {len(message.content):,} characters, at most {MAX_REPLY:,} are read; let the tool cut it"
        )
    return given


def answer_of(dialogue: Dialogue, prompt: Prompt, turns: tuple[Message, ...]) -> str:
    """What of a conversation is scored: the last turn of the model, or what the task says.

    Raises:
        DialogueError: what the task says failed, or is no text.
    """
    own: Any = getattr(dialogue, "answer_of", None)
    if own is not None:
        where = f"{dialogue.name}: answer_of for prompt {prompt.index}"
        try:
            text: object = own(prompt, turns)
        except RAISED as error:
            raise DialogueError(
                f"{where} failed: {type(error).__name__}: {text_of(error)}"
            ) from error
        if not isinstance(text, str):
            raise DialogueError(
                f"{where} is a {type(text).__name__}; return the text that is scored"
            )
        return text
    said = [turn.content for turn in turns if turn.role == "assistant"]
    return said[-1] if said else ""


def converse(
    dialogue: Dialogue,
    prompt: Prompt,
    speak: Callable[[Prompt, tuple[Message, ...]], str],
) -> tuple[Message, ...]:
    """A whole conversation.

    Args:
        dialogue: the task.
        prompt: what is asked.
        speak: the model: its next turn, from the prompt and what was said since.

    Returns:
        The turns; the last one is the model's.
    """
    turns: tuple[Message, ...] = ()
    while True:
        turns = (*turns, Message("assistant", speak(prompt, turns)))
        reply = reply_to(dialogue, prompt, turns)
        if reply is None:
            return turns
        turns = (*turns, reply.message)
