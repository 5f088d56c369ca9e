"""Calls of the wire's bindings, which tests/native_fuzz.py makes among all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal import _native

if TYPE_CHECKING:
    Call = tuple[Any, list[Any], dict[str, Any]]

ROWS, OBS = 4, 5
"""Rows of a message, numbers of an observation."""


class WireCalls:
    """What `Fuzz` inherits."""

    rng: np.random.Generator
    floats: Any
    flags: Any
    pick: Any

    def wire_arrays(self) -> list[Any]:
        """Observations of two leaves, rewards and flags."""
        return [self.floats(ROWS, OBS), self.flags(ROWS, 3), np.zeros(ROWS), self.flags(ROWS), self.flags(ROWS)]

    def wire_rows(self) -> bytes:
        """A reply about them."""
        arrays = self.wire_arrays()
        data = _native.pack_rows(7, 1, False, arrays, arrays, arrays[:2], *arrays[3:])
        assert data is not None
        return data

    def damaged(self, data: bytes) -> bytes:
        """The same, or with bytes changed, or cut off."""
        if self.rng.random() < 0.5:
            return data
        changed = bytearray(data)
        for at in self.rng.integers(0, len(data), self.rng.integers(4)):
            changed[at] = self.rng.integers(256)
        return bytes(changed[: self.rng.integers(len(data) + 1)])

    def call_pack_step(self) -> Call:
        return _native.pack_step, [self.pick([1, 300, 2**40]), self.pick([0, 7]), ROWS, self.wire_arrays()], {}

    def call_read_step(self) -> Call:
        data = self.damaged(_native.pack_step(1, 0, ROWS, self.wire_arrays()))
        return _native.read_step, [data, 0, len(data)], {}

    def call_read_call(self) -> Call:
        step = _native.pack_step(1, 0, ROWS, [np.zeros(1)])
        return _native.read_call, [self.damaged(b"\n\x03abc\x12" + bytes([len(step)]) + step)], {}

    def call_unpack(self) -> Call:
        arrays = self.wire_arrays()
        size = sum(-(-array.nbytes // 64) * 64 for array in arrays)
        return _native.unpack, [self.rng.bytes(size + 3), 3, size, arrays], {}

    def call_pack_rows(self) -> Call:
        arrays, finals = self.wire_arrays(), self.wire_arrays()[:2]
        like = self.wire_arrays() if self.rng.random() < 0.5 else arrays
        return (
            _native.pack_rows,
            [7, self.pick([0, 3]), self.pick([False, True]), arrays, like, finals, *arrays[3:]],
            {},
        )

    def call_read_rows(self) -> Call:
        return _native.read_rows, [self.damaged(self.wire_rows())], {}

    def call_unpack_rows(self) -> Call:
        data = self.wire_rows()
        found = _native.read_rows(data)
        assert found is not None
        arrays = self.wire_arrays()
        return _native.unpack_rows, [data, *found[4:], arrays, self.wire_arrays()[:2], *arrays[3:]], {}
