"""Features: the numbers of an observation that are explained, as a matrix and back as what a policy takes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces

from shoal.envs.names import feature_names, leaf_name
from shoal.report.explain.names import given_names
from shoal.types import ConfigError, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from shoal.types import Floats, Spec, Tree


@dataclass(frozen=True)
class Features:
    """Which numbers of an observation may change, and what they are called."""

    spec: Spec
    names: tuple[str, ...]
    kept: tuple[int, ...]
    """The leaves of the observation that are explained, by their numbers."""
    held: tuple[str, ...]
    """The names of the other leaves: choices have nothing between two of them, so that no gradient leads there."""
    image: tuple[int, ...] | None = None
    """The shape of an image that is all of the observation; None where there is none."""

    @classmethod
    def of(cls, spec: Spec, given: str = "") -> Features:
        """The features of an environment's observations, with names that are given, known or made of their places.

        Raises:
            ConfigError: other names than numbers, or an observation of choices alone.
        """
        parts = leaf_spaces(spec.observation_space)
        kept = tuple(
            number
            for number, (_, space) in enumerate(parts)
            if isinstance(space, spaces.Box)
        )
        leaves = spec.observation.leaves
        paths = [leaf_name(leaf.path, "observation") for leaf in leaves]
        held = tuple(paths[n] for n in range(len(parts)) if n not in kept)
        if not kept:
            raise ConfigError(
                f"{spec.env_id}: the observation is made of choices alone ({', '.join(held)}), and only numbers of a "
                "Box can be explained by gradients"
            )
        names = feature_names(spec)
        if given:
            names = given_names(given, len(names), spec.env_id)
        return cls(spec, names, kept, held, _image_of(spec))

    def matrix(self, leaves: Sequence[NDArray[Any]]) -> Floats:
        """The leaves of N observations, each [N, ...] -> [N, F]."""
        count = len(leaves[0])
        parts = [leaves[number].reshape(count, -1) for number in self.kept]
        return np.concatenate(parts, 1).astype(np.float64)

    def tree(self, leaves: Sequence[NDArray[Any]], x: Tensor) -> Tree:
        """Observations [1, N, ...] whose features are x [N, F], and whose other leaves are as in `leaves`."""
        made: list[Tensor] = []
        at = 0
        for number, leaf in enumerate(self.spec.observation.leaves):
            if number not in self.kept:
                made.append(torch.from_numpy(leaves[number]).unsqueeze(0))
                continue
            size = prod(leaf.shape)
            # A copy: layers for pixels normalize theirs in place.
            part = x[:, at : at + size].clone().float()
            made.append(part.reshape(1, len(x), *leaf.shape))
            at += size
        return self.spec.observation.tree(made)


def has_numbers(spec: Spec) -> bool:
    """Whether any part of an observation can be explained."""
    parts = leaf_spaces(spec.observation_space)
    return any(isinstance(space, spaces.Box) for _, space in parts)


def _image_of(spec: Spec) -> tuple[int, ...] | None:
    leaves = spec.observation.leaves
    if len(leaves) != 1 or leaves[0].path:
        return None
    shape = leaves[0].shape
    pixels = leaves[0].dtype == np.uint8 and len(shape) >= 2
    return shape if pixels or len(shape) >= 3 else None
