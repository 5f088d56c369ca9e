"""The memory of one rollout: blocks made once, seen by NumPy and torch without a copy."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from shoal.envs.masks import MaskReader
from shoal.types import (
    ActedStep,
    Episodes,
    Layout,
    Leaf,
    Spec,
    Steps,
    Tree,
    assign,
    check_room,
    map_tree,
    select,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import DTypeLike, NDArray

    from shoal.types import Ready

    Index: TypeAlias = slice | NDArray[np.intp]

BOOLS = ("start", "terminated", "truncated", "valid")
FLOATS = ("log_prob", "value", "next_value", "reward")
STEP_BYTES = 44
"""A step's numbers beside its observation and action."""


class Slab:
    """T steps of B rows as NumPy arrays [T, B, ...] over one block; `steps` shows the same memory as torch tensors.

    `final_obs` has room for an end in every step, but memory is only touched where an episode ended.
    """

    def __init__(
        self,
        spec: Spec,
        num_steps: int,
        num_rows: int,
        *,
        pinned: bool = False,
        in_turns: bool = False,
        state: Layout | None = None,
        executed: bool = False,
    ) -> None:
        """An empty slab.

        Args:
            spec: what rows observe and do.
            num_steps: T.
            num_rows: B.
            pinned: page-locked memory, for copies to a GPU that run beside the computation.
            in_turns: not all rows always act, so a step without an own action is no cut episode.
            state: of the recurrent state before each step, where it is kept.
            executed: whether what rows did is kept beside what was chosen.
        """
        self.num_steps, self.num_rows, self.pinned = num_steps, num_rows, pinned
        self.in_turns = in_turns
        batch = (num_steps, num_rows)
        state = state or Layout(())
        _check_room(spec, batch, state)
        self._blocks: list[torch.Tensor] = []
        self.obs: Tree = self._allocate(spec.observation, batch)
        self.action: Tree = self._allocate(kept_actions(spec.action), batch)
        self.states: Tree = self._allocate(state, batch)
        """The recurrent state before each step; no leaves where it is not kept."""
        kept = kept_actions(spec.action) if executed else Layout(())
        self.executed: Tree = self._allocate(kept, batch)
        """What rows did, as the policy would have chosen it; no leaves where it is not kept."""
        self.keeps_executed = executed
        self.start = self._array(np.bool_, batch)
        self.terminated = self._array(np.bool_, batch)
        self.truncated = self._array(np.bool_, batch)
        self.valid = self._array(np.bool_, batch)
        self.log_prob = self._array(np.float32, batch)
        self.value = self._array(np.float32, batch)
        self.next_value = self._array(np.float32, batch)
        self.reward = self._array(np.float32, batch)
        self.version = self._array(np.int32, batch)
        self.final_index = self._array(np.int32, batch)
        self.final_obs: Tree = map_tree(_room, self.obs)
        self.num_final = 0
        self.action_mask: NDArray[np.bool_] | None = None
        if spec.masked:
            options = MaskReader(spec).size
            self.action_mask = self._array(np.bool_, (*batch, options))
            self.action_mask[:] = True
        self.cost = self._array(np.float32, batch) if spec.costs else None
        """What each step cost, where steps have costs."""
        self.episode_return = np.zeros(batch)
        self.episode_length = np.zeros(batch, np.int64)
        self.episode_info = np.zeros((*batch, len(spec.info_keys)))
        self._tensors = _tensors_of(self)

    def clear(self) -> None:
        """Makes all steps valid and forgets the final observations, before the slab is filled again."""
        self.valid[:] = True
        self.final_index.fill(-1)
        self.num_final = 0

    def episodes(self, info_keys: Sequence[str]) -> Episodes:
        """The episodes that ended here, where native code wrote what they came to."""
        if self.final_index.max() < 0:
            return Episodes.none(info_keys)
        ends = (self.final_index >= 0).nonzero()
        columns = self.episode_info[ends].T if info_keys else ()
        return Episodes(
            self.episode_return[ends],
            self.episode_length[ends],
            dict(zip(info_keys, columns, strict=True)),
            ends[1],
        )

    def write_acted(self, t: int, rows: Index, step: ActedStep) -> None:
        """Keeps what `rows` saw and did in step t."""
        assign(self.obs, (t, rows), step.obs)
        assign(self.action, (t, rows), step.action)
        if self.keeps_executed:
            assign(self.executed, (t, rows), step.action)
        self.start[t, rows] = step.start
        self.version[t, rows] = step.version
        if step.log_prob is not None:
            self.log_prob[t, rows] = step.log_prob
        if step.value is not None:
            self.value[t, rows] = step.value
        if self.action_mask is not None:
            self.action_mask[t, rows] = step.action_mask
        if step.state is not None:
            assign(self.states, (t, rows), step.state)

    @property
    def numbers(self) -> tuple[str, ...]:
        """The arrays that hold a number of each step."""
        more = () if self.cost is None else ("cost",)
        return (*BOOLS, *FLOATS, "version", "final_index", *more)

    def write_executed(self, t: int, rows: Index, action: Tree) -> None:
        """`rows` did this in step t, and not what was chosen."""
        assign(self.executed, (t, rows), action)

    @property
    def memorable(self) -> Tree:
        """The actions that a memory keeps: what rows did, as far as that is known."""
        return self.executed if self.keeps_executed else self.action

    def acted(self, t: int, rows: NDArray[np.intp]) -> ActedStep:
        """A copy of what `rows` saw and did in step t."""
        mask = self.action_mask
        return ActedStep(
            obs=select(self.obs, (t, rows)),
            start=self.start[t, rows],
            action=select(self.action, (t, rows)),
            log_prob=self.log_prob[t, rows],
            value=self.value[t, rows],
            action_mask=None if mask is None else mask[t, rows],
            version=self.version[t, rows],
        )

    def write_step(self, t: int, rows: slice, ready: Ready, part: Index) -> None:
        """Keeps what step t of `rows` came to: `part` of what `ready` holds."""
        self.reward[t, rows] = ready.reward[part]
        self.terminated[t, rows] = ready.terminated[part]
        self.truncated[t, rows] = ready.truncated[part]
        self.valid[t, rows] = ready.valid[part]
        if self.cost is not None and ready.cost is not None:
            self.cost[t, rows] = ready.cost[part]
        ended = ready.terminated[part] | ready.truncated[part]
        valid = ready.valid[part]
        if not self.in_turns and not valid.all():
            _move_cuts(self, t, rows, select(ready.final_obs, part))
        if (ended & valid).any():
            here = (self.terminated[t, rows] | self.truncated[t, rows]) & valid
            final_obs = select(ready.final_obs, part)
            keep_final(self, t, np.flatnonzero(here), final_obs, first=rows.start)

    def fill_next_values(
        self,
        last: NDArray[np.float32],
        final: Iterable[tuple[int, NDArray[np.intp], NDArray[np.float32]]],
    ) -> None:
        """Fills `next_value` from the values of the steps, of what came after, and of final observations.

        Args:
            last: values [B] of the observations after the last step.
            final: of truncated episodes: the step, the rows, the values of their final observations.
        """
        if self.in_turns:
            _link(self, last)
        else:
            self.next_value[:-1] = self.value[1:]
            self.next_value[-1] = last
        for t, rows, values in final:
            self.next_value[t, rows] = values
        self.next_value[self.terminated] = 0

    def steps(self, *, state: Tree, device: torch.device) -> Steps:
        """The slab as tensors: views on the CPU, copies that are under way on another device."""
        shown = self._tensors
        if device.type != "cpu":
            send = partial(torch.Tensor.to, device=device, non_blocking=True)
            used = slice(0, self.num_final)
            shown = shown | {"final_obs": select(shown["final_obs"], used)}
            shown = {name: map_tree(send, tree) for name, tree in shown.items()}
        return Steps(state=state, **shown)

    def _allocate(self, layout: Layout, batch: tuple[int, ...]) -> Tree:
        arrays = [
            self._array(leaf.dtype, (*batch, *leaf.shape)) for leaf in layout.leaves
        ]
        return layout.tree(arrays)

    def _array(self, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        layout = Layout((Leaf((), np.dtype(dtype), ()),))
        size = layout.offsets(shape)[1]
        block = torch.zeros(size, dtype=torch.uint8, pin_memory=self.pinned)
        self._blocks.append(block)
        return layout.view(block.numpy(), *shape)


def _move_cuts(slab: Slab, t: int, rows: slice, final_obs: Tree) -> None:
    """An episode that was cut before step t ended, truncated, with the step before; step t is only a reset."""
    cut = slab.truncated[t, rows] & ~slab.valid[t, rows]
    slab.truncated[t, rows] &= ~cut
    if t and cut.any():
        over = slab.terminated[t - 1, rows] | slab.truncated[t - 1, rows]
        cut &= slab.valid[t - 1, rows] & ~over
        slab.truncated[t - 1, rows] |= cut
        keep_final(slab, t - 1, np.flatnonzero(cut), final_obs, first=rows.start)


def keep_final(
    slab: Slab, t: int, rows: NDArray[np.intp], final_obs: Tree, *, first: int
) -> None:
    """Notes the final observations of `rows` (counted from `first`) of step t."""
    at = slice(slab.num_final, slab.num_final + len(rows))
    assign(slab.final_obs, at, select(final_obs, rows))
    slab.final_index[t, rows + first] = np.arange(at.start, at.stop, dtype=np.int32)
    slab.num_final = at.stop


def _link(slab: Slab, value: NDArray[np.float32]) -> None:
    """Values that follow each step where some are invalid: of the row's next valid step, at last `value` [B]."""
    for t in reversed(range(slab.num_steps)):
        slab.next_value[t] = value
        value = np.where(slab.valid[t], slab.value[t], value)


def _tensors_of(slab: Slab) -> dict[str, Tree]:
    """The arrays of a slab as tensors of the same memory, by the names that `Steps` has for them."""
    tensors: dict[str, Tree] = {
        name: torch.from_numpy(getattr(slab, name)) for name in slab.numbers
    }
    for name in ("obs", "action", "final_obs"):
        tensors[name] = map_tree(torch.from_numpy, getattr(slab, name))
    if slab.action_mask is not None:
        tensors["action_mask"] = torch.from_numpy(slab.action_mask)
    return tensors


def _check_room(spec: Spec, batch: tuple[int, int], state: Layout) -> None:
    """ConfigError where the steps of a rollout need more memory than there is; final observations come as they end."""
    num_steps, num_rows = batch
    nbytes = spec.observation.offsets(batch)[1] + spec.action.offsets(batch)[1]
    nbytes += num_steps * num_rows * STEP_BYTES + state.offsets(batch)[1]
    what = f"{spec.env_id}: rollouts of {num_steps:,} steps of {num_rows:,} rows"
    check_room(nbytes, what, "set num_steps or num_envs to less")


def kept_actions(layout: Layout) -> Layout:
    """Actions as policies choose them: floats of 32 bits."""
    leaves = [
        replace(leaf, dtype=np.dtype(np.float32)) if leaf.dtype.kind == "f" else leaf
        for leaf in layout.leaves
    ]
    return Layout(tuple(leaves))


def _room(obs: NDArray[Any]) -> NDArray[Any]:
    """Untouched memory for one final observation of every step of every row."""
    return np.empty((obs.shape[0] * obs.shape[1], *obs.shape[2:]), obs.dtype)
