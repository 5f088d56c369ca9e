"""Masks under names that nobody reads: said once, as policies would choose what they forbid."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from gymnasium import spaces

from shoal.envs.told import is_told, tell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.envs.masks import MaskReader

OTHERS = (
    "action_masks",
    "actions_mask",
    "mask_actions",
    "legal_actions",
    "legal_moves",
    "valid_actions",
    "valid_action_mask",
    "avail_actions",
    "available_actions",
)
"""What other libraries and projects call masks."""


def warn_of_names(reader: MaskReader, info: object, count: int) -> None:
    """UserWarning where an observation or info that has no `action_mask` has one under another name.

    Args:
        reader: of the rows' masks; what it can read is a mask.
        info: of one row, or of all as Gymnasium's vector environments join them.
        count: the rows that `info` is of.
    """
    if is_told():
        return
    for where, name in _found(reader, info, count):
        tell(
            "masks",
            f"{reader.spec.env_id}: {where}[{name!r}] looks like a mask of the actions, but is not read as one: every "
            "action may be chosen",
            "call it 'action_mask' (a method of the environment: action_masks)",
        )


def _found(reader: MaskReader, info: object, count: int) -> Iterator[tuple[str, str]]:
    """Where such masks are, and what they are called."""
    space = reader.spec.observation_space
    if isinstance(space, spaces.Dict):
        seen = reader.spec.observation.allocate(1)
        for name in OTHERS:
            if name in space.spaces and _reads(reader, seen[name], 1):
                yield "the observation", name
    if isinstance(info, Mapping):
        given = cast("Mapping[str, Any]", info)
        for name in OTHERS:
            if name in given and _reads(reader, given[name], count):
                yield "info", name


def _reads(reader: MaskReader, value: Any, count: int) -> bool:
    """Whether a mask of so many rows can be read from it."""
    with suppress(ValueError, TypeError, KeyError, IndexError):
        return bool(reader.read(value, count).size) and value is not None
    return False
