"""Recurrent states as memories keep them: their layout, and copies of some rows'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.types import ConfigError, Layout, Leaf

if TYPE_CHECKING:
    from torch import nn

    from shoal.types import Tree
    from shoal.types.spec import Path


def state_layout(policy: nn.Module) -> Layout:
    """What one row's recurrent state holds; no leaves for a policy without a memory.

    Raises:
        ConfigError: it holds something else than float32.
    """
    initial: Any = policy.initial_state
    leaves: list[Leaf] = []
    for path, tensor in _leaves_of(initial(1), ()):
        if tensor.dtype is not torch.float32:
            raise ConfigError(
                f"the policy's recurrent state holds {tensor.dtype}, and a replay memory keeps float32 alone"
            )
        leaves.append(Leaf(path, np.dtype(np.float32), tuple(tensor.shape[1:])))
    return Layout(tuple(leaves))


def _leaves_of(state: Tree, path: Path) -> list[tuple[Path, torch.Tensor]]:
    """The tensors of a state, each with its path."""
    if state is None:
        return []
    if isinstance(state, torch.Tensor):
        return [(path, state)]
    parts = state.items() if isinstance(state, dict) else enumerate(state)
    found: list[tuple[Path, torch.Tensor]] = []
    for key, part in parts:
        found += _leaves_of(part, (*path, key))
    return found
