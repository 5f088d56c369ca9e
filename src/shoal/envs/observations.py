"""Observations of any space: what Python environments return is read into the packed arrays, leaf by leaf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.envs.bounds import bounds_of
from shoal.envs.python_env import ObsReader
from shoal.types import EnvError, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Callable

    from gymnasium import Space
    from numpy.typing import NDArray

    from shoal.types import Leaf, Spec, Tree


class TreeReader:
    """Copies observations into a tree of arrays, all rows of a step at once."""

    def __init__(self, spec: Spec) -> None:
        """`spec`: whose observations they are."""
        self._space = spec.observation_space
        self._layout = spec.observation
        self._parts = [part for _, part in leaf_spaces(self._space)]
        pairs = zip(self._parts, self._layout.leaves, strict=True)
        self._readers = [ObsReader(part, leaf) for part, leaf in pairs]
        self._plain = not self._layout.leaves[0].path
        self.gathers = isinstance(self._space, spaces.Box)
        """Whether `_native.Account` may read them: arrays that have exactly the dtype of their place."""

    def read(self, seen: list[Tree], out: Tree) -> int:
        """Copies seen[i] into row i of `out`; returns the first i that the space does not hold, or -1."""
        if self._plain:
            return self._readers[0].read(seen, out)
        rows: list[list[Tree]] = []
        for row, obs in enumerate(seen):
            try:
                rows.append(leaves_of(self._space, obs))
            except ValueError:
                return row
        columns = [list(column) for column in zip(*rows, strict=True)]
        arrays = self._layout.flat(out)
        found: list[int] = []
        for reader, column, array in zip(self._readers, columns, arrays, strict=True):
            bad = reader.read(column, array)
            if bad >= 0:
                found.append(bad)
        return min(found, default=-1)

    def put(self, obs: Tree, out: Tree, row: int) -> bool:
        """Copies one observation into a row of `out`, or says that the space does not hold it."""
        if not self.fits(obs):
            return False
        if self._plain:
            out[row] = obs
            return True
        values = leaves_of(self._space, obs)
        for array, value in zip(self._layout.flat(out), values, strict=True):
            array[row] = value
        return True

    def check_apart(
        self,
        seen: list[Tree],
        out: Tree,
        rows: NDArray[np.intp],
        where: Callable[[int], str],
    ) -> None:
        """EnvError where seen[i] is no longer what was put into row rows[i]: another row wrote to the same memory."""
        arrays = self._layout.flat(out)
        for obs, row in zip(seen, rows.tolist(), strict=True):
            leaves = [obs] if self._plain else leaves_of(self._space, obs)
            for leaf, array in zip(leaves, arrays, strict=True):
                own = np.asarray(leaf, array.dtype)
                if not np.array_equal(own, array[row]):
                    raise EnvError(
                        f"{where(row)} returned an observation that another row's reset changed: rows share a buffer; "
                        "return an array of the environment's own, or a copy"
                    )

    def fits(self, obs: Tree) -> bool:
        """Whether the space holds the observation; a Box's bounds are not compared."""
        if self._plain:
            return self._readers[0].fits(obs)
        try:
            values = leaves_of(self._space, obs)
        except ValueError:
            return False
        pairs = zip(self._readers, values, strict=True)
        return all(reader.fits(value) for reader, value in pairs)

    def complaint(self, obs: Tree) -> str:
        """What is wrong with an observation that does not fit, and what would be right."""
        try:
            values = leaves_of(self._space, obs)
        except ValueError as error:
            return f"an {error}"
        at = 0
        while self._readers[at].fits(values[at]):
            at += 1
        name, part, value = self._layout.leaves[at].name, self._parts[at], values[at]
        return f"an observation{name} {misfit(part, self._layout.leaves[at], value)}"


def misfit(space: Space[Any], leaf: Leaf, value: Tree) -> str:
    """Why the space does not hold a value, and what would be right."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        array = np.array(None)
    dtype = getattr(value, "dtype", type(value).__name__)
    shown = f"{value!r} " if array.ndim == 0 else ""
    is_of = f"{shown}of shape {array.shape} and type {dtype}"
    says = f"{is_of} that is not in its own {space}"
    if array.shape != leaf.shape:
        return f"{says}; return the shape {leaf.shape}"
    # `contains` of Gymnasium takes some arrays of other types, so that this is not said to be outside.
    if not np.can_cast(array.dtype, leaf.dtype, "same_kind"):
        return f"{is_of}, but its own {space} holds {space.dtype}; return the type {space.dtype}"
    if isinstance(space, spaces.Box):
        return f"{is_of}, but its own {space} holds {space.dtype}; return it with .astype(np.{space.dtype})"
    low, high = np.broadcast_arrays(*bounds_of(space), array)[:2]
    at = tuple(np.argwhere((array < low) | (array > high))[0].tolist())
    where = f" at {list(at)}" if at else ""
    return f"{says}; it holds {array[at]}{where}, outside {low[at]} to {high[at]}"


def leaves_of(space: Space[Any], tree: Tree, name: str = "observation") -> list[Tree]:
    """The leaves of what should be a tree of `space`, in layout order; ValueError naming where its form differs."""
    leaves: list[Tree] = []
    match space:
        case spaces.Dict():
            keys = list(space.spaces)
            if not isinstance(tree, Mapping):
                got = f"is a {type(tree).__name__}"
            elif set(tree) != set(keys):
                got = f"has the keys {list(tree)}"
            else:
                for key, part in space.spaces.items():
                    leaves += leaves_of(part, tree[key], f"{name}[{key!r}]")
                return leaves
            raise ValueError(
                f"{name} that must be a dict with the keys {keys}, but {got}"
            )
        case spaces.Tuple():
            size = len(space.spaces)
            if not isinstance(tree, tuple | list):
                got = f"is a {type(tree).__name__}"
            elif len(tree) != size:
                got = f"has {len(tree)} parts"
            else:
                for index, part in enumerate(space.spaces):
                    leaves += leaves_of(part, tree[index], f"{name}[{index}]")
                return leaves
            raise ValueError(f"{name} that must be a tuple of {size} parts, but {got}")
        case _:
            return [tree]
