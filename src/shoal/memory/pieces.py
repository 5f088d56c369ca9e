"""An array that only grows, in pieces: a checkpoint writes the new ones and refers to the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Pieces:
    """Arrays by name, of which a name always stands for the same bytes once it was saved.

    `state()` of a memory returns one for what is append-only:
    `Pieces({"0": rows[:1000], "1000": rows[1000:2000]})`. A checkpoint writes the
    pieces that the one before did not hold and refers to the files of the others; those
    that are no longer named (a ring has overwritten them) go with the last checkpoint
    that names them. What still changes, such as a last piece that is not full, stands
    beside it in the tree as an ordinary array. `restore` gets the same names back.
    """

    arrays: Mapping[str, NDArray[Any]]
