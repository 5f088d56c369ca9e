"""Chains: layers one after another as calls of C, on two arrays that take turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shoal.deploy.program import (
    Activation,
    Convolution,
    Dense,
    MaxPool,
    Norm,
    Residual,
    out_size,
    sizes,
)

if TYPE_CHECKING:
    from shoal.deploy.c.weights import WeightBook
    from shoal.deploy.program import Layer

Moving = Dense | Convolution | MaxPool
"""Layers whose results stand in another array than what they read."""


class Chain(NamedTuple):
    """Calls, and what they need."""

    calls: list[str]
    scratch: int
    """Numbers in each of the arrays `a` and `b`."""
    arrays: frozenset[str]
    """Which of these are used."""
    kept: int
    """Numbers in the array `kept`, which holds what a residual block began with; 0: it is not used."""


def chain(
    layers: tuple[Layer, ...], source: str, size: int, target: str, book: WeightBook
) -> Chain:
    """Calls that run `layers` on the array `source` of `size` numbers, and leave their result in `target`."""
    writer = _Writer(book)
    moving = [at for at, layer in enumerate(layers) if _moves(layer)]
    if not moving:
        writer.calls.append(f"memcpy({target}, {source}, {size} * sizeof(float));")
        writer.run(layers, target, size)
        return Chain(writer.calls, 0, frozenset(), writer.kept)
    cut = moving[-1]
    at = writer.run(layers[:cut], source, size)
    size = out_size(layers[:cut], size)
    if isinstance(layers[cut], Residual):
        at = writer.run(layers[cut : cut + 1], at, size)
        writer.calls.append(f"memcpy({target}, {at}, {size} * sizeof(float));")
    else:
        writer.move(layers[cut], at, size, target)
    size = out_size(layers[: cut + 1], size)
    writer.run(layers[cut + 1 :], target, size)
    return Chain(writer.calls, writer.scratch, frozenset(writer.arrays), writer.kept)


def _moves(layer: Layer) -> bool:
    return isinstance(layer, Moving | Residual)


class _Writer:
    """Writes calls, and counts what they need."""

    def __init__(self, book: WeightBook) -> None:
        self.book = book
        self.calls: list[str] = []
        self.scratch = 0
        self.arrays: set[str] = set()
        self.kept = 0

    def run(self, layers: tuple[Layer, ...], at: str, size: int) -> str:
        """Calls for layers that read the array `at`; the array where their result stands."""
        for layer, given, made in sizes(layers, size):
            if isinstance(layer, Moving):
                to = "b" if at == "a" else "a"
                self.move(layer, at, given, to)
                self.arrays.add(to)
                self.scratch = max(self.scratch, made)
                at = to
            elif isinstance(layer, Residual):
                self.kept = max(self.kept, given)
                self.calls.append(f"memcpy(kept, {at}, {given} * sizeof(float));")
                at = self.run(layer.layers, at, given)
                self.calls.append(f"add_to({at}, kept, {given});")
            else:
                self.change(layer, at, given)
        return at

    def change(self, layer: Layer, at: str, size: int) -> None:
        """A call for a layer that changes its array in place."""
        if isinstance(layer, Activation):
            self.calls.append(f"{layer.kind}_each({at}, {size});")
            return
        assert isinstance(layer, Norm)
        weight = self.book.add("norm_weight", layer.weight)
        bias = self.book.add("norm_bias", layer.bias)
        self.calls.append(
            f"normalize({at}, {size}, {weight}, {bias}, {len(layer.weight)}, {layer.eps:.8e}f);"
        )

    def move(self, layer: Layer, at: str, size: int, to: str) -> None:
        """A call for a layer that reads the array `at` and writes the array `to`."""
        if isinstance(layer, MaxPool):
            sides = ", ".join(map(str, layer.given))
            tall, wide, _ = layer.made
            self.calls.append(f"max_pool({at}, {sides}, {tall}, {wide}, {to});")
            return
        assert isinstance(layer, Dense | Convolution)
        weight = self.book.add("weight", layer.weight)
        bias = self.book.add("bias", layer.bias)
        if isinstance(layer, Dense):
            inputs, outputs = layer.weight.shape
            self.calls.append(
                f"dense({at}, {inputs}, {weight}, {bias}, {outputs}, {to});"
            )
            return
        given, made = (
            ", ".join(map(str, sides)) for sides in (layer.given, layer.made)
        )
        steps = f"{layer.weight.shape[0]}, {layer.stride}, {layer.padding}"
        self.calls.append(
            f"convolve({at}, {given}, {weight}, {bias}, {steps}, {made}, {to});"
        )
