"""A shard: the steps of an actor's own rows, kept in its process, and who draws from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.memory.arena import ALIGN
from shoal.memory.pieces import Pieces
from shoal.memory.reader import Mixing, Prioritized
from shoal.memory.replay import ReplayMemory
from shoal.memory.shard_reader import ShardReader
from shoal.types import map_tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from shoal.memory.slab import Slab
    from shoal.stream.in_process import InProcess
    from shoal.types import Transitions

DRAWN = (
    "obs",
    "action",
    "reward",
    "discount",
    "next_obs",
    "steps",
    "weight",
    "version",
    "key",
    "action_mask",
    "next_action_mask",
)
"""Of a batch: what a memory says of transitions."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What an agent draws."""

    batch_size: int
    n_step: int
    gamma: float


@dataclass(frozen=True, slots=True)
class Sharding:
    """How each actor keeps the steps of its rows."""

    slots: int
    """Records of each row."""
    reward_scale: float
    """What rewards are multiplied by before they are kept."""
    agents: dict[str, Drawn]
    """Who draws from all of them, by name."""
    alpha: float = 0.0
    """Exponent of the priorities; 0: every step is as likely."""
    recency: float = 1.0


class Shard:
    """The memory of an actor's rows, with a reader for each agent."""

    def __init__(self, collects: InProcess, how: Sharding) -> None:
        """An empty one, for what `collects` leaves in its slabs."""
        env, self._acting, self._how = collects.env, collects.acting, how
        self.memory = ReplayMemory(
            env.spec, env.num_rows, capacity=how.slots * env.num_rows
        )
        first = self._acting.first_row
        self._places = {
            role.name: int(role.numbers[0]) - first for role in collects.roles
        }
        """Of each role, the first of its rows here."""
        self._readers = self._made()

    @property
    def room(self) -> int:
        """Bytes of the largest batch."""
        return max(_nbytes(reader.batch) for reader in self._readers.values())

    def insert(self, slabs: Sequence[Slab]) -> dict[str, Any]:
        """Keeps a rollout; how many steps of each role there were, and what all that is kept weighs."""
        inserted: dict[str, int] = {}
        scale = np.float32(self._how.reward_scale)
        for (name, first_row), slab in zip(self._places.items(), slabs, strict=True):
            if scale != 1:
                slab.reward *= scale
            inserted[name] = self.memory.insert(slab, first_row=first_row)
        masses = {name: list(own.mass) for name, own in self._readers.items()}
        return {"inserted": inserted, "masses": masses}

    def sample(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """`count` transitions for an agent, and what a weight of 1 stands for."""
        reader = self._readers[asked["agent"]]
        horizon = int(asked["n_step"]), float(asked["gamma"])
        if horizon != (reader.n_step, reader.gamma):
            reader.set_horizon(n_step=horizon[0], gamma=horizon[1])
        mass, _ = reader.mass
        batch = reader.draw(int(asked["count"]), asked["beta"])
        return {"batch": as_arrays(batch), "least": reader.least_chance * mass}

    def prioritize(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Gives transitions of an agent's draws priorities by their errors; what all weigh then."""
        reader = self._readers[asked["agent"]]
        reader.prioritize(asked["keys"], asked["errors"])
        return {"mass": list(reader.mass)}

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as plain trees."""
        saved = self.memory.state()
        saved["chunks"] = dict(saved["chunks"].arrays)
        readers = {name: reader.state() for name, reader in self._readers.items()}
        return {"memory": saved, "readers": readers}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from `state`; ConfigError where it is of other settings, or damaged."""
        memory = dict(state["memory"])
        self.memory.restore(memory | {"chunks": Pieces(memory["chunks"])})
        self._readers = self._made()
        for name, reader in self._readers.items():
            reader.restore(state["readers"][name])

    def _made(self) -> dict[str, ShardReader]:
        """A reader for each agent, with random numbers of its own."""
        how, acting = self._how, self._acting
        readers: dict[str, ShardReader] = {}
        for number, (name, own) in enumerate(how.agents.items()):
            seeds = [acting.seed % 2**64, acting.first_row, number]
            seed = np.random.SeedSequence(seeds).generate_state(1, np.uint64)
            readers[name] = ShardReader(
                self.memory,
                batch_size=own.batch_size,
                n_step=own.n_step,
                gamma=own.gamma,
                seed=int(seed[0]),
                prioritized=Prioritized(how.alpha) if how.alpha else None,
                mixing=Mixing(recency=how.recency),
            )
        return readers


def as_arrays(batch: Transitions) -> dict[str, Any]:
    """What a memory says of transitions, as arrays that share their memory; without masks where there are none."""
    found: dict[str, Any] = {}
    for name in DRAWN:
        value = getattr(batch, name)
        if value is not None:
            found[name] = map_tree(_array, value)
    return found


def _array(leaf: torch.Tensor | NDArray[Any]) -> NDArray[Any]:
    return leaf.numpy() if isinstance(leaf, torch.Tensor) else leaf


def _nbytes(batch: Transitions) -> int:
    total = 0

    def add(x: NDArray[Any]) -> None:
        nonlocal total
        total += x.nbytes + ALIGN

    for tree in as_arrays(batch).values():
        map_tree(add, tree)
    return total
