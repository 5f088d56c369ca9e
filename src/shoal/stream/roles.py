"""Roles: which rows each policy plays, who acts for them, and what its rows carry from step to step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from shoal.learn.acting import make_actor
from shoal.learn.publishing import Frozen
from shoal.learn.taken import inverse_of
from shoal.memory.slab import Slab
from shoal.types import ActedStep, ConfigError, assign, map_tree, select

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray
    from torch import nn

    from shoal.envs.vec_env import VecEnv
    from shoal.learn.acting import Acting, Actor
    from shoal.learn.publishing import Published
    from shoal.types import Bools, Spec, Tree

Cast: TypeAlias = Mapping[str, slice | Sequence[int]]
"""The rows of each role: a slice, or their numbers."""
Rows: TypeAlias = "slice | np.ndarray[Any, np.dtype[np.int64]]"
Policies: TypeAlias = "Published | nn.Module | Mapping[str, Published | nn.Module]"
"""Who plays: a learner, a module that nobody trains, or one of them for each role."""


@dataclass(slots=True)
class Role:
    """A policy's rows, and who acts for them."""

    name: str
    rows: Rows
    source: Published
    """Whose weights act."""
    actor: Actor
    start: Bools
    """Rows whose next observation is the first of an episode [n]."""
    version: int
    """The version that the actor has; -1 where it has none of them."""
    spec: Spec
    """What its rows observe and do."""
    keeps_states: bool = False
    """Whether what is recorded of a step holds the recurrent state before it."""
    keeps_executed: bool = False
    """Whether what rows did is recorded where an action guard changed what the policy chose."""
    values: bool = True
    """Whether the value of what follows each step is wanted: `next_value` of its rollouts."""
    held: Slab | None = None
    """Where not all rows always act: what each row saw and did in its last step, until that is complete."""
    inverse: Callable[[Tree], Tree] | None = None
    """From what rows did to what the policy would have kept of it, once it was asked for."""
    final_values: list[tuple[int, NDArray[np.intp], NDArray[np.float32]]] = field(
        default_factory=list
    )
    """Of truncated episodes in this rollout: the step, the rows, the values of their last observations."""

    @classmethod
    def of(
        cls,
        name: str,
        rows: Rows,
        source: Published,
        env: VecEnv,
        acting: Acting,
        *,
        in_turns: bool,
    ) -> Role:
        """A role of rows of `env`; `in_turns`: not all of them always act.

        Raises:
            ConfigError: a policy with a memory in a game of turns.
        """
        numbers = np.arange(env.num_rows, dtype=np.int64)[rows]
        count = len(numbers)
        numbers += acting.first_row
        actor = make_actor(source.policy, env.spec, count, acting, rows=numbers)
        if env.spec.in_turns and actor.state is not None:
            raise ConfigError(
                f"{env.spec.env_id} is a game of turns, which policies with a memory cannot play yet"
            )
        held = Slab(env.spec, 1, count) if in_turns else None
        start = np.ones(count, np.bool_)
        return cls(
            name,
            rows,
            source,
            actor,
            start,
            source.version,
            env.spec,
            keeps_states=acting.states,
            keeps_executed=acting.executed,
            values=acting.values,
            held=held,
        )

    def kept(self, action: Tree) -> Tree:
        """What the policy would have chosen to have its rows do this [n, ...].

        ConfigError for a custom distribution without `from_env(action)`.
        """
        if self.inverse is None:
            acting = self.actor.acting
            policy = self.actor.snapshot.policy
            self.inverse = inverse_of(policy, self.spec, acting.device)
        return self.inverse(action)

    @property
    def count(self) -> int:
        """Rows, n."""
        return len(self.start)

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Which rows they are [n]."""
        return self.actor.rows

    def refresh(self) -> None:
        """Takes the newest version over, if the actor does not have it."""
        if self.version != self.source.version:
            source = self.source
            only = source.subsets.since(self.version, source.version)
            self.actor.update(source.policy, source.flat, only)
            self.version = source.version

    def local(self, group: slice) -> tuple[slice, Rows] | None:
        """Where the rows shared with `group` stand: counted in this role, and in the group."""
        if isinstance(self.rows, np.ndarray):  # a cast has one group, of all rows
            return slice(0, len(self.rows)), self.rows
        first = max(self.rows.start, group.start)
        last = min(self.rows.stop, group.stop)
        if first >= last:
            return None
        mine = slice(first - self.rows.start, last - self.rows.start)
        theirs = slice(first - group.start, last - group.start)
        return mine, theirs

    def recurrent_state(self) -> Tree:
        """A copy of the recurrent state; None for a policy without one."""
        if self.actor.state is None:
            return None
        return map_tree(torch.clone, self.actor.state)

    def state_of(self, rows: slice) -> Tree:
        """A copy of the recurrent state of some rows as arrays, where it is recorded; else None."""
        if not self.keeps_states:
            return None
        return map_tree(_copied, select(self.actor.state, rows))

    def explore(self, epsilon: ArrayLike) -> None:
        """How often the rows of a Q-network take any action instead of the best: a number, or [n]."""
        if self.actor.epsilon is None:
            self.actor.epsilon = np.zeros(len(self.start), np.float32)
        self.actor.epsilon[:] = epsilon

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        saved: dict[str, Any] = {
            "start": self.start.copy(),
            "row_step": self.actor.row_step.copy(),
            "recurrent": self.recurrent_state(),
        }
        if self.actor.epsilon is not None:
            saved["epsilon"] = self.actor.epsilon.copy()
        if self.held is not None:
            held = self.held.acted(0, np.arange(len(self.start)))
            saved["held"] = {name: getattr(held, name) for name in held.__slots__}
        return saved

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continues from `saved`; the weights are taken over before the next step."""
        self.start[:] = saved["start"]
        self.actor.row_step[:] = saved["row_step"]
        if self.actor.state is not None:
            recurrent = map_tree(torch.as_tensor, saved["recurrent"])
            assign(self.actor.state, slice(None), recurrent)
        if "epsilon" in saved:
            self.explore(saved["epsilon"])
        if self.held is not None:
            everyone = np.arange(len(self.start))
            self.held.write_acted(0, everyone, ActedStep(**saved["held"]))
        self.version = -1


