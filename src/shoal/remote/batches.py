"""Batches on the wire: the arrays of some rows in one block, as a Layout packs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.masks import MaskReader
from shoal.envs.outputs import NUMBERS, take
from shoal.types import ALIGNMENT, Layout, Leaf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.types import Ready, Spec, Tree

TURNS = ("turn", "game_over")
"""What rows have besides where not all of them always act."""


def ready_layout(spec: Spec, *, masked: bool) -> Layout:
    """The layout of what `recv` hands over, but for final observations."""
    leaves = [
        Leaf(("obs", *leaf.path), leaf.dtype, leaf.shape)
        for leaf in spec.observation.leaves
    ]
    leaves += [Leaf((name,), np.dtype(kind), ()) for name, kind in NUMBERS.items()]
    leaves += [Leaf(("info", key), np.dtype(np.float64), ()) for key in spec.info_keys]
    if masked:
        options = (MaskReader(spec).size,)
        leaves.append(Leaf(("action_mask",), np.dtype(np.bool_), options))
    if spec.agents:
        leaves += [Leaf((name,), np.dtype(np.bool_), ()) for name in TURNS]
    return Layout(tuple(leaves))


class Batch:
    """A block for one kind of message about `count` rows, and the arrays in it."""

    def __init__(self, layout: Layout, count: int) -> None:
        """Zeroed."""
        _, self.nbytes = layout.offsets((count,))
        whole = np.zeros(self.nbytes + ALIGNMENT, np.uint8)
        start = -whole.ctypes.data % ALIGNMENT
        self.block = whole[start : start + self.nbytes]
        self.tree: Tree = layout.view(self.block, count)
        self.arrays: list[NDArray[Any]] = layout.flat(self.tree)

    def read(self, data: bytes, what: str) -> None:
        """Takes over what was received; ValueError where it has another size."""
        if len(data) != self.nbytes:
            raise ValueError(f"{what} of {len(data)} bytes where {self.nbytes} belong")
        self.block[:] = np.frombuffer(data, np.uint8)


class Batches:
    """The batches of one layout by their number of rows, made once each."""

    def __init__(self, layout: Layout) -> None:
        """None yet."""
        self.layout = layout
        self._made: dict[int, Batch] = {}

    def of(self, count: int) -> Batch:
        """The batch of so many rows: the same one each time."""
        batch = self._made.get(count)
        if batch is None:
            batch = self._made[count] = Batch(self.layout, count)
        return batch

    def packed(self, batch: Batch, first: int, count: int) -> bytes:
        """The bytes of `count` rows of a batch, from `first` on."""
        if count == len(batch.arrays[0]):
            return batch.block.tobytes()
        part = self.of(count)
        for to, array in zip(part.arrays, batch.arrays, strict=True):
            to[...] = array[first : first + count]
        return part.block.tobytes()


class ReadyWriter:
    """Packs what a backend hands over."""

    def __init__(self, spec: Spec) -> None:
        """For rows of a specification, whose masks are known to be there or not."""
        self.spec = spec
        self._ready = Batches(ready_layout(spec, masked=spec.masked))

    def pack(self, ready: Ready) -> tuple[bytes, bytes]:
        """The arrays, and the final observations of the rows whose episode ended."""
        count = ready.rows.stop - ready.rows.start
        batch = self._ready.of(count)
        for to, array in zip(batch.arrays, arrays_of(self.spec, ready), strict=True):
            to[...] = array
        final = b""
        if ready.terminated.any() or ready.truncated.any():
            ended = np.flatnonzero(ready.terminated | ready.truncated)
            last = Batch(self.spec.observation, len(ended))
            parts = self.spec.observation.flat(take(ready.final_obs, ended))
            for to, array in zip(last.arrays, parts, strict=True):
                to[...] = array
            final = last.block.tobytes()
        return batch.block.tobytes(), final


def arrays_of(spec: Spec, ready: Ready) -> list[Any]:
    """The arrays of `ready` in the order of `ready_layout`."""
    arrays: list[Any] = list(spec.observation.flat(ready.obs))
    arrays += [getattr(ready, name) for name in NUMBERS]
    arrays += [ready.info[key] for key in spec.info_keys]
    if spec.masked:
        arrays.append(ready.action_mask)
    if spec.agents:
        arrays += [getattr(ready, name) for name in TURNS]
    return arrays
