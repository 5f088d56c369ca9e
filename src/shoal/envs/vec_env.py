"""The contract of every backend: rows that are received and sent, and what is refused on the way in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from shoal import _native
from shoal.envs.observations import leaves_of
from shoal.types import EnvError, Ready, assign, leaf_spaces, map_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gymnasium.envs.registration import EnvSpec
    from numpy.typing import NDArray

    from shoal.types import Bools, Layout, Leaf, Spec, Tree

CALL_RESET = "call reset(seed) and recv() first"
MAX_VIEWS = 64


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do, so that nobody needs to ask for its type."""

    batch_rows: int = 0
    """Rows that each `recv` hands over, whichever are ready first; 0: in the order of sends."""
    whole_sends: bool = False
    """All rows are sent together."""
    restartable: bool = False
    """`restart` begins new episodes in some of the rows."""
    reset_options: bool = False
    """`restart` hands options to the environments' own reset."""
    can_save: bool = True
    """Rows go on exactly after `restore`; else each is cut as truncated there, and begins anew."""
    can_render: bool = False
    """`render` draws a row."""
    frames_per_s: float = 30.0
    """How many pictures a second show an episode at its own pace, one a step."""

    @property
    def in_order(self) -> bool:
        """Whether `recv` hands over the rows in the order of sends."""
        return not self.batch_rows


@dataclass(frozen=True, slots=True)
class NativePool:
    """Rows of native code: their pool, and the array [B, ...] that holds their observations."""

    pool: _native.Pool
    obs: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PythonRows:
    """Rows of Gymnasium environments in this process, for callers that speak with the environments themselves."""

    envs: list[gym.Env[Any, Any]]
    """The environment of each row, without Gymnasium's own outermost checks and time limit."""
    registered: EnvSpec | None
    """What the environments were registered with."""
    infos: list[dict[str, Any]]
    """The info of each row's last reset or step."""
    final_infos: list[dict[str, Any]]
    """The info with which each row's last episode ended."""


class VecEnv(Protocol):
    """B rows of one environment, reset in the same step.

    After `reset` or `restore` the first `recv` hands over all rows. From then on `recv` hands over the rows of the
    oldest `send` not yet received; up to two sends of disjoint rows may be under way.
    """

    spec: Spec
    num_rows: int

    @property
    def capabilities(self) -> Capabilities:
        """What these rows can do."""
        ...

    @property
    def native_pool(self) -> NativePool | None:
        """The rows as native code steps them; None for those that native code does not step."""
        ...

    @property
    def python_rows(self) -> PythonRows | None:
        """The rows' environments and infos; None where they are not in this process, or no Gymnasium environments."""
        ...

    @property
    def dropped(self) -> Bools:
        """Rows that will never act again [B]."""
        ...

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every row anew; row r is seeded with seed + r, or with its own entry of a sequence."""
        ...

    def restart(
        self,
        seeds: Sequence[int | None],
        rows: Bools,
        *,
        held: Bools,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Begins a new episode in the rows where `rows` is true; the others stay where they are.

        Args:
            seeds: one a row; None goes on with the row's own generator, as Gymnasium's `reset()` does.
            rows: which rows, [B].
            held: rows that have begun an episode which nobody has seen; with the seed None they keep it, or begin it
                again with the options.
            options: go to each environment's own reset.

        Raises:
            ConfigError: these rows cannot be restarted, not just some of them, or take no options.
            RuntimeError: every row must be reset once before some are.
        """
        ...

    def recv(self) -> Ready:
        """Waits for the oldest rows under way.

        EnvError when an environment breaks its contract; its own exceptions arrive unchanged, with a note that names
        the row and step. After either nothing goes on before the next `reset` or `restore`.
        """
        ...

    def send(self, rows: slice, action: Tree) -> None:
        """Starts one step of `rows` (contiguous) with `action` [rows, ...].

        ValueError names the row of a bad action; nothing is stepped then.
        """
        ...

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on exactly; RuntimeError while rows are under way."""
        ...

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`; returns a sentence for each row whose episode had to be cut as truncated."""
        ...

    def render(self, row: int) -> NDArray[np.uint8]:
        """What a row looks like: RGB [height, width, 3]. ConfigError where it cannot be drawn."""
        ...

    def close(self) -> None:
        """Frees what the rows hold; may be called twice."""
        ...


