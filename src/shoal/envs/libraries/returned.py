"""What the calls of a `gymnasium.vector.VectorEnv` return: its parts, or an EnvError that names what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from shoal.envs.observations import leaves_of
from shoal.envs.python_env import NUMBERS
from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gymnasium import Space

    from shoal.types import Bools, Spec, Tree

RESET = ("observations", "infos")
STEP = ("observations", "rewards", "terminations", "truncations", "infos")
FINAL = "final_obs"


def parts_of(made: object, call: str, parts: Sequence[str], name: str) -> Any:
    """What a call returned, which has these parts; the last one is a dict. `name` begins an EnvError."""
    if not isinstance(made, tuple | list):
        raise EnvError(
            f"{name}: {call} returned {_kind(made)}; return ({', '.join(parts)})"
        )
    given = cast("Sequence[object]", made)
    if len(given) != len(parts):
        raise EnvError(
            f"{name}: {call} returned {len(given)} values; return ({', '.join(parts)})"
        )
    if not isinstance(given[-1], Mapping):
        raise EnvError(
            f"{name}: {call} returned {_kind(given[-1])} as infos; return one dict for all rows, with an array "
            "for each key, as Gymnasium's vector environments do"
        )
    return given


def final_of(infos: Mapping[str, Any], ended: Bools, spec: Spec, space: Any) -> Tree:
    """The last observations [B, ...], of which only rows that `ended` [B] are filled.

    Args:
        infos: of a step, with an observation of `space` for each ended row.
        ended: rows whose episode is over.
        spec: of the rows.
        space: what one row observes.
    """
    given = infos.get(FINAL)
    if given is None:
        raise EnvError(f'{spec.env_id}: episodes ended, but infos have no "{FINAL}"')
    final: Tree = spec.observation.allocate(len(ended))
    arrays = spec.observation.flat(final)
    for row in np.flatnonzero(ended).tolist():
        for array, leaf in zip(arrays, _leaves(given, row, spec, space), strict=True):
            array[row] = leaf
    return final


def _leaves(given: Any, row: int, spec: Spec, space: Space[Any]) -> list[Any]:
    """The arrays of one row's last observation."""
    try:
        leaves = [np.asarray(leaf) for leaf in leaves_of(space, given[row])]
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise EnvError(
            f"{_unlike(row, spec)} ({type(error).__name__}: {error}); return an array with an observation for each row"
        ) from error
    for leaf, own in zip(leaves, spec.observation.leaves, strict=True):
        if leaf.dtype.kind not in NUMBERS or leaf.shape != own.shape:
            raise EnvError(
                f"{_unlike(row, spec)}: it has the shape {leaf.shape} and type {leaf.dtype} there, but the space says "
                f"{own.shape} and {own.dtype}"
            )
    return leaves


def _unlike(row: int, spec: Spec) -> str:
    return f'{spec.env_id}: row {row} ended, but infos["{FINAL}"][{row}] is none of its observations'


def _kind(value: object) -> str:
    """What something is, in words."""
    return "None" if value is None else f"a {type(value).__name__}"
