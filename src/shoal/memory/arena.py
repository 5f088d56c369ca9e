"""The memory that a learner and one actor share: arrays cross in it, what describes them on a pipe."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle  # pyright: ignore[reportMissingTypeStubs]
import numpy as np

from shoal import _native

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEAD = 64
"""Bytes before the regions: the actor's count of steps, then where the value is that it kept last."""
ALIGN = 64
LEAST = 1024
"""Smaller arrays go with the message."""


class Packed(NamedTuple):
    """A value of which large arrays lie in the arena."""

    text: bytes
    places: tuple[tuple[int, int], ...]
    """Where, and how many bytes, in the order in which the value has them."""


class Arena:
    """Regions of memory behind a file descriptor: the first for what the learner sends, the others for the actor's.

    The memory has no name: it is gone with the last process that maps it.
    """

    def __init__(self, fd: int, sizes: tuple[int, ...]) -> None:
        """Maps it; the file must be `nbytes(sizes)` long."""
        starts = [HEAD]
        for size in sizes:
            starts.append(starts[-1] + _aligned(size))
        self._memory: NDArray[np.uint8] = _native.map_shared(fd, starts[-1])
        self._regions = list(pairwise(starts))
        self._counter = self._memory[:8].view(np.int64)
        self._kept = self._memory[8:48].view(np.int64)
        """How many values were kept, then of each of two regions where the last one's description is, and its size."""

    @property
    def steps(self) -> int:
        """What the actor counted up to: where it does not grow, nothing goes on."""
        return int(self._counter[0])

    def count(self) -> None:
        """Counts one more; the actor's alone."""
        self._counter[0] += 1

    def write(self, value: object, region: int) -> Packed:
        """Puts a value's arrays into a region, over what was there; what does not fit goes with the message."""
        at, end = self._regions[region]
        places: list[tuple[int, int]] = []

        def keep(buffer: pickle.PickleBuffer) -> bool:
            nonlocal at
            raw = buffer.raw()
            if raw.nbytes < LEAST or at + raw.nbytes > end:
                return True
            self._memory[at : at + raw.nbytes] = np.frombuffer(raw, np.uint8)
            places.append((at, raw.nbytes))
            at += _aligned(raw.nbytes)
            return False

        text = cloudpickle.dumps(value, protocol=5, buffer_callback=keep)
        return Packed(text, tuple(places))

    def keep(self, value: object, regions: tuple[int, int]) -> bool:
        """Puts a value whole into one of two regions in turn, where `kept` finds it; False where there is no room.

        The actor's alone.
        """
        number = int(self._kept[0]) + 1
        region = regions[number % 2]
        packed = self.write(value, region)
        first, end = self._regions[region]
        at = max((_aligned(place + n) for place, n in packed.places), default=first)
        text = np.frombuffer(pickle.dumps(tuple(packed)), np.uint8)
        if at + len(text) > end:
            return False
        self._memory[at : at + len(text)] = text
        place = 1 + 2 * (number % 2)
        self._kept[place : place + 2] = at, len(text)
        self._kept[0] = number
        return True

    def kept(self, regions: tuple[int, int]) -> Any:
        """The value that was kept last, whatever the actor does meanwhile; None where none was."""
        while number := int(self._kept[0]):
            first, _ = self._regions[regions[number % 2]]
            place = 1 + 2 * (number % 2)
            at, size = self._kept[place : place + 2].tolist()
            copied = self._memory[first : at + size].copy()
            if int(self._kept[0]) != number:
                continue  # this region may be the one that is written by now
            packed = Packed(*pickle.loads(copied[at - first :].tobytes()))
            buffers = [
                copied[here - first : here - first + n].data
                for here, n in packed.places
            ]
            return pickle.loads(packed.text, buffers=buffers)
        return None

    def read(self, packed: Packed) -> Any:
        """The value; its arrays are views until the region is written again, and must not be changed."""
        buffers = [self._memory[at : at + size].data for at, size in packed.places]
        return pickle.loads(packed.text, buffers=buffers)

    def read_copy(self, packed: Packed) -> Any:
        """The value, with arrays of its own."""
        buffers = [bytearray(self._memory[at : at + n]) for at, n in packed.places]
        return pickle.loads(packed.text, buffers=buffers)


def nbytes(sizes: tuple[int, ...]) -> int:
    """Bytes of the whole file."""
    return HEAD + sum(_aligned(size) for size in sizes)


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN
