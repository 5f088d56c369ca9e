"""Parts of a batch of answers that fit into memory, and which of them is whose where several ranks learn.

All ranks have the whole batch, and what each token of it counts: whoever computes the gradient of an answer, it is the
same, and the gradients of all of them add up to that of the batch.
"""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from shoal.types import Answers

OF_PROMPTS = ("prompt", "prompt_length", "prompt_routing")
"""What `Answers` has for each prompt; all else is for each answer."""


class Part(NamedTuple):
    """Answers whose gradient is computed at a time."""

    first: int
    """Which answer of the batch is its first; -1 where it is one that counts nothing."""
    answers: Answers


def parts(batch: Answers, most_tokens: int) -> Iterator[Answers]:
    """The batch in parts of at most so many tokens (one answer at least), without the padding that none of them needs.

    A prompt counts once in a part, whatever number of answers to it there are. The loss of a batch is the sum of those
    of its parts: `weight` says what each token counts over the whole of it.
    """
    for first, last in _cuts(batch, 0, len(batch), most_tokens):
        yield cut(batch, first, last)


def parts_of_rank(
    batch: Answers,
    most_tokens: int,
    *,
    rank: int,
    size: int,
    alike: bool = False,
) -> Iterator[Part]:
    """The parts of one of so many ranks: answers side by side, with about as many tokens as those of every other one.

    There is one at least: where a rank has no answers, it learns from one that counts nothing, so that its gradients
    are those of the same parameters as the others'.

    Args:
        batch: the whole one, which all ranks have.
        most_tokens: of a part.
        rank: whose.
        size: how many ranks there are.
        alike: whether all of them must have as many parts, which are filled up by such that count nothing.
    """
    borders = shared_out(batch, size)
    own = _cuts(batch, borders[rank], borders[rank + 1], most_tokens)
    for first, last in own:
        yield Part(first, cut(batch, first, last))
    count = 1
    if alike:
        pairs = pairwise(borders)
        count = max(len(_cuts(batch, *pair, most_tokens)) for pair in pairs)
    for _ in range(count - len(own)):
        yield Part(-1, _of_no_weight(batch))


def shared_out(batch: Answers, size: int) -> list[int]:
    """Where the answers of each of so many ranks begin, and the last ones' end [size + 1]: shares of equal tokens."""
    if size == 1:
        return [0, len(batch)]
    tokens = batch.length + batch.prompt_length[batch.prompt_of]
    middle = tokens.cumsum(0) - tokens / 2
    whose = (middle * size / tokens.sum()).long().clamp_(0, size - 1)
    ranks = torch.arange(size + 1, device=whose.device)
    return torch.searchsorted(whose, ranks).tolist()


def cut(batch: Answers, first: int, last: int) -> Answers:
    """The answers from `first` up to `last`, and their prompts; padding that none of them needs is cut off."""
    if first == 0 and last == len(batch):
        return trimmed(batch)
    low = int(batch.prompt_of[first])
    high = int(batch.prompt_of[last - 1]) + 1
    changed: dict[str, Any] = {}
    for field in fields(batch):
        value: Tensor | None = getattr(batch, field.name)
        if value is not None:
            inside = (
                slice(low, high) if field.name in OF_PROMPTS else slice(first, last)
            )
            changed[field.name] = value[inside]
    changed["prompt_of"] = changed["prompt_of"] - low
    return trimmed(replace(batch, **changed))


def trimmed(batch: Answers) -> Answers:
    """The batch without columns that are padding in every row."""
    width = int(batch.prompt_length.max())
    length = max(1, int(batch.length.max()))
    changed: dict[str, Any] = {}
    for field in fields(batch):
        value: Tensor | None = getattr(batch, field.name)
        if value is not None and value.dim() > 1:
            longest = width if field.name in OF_PROMPTS else length
            changed[field.name] = value[:, :longest]
    return replace(batch, **changed)


def _cuts(
    batch: Answers, begin: int, end: int, most_tokens: int
) -> list[tuple[int, int]]:
    """First and last answer of each part of those from `begin` up to `end`."""
    lengths = batch.length.tolist()
    of_prompt = batch.prompt_length.tolist()
    asked = batch.prompt_of.tolist()
    found: list[tuple[int, int]] = []
    first, tokens = begin, 0
    for number in range(begin, end):
        length = lengths[number]
        again = number > first and asked[number] == asked[number - 1]
        more = length + (0 if again else of_prompt[asked[number]])
        if number > first and tokens + more > most_tokens:
            found.append((first, number))
            first, tokens = number, 0
            more = length + of_prompt[asked[number]]
        tokens += more
    if end > first:
        found.append((first, end))
    return found


def _of_no_weight(batch: Answers) -> Answers:
    """The shortest answer, which counts nothing."""
    number = int(batch.length.argmin())
    one = cut(batch, number, number + 1)
    changed: dict[str, Any] = {
        name: torch.zeros_like(value)
        for name in ("weight", "share")
        if (value := getattr(one, name)) is not None
    }
    return replace(one, **changed)
