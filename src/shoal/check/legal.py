"""Legal actions: random ones, moved to the options that action masks leave; and whether masks come as they must."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.envs.masks import KEY, LATE, MaskReader, mask_of, method_of
from shoal.envs.python_env import is_long
from shoal.types import ConfigError, Spec, Tree, assign, choices, select

if TYPE_CHECKING:
    import gymnasium as gym

    from shoal.types import Bools

ADVICE = (
    "give a mask of 0 and 1 with an option left in the observation, in the info of reset() and of every step(), or by "
    "the method action_masks()"
)


class Masks:
    """The action masks of one environment, read as its rows read them."""

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        """`name` stands in messages."""
        self.env, self.name = env, name
        self.now: Bools | None = None
        """The options of the next action; None where it is free."""
        self.trouble = ""
        """What is wrong with the last mask."""
        self._space = env.observation_space
        self._method = method_of(env)
        self._reader: MaskReader | None = None
        self._begun = False

    @property
    def any(self) -> bool:
        """Whether actions are masked."""
        return self._reader is not None

    def note(self, made: object, *, first: bool = False) -> None:
        """Takes in what reset (`first`) or step returned."""
        self.now, self.trouble = None, ""
        if not is_long(made, 2 if first else 5):
            return
        values: Any = made
        given = mask_of(self._space, values[0], values[-1], self._method)
        ended = not first and bool(values[2] or values[3])
        if given is None and self._reader is not None and not ended:
            self.trouble = f"has no {KEY}, though it had one before"
        elif given is not None and self._reader is None and self._begun:
            self.trouble = f"has {LATE}"
        elif given is not None:
            self.trouble = self._read(given, ended=ended)
        self._begun = True

    def legal(self, action: Tree) -> Tree:
        """The action, or one that the mask leaves."""
        if self.now is None:
            return action
        return legal(self.env.action_space, action, self.now)

    def _read(self, given: Tree, *, ended: bool) -> str:
        """Reads a mask; what is wrong with it, or nothing."""
        try:
            if self._reader is None:
                self._reader = MaskReader(
                    Spec.of(
                        self.name, self.env.observation_space, self.env.action_space
                    )
                )
            mask = self._reader.read(given, 1)
        except (ConfigError, ValueError) as error:
            return f"has {error}"
        if self._reader.blocked(mask) < 0:
            self.now = mask[0]
            return ""
        return "" if ended else f"has an {KEY} without any option: {given}"


def legal(space: spaces.Space[Any], action: Tree, mask: Bools) -> Tree:
    """An action with every choice that its mask forbids moved to one that it leaves; `mask` as MaskReader has it."""
    return _moved(space, action, mask)[0]


def legal_rows(
    space: spaces.Space[Any], actions: Tree, masks: Bools | None, turn: Bools | None
) -> Tree:
    """The same for the actions of all rows [B, ...], in place; rows that are not on turn choose what they like."""
    if masks is None:
        return actions
    for row, mask in enumerate(masks):
        if turn is None or turn[row]:
            assign(actions, row, legal(space, select(actions, row), mask))
    return actions


def _moved(space: spaces.Space[Any], action: Tree, mask: Bools) -> tuple[Tree, Bools]:
    """The legal action, and the mask of what stands after this space."""
    if isinstance(space, spaces.Dict):
        parts: dict[str, Tree] = {}
        for key, part in space.spaces.items():
            parts[key], mask = _moved(part, action[key], mask)
        return parts, mask
    if isinstance(space, spaces.Tuple):
        several: list[Tree] = []
        for part, own in zip(space.spaces, action, strict=True):
            moved, mask = _moved(part, own, mask)
            several.append(moved)
        return tuple(several), mask
    options = choices(space)
    if not options:
        return action, mask[prod(space.shape or ()) :]
    first: Any = getattr(space, "start", 0)
    chosen = np.array(action - first).reshape(-1)
    for at, count in enumerate(options):
        if not mask[chosen[at]]:
            left = np.flatnonzero(mask[:count])
            chosen[at] = left[chosen[at] % len(left)]
        mask = mask[count:]
    if isinstance(space, spaces.Discrete):
        return int(chosen[0]) + int(first), mask
    return (chosen.reshape(np.shape(action)) + first).astype(space.dtype), mask