class InFlight:
    """The sends that wait to be received, oldest first, and the mistakes in their order."""

    def __init__(self, num_rows: int, batch_rows: int = 0) -> None:
        """`num_rows`: rows of the whole environment; `batch_rows`: rows that each `recv` hands over, in any order."""
        self.num_rows, self.batch_rows = num_rows, batch_rows
        self.started = False
        self._under_way: list[slice] = []
        self._sent: list[slice] = []
        self._fresh = False
        self._why_not = CALL_RESET

    def begin(self) -> None:
        """All rows are ready: after a reset or a restore."""
        self._under_way.clear()
        self._fresh = self.started = True

    def stop(self, why_not: str = CALL_RESET) -> None:
        """Nothing goes on before the next `begin`; `why_not` says why, and what to do."""
        self._under_way.clear()
        self._fresh = self.started = False
        self._why_not = why_not

    def send(self, rows: slice) -> slice:
        """Notes that `rows` are under way; returns them as a plain range."""
        first, last, step = rows.indices(self.num_rows)
        if not self.started:
            raise RuntimeError(f"send before reset: {self._why_not}")
        if self._fresh:
            raise RuntimeError(
                "send before recv: receive the first observations after reset first"
            )
        if step != 1 or last <= first:
            raise ValueError(
                f"rows must be a contiguous, non-empty slice of {self.num_rows} rows, got {rows}"
            )
        size = self.batch_rows or last - first
        if self.batch_rows and (first % size or last % size):
            raise ValueError(
                f"rows must be whole batches of batch_rows={size}, got {first}..{last - 1}"
            )
        if self._under_way:
            full = not self.batch_rows and len(self._under_way) == 2
            if full or any(first < s.stop and s.start < last for s in self._under_way):
                raise RuntimeError(
                    f"rows {first}..{last - 1} were sent before {self._named()} were received"
                )
        whole = slice(first, last)
        self._sent = (
            [whole]
            if size == last - first
            else [slice(at, at + size) for at in range(first, last, size)]
        )
        self._under_way += self._sent
        return whole

    def recv(self, nth: int = 0) -> slice:
        """The rows to hand over next: those of the oldest send, or of the nth oldest."""
        if not self.started:
            raise RuntimeError(f"recv before reset: {self._why_not}")
        if self._fresh:
            self._fresh = False
            return slice(0, self.num_rows)
        if not self._under_way:
            raise RuntimeError(
                "recv with no rows under way: call send(rows, action) first"
            )
        return self._under_way.pop(nth)

    def undo(self) -> None:
        """Takes the last send back, whose action was refused."""
        del self._under_way[-len(self._sent) :]

    def quiet(self) -> None:
        """Raises unless every row has a state and none is under way."""
        if not self.started:
            raise RuntimeError(f"state before reset: {self._why_not}")
        if self._under_way:
            raise RuntimeError(
                f"{self._named()} are under way: receive them before state()"
            )

    def _named(self) -> str:
        return "rows " + " and ".join(
            f"{s.start}..{s.stop - 1}" for s in self._under_way
        )


class Outputs:
    """The arrays [B, ...] that a backend writes its rows to (or puts there), handed over as views."""

    def __init__(self, spec: Spec, num_rows: int) -> None:
        """Zeroed arrays of `num_rows`; declared info values are NaN until an episode ends."""
        self.obs: Tree = spec.observation.allocate(num_rows)
        self.final_obs: Tree = spec.observation.allocate(num_rows)
        self.reward = np.zeros(num_rows)
        self.terminated = np.zeros(num_rows, np.bool_)
        self.truncated = np.zeros(num_rows, np.bool_)
        self.valid = np.ones(num_rows, np.bool_)
        self.episode_return = np.zeros(num_rows)
        self.episode_length = np.zeros(num_rows, np.int64)
        self.info = {key: np.full(num_rows, np.nan) for key in spec.info_keys}
        self.action_mask: Bools | None = None
        self.turn = np.ones(num_rows, np.bool_) if spec.agents else None
        self._views: dict[tuple[int, int], Ready] = {}

    def add_masks(self, masks: Bools) -> None:
        """From now on rows have these action masks [B, options]."""
        self.action_mask = masks
        self._views.clear()

    def put_obs(self, obs: Tree) -> None:
        """From now on rows have these observations, in the views that were handed over too."""
        self.obs = obs
        for ready in self._views.values():
            ready.obs = take(obs, ready.rows)

    def clear(self) -> None:
        """No row has a reward or an end, as after a reset."""
        self.reward[:] = 0
        self.terminated[:] = self.truncated[:] = False

    def view(self, rows: slice) -> Ready:
        """The rows' part of every array; made once for slices that come again."""
        ready = self._views.get((rows.start, rows.stop))
        if ready is None:
            ready = Ready(
                rows,
                take(self.obs, rows),
                self.reward[rows],
                self.terminated[rows],
                self.truncated[rows],
                self.valid[rows],
                take(self.final_obs, rows),
                self.episode_return[rows],
                self.episode_length[rows],
                {name: values[rows] for name, values in self.info.items()},
                None if self.action_mask is None else self.action_mask[rows],
                None if self.turn is None else self.turn[rows],
            )
            if len(self._views) == MAX_VIEWS:
                self._views.clear()
            self._views[rows.start, rows.stop] = ready
        return ready


def take(tree: Tree, rows: Any) -> Tree:
    """The chosen rows of every array of a tree: views where `rows` is a slice."""
    if tree.__class__ is np.ndarray:
        return tree[rows]

    def part(array: Any) -> Any:
        return array[rows]

    return map_tree(part, tree)


