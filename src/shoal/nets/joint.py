"""Joint: independent distributions over the leaves of a nested action."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from shoal.nets.distributions import Categorical, Distribution, from_env, masked

if TYPE_CHECKING:
    from torch import Tensor

    from shoal.types import Layout, Tree


class Joint:
    """Independent distributions over the leaves of an action: log-probabilities and entropies are summed.

    The leaves' actions are [..., *shape]; their distributions see them flat, [..., K], or [...] for one choice.
    """

    noise: ClassVar[str] = "joint"

    def __init__(
        self,
        layout: Layout,
        parts: list[Distribution],
        sizes: list[int],
    ) -> None:
        """`parts`: a distribution for each leaf of `layout`; `sizes`: the head's numbers for each."""
        self.layout = layout
        self.parts = parts
        self.sizes = sizes
        self.noise_size = sum(part.noise_size for part in parts)
        uniform = [part.noise_size for part in parts if part.noise == "uniform"]
        self.num_uniform = sum(uniform)

    def sample(self, noise: Tensor) -> Tree:
        """Each leaf from its own numbers, in layout order among those of its kind."""
        at = {"uniform": 0, "normal": self.num_uniform}
        chosen: list[Tensor] = []
        for part in self.parts:
            first = at[part.noise]
            at[part.noise] += part.noise_size
            own = noise[..., first : at[part.noise]]
            chosen.append(part.sample(own))
        return self._nested(chosen)

    def mode(self) -> Tree:
        """The most probable of each leaf."""
        return self._nested([part.mode() for part in self.parts])

    def masked(self, mask: Tensor) -> Joint:
        """The same among the options where `mask` [..., sum(sizes)] is true; Gaussians are never masked."""
        parts: list[Distribution] = []
        for part, own in zip(self.parts, mask.split(self.sizes, -1), strict=True):
            chooses = part.noise == "uniform"
            parts.append(masked(part, own) if chooses else part)
        return Joint(self.layout, parts, self.sizes)

    def log_prob(self, action: Tree) -> Tensor:
        """Summed over the leaves."""
        pairs = zip(self.parts, self._flat(action), strict=True)
        return torch.stack([part.log_prob(own) for part, own in pairs]).sum(0)

    def entropy(self) -> Tensor:
        """Summed over the leaves."""
        return torch.stack([part.entropy() for part in self.parts]).sum(0)

    def to_env(self, action: Tree) -> Tree:
        """Each leaf as its space takes it, in its dtype."""
        leaves = self.layout.leaves
        given: list[Tensor] = []
        for leaf, part, own in zip(leaves, self.parts, self._flat(action), strict=True):
            kind = torch.from_numpy(np.empty(0, leaf.dtype)).dtype
            given.append(part.to_env(own).to(kind))
        return self._nested(given)

    def from_env(self, action: Tree) -> Tree:
        """The inverse of `to_env`, leaf by leaf."""
        pairs = zip(self.parts, self._flat(action), strict=True)
        return self._nested([from_env(part, own) for part, own in pairs])

    def _flat(self, action: Tree) -> list[Tensor]:
        """The leaves' actions as their distributions see them."""
        leaves = self.layout.leaves
        values = self.layout.flat(action)
        flat: list[Tensor] = []
        for leaf, part, value in zip(leaves, self.parts, values, strict=True):
            own = value if value.is_floating_point() else value.long()
            if not isinstance(part, Categorical):
                lead = own.shape[: own.dim() - len(leaf.shape)]
                own = own.reshape(*lead, -1)
            flat.append(own)
        return flat

    def _nested(self, flat: list[Tensor]) -> Tree:
        """The inverse of `_flat`."""
        values: list[Tensor] = []
        for leaf, part, own in zip(self.layout.leaves, self.parts, flat, strict=True):
            if isinstance(part, Categorical):
                values.append(own)
            else:
                values.append(own.reshape(*own.shape[:-1], *leaf.shape))
        return self.layout.tree(values)
