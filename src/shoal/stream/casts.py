"""Casts: which rows each role plays, and who plays it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from shoal.types import ConfigError

if TYPE_CHECKING:
    from torch import nn

Cast: TypeAlias = Mapping[str, slice | Sequence[int]]
"""The rows of each role: a slice, or their numbers."""
Rows: TypeAlias = "slice | np.ndarray[Any, np.dtype[np.int64]]"


def casting(
    policy: nn.Module | Mapping[str, nn.Module], cast: Cast | None, num_rows: int
) -> tuple[Mapping[str, nn.Module], Mapping[str, Rows]]:
    """Policies and rows by role; without a cast there is one role that plays all rows."""
    if isinstance(policy, torch.nn.ModuleDict):
        policy = dict(policy.items())
    if cast is None:
        if isinstance(policy, torch.nn.Module):
            return {"all": policy}, {"all": slice(0, num_rows)}
        raise ConfigError(
            "several policies need a cast: which rows does each role play?"
        )
    if isinstance(policy, torch.nn.Module) or set(policy) != set(cast):
        raise ConfigError(
            f"the cast has the roles {sorted(cast)}; give a dict with one policy for each"
        )
    everyone = np.arange(num_rows)
    places = {role: _places(rows, num_rows) for role, rows in cast.items()}
    owners = np.zeros(num_rows, np.int64)
    for role, rows in places.items():
        chosen = everyone[rows]
        if not len(chosen):
            raise ConfigError(f"role {role!r} plays no rows")
        np.add.at(owners, chosen, 1)
    if not (owners == 1).all():
        row = int(np.argmax(owners != 1))
        raise ConfigError(
            f"{owners[row]} roles play row {row} of {num_rows}; the cast must name each row once"
        )
    return policy, places


def _places(rows: slice | Sequence[int], num_rows: int) -> Rows:
    """A slice of neighbours, or the numbers of any other rows."""
    if isinstance(rows, slice):
        first, last, step = rows.indices(num_rows)
        if step == 1 and (rows.stop is None or rows.stop <= num_rows):
            return slice(first, last)
        rows = range(first, max(first, rows.stop or last), step)
    numbers = np.array(rows, np.int64)
    if numbers.ndim != 1 or (numbers < 0).any() or (numbers >= num_rows).any():
        raise ConfigError(f"a role's rows lie in 0..{num_rows - 1}, got {rows}")
    return numbers
