"""Minibatches: random parts of a rollout, each the batch of one gradient step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from shoal.learn.losses import ONE_STEP
from shoal.types import ConfigError, Transitions, map_tree, select

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from shoal.types import Steps

PER_STEP = (
    "obs",
    "start",
    "action",
    "log_prob",
    "value",
    "next_value",
    "reward",
    "terminated",
    "truncated",
    "valid",
    "version",
    "action_mask",
    "advantage",
    "target",
    "weight",
    "cost",
)
"""The fields of a rollout that hold something for each step."""


class CutsRollouts(Protocol):
    """Settings of how a rollout is cut into minibatches."""

    @property
    def num_minibatches(self) -> int:
        """Parts of a rollout."""
        ...


@dataclass(frozen=True, slots=True)
class Minibatch:
    """A part of a rollout, by index; nothing is copied before `take`."""

    steps: Steps | Transitions
    index: NDArray[np.int32]
    """Steps t * B + b, or rows with all their steps; all transitions."""
    whole_rows: bool

    def take(self) -> Any:
        """The chosen steps as [1, M], or the chosen rows as [T, M] with their state; transitions [B] as they are."""
        steps = self.steps
        if isinstance(steps, Transitions):
            return steps
        index = torch.from_numpy(self.index).long().to(steps.reward.device)
        pick = partial(_rows, index) if self.whole_rows else partial(_steps, index)
        fields = {name: getattr(steps, name) for name in PER_STEP}
        taken = {name: map_tree(pick, x) for name, x in fields.items() if x is not None}
        state = select(steps.state, index) if self.whole_rows else None
        return replace(steps, state=state, **taken)


def minibatches(
    steps: Steps,
    advantage: Tensor | None,
    target: Tensor,
    num_minibatches: int,
    rng: np.random.Generator,
) -> Iterator[Minibatch]:
    """Cuts the valid steps of a rollout, shuffled, into `num_minibatches` parts; one pass over it.

    A recurrent policy's parts are whole rows with all their steps.

    Args:
        steps: a rollout [T, B].
        advantage: [T, B], given to the loss as `batch.advantage`; None where it needs none.
        target: [T, B], given to the loss as `batch.target`.
        num_minibatches: how many parts; a part without steps is left out.
        rng: shuffles.

    Raises:
        ConfigError: no number of parts, or advantages and targets that are not [T, B].
    """
    if not _is_count(num_minibatches):
        raise ConfigError(
            f"num_minibatches must be a whole number of at least 1, got {num_minibatches!r}"
        )
    if advantage is not None:
        _check_shape("advantage", advantage, steps)
    _check_shape("target", target, steps)
    whole_rows = steps.state is not None
    learned = steps.with_targets(advantage, target)
    shuffled = rng.permutation(everything(learned).index)
    size = len(shuffled)
    edges = [size * part // num_minibatches for part in range(num_minibatches + 1)]
    for first, last in pairwise(edges):
        if last > first:
            yield Minibatch(learned, shuffled[first:last], whole_rows)


def _is_count(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and bool(value >= 1)


def _check_shape(name: str, values: object, steps: Steps) -> None:
    expected = steps.reward.shape
    if isinstance(values, torch.Tensor) and values.shape == expected:
        return
    got = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values)
    raise ConfigError(
        f"{name} must be a tensor [T, B] of the shape {tuple(expected)}, got {got}"
    )


def everything(steps: Steps | Transitions) -> Minibatch:
    """All valid steps of a rollout, all rows for a recurrent policy, or all transitions, as one batch."""
    if isinstance(steps, Transitions):
        index = np.arange(len(steps.key), dtype=np.int32)
        return Minibatch(steps, index, whole_rows=False)
    if steps.state is not None:
        rows = np.arange(steps.valid.shape[1], dtype=np.int32)
        return Minibatch(steps, rows, whole_rows=True)
    return Minibatch(steps, steps.valid_places(), whole_rows=False)


def cut_steps(steps: Steps, part: slice) -> Steps:
    """A contiguous part of the second axis of steps [T, M], as views."""
    fields = {name: getattr(steps, name) for name in PER_STEP}
    cut = partial(_cut, part)
    taken = {name: map_tree(cut, x) for name, x in fields.items() if x is not None}
    return replace(steps, **taken)


def check_minibatches(
    shape: tuple[int, int], cfg: CutsRollouts, *, whole_rows: bool
) -> None:
    """Refuses a number of minibatches that a rollout cannot be cut into evenly.

    Args:
        shape: of the rollout, (T, B).
        cfg: the number of parts; `norm_adv`, where it has that, says whether their advantages are normalized.
        whole_rows: parts are whole rows, as recurrent policies need them.

    Raises:
        ConfigError: with a number that would do.
    """
    num_minibatches, least = cfg.num_minibatches, 1
    if getattr(cfg, "norm_adv", False):
        least = 2
    num_steps, num_rows = shape
    steps = num_rows * num_steps
    whole = num_rows if whole_rows else steps
    if whole % num_minibatches == 0 and steps // num_minibatches >= least:
        return
    tried = range(1, min(whole, num_minibatches) + 1)
    fits = [n for n in tried if whole % n == 0 and steps // n >= least]
    if not fits:
        raise ConfigError(ONE_STEP)
    what = f"{num_rows} rows x {num_steps} steps = {steps} steps"
    if whole_rows:
        what = f"recurrent minibatches are whole rows, and {num_rows} rows"
    raise ConfigError(
        f"{what} do not split into {num_minibatches} minibatches of at least {least} steps; "
        f"num_minibatches={fits[-1]} would"
    )


def _cut(part: slice, x: Tensor) -> Tensor:
    return x[:, part]


def _rows(index: Tensor, x: Tensor) -> Tensor:
    return x[:, index]


def _steps(index: Tensor, x: Tensor) -> Tensor:
    return x.flatten(0, 1).index_select(0, index).unsqueeze(0)
