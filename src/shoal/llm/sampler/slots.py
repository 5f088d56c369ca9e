"""What is known of the answers under way, one slot each, in arrays: the first `active` slots are in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUMBERS = 2**16
"""Answers of one request: their noise is that of the row key * NUMBERS + number."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that waits for a slot, or is taken out of one."""

    key: int
    number: int
    token: tuple[int, ...]
    """Prompt, what the answer had begun with, and what was drawn."""
    prompt: int
    """Tokens of the prompt."""
    given: int
    """Tokens that were not drawn: the prompt's and those that the answer had begun with."""
    logprob: NDArray[np.float32]
    """Of the tokens that were drawn."""
    version: NDArray[np.int64]
    kept: NDArray[np.uint8] | None
    routing: NDArray[np.int16] | None = None
    """The experts that chose each [n, layers, experts_per_token]."""
    prefix: NDArray[np.int16] | None = None
    """Those that all tokens but the last went to when the answer was read [given - 1, layers, experts_per_token]."""


class Slots:
    """Tokens and what was recorded of them. Row i of every array is slot i."""

    def __init__(
        self, slots: int, kept_bytes: int, routed: tuple[int, int] = (0, 0)
    ) -> None:
        """Empty slots.

        Args:
            slots: how many.
            kept_bytes: of the set that a token was drawn from; 0: none is recorded.
            routed: layers, and experts of a token in each, of a mixture of experts; 0: no routing is recorded.
        """
        self.active = 0
        self.token = np.zeros((slots, 0), np.int64)
        self.key = np.zeros(slots, np.int64)
        self.number = np.zeros(slots, np.int64)
        self.length = np.zeros(slots, np.int64)
        """Tokens so far, the prompt's included."""
        self.prompt = np.zeros(slots, np.int64)
        self.given = np.zeros(slots, np.int64)
        self.end = np.zeros(slots, np.int64)
        """The length at which the answer is cut."""
        self.logprob = np.zeros((slots, 0), np.float32)
        self.version = np.zeros((slots, 0), np.int64)
        self.kept = np.zeros((slots, 0, kept_bytes), np.uint8)
        self.routing = np.zeros((slots, 0, *routed), np.int16)
        self.prefix = np.full(slots, None, object)
        """Of each slot the routing of what was read, where there is one."""
        self.told = np.ones(slots, np.bool_)
        """Whether `new_prefixes` has told it."""

    @property
    def free(self) -> int:
        """Slots without an answer."""
        return len(self.key) - self.active

    @property
    def row(self) -> NDArray[np.int64]:
        """Whose noise each active slot takes."""
        return self.key[: self.active] * NUMBERS + self.number[: self.active]

    def grow(self, capacity: int, drawn: int) -> None:
        """Makes room for so many tokens of each slot, of which at most `drawn` are drawn."""
        self.token = _grown(self.token, capacity)
        drawn = min(capacity, drawn)
        self.logprob = _grown(self.logprob, drawn)
        self.version = _grown(self.version, drawn)
        self.kept = _grown(self.kept, drawn)
        self.routing = _grown(self.routing, drawn)

    def add(self, answer: Answer, end: int) -> None:
        """Puts an answer into the first free slot; it is cut at length `end`."""
        slot = self.active
        length = len(answer.token)
        self.token[slot, :length] = answer.token
        self.key[slot], self.number[slot] = answer.key, answer.number
        self.length[slot], self.prompt[slot] = length, answer.prompt
        self.given[slot], self.end[slot] = answer.given, end
        drawn = length - answer.given
        self.logprob[slot, :drawn] = answer.logprob
        self.version[slot, :drawn] = answer.version
        if answer.kept is not None:
            self.kept[slot, :drawn] = answer.kept
        if answer.routing is not None:
            self.routing[slot, :drawn] = answer.routing
        self.prefix[slot], self.told[slot] = answer.prefix, answer.prefix is None
        self.active += 1

    def append(
        self,
        token: NDArray[np.int64],
        logprob: NDArray[np.float32],
        version: int,
        kept: NDArray[np.uint8] | None,
        routing: NDArray[np.int16] | None = None,
    ) -> None:
        """One more token [active] for every active slot."""
        slot = np.arange(self.active)
        length = self.length[: self.active]
        drawn = length - self.given[: self.active]
        self.token[slot, length] = token
        self.logprob[slot, drawn] = logprob
        self.version[slot, drawn] = version
        if kept is not None:
            self.kept[slot, drawn] = kept
        if routing is not None:
            self.routing[slot, drawn] = routing
        length += 1

    def new_prefixes(self) -> dict[int, NDArray[np.int16]]:
        """Where went what was read, of active slots that are asked for the first time since it was."""
        new = np.flatnonzero(~self.told[: self.active]).tolist()
        self.told[new] = True
        return {slot: self.prefix[slot] for slot in new}

    def taken(self, slot: int) -> Answer:
        """A copy of the answer in a slot."""
        length, given = int(self.length[slot]), int(self.given[slot])
        drawn = length - given
        keeps, routed = self.kept.shape[2] > 0, self.routing.shape[3] > 0
        return Answer(
            key=int(self.key[slot]),
            number=int(self.number[slot]),
            token=tuple(self.token[slot, :length].tolist()),
            prompt=int(self.prompt[slot]),
            given=given,
            logprob=self.logprob[slot, :drawn].copy(),
            version=self.version[slot, :drawn].copy(),
            kept=self.kept[slot, :drawn].copy() if keeps else None,
            routing=self.routing[slot, :drawn].copy() if routed else None,
            prefix=self.prefix[slot],
        )

    def remove(
        self, done: NDArray[np.bool_]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Frees slots [active] and moves the last ones into the gaps; from which slots, and to which."""
        left = self.active - int(done.sum())
        target = np.flatnonzero(done[:left])
        source = np.flatnonzero(~done[left:]) + left
        for array in (self.key, self.number, self.length, self.prompt):
            array[target] = array[source]
        for array in (self.given, self.end, self.token):
            array[target] = array[source]
        for array in (self.logprob, self.version, self.kept):
            array[target] = array[source]
        for array in (self.routing, self.prefix, self.told):
            array[target] = array[source]
        self.active = left
        return source, target


def _grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    """An array with at least so many columns."""
    if size <= array.shape[1]:
        return array
    grown = np.zeros((len(array), size, *array.shape[2:]), array.dtype)
    grown[:, : array.shape[1]] = array
    return grown
