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

    Raises:
        ConfigError: the template fails, or does not show the turn or the reply.
    """
    question = tokenizer.asked(prompt.question)
    if isinstance(question, str):
        text = f"{SEPARATOR}{turns[-1].content}{SEPARATOR}"
    else:
        text = _shown(tokenizer, question, turns)
    if last not in tokenizer.end:
        return tokenizer.encode(text)
    end = tokenizer.text_of(last)
    before, found, behind = text.partition(end)
    if found and not before.strip():
        text = behind
    # Some tokenizers begin a text unlike what follows an end token.
    tokens = tokenizer.encode(end + text)
    return tokens[1:] if tokens[:1] == [last] else tokenizer.encode(text)


def _shown(
    tokenizer: Tokenizer, question: tuple[Message, ...], turns: tuple[Message, ...]
) -> str:
    """What the template puts behind the content of the model's last turn, up to where the next one begins."""
    *before, reply = turns
    chat = *question, *before[:-1], Message("assistant", TURN)
    tried = _behind(tokenizer.render((*chat, Message(reply.role, REPLY))))
    if REPLY not in tried:
        raise ConfigError(
            f"the model's chat template leaves out what the role {reply.role!r} says; let the task reply as "
            f"{'user' if reply.role == 'tool' else 'tool'!r}, or take a model whose template knows the role"
        )
    return _behind(tokenizer.render((*chat, reply)))


def _behind(text: str) -> str:
    """The text behind the marked turn."""
    _, found, behind = text.rpartition(TURN)
    if not found:
        raise ConfigError(
            "the model's chat template leaves out what the assistant said in an earlier turn; take another model for "
            "a task of several turns"
        )
    return behind
