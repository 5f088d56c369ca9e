"""Where the masks in an observation lie, for what reads them without the environment: exports."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shoal.envs.masks import KEY, in_observation
from shoal.types import choices, leaf_spaces

if TYPE_CHECKING:
    from shoal.types import Spec


class Place(NamedTuple):
    """Numbers of an observation, side by side, that say which options of an action may be chosen."""

    observed: int
    """The number of the observation's leaf; all of it is such numbers."""
    action: int
    """The number of the action's leaf."""
    first: int
    """The first option of that leaf that they are of."""
    size: int
    """How many they are."""


def observed_places(spec: Spec) -> list[Place]:
    """The masks that the observations hold, in their order; [] where they hold none.

    An action's leaf has one array for all of its choices, or a tuple with one for each, or is free.
    """
    if not in_observation(spec):
        return []
    found: list[Place] = []
    for action, (path, space) in enumerate(leaf_spaces(spec.action_space)):
        if not choices(space):
            continue
        at, first = (KEY, *path), 0
        for observed, leaf in enumerate(spec.observation.leaves):
            if leaf.path[: len(at)] == at:
                size = int(np.prod(leaf.shape))
                found.append(Place(observed, action, first, size))
                first += size
    return found
