"""What the rows of all ranks come to, as each of them sees it: episodes and returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.remote.states import pack, unpack
from shoal.types import ConfigError, Episodes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.learn.ranks import Ranks
    from shoal.types import Spec


def check_joinable(spec: Spec) -> None:
    """ConfigError where ranks would not all have as many steps to learn from at a time."""
    if spec.in_turns:
        raise ConfigError(
            f"{spec.env_id} is a game of turns, of which several learners cannot share the rows yet; set learners=1"
        )


def joined_episodes(ranks: Ranks, own: Episodes, num_rows: int) -> Episodes:
    """The episodes that ended on all ranks, those of rank 0 first; their rows are counted over all ranks.

    Args:
        ranks: all of which have `num_rows` rows.
        own: those of this rank.
        num_rows: of each.
    """
    said: dict[str, Any] = {}
    if len(own.returns):
        rows = own.rows + ranks.rank * num_rows
        said = {"returns": own.returns, "lengths": own.lengths, "rows": rows}
        said["info"] = own.info
    heard = [unpack(part) for part in ranks.gather_bytes(pack(said))]
    found = [part for part in heard if part]
    if not found:
        return own

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([part[name] for part in found])

    info = {
        key: np.concatenate([part["info"][key] for part in found])
        for key in found[0]["info"]
    }
    return Episodes(column("returns"), column("lengths"), info, column("rows"))
