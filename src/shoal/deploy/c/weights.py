"""Weights as C: arrays of float32, each number with the nine digits that give it back exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NUMBERS_A_LINE = 8


class WeightBook:
    """The arrays of a program, each under a name of its own, in the order that they are first used."""

    def __init__(self) -> None:
        """Empty."""
        self._arrays: dict[str, NDArray[np.float32]] = {}

    def add(self, name: str, array: NDArray[np.float32]) -> str:
        """Keeps an array; the name that it has in C."""
        whole = f"{name}_{len(self._arrays)}"
        self._arrays[whole] = array
        return whole

    @property
    def count(self) -> int:
        """Numbers in all arrays."""
        return sum(array.size for array in self._arrays.values())

    def text(self) -> str:
        """The arrays as C, one definition after another."""
        return "\n".join(_definition(*item) for item in self._arrays.items())


def _definition(name: str, array: NDArray[np.float32]) -> str:
    shape = " * ".join(str(side) for side in array.shape)
    numbers = array.ravel().tolist()
    lines: list[str] = []
    for at in range(0, len(numbers), NUMBERS_A_LINE):
        row = numbers[at : at + NUMBERS_A_LINE]
        lines.append("  " + ", ".join(map("{:.8e}f".format, row)) + ",")
    body = "\n".join(lines)
    return f"static const float {name}[{shape}] = {{\n{body}\n}};\n"
