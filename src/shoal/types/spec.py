"""Spec: what one row of an environment observes and does, and the packed layout of its arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from gymnasium import spaces

from shoal.types.errors import ConfigError
from shoal.types.trees import Tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gymnasium import Space
    from numpy.typing import NDArray

ALIGNMENT = 64
ARRAYS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
"""Spaces whose values are arrays of one size."""

Path: TypeAlias = tuple[str | int, ...]
"""Where a leaf stands in a tree: keys of dicts and indices of tuples, from the outside in."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One array of an observation or action: where it stands in the tree, and what one row of it holds."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The path as Python writes it, such as `['hand'][0]`; empty for a plain array."""
        return "".join(f"[{key!r}]" for key in self.path)

    def nbytes(self, batch: tuple[int, ...]) -> int:
        """Bytes of the leaf in `batch` rows."""
        return prod(batch) * prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Layout:
    """Leaves packed into one block of bytes, each contiguous over the batch and at an aligned offset.

    A plain array is the tree of one leaf with the empty path; dicts and tuples nest.
    """

    leaves: tuple[Leaf, ...]

    @classmethod
    def of(cls, space: Space[Any]) -> Layout:
        """The layout of a Gymnasium space; ConfigError for a space that holds no fixed-size arrays."""
        parts = leaf_spaces(space)
        for path, part in parts:
            if not isinstance(part, ARRAYS):
                raise ConfigError(_refusal(path, part, parts))
        return cls(tuple(_leaf(part, path) for path, part in parts))

    @property
    def single(self) -> Leaf:
        """The only leaf; ConfigError when there are several."""
        if len(self.leaves) != 1 or self.leaves[0].path:
            raise ConfigError(
                f"expected one plain array, but the space has the leaves {[x.path for x in self.leaves]}"
            )
        return self.leaves[0]

    def offsets(self, batch: tuple[int, ...]) -> tuple[list[int], int]:
        """Each leaf's offset in a block of `batch` rows, and the block's bytes."""
        offsets: list[int] = []
        at = 0
        for leaf in self.leaves:
            offsets.append(at)
            blocks = -(-leaf.nbytes(batch) // ALIGNMENT)
            at += blocks * ALIGNMENT
        return offsets, at

    def allocate(self, *batch: int) -> Tree:
        """A zeroed block of `batch` rows, as a tree of views."""
        _, nbytes = self.offsets(batch)
        return self.view(np.zeros(nbytes, np.uint8), *batch)

    def view(self, block: NDArray[np.uint8], *batch: int) -> Tree:
        """The tree of arrays [*batch, *shape] that lie in `block`; nothing is copied."""
        offsets, nbytes = self.offsets(batch)
        if block.nbytes < nbytes:
            raise ValueError(
                f"a block of {batch} rows needs {nbytes} bytes, got {block.nbytes}"
            )
        arrays: list[NDArray[Any]] = []
        for leaf, offset in zip(self.leaves, offsets, strict=True):
            own = block[offset : offset + leaf.nbytes(batch)]
            arrays.append(own.view(leaf.dtype).reshape(*batch, *leaf.shape))
        return self.tree(arrays)

    def tree(self, values: Sequence[Tree]) -> Tree:
        """The values of the leaves, in order, as the nested tree."""
        paths = [leaf.path for leaf in self.leaves]
        return _nest(dict(zip(paths, values, strict=True)))

    def flat(self, tree: Tree) -> list[Tree]:
        """The inverse of `tree`: the leaves' values in order."""
        values: list[Tree] = []
        for leaf in self.leaves:
            value = tree
            for key in leaf.path:
                value = value[key]
            values.append(value)
        return values


def leaf_spaces(space: Space[Any], path: Path = ()) -> list[tuple[Path, Space[Any]]]:
    """The spaces that are no Dict or Tuple, each with its path, in the order of a Layout's leaves."""
    match space:
        case spaces.Dict():
            parts: Iterable[tuple[str | int, Space[Any]]] = space.spaces.items()
            _check_keys(space, path)
        case spaces.Tuple():
            parts = enumerate(space.spaces)
        case _:
            return [(path, space)]
    found: list[tuple[Path, Space[Any]]] = []
    for key, part in parts:
        found += leaf_spaces(part, (*path, key))
    if not found:
        raise ConfigError(
            f"the space at {list(path)} is an empty {type(space).__name__}; leave it out"
        )
    return found


