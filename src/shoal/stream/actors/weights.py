"""Weights on their way from a learner to an actor: one packed array, and the buffers beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from shoal.learn.publishing import Subsets
from shoal.learn.weights import pack

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    names: Sequence[str] | None = None
    """The parameters in `flat`, where they are not all; `buffers` are then not all either. None: all."""
    since: int = 0
    """What was not sent is as of this version then."""

    @classmethod
    def of(cls, source: Published, since: int | None = None) -> Weights:
        """What a learner has published; to one who has the version `since` what came after it, where that is known."""
        only = frozenset[str]()
        if since is not None:
            only = source.subsets.since(since, source.version)
        buffers = {
            name: buffer.detach().cpu()
            for name, buffer in source.policy.named_buffers()
            if not only or name in only
        }
        if since is None or not only:
            return cls(source.version, source.flat.detach().cpu().numpy(), buffers)
        parts = {n: p for n, p in source.policy.named_parameters() if n in only}
        packed = [p.detach().reshape(-1).cpu() for p in parts.values()]
        flat = torch.cat(packed) if packed else torch.empty(0)
        return cls(source.version, flat.numpy(), buffers, tuple(parts), since)

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
        self.policy, self.version, self.subsets = policy.eval(), -1, Subsets()
        self._flat = pack(policy)

    @property
    def flat(self) -> Tensor:
        """All parameters, packed."""
        return self._flat

    def publish(self, steps: Steps | None = None, *, only: Sequence[str] = ()) -> int:
        """Nothing is published here: the learner does that."""
        return self.version

    def take(self, weights: Weights) -> None:
        """Takes a version over.

        Raises:
            RuntimeError: it is a part of one whose other parts are not here: two versions are never mixed.
        """
        if weights.names is not None:
            self._take_part(weights, weights.names)
        elif len(self._flat):
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

    def _take_part(self, weights: Weights, names: Sequence[str]) -> None:
        """The parameters that are named; the others are those of the version that they were sent to."""
        if self.version != weights.since:
            raise RuntimeError(
                f"version {weights.version} came as what changed since version {weights.since}, "
                f"but version {self.version} is here"
            )
        flat = torch.as_tensor(weights.flat)
        own = dict(self.policy.named_parameters())
        first = 0
        with torch.no_grad():
            for name in names:
                end = first + own[name].numel()
                own[name].copy_(flat[first:end].view_as(own[name]))
                first = end
