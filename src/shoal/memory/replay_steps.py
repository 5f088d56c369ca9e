"""Steps from elsewhere on their way into a replay memory: checked, and in the form of a slab."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from shoal.memory.replay_block import RecordForm
    from shoal.types import Layout, Tree


@dataclass(frozen=True, slots=True)
class StepArrays:
    """T steps of B rows from elsewhere: arrays [T, B, ...] in the dtypes of the spec (float actions in float32)."""

    obs: Tree
    action: Tree
    reward: NDArray[Any]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    final_obs: Tree = None
    """[N, ...]: the observations after the N steps that ended an episode, in the order of (step, row)."""
    valid: NDArray[np.bool_] | None = None
    """False where a step only reset its row; None: nowhere."""
    start: NDArray[np.bool_] | None = None
    """Whether an observation is the first of its episode; None: it is after an end, and nowhere else."""
    version: NDArray[np.int32] | int = 0
    action_mask: NDArray[np.bool_] | None = None
    state: Tree = None
    """[T, B, ...]: the recurrent state before each step, for a memory that keeps it."""
    in_turns: bool = False
    """Not all rows always act: a step that is not valid is no cut episode."""


class WholeSteps:
    """Arrays from elsewhere, checked and made whole, in the form of a slab."""

    def __init__(self, form: RecordForm, steps: StepArrays) -> None:
        reward = np.asarray(steps.reward)
        if reward.ndim != 2:
            raise ValueError(f"reward must have the axes [T, B], got {reward.shape}")
        batch = reward.shape
        flags = partial(_array, dtype=np.bool_, shape=batch)
        self.obs = _leaves("obs", form.obs, steps.obs, batch)
        self.action = _leaves("action", form.action, steps.action, batch)
        self.memorable = self.action
        self.states = _states(form.state, steps.state, batch)
        self.reward = _array("reward", reward.astype(np.float32), np.float32, batch)
        self.terminated = flags("terminated", steps.terminated)
        self.truncated = flags("truncated", steps.truncated)
        self.valid = np.ones(batch, np.bool_)
        if steps.valid is not None:
            self.valid = flags("valid", steps.valid)
        self.start = np.zeros(batch, np.bool_)
        if steps.start is not None:
            self.start = flags("start", steps.start)
        self.version = np.empty(batch, np.int32)
        self.version[:] = steps.version
        self.action_mask = None
        if steps.action_mask is not None:
            options = (*batch, form.options)
            self.action_mask = _array(
                "action_mask", steps.action_mask, np.bool_, options
            )
        self.in_turns = steps.in_turns
        ended = (self.terminated | self.truncated) & self.valid
        count = int(ended.sum())
        self.final_index = np.full(batch, -1, np.int32)
        self.final_index[ended] = np.arange(count, dtype=np.int32)
        if steps.final_obs is None:
            if count:
                raise ValueError(
                    f"{count} steps ended an episode, so final_obs must hold {count} observations"
                )
            self.final_obs: Tree = form.obs.allocate(0)
        else:
            self.final_obs = _leaves("final_obs", form.obs, steps.final_obs, (count,))


def _states(layout: Layout, tree: Tree, batch: tuple[int, ...]) -> Tree:
    if tree is None and layout.leaves:
        raise ValueError(
            "this memory keeps the recurrent state before each step, so state must hold it"
        )
    return _leaves("state", layout, tree, batch) if layout.leaves else ()


def _leaves(name: str, layout: Layout, tree: Tree, batch: tuple[int, ...]) -> Tree:
    arrays: list[NDArray[Any]] = []
    for leaf, values in zip(layout.leaves, layout.flat(tree), strict=True):
        shape = (*batch, *leaf.shape)
        arrays.append(_array(name + leaf.name, values, leaf.dtype, shape))
    return layout.tree(arrays)


def _array(
    name: str, values: NDArray[Any], dtype: DTypeLike, shape: tuple[int, ...]
) -> NDArray[Any]:
    array = np.ascontiguousarray(values)
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"{name} must be an array {list(shape)} of {np.dtype(dtype)}, got {list(array.shape)} of {array.dtype}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        at = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ValueError(f"{name} is not finite at {at}")
    return array
