"""Encoders: an observation of any space becomes one flat float vector."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from shoal.nets.images import ImageEncoder, image_net
from shoal.nets.network import QNet
from shoal.nets.normalizer import Normalizer
from shoal.types import leaf_spaces

if TYPE_CHECKING:
    from shoal.nets.network import ActorCriticNet, Network
    from shoal.types import Spec, Tree


MOST_FLAT = 10_000
"""Numbers of one array that are flattened without a word."""


class Encoder(nn.Module):
    """One array as a flat float vector: a Box is flattened and normalized, a discrete one made one-hot.

    Images (uint8, two axes or more) are scaled to [0, 1]; `nets/images.py` has layers for those of three axes.
    """

    def __init__(self, spec: Spec, *, normalize: bool) -> None:
        """`normalize` adds a Normalizer for a Box."""
        super().__init__()
        space = spec.observation_space
        self.shape = spec.observation.single.shape
        self.image = is_image(space)
        self.nvec: list[int] = []
        """Options of each choice; empty for a Box."""
        self.size = int(np.prod(self.shape))
        if isinstance(space, spaces.Discrete):
            self.nvec = [int(space.n)]
            self.first = np.array([space.start])
        elif isinstance(space, spaces.MultiDiscrete):
            self.nvec = [int(n) for n in space.nvec.ravel()]
            self.first = space.start.ravel()
        if self.nvec:
            self.size = sum(self.nvec)
        self.normalizer: Normalizer | None = None
        if normalize and isinstance(space, spaces.Box) and self.size:
            self.normalizer = Normalizer(self.size)
        self.normalizes = self.normalizer is not None

    def flatten(self, obs: Tensor) -> Tensor:
        """[..., *shape] -> [..., size], not yet normalized."""
        lead = obs.shape[: obs.dim() - len(self.shape)]
        if not self.nvec:
            flat = obs.reshape(*lead, self.size).float()
            return flat / 255 if self.image else flat
        choices = obs.reshape(*lead, len(self.nvec)).long()
        index = choices - torch.as_tensor(self.first, device=obs.device)
        parts: list[Tensor] = []
        for choice, options in zip(index.unbind(-1), self.nvec, strict=True):
            parts.append(nn.functional.one_hot(choice, options))
        return torch.cat(parts, -1).float()

    def observe(self, obs: Tensor) -> None:
        """Merges observations [N, *shape] into the normalizer's statistics, if there is one."""
        if self.normalizer is not None:
            self.normalizer.merge(self.flatten(obs))

    def forward(self, obs: Tensor) -> Tensor:
        """[..., *shape] -> [..., size]."""
        flat = self.flatten(obs)
        return flat if self.normalizer is None else self.normalizer(flat)


class TreeEncoder(nn.Module):
    """Dicts and tuples: an encoder for each leaf, their vectors side by side in the layout's order."""

    def __init__(
        self,
        spec: Spec,
        network: Network | QNet | ActorCriticNet,
        generator: torch.Generator,
    ) -> None:
        """As `make_encoder`, for each leaf."""
        super().__init__()
        self.layout = spec.observation
        parts: list[Encoder | ImageEncoder] = []
        for _, space in leaf_spaces(spec.observation_space):
            parts.append(leaf_encoder(spec.seeing(space), network, generator))
        self.leaves = nn.ModuleList(parts)
        self.normalizer: Normalizer | None = None  # each leaf has its own
        self.size = sum(part.size for part in parts)
        self.normalizes = any(part.normalizes for part in parts)

    def observe(self, obs: Tree) -> None:
        """Merges observations, a tree of [N, *shape], into the normalizers' statistics."""
        for leaf, part in zip(self.leaves, self.layout.flat(obs), strict=True):
            assert isinstance(leaf, Encoder | ImageEncoder)
            leaf.observe(part)

    @property
    def flattens(self) -> bool:
        """Whether all leaves are only flattened: none goes through layers for images."""
        return all(type(leaf) is Encoder for leaf in self.leaves)

    def flatten(self, obs: Tree) -> Tensor:
        """A tree of [..., *shape] -> [..., size], not yet normalized; where it `flattens`."""
        parts: list[Tensor] = []
        for leaf, part in zip(self.leaves, self.layout.flat(obs), strict=True):
            assert isinstance(leaf, Encoder)
            parts.append(leaf.flatten(part))
        return torch.cat(parts, -1)

    def forward(self, obs: Tree) -> Tensor:
        """A tree of [..., *shape] -> [..., size]."""
        parts = zip(self.leaves, self.layout.flat(obs), strict=True)
        return torch.cat([leaf(part) for leaf, part in parts], -1)


def statistics_of(encoder: Encoder | TreeEncoder) -> tuple[Tensor, Tensor] | None:
    """Means and inverse deviations [size] of what is flattened, of choices 0 and 1; None where none is normalized."""
    if isinstance(encoder, Encoder):
        layer = encoder.normalizer
        return None if layer is None else (layer.mean, layer.inv_std)
    if not encoder.normalizes:
        return None
    means: list[Tensor] = []
    inverses: list[Tensor] = []
    for leaf in encoder.leaves:
        assert isinstance(leaf, Encoder)
        mean, inverse = statistics_of(leaf) or (
            torch.zeros(leaf.size),
            torch.ones(leaf.size),
        )
        means.append(mean)
        inverses.append(inverse)
    return torch.cat(means), torch.cat(inverses)


AnyEncoder: TypeAlias = Encoder | TreeEncoder | ImageEncoder


def is_image(space: spaces.Space[object]) -> bool:
    """Whether a space holds pixels: a uint8 Box of two axes or more."""
    if not isinstance(space, spaces.Box):
        return False
    return space.dtype == np.uint8 and len(space.shape) >= 2


def leaf_encoder(
    spec: Spec,
    network: Network | QNet | ActorCriticNet,
    generator: torch.Generator,
) -> Encoder | ImageEncoder:
    """The encoder of one array: convolutional for an image that `network.image` has layers for."""
    kind = image_net(spec, network.image)
    if not kind:
        encoder = Encoder(spec, normalize=network.normalize_obs)
        if network.image == "auto" and encoder.size > MOST_FLAT:
            warnings.warn(
                f"observations of shape {encoder.shape} are flattened: the network's first layer reads "
                f"{encoder.size:,} numbers. If they are images, network.image='nature' has convolutions for them "
                "(uint8, or floats with finite bounds); 'flat' takes them as they are without this warning",
                stacklevel=2,
            )
        return encoder
    return ImageEncoder(
        spec,
        kind,
        half=network.precision == "bfloat16",
        layer_norm=isinstance(network, QNet) and network.layer_norm,
        generator=generator,
        normalize=network.normalize_obs,
    )


def make_encoder(
    spec: Spec,
    network: Network | QNet | ActorCriticNet,
    generator: torch.Generator,
) -> AnyEncoder:
    """The encoder of a specification's observations.

    Args:
        spec: of the environment.
        network: `image`, `precision` and `normalize_obs` count here.
        generator: draws the weights of layers for images.
    """
    nested = isinstance(spec.observation_space, spaces.Dict | spaces.Tuple)
    if nested:
        return TreeEncoder(spec, network, generator)
    return leaf_encoder(spec, network, generator)
