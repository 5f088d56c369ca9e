"""Calls of a language model's decode step and of its products, which tests/native_fuzz.py makes among all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal import _native

if TYPE_CHECKING:
    import numpy as np

    Call = tuple[Any, list[Any], dict[str, Any]]


class DecodingCalls:
    """What `Fuzz` inherits."""

    rng: np.random.Generator
    floats: Any
    kernels: Any
    pick: Any

    def call_decode_attention(self) -> Call:
        rows, shared, capacity, size = self.pick([1, 3]), 2, 32, 16
        heads = shared * self.pick([1, 3, 5])
        norm = self.floats(heads + shared, size) if self.rng.random() < 0.5 else None
        turns, position = self.floats(capacity, 2, size), self.rng.integers(0, capacity, rows)
        caches = [self.floats(rows + 1, shared, capacity, size) for _ in range(2)]
        given = [self.floats(rows, heads + 2 * shared, size), norm, 1e-6, turns, position, *caches]
        return _native.decode_attention, [*given, self.floats(rows, heads, size), self.kernels()], {}

    def call_pack_panels(self) -> Call:
        panels, inputs = self.pick([1, 2]), self.pick([0, 5, 16])
        given = [self.floats(32 * panels, inputs), self.floats(panels, inputs, 32)]
        return _native.pack_panels, [*given, self.kernels()], {}

    def call_panel_product(self) -> Call:
        rows, panels, inputs = self.pick([0, 1, 9]), self.pick([1, 2]), self.pick([0, 5, 16])
        finish = self.pick(["keep", "swish", "times", "plus"])
        bias = self.floats(32 * panels) if self.rng.random() < 0.5 else None
        other = self.floats(rows, 32 * panels) if finish in ("times", "plus") else None
        given = [self.floats(rows, inputs), self.floats(panels, inputs, 32), bias, other, finish]
        return _native.panel_product, [*given, self.floats(rows, 32 * panels), self.kernels()], {}
