"""The ground floor: frozen records that every room speaks, and the packed layout behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from gymnasium import Space

Tree: TypeAlias = Any
"""An array, or dicts and tuples of arrays nested as the space is."""
Bools: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]

ALIGNMENT = 64


class ConfigError(ValueError):
    """A setting that cannot work; the message says which one and what would work."""


def check_ranges(config: Any, **ranges: tuple[float, float]) -> None:
    """ConfigError naming the first setting of `config` that lies outside its range (both ends belong to it)."""
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if not low <= value <= high:
            allowed = f">= {low:g}" if high == inf else f"between {low:g} and {high:g}"
            raise ConfigError(f"{name} must be {allowed}, got {value}")


class EnvError(RuntimeError):
    """An environment broke its contract; the message names the row, the step and what to do."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One array of an observation or action: where it stands in the tree, and what one row of it holds."""

    path: tuple[str | int, ...]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The path as Python writes it, such as ['hand'][0]; empty for a plain array."""
        return "".join(f"[{key!r}]" for key in self.path)


@dataclass(frozen=True, slots=True)
class Layout:
    """Leaves packed into one block of bytes, each contiguous over the batch and at an aligned offset.

    A plain array is the tree of one leaf with the empty path; dicts and tuples nest.
    """

    leaves: tuple[Leaf, ...]

    @classmethod
    def of(cls, space: Space[Any]) -> Layout:
        """The layout of a Gymnasium space; ConfigError for a space that holds no fixed-size arrays."""
        return cls(tuple(_leaf(part, path) for path, part in leaf_spaces(space)))

    @property
    def single(self) -> Leaf:
        """The only leaf; ConfigError when there are several."""
        if len(self.leaves) != 1 or self.leaves[0].path:
            raise ConfigError(f"expected one plain array, but the space has the leaves {[x.path for x in self.leaves]}")
        return self.leaves[0]

    def offsets(self, batch: tuple[int, ...]) -> tuple[list[int], int]:
        """Each leaf's offset in a block of `batch` rows, and the block's bytes."""
        offsets, at = [], 0
        for leaf in self.leaves:
            offsets.append(at)
            size = prod(batch) * prod(leaf.shape) * leaf.dtype.itemsize
            at += -(-size // ALIGNMENT) * ALIGNMENT
        return offsets, at

    def allocate(self, *batch: int) -> Tree:
        """A zeroed block of `batch` rows, as a tree of views."""
        return self.view(np.zeros(self.offsets(batch)[1], np.uint8), *batch)

    def view(self, block: NDArray[np.uint8], *batch: int) -> Tree:
        """The tree of arrays [*batch, *shape] that lie in `block`; nothing is copied."""
        offsets, nbytes = self.offsets(batch)
        if block.nbytes < nbytes:
            raise ValueError(f"a block of {batch} rows needs {nbytes} bytes, got {block.nbytes}")
        arrays = []
        for leaf, offset in zip(self.leaves, offsets, strict=True):
            size = prod(batch) * prod(leaf.shape) * leaf.dtype.itemsize
            arrays.append(block[offset : offset + size].view(leaf.dtype).reshape(*batch, *leaf.shape))
        return self.tree(arrays)

    def tree(self, values: list[Any]) -> Tree:
        """The values of the leaves, in order, as the nested tree."""
        return _nest({leaf.path: value for leaf, value in zip(self.leaves, values, strict=True)})

    def flat(self, tree: Tree) -> list[Any]:
        """The inverse of `tree`: the leaves' values in order."""
        values: list[Any] = []
        for leaf in self.leaves:
            value: Any = tree
            for key in leaf.path:
                value = value[key]
            values.append(value)
        return values


def leaf_spaces(space: Space[Any], path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Space[Any]]]:
    """The spaces that are no Dict or Tuple, each with its path, in the order of a Layout's leaves."""
    match space:
        case spaces.Dict():
            keys: list[Any] = list(space.spaces)
            if not all(isinstance(key, str) for key in keys):
                raise ConfigError(f"the keys of the Dict at {list(path)} must be strings, got {keys}")
            inside = [leaf_spaces(part, (*path, key)) for key, part in space.spaces.items()]
        case spaces.Tuple():
            inside = [leaf_spaces(part, (*path, index)) for index, part in enumerate(space.spaces)]
        case _:
            return [(path, space)]
    if not inside:
        raise ConfigError(f"the space at {list(path)} is an empty {type(space).__name__}; leave it out")
    return [leaf for part in inside for leaf in part]


def choices(space: Space[Any]) -> list[int]:
    """The options of each choice that one leaf of an action makes; none for a Box."""
    match space:
        case spaces.Discrete():
            return [int(space.n)]
        case spaces.MultiDiscrete():
            return [int(n) for n in space.nvec.ravel()]
        case spaces.MultiBinary():
            return [2] * prod(space.shape)
        case _:
            return []


def _leaf(space: Space[Any], path: tuple[str | int, ...]) -> Leaf:
    match space:
        case spaces.Box():
            return Leaf(path, np.dtype(space.dtype), space.shape)
        case spaces.Discrete():
            return Leaf(path, np.dtype(np.int64), ())
        case spaces.MultiDiscrete():
            return Leaf(path, np.dtype(np.int64), space.shape)
        case spaces.MultiBinary():
            return Leaf(path, np.dtype(np.int8), space.shape)
        case _:
            raise ConfigError(
                f"the space {space} at {list(path)} has no fixed-size arrays; "
                "use Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple"
            )


