"""Observations that a user hands over: as arrays in the dtypes of a spec, or refused in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.envs.observations import leaves_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.types import Leaf, Spec, Tree

CALLS = {2: "reset()", 5: "step()"}
"""What returns an observation in a tuple, whose last item is the info, by the tuple's length."""


def check_alone(spec: Spec, obs: Tree) -> None:
    """ValueError where an observation stands in the tuple in which the environment's call returned it."""
    if not isinstance(obs, tuple) or not obs or not isinstance(obs[-1], dict):
        return
    space = spec.observation_space
    own = False
    if isinstance(space, spaces.Tuple) and len(space.spaces) == len(obs):
        own = isinstance(space.spaces[-1], spaces.Dict)
    if len(obs) in CALLS and not own:
        raise ValueError(
            f"{spec.env_id}: got all that an environment's {CALLS[len(obs)]} returns, a tuple of {len(obs)}; the "
            "observation is its first item: give that alone"
        )


def arrays_of(spec: Spec, obs: Tree) -> list[NDArray[Any]]:
    """The leaves of one observation or a batch [N, ...] in their dtypes.

    Raises:
        ValueError: of another kind than the environment's, or numbers that its dtype does not hold.
    """
    try:
        values = leaves_of(spec.observation_space, obs)
    except ValueError as error:
        raise ValueError(f"{spec.env_id}: got an {error}") from None
    pairs = zip(spec.observation.leaves, values, strict=True)
    return [_cast(spec, leaf, value) for leaf, value in pairs]


def _cast(spec: Spec, leaf: Leaf, value: Any) -> NDArray[Any]:
    expected = f"{spec.env_id}: expected an observation{leaf.name}"
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"{expected} {leaf.shape} or [N, ...] of {leaf.dtype}, got a {type(value).__name__} that makes no array"
        ) from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{expected} of type {leaf.dtype}, got {array.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(leaf.dtype)
    whole = leaf.dtype.kind != "f"
    if whole and np.isfinite(array).all() and not np.array_equal(cast, array):
        raise ValueError(
            f"{spec.env_id}: the observation{leaf.name} holds numbers that {leaf.dtype} cannot hold"
        )
    if whole and not np.isfinite(array).all():
        raise ValueError(
            f"{spec.env_id}: the observation{leaf.name} holds numbers that are not finite"
        )
    return cast
