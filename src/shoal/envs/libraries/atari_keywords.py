"""Keywords of Atari games, checked before ALE sees them: it takes some numbers wrongly, and others without a word."""

from __future__ import annotations

from typing import Any

from shoal.types.arguments import flag_of, number_of, whole_of

NO_LIMIT = 2**31 - 1
"""Frames of a game that has no limit."""
WHOLE = {
    "max_num_frames_per_episode": (0, NO_LIMIT),
    "noop_max": (0, 100_000),
    "frameskip": (1, 100_000),
    "stack_num": (1, 1_000),
    "img_height": (1, 4_096),
    "img_width": (1, 4_096),
}
SHARES = ("repeat_action_probability", "continuous_action_threshold")
FLAGS = (
    "terminal_on_life_loss",
    "clip_reward",
    "use_fire_reset",
    "full_action_space",
    "continuous",
    "grayscale",
    "maxpool",
)


def checked(env_id: str, keywords: dict[str, Any]) -> dict[str, Any]:
    """The keywords with numbers and flags as Python's own; those of other names as they are.

    Raises:
        ConfigError: a number is none or outside what a game can have, or a flag is neither true nor false.
    """
    found = dict(keywords)
    for name in found:
        said = f"{env_id}: {name}"
        if name in WHOLE:
            found[name] = whole_of(said, found[name], *WHOLE[name])
        elif name in SHARES:
            found[name] = number_of(said, found[name], 0.0, 1.0)
        elif name in FLAGS:
            found[name] = flag_of(said, found[name])
    return found
