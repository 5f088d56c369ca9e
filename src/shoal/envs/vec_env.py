"""The contract of every backend: rows that are received and sent, and what is refused on the way in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from gymnasium import spaces

from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.types import Ready, Spec, Tree


class VecEnv(Protocol):
    """B rows of one environment, reset in the same step.

    After `reset` or `restore` the first `recv` hands over all rows. From then on `recv` hands over the rows of the
    oldest `send` not yet received; up to two sends of disjoint rows may be under way.
    """

    spec: Spec
    num_rows: int

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every row anew; row r is seeded with seed + r, or with its own entry of a sequence."""
        ...

    def recv(self) -> Ready:
        """Waits for the oldest rows under way; EnvError when an environment breaks its contract."""
        ...

    def send(self, rows: slice, action: Tree) -> None:
        """Starts one step of `rows` (contiguous) with `action` [rows, ...]; ValueError names a bad action's row."""
        ...

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on exactly; RuntimeError while rows are under way."""
        ...

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`; returns a sentence for each row whose episode had to be cut as truncated."""
        ...

    def close(self) -> None:
        """Frees what the rows hold; may be called twice."""
        ...


class InFlight:
    """The sends that wait to be received, oldest first, and the mistakes in their order."""

    def __init__(self, num_rows: int) -> None:
        """`num_rows`: rows of the whole environment."""
        self.num_rows = num_rows
        self._under_way: list[slice] = []
        self._fresh = False
        self._started = False

    def begin(self) -> None:
        """All rows are ready: after a reset or a restore."""
        self._under_way.clear()
        self._fresh = self._started = True

    def send(self, rows: slice) -> slice:
        """Notes that `rows` are under way; returns them as a plain range."""
        first, last, step = rows.indices(self.num_rows)
        if not self._started:
            raise RuntimeError("send before reset: call reset(seed) and recv() first")
        if self._fresh:
            raise RuntimeError("send before recv: receive the first observations after reset first")
        if step != 1 or last <= first:
            raise ValueError(f"rows must be a contiguous, non-empty slice of {self.num_rows} rows, got {rows}")
        if len(self._under_way) == 2 or any(first < s.stop and s.start < last for s in self._under_way):
            raise RuntimeError(f"rows {first}..{last - 1} were sent before {self._under_way} were received")
        self._under_way.append(slice(first, last))
        return self._under_way[-1]

    def recv(self) -> slice:
        """The rows to hand over next."""
        if self._fresh:
            self._fresh = False
            return slice(0, self.num_rows)
        if not self._under_way:
            raise RuntimeError("recv with no rows under way: call reset(seed) or send(rows, action) first")
        return self._under_way.pop(0)

    def undo(self) -> None:
        """Takes the last send back, whose action was refused."""
        self._under_way.pop()

    def quiet(self) -> None:
        """Raises unless nothing is under way."""
        if self._under_way:
            raise RuntimeError(f"rows {self._under_way} are under way: receive them before state()")


def check_action(spec: Spec, rows: slice, action: NDArray[Any]) -> NDArray[Any]:
    """`action` as an array of the spec's dtype; ValueError names the first row whose action the space lacks."""
    leaf = spec.action.single
    array = np.asarray(action)
    expected = (rows.stop - rows.start, *leaf.shape)
    if array.shape != expected:
        raise ValueError(
            f"{spec.env_id}: rows {rows.start}..{rows.stop - 1} need actions {expected}, got {array.shape}"
        )
    if not np.can_cast(array.dtype, leaf.dtype, "same_kind"):
        raise ValueError(f"{spec.env_id}: actions must be {leaf.dtype}, got {array.dtype}")
    space: Any = spec.action_space
    match space:
        case spaces.Discrete():
            good = (array >= space.start) & (array < space.start + space.n)
        case spaces.MultiDiscrete():
            good = (array >= space.start) & (array < space.start + space.nvec)
        case _:
            good = (array >= space.low) & (array <= space.high)
    if not good.all():
        row = int(np.argmin(good.reshape(len(array), -1).all(axis=1)))
        raise ValueError(f"{spec.env_id}: the action {array[row]} of row {rows.start + row} is not in {space}")
    return array.astype(leaf.dtype, copy=False)


def check_finite(spec: Spec, rows: slice, obs: NDArray[Any], reward: NDArray[np.float64]) -> None:
    """EnvError naming the first row with a NaN or infinite observation or reward."""
    for name, values in (("observation", obs), ("reward", reward)):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
            row = int(np.argmax(bad))
            raise EnvError(
                f"{spec.env_id}: row {rows.start + row} returned the {name} {values[row]}; "
                "fix the environment, or clip there what may overflow"
            )
