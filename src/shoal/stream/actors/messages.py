"""What a learner and an actor say to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from shoal.envs.vec_env import Capabilities
    from shoal.learn.acting import Acting
    from shoal.stream.actors.shard import Sharding
    from shoal.stream.schedules import Schedule
    from shoal.types import Spec

WORD = "actor"
"""What an actor is called in messages."""


class Op(IntEnum):
    """What a learner asks for; all but WEIGHTS, PAUSE and GO_ON have an answer."""

    BEGIN = 1
    WEIGHTS = 2
    COLLECT = 3
    STATE = 4
    RESTORE = 5
    CLOSE = 6
    SAMPLE = 7
    PRIORITIZE = 8
    KEPT = 9
    PAUSE = 10
    GO_ON = 11


STATE_REGION, KEPT_REGIONS = -3, (-2, -1)
"""Regions of the arena, its last ones: for states that are asked for, and for those that an actor keeps by itself."""
STATE_REGIONS = 3


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a new process is told."""

    make: bytes
    """Packed: makes the rows of so many environments."""
    number: int
    num_envs: int


@dataclass(frozen=True, slots=True)
class Rows:
    """What it answers: its rows."""

    spec: Spec
    num_rows: int
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class Beginning:
    """How it is to collect."""

    policies: dict[str, nn.Module]
    """By role."""
    cast: dict[str, list[int]] | None
    """Of its own rows, counted from 0; None: one role plays all."""
    num_steps: int
    schedule: Schedule
    acting: Acting
    ahead: int
    """Rollouts that may be collected before the one that is learned from."""
    weight_bytes: int
    """Of all policies."""
    recorded: bool = False
    """Whether each rollout comes with what the actor did, for a timeline."""
    sharding: Sharding | None = None
    """How it keeps its steps, where they do not travel."""

    @property
    def weight_regions(self) -> int:
        """Versions that may be on their way or read; the arena's first regions are theirs."""
        return self.ahead + 2


@dataclass(frozen=True, slots=True)
class Begun:
    """What it answers."""

    spec: Spec
    """As the first reset showed it."""
    in_turns: bool
    sizes: tuple[int, ...]
    """Of the arena's regions."""
    native: bool = False
    """Whether whole rollouts are native calls."""


@dataclass(frozen=True, slots=True)
class Request:
    """One rollout."""

    region: int
    """Where it is to lie."""
    epsilon: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Of roles that explore from now on."""
    values: dict[str, bool] = field(default_factory=dict)
    """Whether `next_value` is wanted, by role."""
