"""Infos of a vector environment: those of Python rows, and those that say who ended and who is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from shoal.envs.outputs import take
from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shoal.envs.vec_env import VecEnv
    from shoal.types import Bools, Ready

    Infos: TypeAlias = dict[str, Any]
    """As Gymnasium joins infos: an array or dict for each key, and `_key`, which says who has it."""


class InfoJoiner:
    """Joins the infos of rows as Gymnasium's vector environments do."""

    def __init__(self, rows: VecEnv, add: Callable[[Infos, Infos, int], Infos]) -> None:
        """`add`: Gymnasium's own way to add the info of one environment to those of all."""
        self._rows = rows
        self._python = rows.python_rows
        self._add = add

    def of_reset(self, ready: Ready, mask: Bools) -> Infos:
        """The infos of the rows that were reset, and whose turn it is."""
        infos: Infos = {}
        if ready.turn is not None:
            infos["turn"] = ready.turn.copy()
        if self._python is not None:
            chosen: list[int] = np.flatnonzero(mask).tolist()
            for row in chosen:
                infos = self._joined(infos, self._python.infos[row], row)
        return infos

    def of_step(self, ready: Ready, ended: Bools) -> Infos:
        """Infos of a step in same-step mode, with the ended rows' last observation and info."""
        infos: Infos = {}
        rows: list[int] = np.flatnonzero(ended).tolist()
        if rows:
            kept = np.full(self._rows.num_rows, None, dtype=object)
            copies = take(ready.final_obs, rows)
            for at, row in enumerate(rows):
                kept[row] = take(copies, at)
            infos["final_obs"], infos["_final_obs"] = kept, ended
            infos["final_info"] = self._of_ends(rows)
            infos["_final_info"] = ended.copy()
        if self._python is not None:
            for row, info in enumerate(self._python.infos):
                infos = self._joined(infos, info, row)
        if ready.turn is not None:
            infos["valid"], infos["turn"] = ready.valid.copy(), ready.turn.copy()
        if self._rows.capabilities.whole_sends:
            infos |= _whole_games(ready)
        return infos

    def of_late_resets(self, ended: Bools) -> Infos:
        """Infos of a step in next-step mode: those that episodes ended with stand at their rows."""
        infos: Infos = {}
        if self._python is None:
            return infos
        for row, info in enumerate(self._python.infos):
            shown = self._python.final_infos[row] if ended[row] else info
            infos = self._joined(infos, shown, row)
        return infos

    def _of_ends(self, rows: Iterable[int]) -> Infos:
        infos: Infos = {}
        if self._python is not None:
            for row in rows:
                infos = self._joined(infos, self._python.final_infos[row], row)
        return infos

    def _joined(self, infos: Infos, info: object, row: int) -> Infos:
        if not isinstance(info, dict):
            raise EnvError(
                f"{self._rows.spec.env_id}: row {row} returned the info {info!r}; return a dict"
            )
        if not info:
            return infos
        return self._add(infos, info, row)


def _whole_games(ready: Ready) -> Infos:
    """Own rewards and lengths of whole games; the key `episode` belongs to Gymnasium's RecordEpisodeStatistics."""
    whole = ready.over.copy()
    if not whole.any():
        return {}
    returns, lengths = ready.episode_return * whole, ready.episode_length * whole
    return {"game": {"r": returns, "l": lengths}, "_game": whole}
