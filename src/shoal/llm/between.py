"""What stands between two turns of a model, in tokens: a reply, as the model's own template shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.llm.tasks.task import Message
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.llm.tasks.task import Prompt
    from shoal.llm.tokenizer import Tokenizer

SEPARATOR = "\n"
"""Stands before and behind a reply to a prompt of plain text."""
TURN, REPLY = "ShoalMarksThisTurn", "ShoalMarksThisReply"
"""Contents by which a template shows where it puts the real ones; letters alone, which no template changes."""


def reply_tokens(
    tokenizer: Tokenizer, prompt: Prompt, turns: tuple[Message, ...], last: int
) -> list[int]:
    """The tokens from the end of a model's turn to where its next one begins.

    What the model said itself is never made into tokens again: it goes on behind the tokens that it drew.

    Args:
        tokenizer: the model's.
        prompt: what was asked. To plain text a reply is a line of its own; in a chat it is what the template makes of
            it.
        turns: what was said since; the last one is the reply, the one before it the model's.
        last: the last token that the model drew; the end of a turn that it has drawn already is not said again.
            What looks like a special token in the reply is read letter by letter.

    Raises:
        ConfigError: the template fails, or does not show the turn or the reply.
    """
    question, content = tokenizer.asked(prompt.question), turns[-1].content
    parts = SEPARATOR, content, SEPARATOR
    if not isinstance(question, str):
        parts = _shown(tokenizer, question, turns)
    front, shown, behind = parts
    if last in tokenizer.end:
        before, found, rest = front.partition(tokenizer.text_of(last))
        front = rest if found and not before.strip() else front
    literal = tokenizer.encode_literally(shown)
    if literal == tokenizer.encode(shown):
        return _after(tokenizer, last, front + shown + behind)
    # A tool's output that looks like the end of a turn is none.
    begun = _after(tokenizer, last, front)
    return [*begun, *literal, *tokenizer.encode(behind)]


def _after(tokenizer: Tokenizer, last: int, text: str) -> list[int]:
    """A text's tokens behind this one: some tokenizers begin a text unlike what follows an end token."""
    if last in tokenizer.end:
        tokens = tokenizer.encode(tokenizer.text_of(last) + text)
        if tokens[:1] == [last]:
            return tokens[1:]
    return tokenizer.encode(text)


def _shown(
    tokenizer: Tokenizer, question: tuple[Message, ...], turns: tuple[Message, ...]
) -> tuple[str, str, str]:
    """What the template puts between the model's last turn and its next one: before the reply, as the reply, behind."""
    *before, reply = turns
    chat = *question, *before[:-1], Message("assistant", TURN)
    tried = _behind(tokenizer.render((*chat, Message(reply.role, REPLY))))
    front, found, behind = tried.partition(REPLY)
    if not found:
        raise ConfigError(
            f"the model's chat template leaves out what the role {reply.role!r} says; let the task reply as "
            f"{'user' if reply.role == 'tool' else 'tool'!r}, or take a model whose template knows the role"
        )
    text = _behind(tokenizer.render((*chat, reply)))
    if not (text.startswith(front) and text.endswith(behind)):
        raise ConfigError(
            "the model's chat template puts other text around a reply of other content; take another model for a "
            "task of several turns"
        )
    return front, text[len(front) : len(text) - len(behind)], behind


def _behind(text: str) -> str:
    """The text behind the marked turn."""
    _, found, behind = text.rpartition(TURN)
    if not found:
        raise ConfigError(
            "the model's chat template leaves out what the assistant said in an earlier turn; take another model for "
            "a task of several turns"
        )
    return behind
