"""Actions: what is asked of a batch before anything is stepped, and batches as single actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal import _native
from shoal.envs.bounds import bounds_of
from shoal.envs.observations import leaves_of
from shoal.types import assign, leaf_spaces, map_tree

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from shoal.types import Leaf, Spec, Tree


class ActionCheck:
    """What is asked of a batch of actions before anything is stepped."""

    def __init__(self, spec: Spec) -> None:
        """`spec`: whose action space it is."""
        self.spec = spec
        self._parts = [part for _, part in leaf_spaces(spec.action_space)]
        self._bounds = [bounds_of(part) for part in self._parts]
        leaf = spec.action.leaves[0]
        self._plain = len(spec.action.leaves) == 1 and not leaf.path
        low, high = self._bounds[0]
        self._low = np.array(np.broadcast_to(low, leaf.shape), leaf.dtype, order="C")
        self._high = np.array(np.broadcast_to(high, leaf.shape), leaf.dtype, order="C")

    def copy(self, rows: slice, action: Tree, out: Tree) -> None:
        """Writes `action` to `out` [rows, ...]; where `check` would refuse it, that ValueError and nothing written."""
        if self._plain and _native.copy_within(action, out, self._low, self._high):
            return
        assign(out, slice(None), self.check(rows, action))

    def copied(self, rows: slice, action: Tree) -> Tree:
        """`action` in arrays of its own, checked."""
        if self._plain:
            shape = rows.stop - rows.start, *self._low.shape
            own = np.empty(shape, self._low.dtype)
            if _native.copy_within(action, own, self._low, self._high):
                return own
        return map_tree(np.copy, self.check(rows, action))

    def cast(self, rows: slice, action: Tree) -> Tree:
        """`action` as arrays of the spec's dtypes; ValueError when it has another form, shape or kind."""
        layout = self.spec.action
        if self._plain:
            return self._cast(rows, layout.leaves[0], action)
        try:
            given = leaves_of(self.spec.action_space, action, "action")
        except ValueError as error:
            raise ValueError(f"{self._name(rows)} got an {error}") from None
        pairs = zip(layout.leaves, given, strict=True)
        return layout.tree([self._cast(rows, leaf, value) for leaf, value in pairs])

    def check(self, rows: slice, action: Tree) -> Tree:
        """The same; ValueError also names the first row whose action the space lacks."""
        tree = self.cast(rows, action)
        layout = self.spec.action
        arrays = [tree] if self._plain else layout.flat(tree)
        checked = zip(layout.leaves, arrays, self._parts, self._bounds, strict=True)
        for leaf, array, part, (low, high) in checked:
            good = (array >= low) & (array <= high)
            if np.count_nonzero(good) != good.size:
                row = int(np.argmin(good.reshape(len(array), -1).all(axis=1)))
                raise ValueError(
                    f"{self.spec.env_id}: the action{leaf.name} {array[row]} of row {rows.start + row} is outside "
                    f"{part}; nothing was stepped"
                )
        return tree

    def allows(self, actions: Tree) -> bool:
        """Whether the space holds all actions of a saved batch [steps, ...], whatever a file made of them."""
        first: Any = next(iter(self.spec.action.flat(actions)))
        try:
            self.check(slice(0, len(first)), actions)
        except (ValueError, TypeError):
            return False
        return True

    def _cast(self, rows: slice, leaf: Leaf, action: ArrayLike) -> NDArray[Any]:
        array = np.asarray(action)
        expected = (rows.stop - rows.start, *leaf.shape)
        if array.shape != expected:
            raise ValueError(
                f"{self._name(rows)} need actions{leaf.name} of shape {expected}, got {array.shape}"
            )
        if array.dtype == leaf.dtype:
            return array
        if not np.can_cast(array.dtype, leaf.dtype, "same_kind"):
            raise ValueError(
                f"{self._name(rows)} need actions{leaf.name} of type {leaf.dtype}, got {array.dtype}"
            )
        return array.astype(leaf.dtype)

    def _name(self, rows: slice) -> str:
        return f"{self.spec.env_id}: rows {rows.start}..{rows.stop - 1}"


def in_own_dtypes(spec: Spec, actions: Tree) -> Tree:
    """A batch of actions in the dtypes that the action space samples; the layout has int64 for all choices."""
    layout = spec.action
    parts = [part for _, part in leaf_spaces(spec.action_space)]
    own: list[NDArray[Any]] = []
    for array, part in zip(layout.flat(actions), parts, strict=True):
        own.append(np.asarray(array).astype(part.dtype or array.dtype, copy=False))
    return layout.tree(own)


def given_alone(spec: Spec) -> bool:
    """Whether the rows of a checked batch are as `one_by_one` gives them."""
    leaf = spec.action.leaves[0]
    return not leaf.path and leaf.dtype == spec.action_space.dtype


def one_by_one(spec: Spec, actions: Tree) -> list[Tree]:
    """A batch of actions as a list of single ones, as Gymnasium's SyncVectorEnv hands them to its environments.

    A Discrete's are NumPy's integers, all others arrays of the space's own dtype.
    """
    layout = spec.action
    own = in_own_dtypes(spec, actions)
    if not layout.leaves[0].path:
        return list(own)
    columns = [list(array) for array in layout.flat(own)]
    return [layout.tree(values) for values in zip(*columns, strict=True)]


def add_hint(error: BaseException, action: Tree) -> None:
    """A sentence for an environment that may have raised because it takes Python's int only."""
    if isinstance(error, TypeError | AssertionError) and isinstance(action, np.integer):
        kind = type(action).__name__
        error.add_note(
            f"shoal: the action is a numpy.{kind}, as Gymnasium's vector environments hand it over; "
            "if step() needs Python's int, it takes int(action)"
        )
