"""Batches on the wire: the arrays of some rows in one block, as a Layout packs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shoal import _native
from shoal.envs.masks import MaskReader
from shoal.envs.outputs import MAX_VIEWS, NUMBERS
from shoal.remote.messages import Packed
from shoal.types import ALIGNMENT, Layout, Leaf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.types import Bools, Ready, Spec, Tree

MOST_NATIVE_BYTES = 120 << 10
"""Of a message that native calls read: larger ones take long anyway."""
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


def fits_native(spec: Spec, num_rows: int) -> bool:
    """Whether native calls read and write messages about all of so many rows: plain ones, which are short."""
    leaves = spec.observation.leaves + spec.action.leaves
    kinds = [(leaf.path, leaf.dtype.name) for leaf in leaves]
    if kinds not in (
        [((), "float32"), ((), "float32")],
        [((), "float32"), ((), "int64")],
    ):
        return False
    if spec.masked or spec.agents:
        return False
    _, nbytes = ready_layout(spec, masked=False).offsets((num_rows,))
    _, final = spec.observation.offsets((num_rows,))
    _, action = spec.action.offsets((num_rows,))
    return max(nbytes + final, action) <= MOST_NATIVE_BYTES


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

    def read(self, data: bytes, at: int, size: int, what: str) -> None:
        """Takes data[at:at + size] over, which was received; ValueError where it has another size."""
        if size != self.nbytes:
            raise ValueError(f"{what} of {size} bytes where {self.nbytes} belong")
        _native.unpack(data, at, size, self.arrays)


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


class _Found(NamedTuple):
    """The arrays of rows that may come again: the same object with the same arrays, but for its observations."""

    ready: Ready
    obs: Tree
    arrays: list[NDArray[Any]]
    like: list[NDArray[Any]]
    """Arrays of the shapes and dtypes that belong there."""
    finals: list[Tree]
    terminated: Bools
    truncated: Bools


class ReadyWriter:
    """Packs what a backend hands over."""

    def __init__(self, spec: Spec) -> None:
        """For rows of a specification, whose masks are known to be there or not."""
        self.spec = spec
        self._ready = Batches(ready_layout(spec, masked=spec.masked))
        self._found: dict[tuple[int, int], _Found] = {}

    def pack(self, number: int, ready: Ready) -> Packed:
        """The reply to request `number`, with the final observations of the rows whose episode ended."""
        place = ready.rows.start, ready.rows.stop
        found = self._found.get(place)
        if found is None or found.ready is not ready or found.obs is not ready.obs:
            if len(self._found) == MAX_VIEWS:
                self._found.clear()
            found = self._found[place] = self._find(ready)
        _, _, arrays, like, finals, over, cut = found
        first, masked = place[0], self.spec.masked
        data = _native.pack_rows(number, first, masked, arrays, like, finals, over, cut)
        if data is None:  # rows of a library may lie otherwise in memory
            for to, array in zip(like, arrays, strict=True):
                to[...] = array
            leaves = self.spec.observation.leaves
            finals = [
                np.asarray(array, leaf.dtype, order="C")
                for array, leaf in zip(finals, leaves, strict=True)
            ]
            data = _native.pack_rows(
                number, first, masked, like, like, finals, over, cut
            )
            assert data is not None
        return Packed(number, data)

    def _find(self, ready: Ready) -> _Found:
        return _Found(
            ready,
            ready.obs,
            arrays_of(self.spec, ready),
            self._ready.of(ready.rows.stop - ready.rows.start).arrays,
            self.spec.observation.flat(ready.final_obs),
            ready.terminated,
            ready.truncated,
        )


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
