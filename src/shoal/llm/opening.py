"""What a player of a game reads: what it is told before anybody moves, and what it sees until its first turn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from shoal.llm.between import SEPARATOR
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.llm.tasks.task import Message
    from shoal.llm.tokenizer import Tokenizer

GAP = "\n\n"
"""Stands in a chat between what a player is told and what it sees first."""
MARK = "ShoalMarksWhatIsSeen"


def told_tokens(
    tokenizer: Tokenizer, question: str | tuple[Message, ...], name: str
) -> tuple[int, ...]:
    """The tokens that a player's side of a game begins with: the same in every game from one start.

    Args:
        tokenizer: the model's.
        question: what the player is told, as the game gives it.
        name: whose, in messages.

    Raises:
        ConfigError: it is empty, its last message is not a user's, or the template fails or leaves it out.
    """
    asked = tokenizer.asked(question)
    text = asked if isinstance(asked, str) else _front(tokenizer, asked, name)[0]
    tokens = tokenizer.encode(text)
    if not tokens:
        raise ConfigError(
            f"{name}: what a player is told before anybody moves is empty"
        )
    return tuple(tokens)


def first_tokens(
    tokenizer: Tokenizer,
    question: str | tuple[Message, ...],
    shown: str,
    name: str,
) -> list[int]:
    """The tokens from there to where the player's first turn begins.

    Args:
        tokenizer: the model's.
        question: as in `told_tokens`.
        shown: what it has seen of the game since; to plain text a line of its own. What looks like a special token is
            read letter by letter.
        name: whose, in messages.

    Raises:
        ConfigError: as in `told_tokens`.
    """
    asked = tokenizer.asked(question)
    if isinstance(asked, str):
        parts = (SEPARATOR, shown, SEPARATOR) if shown else ("", "", "")
    else:
        _, behind = _front(tokenizer, asked, name)
        parts = (GAP if shown else "", shown.strip(), behind)
    front, seen, behind = parts
    literal = tokenizer.encode_literally(seen)
    if literal == tokenizer.encode(seen):
        return tokenizer.encode(front + seen + behind)
    return [*tokenizer.encode(front), *literal, *tokenizer.encode(behind)]


def _front(
    tokenizer: Tokenizer, chat: tuple[Message, ...], name: str
) -> tuple[str, str]:
    """What the template makes of the chat: up to the end of its last message, and what stands behind that."""
    *before, last = chat
    if last.role != "user":
        raise ConfigError(
            f"{name}: a player is told a text, or a chat that ends with a message of the role user; the last one's is "
            f"{last.role!r}"
        )
    content = last.content.rstrip()
    marked = replace(last, content=content + GAP + MARK)
    front, found, behind = tokenizer.render((*before, marked)).partition(GAP + MARK)
    if not found or not front.endswith(content[-1:]):
        raise ConfigError(
            f"{name}: the model's chat template leaves out what a user says, or changes it; take another model"
        )
    return front, behind
