"""Observations of any space: what Python environments return is read into the packed arrays, leaf by leaf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.envs.python_env import ObsReader
from shoal.types import EnvError, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Callable

    from gymnasium import Space
    from numpy.typing import NDArray

    from shoal.types import Spec, Tree


class TreeReader:
    """Copies observations into a tree of arrays, all rows of a step at once."""

    def __init__(self, spec: Spec) -> None:
        """`spec`: whose observations they are."""
        self._space, self._layout = spec.observation_space, spec.observation
        self._parts = [part for _, part in leaf_spaces(self._space)]
        pairs = zip(self._parts, self._layout.leaves, strict=True)
        self._readers = [ObsReader(part, leaf) for part, leaf in pairs]
        self._plain = not self._layout.leaves[0].path
        self.gathers = isinstance(self._space, spaces.Box)
        """Whether `_native.gather` may read them: arrays that have exactly the dtype of their place."""

    def read(self, seen: list[Any], out: Tree) -> int:
        """Copies seen[i] into row i of `out`; returns the first i that the space does not hold, or -1."""
        if self._plain:
            return self._readers[0].read(seen, out)
        rows: list[list[Any]] = []
        for row, obs in enumerate(seen):
            try:
                rows.append(leaves_of(self._space, obs))
            except ValueError:
                return row
        columns = [list(column) for column in zip(*rows, strict=True)]
        arrays = self._layout.flat(out)
        bad = [
            r.read(column, array)
            for r, column, array in zip(self._readers, columns, arrays, strict=True)
        ]
        return min((row for row in bad if row >= 0), default=-1)

    def put(self, obs: Any, out: Tree, row: int) -> bool:
        """Copies one observation into a row of `out`, or says that the space does not hold it."""
        if not self.fits(obs):
            return False
        if self._plain:
            out[row] = obs
            return True
        for array, value in zip(
            self._layout.flat(out), leaves_of(self._space, obs), strict=True
        ):
            array[row] = value
        return True

    def check_apart(
        self,
        seen: list[Any],
        out: Tree,
        rows: NDArray[np.intp],
        where: Callable[[int], str],
    ) -> None:
        """EnvError where seen[i] is no longer what was put into row rows[i]: another row wrote to the same memory."""
        arrays = self._layout.flat(out)
        for obs, row in zip(seen, rows.tolist(), strict=True):
            leaves = [obs] if self._plain else leaves_of(self._space, obs)
            if not all(
                np.array_equal(leaf, array[row])
                for leaf, array in zip(leaves, arrays, strict=True)
            ):
                raise EnvError(
                    f"{where(row)} returned an observation that another row's reset changed: rows share a buffer; "
                    "return an array of the environment's own, or a copy"
                )

    def fits(self, obs: Any) -> bool:
        """Whether the space holds the observation; a Box's bounds are not compared."""
        if self._plain:
            return self._readers[0].fits(obs)
        try:
            values = leaves_of(self._space, obs)
        except ValueError:
            return False
        return all(
            reader.fits(value)
            for reader, value in zip(self._readers, values, strict=True)
        )

    def complaint(self, obs: Any) -> str:
        """What is wrong with an observation that does not fit, and what would be right."""
        try:
            values = leaves_of(self._space, obs)
        except ValueError as error:
            return f"an {error}"
        found = zip(
            self._layout.leaves, self._parts, self._readers, values, strict=True
        )
        name, part, value = next(
            (leaf.name, part, value)
            for leaf, part, r, value in found
            if not r.fits(value)
        )
        shown = f"{value!r} " if np.ndim(value) == 0 else ""
        return (
            f"an observation{name} {shown}of shape {np.shape(value)} and type "
            f"{getattr(value, 'dtype', type(value).__name__)} that is not in its own {part}; "
            "return exactly that shape and dtype"
        )


def leaves_of(space: Space[Any], tree: Any, name: str = "observation") -> list[Any]:
    """The leaves of what should be a tree of `space`, in layout order; ValueError naming where its form differs."""
    match space:
        case spaces.Dict():
            if not isinstance(tree, Mapping) or set(tree) != set(space.spaces):
                got = (
                    f"the keys {list(tree)}"
                    if isinstance(tree, Mapping)
                    else f"a {type(tree).__name__}"
                )
                raise ValueError(
                    f"{name} that must be a dict with the keys {list(space.spaces)}, but is {got}"
                )
            return [
                x
                for key, part in space.spaces.items()
                for x in leaves_of(part, tree[key], f"{name}[{key!r}]")
            ]
        case spaces.Tuple():
            if not isinstance(tree, tuple | list) or len(tree) != len(space.spaces):
                got = (
                    f"{len(tree)} parts"
                    if isinstance(tree, tuple | list)
                    else f"a {type(tree).__name__}"
                )
                raise ValueError(
                    f"{name} that must be a tuple of {len(space.spaces)} parts, but is {got}"
                )
            parts = enumerate(zip(space.spaces, tree, strict=True))
            return [
                x
                for index, (part, value) in parts
                for x in leaves_of(part, value, f"{name}[{index}]")
            ]
        case _:
            return [tree]
