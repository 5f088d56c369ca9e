"""Prompts, and the tokens of answers under way, read into the cache: each sequence once, many at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from shoal.llm.sampler.cache import Cache
    from shoal.llm.sampler.passes import Pass
    from shoal.llm.sampler.slots import Answer, Slots

AT_A_TIME = 8192
"""Tokens, with padding, that are read at once, unless a single sequence has more."""


class Held(NamedTuple):
    """A sequence that was read, for answers that wait for slots."""

    token: tuple[int, ...]
    keys: Tensor
    values: Tensor
    routing: NDArray[np.int16] | None
    """[1, length, layers, experts_per_token]."""


class Reader:
    """Fills slots of a cache. The last token of a sequence is not read: the next decode step begins with it."""

    def __init__(self, cache: Cache, slots: Slots) -> None:
        """Into which cache; `slots` says what is under way."""
        self._cache, self._slots = cache, slots
        self._pass: Pass | None = None
        self._held: Held | None = None
        """A sequence whose next answers wait for slots."""

    def take(self, taken: Pass | None) -> None:
        """Reads with these from now on; None: lets go of those that it has."""
        self._pass, self._held = taken, None

    def read(self, answers: Sequence[Answer], follows: Answer | None) -> list[Answer]:
        """Fills the slots behind the active ones; the answers in the order of their slots.

        `follows` waits for a slot itself: where its sequence is among these, it is not read again.
        """
        of: dict[tuple[int, ...], list[Answer]] = {}
        for answer in answers:
            of.setdefault(answer.token, []).append(answer)
        first = self._slots.active
        placed: list[Answer] = []
        held, self._held = self._held, None
        for group in self._groups(of, held):
            keys, values, went = self._keys_and_values(group, held)
            copies = [len(of[token]) for token in group]
            source = np.repeat(np.arange(len(group)), copies)
            self._cache.put(first, keys[:, source], values[:, source])
            for row, token in enumerate(group):
                prefix = None if went is None else went[row, : len(token) - 1]
                placed += [_with_prefix(answer, prefix) for answer in of[token]]
            first += len(source)
            if follows is not None and follows.token in group:
                row, length = group.index(follows.token), len(follows.token) - 1
                part = slice(row, row + 1)
                key = keys[:, part, :, :length].clone()
                value = values[:, part, :, :length].clone()
                routing = None if went is None else went[part]
                self._held = Held(follows.token, key, value, routing)
        return placed

    def read_again(self) -> None:
        """The active slots anew, with the weights of now."""
        slots = self._slots
        # Slots lie side by side where they are filled, so they are taken as they come, not by their length.
        for part in _parts(slots.length[: slots.active] - 1):
            length = slots.length[part] - 1
            token = slots.token[part, : int(length.max())].copy()
            keys, values, _ = self._read(token)
            self._cache.put(part.start, keys, values)

    def _groups(
        self,
        sequences: dict[tuple[int, ...], list[Answer]],
        held: Held | None,
    ) -> Iterator[list[tuple[int, ...]]]:
        """Sequences that are read together: of like length."""
        left = list(sequences)
        if held is not None and held.token in sequences:
            yield [held.token]
            left.remove(held.token)
        left.sort(key=len)
        for part in _parts(np.array([len(token) - 1 for token in left])):
            yield left[part]

    def _keys_and_values(
        self,
        group: list[tuple[int, ...]],
        held: Held | None,
    ) -> tuple[Tensor, Tensor, NDArray[np.int16] | None]:
        if held is not None and group == [held.token]:
            return held.keys, held.values, held.routing
        token = np.zeros((len(group), max(map(len, group)) - 1), np.int64)
        for row, sequence in zip(token, group, strict=True):
            row[: len(sequence) - 1] = sequence[:-1]
        return self._read(token)

    def _read(
        self, token: np.ndarray
    ) -> tuple[Tensor, Tensor, NDArray[np.int16] | None]:
        assert self._pass is not None
        tensor = torch.from_numpy(token).to(self._cache.device)
        keys, values = self._pass.read(tensor, self._cache)
        went = self._pass.routing
        return keys, values, None if went is None else went.cpu().numpy()


def _with_prefix(answer: Answer, prefix: NDArray[np.int16] | None) -> Answer:
    """The answer with where its tokens went when it was read: those that it began with."""
    if prefix is None:
        return answer
    return replace(answer, prefix=prefix[: answer.given - 1].copy())


def _parts(lengths: np.ndarray) -> Iterator[slice]:
    """Neighbours that together, padded to the longest, have at most AT_A_TIME tokens."""
    first, longest = 0, 0
    for index, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if index > first and (index + 1 - first) * longest > AT_A_TIME:
            yield slice(first, index)
            first, longest = index, length
    if len(lengths):
        yield slice(first, len(lengths))
