"""Episodes that ended in several rollouts, until somebody is told of them."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.types import Episodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Ended:
    """Those that nobody was told of."""

    def __init__(self) -> None:
        """None."""
        self._parts: list[Episodes] = []

    def add(self, part: Episodes) -> None:
        """Those of one more rollout."""
        self._parts.append(part)

    def take(self, keys: Sequence[str]) -> Episodes:
        """All, one after the other; `keys`: what the environment says of each."""
        parts, self._parts = self._parts, []
        return _joined(parts, keys)

    def state(self) -> list[dict[str, Any]]:
        """All that `restore` needs."""
        names = [own.name for own in fields(Episodes)]
        return [{name: getattr(part, name) for name in names} for part in self._parts]

    def restore(self, saved: Iterable[Mapping[str, Any]]) -> None:
        """Continues from `saved`."""
        self._parts = [Episodes(**part) for part in saved]


def _joined(parts: list[Episodes], keys: Sequence[str]) -> Episodes:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Episodes.none(keys)
    info = {
        key: np.concatenate([part.info[key] for part in parts]) for key in parts[0].info
    }
    returns = np.concatenate([part.returns for part in parts])
    lengths = np.concatenate([part.lengths for part in parts])
    rows = np.concatenate([part.rows for part in parts])
    return Episodes(returns, lengths, info, rows)
