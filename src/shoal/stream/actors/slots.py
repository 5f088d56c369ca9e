"""Slots: versions of weights for actors in threads, in memory that is filled again when nobody holds it."""

from __future__ import annotations

from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from shoal.stream.actors.weights import Weights


class Slot:
    """One version of a policy, or of what changed since another one, and how many are to read it."""

    def __init__(self, weights: Weights) -> None:
        """Copies it."""
        buffers = {name: given.clone() for name, given in weights.buffers.items()}
        self.weights = replace(weights, flat=weights.flat.copy(), buffers=buffers)
        self.pins = 0

    def is_of(self, version: int, since: int | None) -> bool:
        """Whether it holds this version, for those who have the version `since`; None: all of it."""
        own = self.weights
        found = None if own.names is None else own.since
        return own.version == version and found == since

    def fill(self, weights: Weights) -> bool:
        """Copies another one into the same memory; False where that does not fit."""
        own = self.weights
        pairs = [(own.buffers.get(name), x) for name, x in weights.buffers.items()]
        if own.flat.shape != weights.flat.shape or len(pairs) != len(own.buffers):
            return False
        if not all(mine is not None and _alike(mine, x) for mine, x in pairs):
            return False
        np.copyto(own.flat, weights.flat)
        for name, given in weights.buffers.items():
            own.buffers[name].copy_(given)
        self.weights = replace(weights, flat=own.flat, buffers=own.buffers)
        return True


class Slots:
    """Of one run's roles. The learner publishes into them, and each reader lets go of the version that it has taken."""

    def __init__(self) -> None:
        """None yet: as many are made as are held at once."""
        self._slots: dict[str, list[Slot]] = {}
        self._lock = Lock()

    def pin(self, role: str, weights: Weights) -> Slot:
        """A slot that holds this version of a role, for one more reader, who `let_go`s of it."""
        every = self._slots.setdefault(role, [])
        since = None if weights.names is None else weights.since
        with self._lock:
            slot = _held(every, weights.version, since) or _filled(every, weights)
            if slot is None:
                slot = Slot(weights)
                every.append(slot)
            slot.pins += 1
        return slot

    def let_go(self, slot: Slot) -> None:
        """A reader has taken it."""
        with self._lock:
            slot.pins -= 1

    def count(self, role: str) -> int:
        """How many slots there are for a role."""
        return len(self._slots.get(role, ()))


def _held(every: Sequence[Slot], version: int, since: int | None) -> Slot | None:
    """The slot that holds a version and is pinned; one that nobody holds may be of weights that changed since."""
    for slot in every:
        if slot.pins and slot.is_of(version, since):
            return slot
    return None


def _filled(every: Sequence[Slot], weights: Weights) -> Slot | None:
    """A slot that nobody holds, with these weights in it."""
    for slot in every:
        if not slot.pins and slot.fill(weights):
            return slot
    return None


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype
