"""Settling: one forward on an observation of zeros, so that lazy layers and buffers made in it are there."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from shoal.envs.bounds import bounds_of
from shoal.types import leaf_spaces

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shoal.types import Spec, Tree

ROWS = 2


def settle(policy: nn.Module, spec: Spec) -> None:
    """Gives a policy the parameters and buffers that its first forward makes; others stay as they are.

    A copy is tried first, with random numbers of its own. Where that raises, only a policy with lazy layers is refused:
    others may not be made for zeros, and show on real observations what is wrong with them.
    """
    tried = copy.deepcopy(policy)
    try:
        with torch.random.fork_rng(devices=[]):
            _forward(tried, spec)
    except Exception as error:
        if None in _form(policy).values():
            error.add_note("shoal: raised while lazy layers were given their shapes")
            raise
        return
    if _form(tried) != _form(policy):
        _forward(policy, spec)


@torch.no_grad()
def _forward(policy: nn.Module, spec: Spec) -> None:
    modes = [(module, module.training) for module in policy.modules()]
    policy.eval()
    known = (p.device for p in policy.parameters())
    device = next(known, torch.device("cpu"))
    initial: Any = policy.initial_state
    start = torch.ones(1, ROWS, dtype=torch.bool, device=device)
    policy(_zeros(spec, device), initial(ROWS), start)
    for module, training in modes:
        module.training = training


def _zeros(spec: Spec, device: torch.device) -> Tree:
    """Observations [1, ROWS, ...] of zeros, or of what is nearest to them in the space."""
    arrays: list[Tensor] = []
    parts = [part for _, part in leaf_spaces(spec.observation_space)]
    for leaf, part in zip(spec.observation.leaves, parts, strict=True):
        array = np.zeros((1, ROWS, *leaf.shape), leaf.dtype)
        array[...] = np.clip(array, *bounds_of(part))
        arrays.append(torch.from_numpy(array).to(device))
    return spec.observation.tree(arrays)


def _form(policy: nn.Module) -> dict[str, object]:
    """Shape and type of each parameter and buffer; none of a parameter that waits for its shape."""
    form: dict[str, object] = {}
    for name, parameter in policy.named_parameters():
        form[name] = None if is_lazy(parameter) else (parameter.shape, parameter.dtype)
    for name, buffer in policy.named_buffers():
        form[name] = None if is_lazy(buffer) else (buffer.shape, buffer.dtype)
    return form
