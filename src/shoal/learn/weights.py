"""Weights as one flat packed buffer: a policy's parameters become views of it, and a snapshot is one copy."""

from __future__ import annotations

import copy
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch

from shoal.nets.images import ImageEncoder
from shoal.types import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn


def pack(module: nn.Module) -> Tensor:
    """The flat buffer that all parameters share, in the order of `packing`; the first call moves them into it."""
    parameters = packing(module)
    if not parameters:
        return torch.empty(0)
    kinds = {(p.dtype, p.device) for p in parameters}
    if len(kinds) > 1:
        raise ValueError(
            f"a policy's parameters must share one dtype and device, got {sorted(map(str, kinds))}"
        )
    starts = list(accumulate((p.numel() for p in parameters), initial=0))
    storage = parameters[0].untyped_storage()
    if storage.nbytes() == starts[-1] * parameters[0].element_size() and all(
        p.untyped_storage().data_ptr() == storage.data_ptr()
        and p.storage_offset() == start
        and p.is_contiguous()
        for p, start in zip(parameters, starts, strict=False)
    ):
        return parameters[0].data.as_strided((starts[-1],), (1,), 0)
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    for parameter, start in zip(parameters, starts, strict=False):
        parameter.data = flat[start : start + parameter.numel()].view_as(parameter)
    return flat


def packing(module: nn.Module) -> list[nn.Parameter]:
    """The parameters in packed order: as torch lists them, but a module's own last (a head's log_std)."""
    own = list(module.parameters(recurse=False))
    ids = {id(p) for p in own}
    return [*(p for p in module.parameters() if id(p) not in ids), *own]


class Snapshot:
    """A private copy of a policy that acts; `update` makes it equal to the learner's."""

    def __init__(self, policy: nn.Module) -> None:
        """Copies the module; the copy never has gradients."""
        self.policy = copy.deepcopy(policy).requires_grad_(requires_grad=False)
        self.policy.eval()
        self.flat = pack(self.policy)
        self._buffers = list(self.policy.buffers())
        self._source: tuple[nn.Module | None, list[Tensor]] = (None, [])
        self._images = [
            module
            for module in self.policy.modules()
            if isinstance(module, ImageEncoder)
        ]
        self._freeze()

    def update(self, policy: nn.Module, flat: Tensor) -> None:
        """Copies the packed weights and the buffers (normalization statistics)."""
        self.flat.copy_(flat)
        if self._source[0] is not policy:
            self._source = (policy, list(policy.buffers()))
        for mine, theirs in zip(self._buffers, self._source[1], strict=True):
            mine.copy_(theirs)
        self._freeze()

    def _freeze(self) -> None:
        for module in self._images:
            module.freeze()


def load_weights(module: nn.Module, saved: dict[str, Any]) -> None:
    """Copies saved weights into a module; ConfigError when they are another network's."""
    try:
        module.load_state_dict(saved)
    except RuntimeError as error:
        wrong = " ".join(str(error).split(":", 1)[-1].split())
        raise ConfigError(
            f"the checkpoint holds another network: {wrong[:300]}; "
            "a run that was given a policy object needs it again (policy=...)"
        ) from error
