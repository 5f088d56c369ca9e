"""The memory of one rollout: blocks made once, seen by NumPy and torch without a copy."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.envs.masks import MaskReader
from shoal.types import Layout, Leaf, Spec, Steps, Tree, assign, map_tree, select

if TYPE_CHECKING:
    from numpy.typing import NDArray

BOOLS = ("start", "terminated", "truncated", "valid")
FLOATS = ("log_prob", "value", "next_value", "reward")
ACTED = ("obs", "start", "action", "log_prob", "value", "action_mask")
"""What is known of a step when a policy has acted."""


class Slab:
    """T steps of B rows as NumPy arrays [T, B, ...] over one block; `steps` shows the same memory as torch tensors.

    `final_obs` has room for an end in every step, but memory is only touched where an episode ended.
    """

    def __init__(
        self, spec: Spec, num_steps: int, num_rows: int, *, pinned: bool = False
    ) -> None:
        """`pinned`: page-locked memory, for copies to a GPU that run beside the computation."""
        self.num_steps, self.num_rows, self.pinned = num_steps, num_rows, pinned
        batch = (num_steps, num_rows)
        self._blocks: list[torch.Tensor] = []
        self.obs: Tree = self._allocate(spec.observation, batch)
        kept = [
            replace(x, dtype=np.dtype(np.float32)) if x.dtype.kind == "f" else x
            for x in spec.action.leaves
        ]
        self.action: Tree = self._allocate(Layout(tuple(kept)), batch)
        self.start, self.terminated, self.truncated, self.valid = (
            self._array(np.bool_, batch) for _ in BOOLS
        )
        self.log_prob, self.value, self.next_value, self.reward = (
            self._array(np.float32, batch) for _ in FLOATS
        )
        self.final_index = self._array(np.int32, batch)
        self.final_obs: Tree = map_tree(_room, self.obs)
        self.num_final = 0
        masks = (
            self._array(np.bool_, (*batch, MaskReader(spec).size))
            if spec.masked
            else None
        )
        self.action_mask: NDArray[np.bool_] | None = masks
        self._mask_tensor = None if masks is None else torch.from_numpy(masks)
        self.episode_return = np.zeros(batch)
        self.episode_length = np.zeros(batch, np.int64)
        self.episode_info = np.zeros((*batch, len(spec.info_keys)))
        self.valid[:] = True
        names = (*BOOLS, *FLOATS, "final_index")
        self._tensors = {name: torch.from_numpy(getattr(self, name)) for name in names}
        self._action_tensors: Tree = map_tree(torch.from_numpy, self.action)
        self._obs_tensors: Tree = map_tree(torch.from_numpy, self.obs)
        self._final_tensors: Tree = map_tree(torch.from_numpy, self.final_obs)

    def clear(self) -> None:
        """Forgets the final observations before the slab is filled again."""
        self.final_index[:] = -1
        self.num_final = 0

    def keep_final(
        self, t: int, rows: NDArray[np.intp], final_obs: Tree, *, first: int
    ) -> None:
        """Notes the final observations of `rows` (counted from `first`) of step t."""
        at = slice(self.num_final, self.num_final + len(rows))
        assign(self.final_obs, at, select(final_obs, rows))
        self.final_index[t, rows + first] = np.arange(at.start, at.stop, dtype=np.int32)
        self.num_final = at.stop

    def copy_acted(self, at: Any) -> dict[str, Tree]:
        """What was seen and done at an index (t, rows), of which the rows are an array."""
        return {
            name: select(getattr(self, name), at)
            for name in ACTED
            if getattr(self, name) is not None
        }

    def put_acted(self, at: Any, acted: dict[str, Tree]) -> None:
        """The inverse of `copy_acted`."""
        for name, values in acted.items():
            assign(getattr(self, name), at, values)

    def link(self, value: NDArray[np.float32]) -> None:
        """Values that follow each step where some are invalid: of the row's next valid step, at last `value` [B]."""
        for t in reversed(range(self.num_steps)):
            self.next_value[t] = value
            value = np.where(self.valid[t], self.value[t], value)

    def steps(self, *, version: int, state: Tree, device: torch.device) -> Steps:
        """The slab as tensors: views on the CPU, copies that are under way on another device."""
        named, obs, final_obs = self._tensors, self._obs_tensors, self._final_tensors
        action, mask = self._action_tensors, self._mask_tensor
        if device.type != "cpu":
            send = partial(torch.Tensor.to, device=device, non_blocking=True)
            named = {name: send(x) for name, x in named.items()}
            mask = None if mask is None else send(mask)
            obs, action = map_tree(send, obs), map_tree(send, action)
            final_obs = map_tree(send, select(final_obs, slice(0, self.num_final)))
        trees = {"obs": obs, "action": action, "final_obs": final_obs, "state": state}
        return Steps(version=version, action_mask=mask, **trees, **named)

    def _allocate(self, layout: Layout, batch: tuple[int, ...]) -> Tree:
        arrays = [
            self._array(leaf.dtype, (*batch, *leaf.shape)) for leaf in layout.leaves
        ]
        return layout.tree(arrays)

    def _array(self, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        layout = Layout((Leaf((), np.dtype(dtype), ()),))
        block = torch.zeros(
            layout.offsets(shape)[1], dtype=torch.uint8, pin_memory=self.pinned
        )
        self._blocks.append(block)
        return layout.view(block.numpy(), *shape)


def _room(obs: NDArray[Any]) -> NDArray[Any]:
    """Untouched memory for one final observation of every step of every row."""
    return np.empty((obs.shape[0] * obs.shape[1], *obs.shape[2:]), obs.dtype)