def _check_keys(space: spaces.Dict, path: Path) -> None:
    keys: list[object] = list(space.spaces)
    if not all(isinstance(key, str) for key in keys):
        raise ConfigError(
            f"the keys of the Dict at {list(path)} must be strings, got {keys}"
        )


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


def _leaf(space: Space[Any], path: Path) -> Leaf:
    match space:
        case spaces.Box():
            return Leaf(path, np.dtype(space.dtype), space.shape)
        case spaces.Discrete():
            return Leaf(path, np.dtype(np.int64), ())
        case spaces.MultiDiscrete():
            return Leaf(path, np.dtype(np.int64), space.shape)
        case _:  # a MultiBinary
            return Leaf(path, np.dtype(np.int8), space.shape or ())


def is_text(space: Space[Any]) -> bool:
    """Whether a space holds texts: Gymnasium's Text, or another one of strings."""
    return space.dtype is not None and space.dtype.kind == "U"


def _refusal(
    path: Path, part: Space[Any], parts: Sequence[tuple[Path, Space[Any]]]
) -> str:
    """Why a space that holds no fixed-size arrays is refused, and what would work."""
    kind = type(part).__name__
    says = f"the {kind} at {list(path)} has no fixed-size arrays"
    says += "; use Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple"
    if is_text(part):
        says += (
            "; or preprocessing.text='words' or 'characters' makes integers of texts"
        )
    keys = {where[0]: True for where, _ in parts if where}
    for where, other in parts:
        if where and not isinstance(other, ARRAYS):
            keys[where[0]] = False
    kept = [str(key) for key, arrays in keys.items() if arrays]
    if kept and isinstance(path[0], str):
        says += f"; or --preprocessing.keep-keys {' '.join(kept)} keeps what has such arrays"
    return says


def _nest(values: dict[Path, Tree]) -> Tree:
    if len(values) == 1 and () in values:
        return values[()]
    groups: dict[str | int, dict[Path, Tree]] = {}
    for path, value in values.items():
        groups.setdefault(path[0], {})[path[1:]] = value
    nested = {key: _nest(group) for key, group in groups.items()}
    if all(isinstance(key, int) for key in nested):
        return tuple(nested.values())
    return {str(key): value for key, value in nested.items()}


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
    frame_stack: int = 1
    """The first axis of every leaf of an observation is so many frames, the newest last."""
    guarded: bool = False
    """Rows may do something else than they are sent: `Ready.executed` has it."""
    costs: bool = False
    """Steps have a cost beside their reward: `Ready.cost` has it."""
    feature_names: tuple[str, ...] = ()
    """What the environment calls the numbers of its Boxes (of one frame), in order; none: it does not say."""
    action_names: tuple[str, ...] = ()
    """What it calls its options, or the numbers of an action; none: it does not say."""

    @property
    def agent_names(self) -> tuple[str, ...]:
        """A name for each agent; none where an environment has one agent without a name."""
        if self.agents or self.num_agents == 1:
            return self.agents
        return tuple(f"agent_{number}" for number in range(self.num_agents))

    def seeing(self, space: Space[Any]) -> Spec:
        """The same with other observations, such as one leaf of a Dict's."""
        return replace(
            self,
            observation_space=space,
            observation=Layout.of(space),
            frame_stack=1,
            feature_names=(),
        )

    @classmethod
    def of(
        cls,
        env_id: str,
        observation_space: Space[Any],
        action_space: Space[Any],
        **limits: Any,
    ) -> Spec:
        """The specification of an environment with these spaces; `limits` are the fields with defaults.

        Raises:
            ConfigError: spaces that hold no fixed-size arrays, or nothing to see or to choose.
        """
        observation, action = Layout.of(observation_space), Layout.of(action_space)
        if not any(prod(leaf.shape) for leaf in observation.leaves):
            raise ConfigError(
                f"{env_id}: the observation space {observation_space} holds no numbers; "
                "give it at least one, such as a constant 0"
            )
        for leaf in action.leaves:
            if not prod(leaf.shape):
                raise ConfigError(
                    f"{env_id}: the action space {action_space} has at {list(leaf.path)} nothing to choose; "
                    "leave it out"
                )
        return cls(
            env_id, observation_space, action_space, observation, action, **limits
        )