def write(tree: Tree, rows: Any, new: Tree) -> None:
    """Copies the chosen rows of every array of `new` into `tree`."""
    if tree.__class__ is np.ndarray:
        tree[rows] = new[rows]
        return

    def put(array: Any, values: Any) -> None:
        array[rows] = values[rows]

    map_tree(put, tree, new)


def row_seeds(seed: int | Sequence[int], num_rows: int) -> list[int]:
    """One seed a row: seed + r, or the sequence's own; ValueError when there are too few or one is impossible."""
    if isinstance(seed, int | np.integer):
        seeds = [int(seed) + row for row in range(num_rows)]
    else:
        seeds = [int(one) for one in seed]
    if len(seeds) != num_rows:
        raise ValueError(
            f"expected one seed for each of {num_rows} rows, got {len(seeds)}"
        )
    for row, one in enumerate(seeds):
        if not 0 <= one < 2**64:
            raise ValueError(
                f"a seed must lie between 0 and 2**64 - 1, got {one} for row {row}"
            )
    return seeds


class ActionCheck:
    """What is asked of a batch of actions before anything is stepped."""

    def __init__(self, spec: Spec) -> None:
        """`spec`: whose action space it is."""
        self.spec = spec
        self._parts = [part for _, part in leaf_spaces(spec.action_space)]
        self._bounds = [_bounds(part) for part in self._parts]
        self._plain = len(spec.action.leaves) == 1 and not spec.action.leaves[0].path
        leaf, bounds = spec.action.leaves[0], self._bounds[0]
        self._limits = tuple(
            np.array(np.broadcast_to(x, leaf.shape), leaf.dtype, order="C")
            for x in bounds
        )

    def copy(self, rows: slice, action: Any, out: Tree) -> None:
        """Writes `action` to `out` [rows, ...]; where `check` would refuse it, that ValueError and nothing written."""
        if not (self._plain and _native.copy_within(action, out, *self._limits)):
            assign(out, slice(None), self.check(rows, action))

    def copied(self, rows: slice, action: Any) -> Tree:
        """`action` in arrays of its own, checked."""
        if self._plain:
            own = np.empty(
                (rows.stop - rows.start, *self._limits[0].shape), self._limits[0].dtype
            )
            if _native.copy_within(action, own, *self._limits):
                return own
        return map_tree(np.copy, self.check(rows, action))

    def cast(self, rows: slice, action: Any) -> Tree:
        """`action` as arrays of the spec's dtypes; ValueError when it has another form, shape or kind."""
        layout = self.spec.action
        if self._plain:
            return self._cast(rows, layout.leaves[0], action)
        try:
            given = leaves_of(self.spec.action_space, action, "action")
        except ValueError as error:
            raise ValueError(f"{self._name(rows)} got an {error}") from None
        return layout.tree(
            [
                self._cast(rows, leaf, x)
                for leaf, x in zip(layout.leaves, given, strict=True)
            ]
        )

    def check(self, rows: slice, action: Any) -> Tree:
        """The same; ValueError also names the first row whose action the space lacks."""
        tree, layout = self.cast(rows, action), self.spec.action
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

    def _cast(self, rows: slice, leaf: Leaf, action: Any) -> NDArray[Any]:
        array = np.asarray(action)
        if array.shape != (rows.stop - rows.start, *leaf.shape):
            expected = (rows.stop - rows.start, *leaf.shape)
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


def _bounds(space: Any) -> tuple[Any, Any]:
    """The least and the largest action of one leaf."""
    match space:
        case spaces.Discrete():
            return int(space.start), int(space.start + space.n - 1)
        case spaces.MultiDiscrete():
            return space.start, space.start + space.nvec - 1
        case spaces.MultiBinary():
            return 0, 1
        case _:
            return space.low, space.high


def check_finite(
    spec: Spec,
    rows: slice,
    obs: Tree,
    reward: NDArray[np.float64],
    lengths: NDArray[np.int64] | None = None,
) -> None:
    """EnvError naming the first row with a NaN or infinite observation or reward, and the step of its episode."""
    bad = not_finite(spec.observation, obs)
    if bad or np.count_nonzero(np.isfinite(reward)) != reward.size:
        if bad:
            name, row, value = f"observation{bad[0].name}", bad[1], bad[2]
        else:
            row = int(np.argmin(np.isfinite(reward)))
            name, value = "reward", reward[row]
        when = "" if lengths is None else f" at step {lengths[row]} of its episode"
        raise EnvError(
            f"{spec.env_id}: row {rows.start + row}{when} returned the {name} {value}; "
            "fix the environment, or clip there what may overflow"
        )


def not_finite(layout: Layout, tree: Tree) -> tuple[Leaf, int, NDArray[Any]] | None:
    """The first NaN or infinity among arrays [rows, ...]: its leaf, row and the row's values."""
    arrays = [tree] if tree.__class__ is np.ndarray else layout.flat(tree)
    for leaf, array in zip(layout.leaves, arrays, strict=True):
        if (
            array.dtype.kind == "f"
            and np.count_nonzero(np.isfinite(array)) != array.size
        ):
            row = int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(axis=1)))
            return leaf, row, array[row]
    return None
