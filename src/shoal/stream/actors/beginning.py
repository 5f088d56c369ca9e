"""How actors begin: which roles they have rows of, and what they are told."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from shoal.envs.workers.pipe import pack
from shoal.stream.actors.messages import Beginning
from shoal.stream.actors.weights import Weights
from shoal.stream.schedules import Async, Sync
from shoal.types import ConfigError, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray
    from torch import nn

    from shoal.learn.publishing import Published
    from shoal.stream.in_process import Wanted

ANOTHER_SEED = 1_000_003
"""What is added to the seed of rows that begin anew in another process."""


@dataclass(slots=True)
class ActedRole:
    """Rows in actors, and whose weights act in them."""

    name: str
    source: Published
    numbers: NDArray[np.int64]
    """Which rows they are [n]."""
    values: bool
    """Whether the value of what follows each step is wanted."""
    epsilon: NDArray[np.float32] | None = None
    """How often they explore, where the policy is a Q-network."""

    @property
    def count(self) -> int:
        """Rows, n."""
        return len(self.numbers)

    def explore(self, epsilon: ArrayLike) -> None:
        """How often the rows of a Q-network take any action instead of the best: a number, or [n]."""
        if self.epsilon is None:
            self.epsilon = np.zeros(self.count, np.float32)
        self.epsilon[:] = epsilon

    def columns(self, rows: slice) -> NDArray[np.intp]:
        """Which of its rows lie among these."""
        inside = (self.numbers >= rows.start) & (self.numbers < rows.stop)
        return np.flatnonzero(inside)


def beginning_of(
    wanted: Wanted,
    roles: Sequence[ActedRole],
    rows: slice,
    *,
    num_actors: int,
    ahead: int,
    restarts: int,
    recorded: bool,
) -> Beginning:
    """What an actor of `rows` is told, whose rows began anew `restarts` times; ConfigError as of `Beginning.policies`.

    Args:
        wanted: what all actors are to collect.
        roles: of all rows.
        rows: its own.
        num_actors: who share the threads.
        ahead: rollouts that may be collected before the one that is learned from.
        restarts: of this actor.
        recorded: whether each rollout comes with what the actor did.

    Raises:
        ConfigError: a policy cannot be pickled.
    """
    own = [role for role in roles if len(role.columns(rows))]
    acting = replace(
        wanted.acting,
        seed=wanted.acting.seed + ANOTHER_SEED * restarts,
        device=torch.device("cpu"),
        num_threads=max(1, wanted.acting.num_threads // num_actors),
        first_row=rows.start,
    )
    cast = {
        role.name: (role.numbers[role.columns(rows)] - rows.start).tolist()
        for role in own
    }
    return Beginning(
        policies={role.name: _own_copy(role.source.policy) for role in own},
        cast=None if wanted.cast is None else cast,
        num_steps=wanted.num_steps,
        schedule=Sync() if isinstance(wanted.schedule, Async) else wanted.schedule,
        acting=acting,
        ahead=ahead,
        weight_bytes=sum(Weights.of(role.source).nbytes for role in own),
        recorded=recorded,
        sharding=wanted.sharding,
    )


def _own_copy(policy: nn.Module) -> nn.Module:
    """A policy as it travels: on the CPU, its parameters apart, without gradients.

    Raises:
        ConfigError: it cannot be pickled.
    """
    own = copy.deepcopy(policy).cpu().requires_grad_(requires_grad=False)
    for parameter in own.parameters():
        parameter.data = parameter.data.clone()
    try:
        pack(own)
    except Exception as error:
        raise ConfigError(
            f"the policy cannot be sent to actors: {type(error).__name__}: {text_of(error)}; set actors=0, or make it "
            "of what can be pickled"
        ) from error
    return own
