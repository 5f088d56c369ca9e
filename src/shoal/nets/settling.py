"""Settling: one forward on an observation of zeros, so that lazy layers and buffers made in it are there.

What it returns is looked at too, so that a policy that cannot work is refused before anything is made for it.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from shoal.envs.bounds import bounds_of
from shoal.nets.given import OutputError
from shoal.types import leaf_spaces

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shoal.types import Spec, Tree

ROWS = 2


def settle(policy: nn.Module, spec: Spec, *, trained: bool) -> None:
    """Gives a policy the parameters and buffers that its first forward makes; others stay as they are.

    A copy is tried first, with random numbers of its own. Where that raises, only a policy with lazy layers is refused:
    others may not be made for zeros, and show on real observations what is wrong with them.

    Raises:
        OutputError: what it returns is no policy's output, or (`trained`) has no gradient.
    """
    tried = copy.deepcopy(policy)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            _forward(tried, spec)
    except OutputError:
        raise
    except Exception as error:
        if None in _form(policy).values():
            error.add_note("shoal: raised while lazy layers were given their shapes")
            raise
        return
    if _form(tried) != _form(policy):
        with torch.no_grad():
            _forward(policy, spec)
    if trained and any(True for _ in tried.parameters()):
        _check_gradient(tried, spec)


def _forward(policy: nn.Module, spec: Spec) -> None:
    modes = [(module, module.training) for module in policy.modules()]
    policy.eval()
    _output(policy, spec)
    for module, training in modes:
        module.training = training


def _output(policy: nn.Module, spec: Spec) -> Any:
    """What it says of zeros; OutputError where that is no Output, or one of numbers that cannot be kept."""
    known = (p.device for p in policy.parameters())
    device = next(known, torch.device("cpu"))
    initial: Any = policy.initial_state
    start = torch.ones(1, ROWS, dtype=torch.bool, device=device)
    output = policy(_zeros(spec, device), initial(ROWS), start)
    name = type(policy).__name__
    if not hasattr(output, "distribution"):
        raise OutputError(
            f"the policy {name} returned {type(output).__name__}; one that has initial_state returns "
            "shoal.nets.policy.Output(distribution, value, state)"
        )
    if getattr(output.value, "dtype", None) == torch.bfloat16:
        raise OutputError(
            f"the policy {name} returned a value of bfloat16; return float32, as value.float() is"
        )
    return output


def _check_gradient(policy: nn.Module, spec: Spec) -> None:
    """OutputError where nothing that the policy returns depends on its parameters, in the mode it is trained in."""
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            output = _output(policy, spec)
            chosen = output.distribution.log_prob(output.distribution.mode())
    except OutputError:
        raise
    except Exception:  # as above: real observations show what is wrong
        return
    name = type(getattr(policy, "module", policy)).__name__
    if chosen.dtype == torch.bfloat16:
        raise OutputError(
            f"the distribution of the policy {name} is one of bfloat16; make it of float32, as logits.float() is"
        )
    if not chosen.requires_grad and not getattr(output.value, "requires_grad", False):
        raise OutputError(
            f"the policy {name} returned tensors without a gradient, so nothing can be learned: they were detached, "
            "made under torch.no_grad, or no parameter has requires_grad; return them as its layers made them"
        )


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
