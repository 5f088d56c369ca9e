"""Encoders: an observation of any space becomes one flat float vector."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from shoal.nets.images import ImageEncoder, image_net
from shoal.nets.normaliser import Normaliser
from shoal.types import Layout, leaf_spaces

if TYPE_CHECKING:
    from shoal.types import Spec, Tree


class Encoder(nn.Module):
    """One array as a flat float vector: a Box is flattened and normalised, a discrete one made one-hot.

    Images (uint8, two axes or more) are scaled to [0, 1]; `nets/images.py` has layers for those of three axes.
    """

    def __init__(self, spec: Spec, *, normalise: bool) -> None:
        """`normalise` adds a Normaliser for a Box."""
        super().__init__()
        space: Any = spec.observation_space
        self.shape = spec.observation.single.shape
        self.nvec: list[int] = []
        match space:
            case spaces.Discrete():
                self.nvec, self.first = [int(space.n)], np.array([space.start])
            case spaces.MultiDiscrete():
                self.nvec, self.first = (
                    [int(n) for n in space.nvec.ravel()],
                    space.start.ravel(),
                )
            case _:
                pass
        self.image = (
            isinstance(space, spaces.Box)
            and space.dtype == np.uint8
            and len(self.shape) >= 2
        )
        self.size = sum(self.nvec) if self.nvec else int(np.prod(self.shape))
        self.normaliser = (
            Normaliser(self.size)
            if normalise and isinstance(space, spaces.Box)
            else None
        )
        self.normalises = self.normaliser is not None

    def flatten(self, obs: Tensor) -> Tensor:
        """[..., *shape] -> [..., size], not yet normalised."""
        lead = obs.shape[: obs.dim() - len(self.shape)]
        if not self.nvec:
            flat = obs.reshape(*lead, self.size).float()
            return flat / 255 if self.image else flat
        index = obs.reshape(*lead, len(self.nvec)).long() - torch.as_tensor(
            self.first, device=obs.device
        )
        parts = [
            nn.functional.one_hot(index[..., k], n) for k, n in enumerate(self.nvec)
        ]
        return torch.cat(parts, -1).float()

    def observe(self, obs: Tensor) -> None:
        """Merges observations [N, *shape] into the normaliser's statistics, if there is one."""
        if self.normaliser is not None:
            self.normaliser.merge(self.flatten(obs))

    def forward(self, obs: Tensor) -> Tensor:
        """[..., *shape] -> [..., size]."""
        flat = self.flatten(obs)
        return flat if self.normaliser is None else self.normaliser(flat)


class TreeEncoder(nn.Module):
    """Dicts and tuples: an encoder for each leaf, their vectors side by side in the layout's order."""

    def __init__(
        self,
        spec: Spec,
        *,
        normalise: bool,
        image: str,
        half: bool,
        generator: torch.Generator,
    ) -> None:
        """`normalise` adds a Normaliser for each leaf that is a Box; for the rest see `make_encoder`."""
        super().__init__()
        self.layout = spec.observation
        leaves = [part for _, part in leaf_spaces(spec.observation_space)]
        specs = [
            replace(spec, observation_space=part, observation=Layout.of(part))
            for part in leaves
        ]
        settings: Any = {
            "normalise": normalise,
            "image": image,
            "half": half,
            "generator": generator,
        }
        parts = [leaf_encoder(part, **settings) for part in specs]
        self.leaves = nn.ModuleList(parts)
        self.normaliser: Normaliser | None = None  # each leaf has its own
        self.size = sum(part.size for part in parts)
        self.normalises = any(part.normalises for part in parts)

    def observe(self, obs: Tree) -> None:
        """Merges observations, a tree of [N, *shape], into the normalisers' statistics."""
        for leaf, part in zip(self.leaves, self.layout.flat(obs), strict=True):
            assert isinstance(leaf, Encoder | ImageEncoder)
            leaf.observe(part)

    def forward(self, obs: Tree) -> Tensor:
        """A tree of [..., *shape] -> [..., size]."""
        parts = zip(self.leaves, self.layout.flat(obs), strict=True)
        return torch.cat([leaf(part) for leaf, part in parts], -1)


def leaf_encoder(
    spec: Spec, *, normalise: bool, image: str, half: bool, generator: torch.Generator
) -> Encoder | ImageEncoder:
    """The encoder of one array: convolutional for an image that `image` has layers for."""
    kind = image_net(spec, image)
    if kind:
        return ImageEncoder(
            spec, kind, half=half, generator=generator, normalise=normalise
        )
    return Encoder(spec, normalise=normalise)


def make_encoder(
    spec: Spec, *, normalise: bool, image: str, half: bool, generator: torch.Generator
) -> Encoder | TreeEncoder | ImageEncoder:
    """The encoder of a specification's observations; `image`, `half` and `generator` are those of ImageEncoder."""
    nested = isinstance(spec.observation_space, spaces.Dict | spaces.Tuple)
    make = TreeEncoder if nested else leaf_encoder
    return make(spec, normalise=normalise, image=image, half=half, generator=generator)
