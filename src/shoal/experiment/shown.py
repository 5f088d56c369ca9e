"""What a trained policy is shown from outside: one observation or a batch, and masks, as arrays of their dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.envs.bounds import bounds_of
from shoal.envs.handed import arrays_of, check_alone
from shoal.envs.masks import MaskReader
from shoal.envs.observed import seen
from shoal.experiment.controls import check_controls
from shoal.types import leaf_spaces
from shoal.types.text import printable

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from shoal.envs.preprocessing import Preprocessing
    from shoal.types import Bools, Spec, Tree


def mask_of(spec: Spec, batch: Tree, count: int, given: Tree) -> Bools | None:
    """The action masks [N, options] of a batch: what its observations and the masks given leave; None: everything.

    Raises:
        ValueError: another number of masks, or one that leaves no option.
    """
    reader = MaskReader(spec)
    mask = None
    if given is not None:
        mask = np.concatenate([reader.read(one, 1) for one in given])
        if len(mask) != count:
            raise ValueError(
                f"{spec.env_id}: expected {count} action masks, got {len(mask)}"
            )
    mask = reader.observed(batch, count, mask)
    if mask is not None and (row := reader.blocked(mask)) >= 0:
        raise ValueError(
            f"{spec.env_id}: the action mask of row {row} leaves no option"
        )
    return mask


def starts_of(spec: Spec, count: int, given: ArrayLike) -> Bools:
    """Which of `count` observations begin an episode, from one bool or [N].

    Raises:
        ValueError: another number of them, or what is neither true nor false.
    """
    array = np.asarray(given)
    is_flag = array.dtype.kind in "biuf" and np.isin(array, (0, 1)).all()
    if not is_flag or array.shape not in ((), (count,)):
        raise ValueError(
            f"{spec.env_id}: which observations begin an episode must be a bool, or {count} of them, got "
            f"{printable(given, 80)}"
        )
    return np.broadcast_to(array.astype(np.bool_), count)


def batch_of(
    spec: Spec, obs: Tree, preprocessing: Preprocessing
) -> tuple[Tree, int, bool]:
    """The observations as arrays [N, ...], N, and whether there was one without that axis.

    Raises:
        ConfigError: a language model, which has no observations.
        ValueError: another shape or kind than the environment's, what reset() or step() returned as a whole, numbers
            that are not finite, or choices that the space lacks.
    """
    check_controls(spec, "observations are")
    layout = spec.observation
    check_alone(spec, obs)
    obs = seen(obs, spec.observation_space, preprocessing)
    arrays = arrays_of(spec, obs)
    alone = arrays[0].shape == layout.leaves[0].shape
    batch = arrays
    if alone:
        batch = [array[None] for array in arrays]
    for leaf, array, made in zip(layout.leaves, arrays, batch, strict=True):
        expected = (len(batch[0]), *leaf.shape) if batch[0].shape else None
        if not made.shape or not len(made) or made.shape != expected:
            raise ValueError(
                f"{spec.env_id}: expected an observation{leaf.name} {leaf.shape} or [N, ...], got {array.shape}"
            )
    _check(spec, batch)
    return layout.tree(batch), len(batch[0]), alone


def _check(spec: Spec, arrays: list[NDArray[Any]]) -> None:
    """ValueError for numbers that are not finite, and for choices that no network has a place for."""
    parts = [part for _, part in leaf_spaces(spec.observation_space)]
    for leaf, part, array in zip(spec.observation.leaves, parts, arrays, strict=True):
        where = f"{spec.env_id}: the observation{leaf.name}"
        if not np.isfinite(array).all():
            raise ValueError(f"{where} holds numbers that are not finite")
        if isinstance(part, spaces.Box):
            continue
        low, high = bounds_of(part)
        within = (array >= low) & (array <= high)
        if not within.all():
            raise ValueError(
                f"{where} holds {array[~within][0]}, which is outside {part}"
            )