def _nest(values: dict[tuple[str | int, ...], Any]) -> Tree:
    if len(values) == 1 and () in values:
        return values[()]
    groups: dict[str | int, dict[tuple[str | int, ...], Any]] = {}
    for path, value in values.items():
        groups.setdefault(path[0], {})[path[1:]] = value
    nested = {key: _nest(group) for key, group in groups.items()}
    if all(isinstance(key, int) for key in nested):
        return tuple(nested.values())
    return {str(key): value for key, value in nested.items()}


def map_tree(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """Applies `function` to each leaf of trees that have one structure."""
    if isinstance(tree, dict):
        return {key: map_tree(function, part, *(other[key] for other in others)) for key, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(map_tree(function, *parts) for parts in zip(tree, *others, strict=True))
    return function(tree, *others)


def select(tree: Tree, at: Any) -> Tree:
    """`x[at]` of each leaf."""

    def pick(x: Any) -> Any:
        return x[at]

    return map_tree(pick, tree)


def assign(tree: Tree, at: Any, values: Tree) -> None:
    """`x[at] = value` in each leaf."""

    def put(x: Any, value: Any) -> None:
        x[at] = value

    map_tree(put, tree, values)


@dataclass(frozen=True, slots=True)
class Spec:
    """What one row of an environment observes and does, and the limits it was registered with."""

    env_id: str
    observation_space: Space[Any]
    action_space: Space[Any]
    observation: Layout
    action: Layout
    max_episode_steps: int | None = None
    reward_threshold: float | None = None
    num_agents: int = 1
    info_keys: tuple[str, ...] = ()
    masked: bool = False
    """Rows say which actions they may choose; where infos say it, this is known after the first reset."""
    agents: tuple[str, ...] = ()
    """The names of the agents of one environment, in the order of its rows, where they have names."""
    in_turns: bool = False
    """The agents of an environment act one after another."""
    groups: int = 1
    """Groups of agents with equal spaces; of several, the last numbers of an observation say whose it is."""

    @property
    def agent_names(self) -> tuple[str, ...]:
        """A name for each agent; none where an environment has one agent without a name."""
        numbered = tuple(f"agent_{number}" for number in range(self.num_agents))
        return self.agents or (numbered if self.num_agents > 1 else ())

    @classmethod
    def of(cls, env_id: str, observation_space: Space[Any], action_space: Space[Any], **limits: Any) -> Spec:
        """The specification of an environment with these spaces."""
        observation, action = Layout.of(observation_space), Layout.of(action_space)
        return cls(env_id, observation_space, action_space, observation, action, **limits)


@dataclass(slots=True)
class Ready:
    """The rows that one `recv` hands over. Arrays are views, valid until these rows are sent again.

    The same object may come again from the next `recv`, with what is new in it: copy what is to be kept.

    `obs` at an ended row is already the next episode's first observation. `final_obs`, `episode_return`,
    `episode_length` and `info` hold a value only where `terminated | truncated`. Returns are the environment's own
    rewards summed, before any shaping. A length of 0 marks an end for learning only, such as a life lost: the episode
    goes on and is counted when it is over.
    """

    rows: slice
    obs: Tree
    reward: Floats
    terminated: Bools
    truncated: Bools
    valid: Bools
    final_obs: Tree
    episode_return: Floats
    episode_length: NDArray[np.int64]
    info: dict[str, Floats]
    action_mask: Bools | None = None
    """Options that each row may choose next, those of every choice side by side; None where nothing is masked."""
    turn: Bools | None = None
    """Rows whose next action counts: their agent is there, and it is its turn. None where all rows always act.

    Then `valid` says whose own step is complete: begun by the row's last action that counted, and rewarded by now.
    """


@dataclass(frozen=True, slots=True)
class Steps:
    """A rollout: T steps of B rows, time first, with everything that an on-policy loss needs.

    `start[t, b]`: obs[t, b] is the first of its episode. `next_value[t, b]` is the value after step t under the acting
    version: of the next observation, or at an episode's end of the final one; a loss masks it where `terminated`.
    `state` is the recurrent state before step 0 ([B, ...] leaves, or None). `final_index[t, b]` points into
    `final_obs`, -1 where no episode ended. `valid` is false where a step only reset the row.
    """

    obs: Tree
    start: torch.Tensor
    action: Tree
    log_prob: torch.Tensor
    value: torch.Tensor
    next_value: torch.Tensor
    reward: torch.Tensor
    terminated: torch.Tensor
    truncated: torch.Tensor
    valid: torch.Tensor
    final_index: torch.Tensor
    final_obs: Tree
    state: Tree
    version: int
    action_mask: torch.Tensor | None = None
    """The options [T, B, n] that could be chosen; `distributions.masked` applies it."""


@dataclass(frozen=True, slots=True)
class Episodes:
    """Finished episodes, in the order of (step, row): returns, lengths, declared info values, and whose they were."""

    returns: Floats
    lengths: NDArray[np.int64]
    info: dict[str, Floats]
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
