"""Weights on their way from a learner to an actor: one packed array, and the buffers beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from shoal.learn.weights import pack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from shoal.learn.publishing import Published
    from shoal.stream.roles import Role
    from shoal.types import Steps


@dataclass(frozen=True, slots=True)
class Weights:
    """One version of a policy."""

    version: int
    flat: NDArray[np.float32]
    """All parameters, packed."""
    buffers: dict[str, Tensor]
    """Statistics and the like, by name; arrays where they came over a socket."""

    @classmethod
    def of(cls, source: Published) -> Weights:
        """What a learner has published."""
        buffers = {
            name: buffer.detach().cpu()
            for name, buffer in source.policy.named_buffers()
        }
        return cls(source.version, source.flat.detach().cpu().numpy(), buffers)

    @classmethod
    def acting(cls, role: Role) -> Weights:
        """Those that a role acts with, which whoever publishes may have changed since."""
        own = role.actor.snapshot
        buffers = {n: b.detach().cpu() for n, b in own.policy.named_buffers()}
        return cls(role.version, own.flat.detach().cpu().numpy(), buffers)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        buffers = sum(x.numel() * x.element_size() for x in self.buffers.values())
        return self.flat.nbytes + buffers


class Pulled:
    """A policy whose weights come from another process."""

    def __init__(self, policy: nn.Module) -> None:
        """`policy`: a copy of the learner's, of version -1 until weights come."""
        self.policy, self.version = policy.eval(), -1
        self._flat = pack(policy)

    @property
    def flat(self) -> Tensor:
        """All parameters, packed."""
        return self._flat

    def publish(self, steps: Steps | None = None) -> int:
        """Nothing is published here: the learner does that."""
        return self.version

    def take(self, weights: Weights) -> None:
        """Takes a version over."""
        if len(self._flat):
            self._flat.copy_(torch.as_tensor(weights.flat).clone())
        own = dict(self.policy.named_buffers())
        for name, sent in weights.buffers.items():
            given = torch.as_tensor(sent)
            mine = own.get(name)
            if (
                mine is not None
                and mine.shape == given.shape
                and mine.dtype == given.dtype
            ):
                mine.copy_(given)
                continue
            path, _, last = name.rpartition(".")
            setattr(self.policy.get_submodule(path), last, given.clone())
        self.version = weights.version
