"""A group as people read it: its prompt, and some of its answers with what they earned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.types.text import shortened

if TYPE_CHECKING:
    from shoal.llm.tokenizer import Tokenizer
    from shoal.stream.groups.flight import Group

MOST_ANSWERS = 16
"""Answers of a group that are shown, the first ones."""
MOST_TEXT = 2000
"""Characters of a prompt or an answer."""
MOST_PARTS = 20


def shown_of(group: Group, tokenizer: Tokenizer) -> dict[str, Any]:
    """What was asked and said, as JSON holds it; replies and what players were told stand within the answers.

    Args:
        group: a complete one.
        tokenizer: the model's.
    """
    numbers = sorted(group.drawn)[:MOST_ANSWERS]
    versions = [int(one.version.max(initial=0)) for one in group.drawn.values()]
    return {
        "version": max(versions, default=0),
        "prompt": shortened(tokenizer.decode(group.token), MOST_TEXT),
        "answers": [_answer(group, number, tokenizer) for number in numbers],
    }


def _answer(group: Group, number: int, tokenizer: Tokenizer) -> dict[str, Any]:
    drawn, reward = group.drawn[number], group.reward.get(number)
    parts = group.parts.get(number, {})
    return {
        "text": shortened(tokenizer.decode(drawn.token.tolist()), MOST_TEXT),
        "reward": reward if reward == reward else None,
        "rewards": dict(list(parts.items())[:MOST_PARTS]),
        "tokens": len(drawn.token),
        "truncated": drawn.truncated,
    }