def _copied(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.numpy(force=True).copy()


def published(source: Published | nn.Module) -> Published:
    """A module that nobody trains, as something whose weights have versions."""
    return Frozen(source) if isinstance(source, torch.nn.Module) else source


def casting(
    policies: Policies, cast: Cast | None, num_rows: int
) -> tuple[dict[str, Published], dict[str, Rows]]:
    """Who plays and which rows, by role; without a cast there is one role that plays all rows.

    Raises:
        ConfigError: roles without policies or rows, or rows that none or several roles play.
    """
    if isinstance(policies, torch.nn.ModuleDict):
        policies = dict(policies.items())
    if cast is None:
        if isinstance(policies, Mapping):
            raise ConfigError(
                "several policies need a cast: which rows does each role play?"
            )
        return {"all": published(policies)}, {"all": slice(0, num_rows)}
    if not isinstance(policies, Mapping) or set(policies) != set(cast):
        raise ConfigError(
            f"the cast has the roles {sorted(cast)}; give a dict with one policy for each"
        )
    places = {role: _places(rows, num_rows) for role, rows in cast.items()}
    _check_owners(places, num_rows)
    return {role: published(policies[role]) for role in cast}, places


def _check_owners(places: Mapping[str, Rows], num_rows: int) -> None:
    owners = np.zeros(num_rows, np.int64)
    for role, rows in places.items():
        chosen = np.arange(num_rows)[rows]
        if not len(chosen):
            raise ConfigError(f"role {role!r} plays no rows")
        np.add.at(owners, chosen, 1)
    if not (owners == 1).all():
        row = int(np.argmax(owners != 1))
        raise ConfigError(
            f"{owners[row]} roles play row {row} of {num_rows}; the cast must name each row once"
        )


def _places(rows: slice | Sequence[int], num_rows: int) -> Rows:
    """A slice of neighbors, or the numbers of any other rows."""
    if isinstance(rows, slice):
        first, last, step = rows.indices(num_rows)
        if step == 1 and (rows.stop is None or rows.stop <= num_rows):
            return slice(first, last)
        rows = range(first, max(first, rows.stop or last), step)
    numbers = np.array(rows, np.int64)
    if numbers.ndim != 1 or (numbers < 0).any() or (numbers >= num_rows).any():
        raise ConfigError(f"a role's rows lie in 0..{num_rows - 1}, got {rows}")
    return numbers
