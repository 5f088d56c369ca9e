"""A slab that is not full: its first steps as a checkpoint holds them, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.types import assign, select

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.memory.slab import Slab
    from shoal.types import Tree


def first_steps(slab: Slab, count: int) -> dict[str, Any]:
    """The first `count` steps, as views of the slab, and the final observations in them."""
    at = slice(0, count)
    saved: dict[str, Any] = {name: getattr(slab, name)[at] for name in slab.numbers}
    for name in ("obs", "action", "states", "executed"):
        saved[name] = select(getattr(slab, name), at)
    saved["final_obs"] = select(slab.final_obs, slice(0, slab.num_final))
    if slab.action_mask is not None:
        saved["action_mask"] = slab.action_mask[at]
    return saved


def put_first_steps(slab: Slab, saved: Mapping[str, Any]) -> None:
    """Makes a slab hold what `first_steps` gave, and no other step that counts."""
    slab.clear()
    at = slice(0, len(saved["valid"]))
    for name in slab.numbers:
        getattr(slab, name)[at] = saved[name]
    for name in ("obs", "action", "states", "executed"):
        if (
            name in saved
        ):  # an older checkpoint of no recurrent states lacks them, or of what was done
            assign(getattr(slab, name), at, saved[name])
    slab.num_final = int(slab.final_index.max()) + 1
    assign(slab.final_obs, slice(0, slab.num_final), saved["final_obs"])
    if slab.action_mask is not None:
        slab.action_mask[at] = saved["action_mask"]


def cut(slab: Slab, t: int, row: int, final_obs: Tree) -> None:
    """Ends the episode of a row with step t, truncated; `final_obs` [1, ...] is the last observation."""
    at = slab.num_final
    slab.truncated[t, row] = True
    slab.final_index[t, row] = at
    assign(slab.final_obs, slice(at, at + 1), final_obs)
    slab.num_final = at + 1
