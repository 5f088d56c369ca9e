"""Heads: what a network's last numbers mean, from flat numbers to a distribution over any action space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces

from shoal.nets.distributions import (
    Categorical,
    Joint,
    MultiCategorical,
    Normal,
    SquashedNormal,
)
from shoal.types import ConfigError, Layout, choices, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from shoal.nets.distributions import Distribution


def head_size(space: spaces.Space[Any]) -> int:
    """Numbers that a network's head must give for this action space: leaf after leaf, in layout order.

    A choice of n has n logits, a bit of a MultiBinary 2, a component of a Box its mean.
    """
    return sum(sum(choices(part)) or deviations(part) for _, part in leaf_spaces(space))


def deviations(space: spaces.Space[Any]) -> int:
    """Components of all Boxes of an action space: each has a log standard deviation."""
    total = 0
    for path, part in leaf_spaces(space):
        box: Any = part
        if isinstance(part, spaces.Box) and np.issubdtype(box.dtype, np.floating):
            total += int(np.prod(box.shape))
        elif not choices(part):
            where = f" at {list(path)}" if path else ""
            raise ConfigError(
                f"no policy head for the action space {part}{where}; use Discrete, MultiDiscrete, MultiBinary, "
                "a Box of floats, or Dict and Tuple of these"
            )
    return total


def head(
    space: spaces.Space[Any], *, squash: bool
) -> Callable[[Tensor, Tensor | None], Distribution]:
    """A function from the head's numbers (and the Boxes' log_std) to the distribution over `space`."""
    deviations(space)
    match space:
        case spaces.Discrete():
            start = int(space.start)
            return lambda logits, _: Categorical(logits, start=start)
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            nvec, first = [int(n) for n in space.nvec], torch.as_tensor(space.start)
            return lambda logits, _: MultiCategorical(
                logits, nvec, start=first.to(logits.device)
            )
        case spaces.Box() if len(space.shape) == 1:
            return _box_head(space, squash=squash)
        case _:
            return _joint_head(space, squash=squash)


def _joint_head(
    space: spaces.Space[Any], *, squash: bool
) -> Callable[[Tensor, Tensor | None], Distribution]:
    layout, parts = Layout.of(space), [_flat(part) for _, part in leaf_spaces(space)]
    heads = [head(part, squash=squash) for part in parts]
    sizes, spread = (
        [head_size(part) for part in parts],
        [deviations(part) for part in parts],
    )

    def make(numbers: Tensor, log_std: Tensor | None) -> Distribution:
        if log_std is None:
            given: list[Tensor | None] = [None] * len(parts)
        else:
            given = [x if x.shape[-1] else None for x in log_std.split(spread, -1)]
        pieces = zip(heads, numbers.split(sizes, -1), given, strict=True)
        return Joint(layout, [one(piece, std) for one, piece, std in pieces], sizes)

    return make


def _flat(space: Any) -> spaces.Space[Any]:
    """The same leaf with one axis, or none for a Discrete; a MultiBinary as choices of two."""
    match space:
        case spaces.MultiDiscrete():
            return spaces.MultiDiscrete(space.nvec.ravel(), start=space.start.ravel())
        case spaces.MultiBinary():
            return spaces.MultiDiscrete(choices(space))
        case spaces.Box():
            return spaces.Box(
                space.low.ravel(), space.high.ravel(), dtype=space.dtype.type
            )
        case _:
            return space


def _box_head(
    space: Any, *, squash: bool
) -> Callable[[Tensor, Tensor | None], Distribution]:
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
    if squash and not bool((low.isfinite() & high.isfinite()).all()):
        raise ConfigError(
            f"squashing needs a bounded Box, got {space}; set squash=False"
        )
    kind = SquashedNormal if squash else Normal

    def make(mean: Tensor, log_std: Tensor | None) -> Distribution:
        if log_std is None:
            raise ConfigError(f"a policy for {space} must give (mean, log_std, value)")
        return kind(mean, log_std, low.to(mean.device), high.to(mean.device))

    return make
