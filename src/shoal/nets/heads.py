"""Heads: what a network's last numbers mean, from flat numbers to a distribution over any action space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces

from shoal.nets.distributions import (
    Categorical,
    MultiCategorical,
    Normal,
    SquashedNormal,
)
from shoal.nets.joint import Joint
from shoal.types import ConfigError, Layout, choices, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from shoal.nets.distributions import Distribution

    Head = Callable[[Tensor, Tensor | None], Distribution]


def head_size(space: spaces.Space[Any]) -> int:
    """Numbers that a network's head must give for this action space: leaf after leaf, in layout order.

    A choice of n has n logits, a bit of a MultiBinary 2, a component of a Box its mean.
    """
    total = 0
    for _, part in leaf_spaces(space):
        options = choices(part)
        total += sum(options) if options else deviations(part)
    return total


def deviations(space: spaces.Space[Any]) -> int:
    """Components of all Boxes of an action space: each has a log standard deviation."""
    total = 0
    for path, part in leaf_spaces(space):
        if isinstance(part, spaces.Box) and np.issubdtype(part.dtype, np.floating):
            total += int(np.prod(part.shape))
        elif not choices(part):
            where = f" at {list(path)}" if path else ""
            raise ConfigError(
                f"no policy head for the action space {part}{where}; use Discrete, MultiDiscrete, MultiBinary, "
                "a Box of floats, or Dict and Tuple of these"
            )
    return total


def head(space: spaces.Space[Any], *, squash: bool) -> Head:
    """A function from the head's numbers (and the Boxes' log_std) to the distribution over `space`."""
    deviations(space)
    match space:
        case spaces.Discrete():
            return _choice_head(space)
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            return _choices_head(space)
        case spaces.Box() if len(space.shape) == 1:
            return _box_head(space, squash=squash)
        case _:
            return _joint_head(space, squash=squash)


def _choice_head(space: spaces.Discrete) -> Head:
    start = int(space.start)

    def make(logits: Tensor, _: Tensor | None) -> Distribution:
        return Categorical(logits, start=start)

    return make


def _choices_head(space: spaces.MultiDiscrete) -> Head:
    nvec = [int(n) for n in space.nvec]
    start = torch.as_tensor(space.start)

    def make(logits: Tensor, _: Tensor | None) -> Distribution:
        return MultiCategorical(logits, nvec, start=start.to(logits.device))

    return make


def _joint_head(space: spaces.Space[Any], *, squash: bool) -> Head:
    layout = Layout.of(space)
    parts = [_flat(part) for _, part in leaf_spaces(space)]
    heads = [head(part, squash=squash) for part in parts]
    sizes = [head_size(part) for part in parts]
    spread = [deviations(part) for part in parts]

    def make(numbers: Tensor, log_std: Tensor | None) -> Distribution:
        given: list[Tensor | None] = [None] * len(parts)
        if log_std is not None:
            own = log_std.split(spread, -1)
            given = [std if std.shape[-1] else None for std in own]
        made: list[Distribution] = []
        pieces = numbers.split(sizes, -1)
        for make_part, piece, std in zip(heads, pieces, given, strict=True):
            made.append(make_part(piece, std))
        return Joint(layout, made, sizes)

    return make


def _flat(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The same leaf with one axis, or none for a Discrete; a MultiBinary as choices of two."""
    match space:
        case spaces.MultiDiscrete():
            return spaces.MultiDiscrete(space.nvec.ravel(), start=space.start.ravel())
        case spaces.MultiBinary():
            return spaces.MultiDiscrete(choices(space))
        case spaces.Box():
            return spaces.Box(
                space.low.ravel(),
                space.high.ravel(),
                dtype=space.dtype.type,
            )
        case _:
            return space


def _box_head(space: spaces.Box, *, squash: bool) -> Head:
    low = torch.as_tensor(space.low)
    high = torch.as_tensor(space.high)
    if squash and not space.is_bounded():
        raise ConfigError(
            f"squashing needs a bounded Box, got {space}; set squash=False"
        )
    kind = SquashedNormal if squash else Normal

    def make(mean: Tensor, log_std: Tensor | None) -> Distribution:
        if log_std is None:
            raise ConfigError(f"a policy for {space} must give (mean, log_std, value)")
        return kind(mean, log_std, low.to(mean.device), high.to(mean.device))

    return make
