"""Shards as one memory: a step is drawn as it would be if all of them lay in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.memory.batches import allocate
from shoal.memory.reader import check_fits
from shoal.memory.replay_block import NO_STATE, RecordForm
from shoal.stream.actors.rows import ActorRows
from shoal.stream.actors.shard import as_arrays
from shoal.stream.actors.sharded import ShardedActors
from shoal.stream.rewards import Rewards
from shoal.stream.rollouts import Rollouts
from shoal.types import ConfigError, assign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from shoal.envs.vec_env import VecEnv
    from shoal.memory.replay_steps import WholeSteps
    from shoal.memory.slab import Slab
    from shoal.stream.in_process import Wanted
    from shoal.stream.meter import Meter
    from shoal.types import Transitions


def sharded(env: VecEnv, wanted: Wanted, meter: Meter) -> Rollouts:
    """Rollouts of which actors keep the steps, as `wanted.sharding` says, rewards multiplied there.

    Raises:
        ConfigError: the rows live in no actors, or these would run ahead.
    """
    if not isinstance(env, ActorRows):
        raise ConfigError("shards are memories of actors, and these rows live in none")
    return Rollouts(
        env,
        wanted.num_steps,
        ShardedActors(env, wanted, meter),
        acting=wanted.acting,
        meter=meter,
        rewards=Rewards(),
        alone=wanted.cast is None,
    )


class NothingLeftError(RuntimeError):
    """All shards were lost; rows must step before something can be drawn."""


class ShardedMemory:
    """What the memories of actors hold together."""

    file = gone = None
    """It lies in processes, and loses nothing unless one is lost."""

    def __init__(self, actors: ShardedActors) -> None:
        """Of all actors."""
        self.actors, spec = actors, actors.env.spec
        self.num_rows, self.slots = actors.env.num_rows, actors.sharding.slots
        self.form = RecordForm.of(spec, NO_STATE)
        self._names = {int(role.numbers[0]): role.name for role in actors.roles}

    def __len__(self) -> int:
        """Steps that can be drawn."""
        return int(self.actors.counts.sum())

    def insert(self, block: Slab | WholeSteps, *, first_row: int = 0) -> int:
        """How many steps of the role whose rows begin there actors have kept of the last rollout."""
        return self.actors.inserted.get(self._names[first_row], 0)

    def clear(self) -> None:
        """Nothing is left over of another run."""

    def state(self) -> dict[str, Any]:
        """How many shards there are: their state is the actors'."""
        return {"shards": self.actors.num_shards}

    def restore(self, state: Mapping[str, Any]) -> None:
        """ConfigError where there were more or fewer, or none."""
        if state.get("shards") != self.actors.num_shards:
            raise ConfigError(
                f"the checkpoint is of {state.get('shards', 'no')} shards, and this run has {self.actors.num_shards}"
            )


class ShardedReader:
    """Draws an agent's batches from all shards: first how many from each, by what its steps weigh, then there.

    P(i) = w_i / sum_j w_j over all steps of all shards, w = 1 or p^alpha.
    """

    def __init__(self, memory: ShardedMemory, agent: str, seed: int) -> None:
        """Of an agent whose settings the actors know; `seed`: of how many are drawn from each."""
        self._actors, self.memory = memory.actors, memory
        own = self._actors.sharding.agents[agent]
        self.agent, self.batch_size = agent, own.batch_size
        self.n_step, self.gamma = own.n_step, own.gamma
        self.set_horizon(n_step=own.n_step, gamma=own.gamma)
        self._seed, self._drawn = seed % 2**64, 0
        self.batch = allocate(memory, self.batch_size)
        self._arrays = as_arrays(self.batch)
        self._generations = self._actors.generations.copy()
        """Of each shard, when the last batch was drawn."""

    def set_horizon(self, *, n_step: int, gamma: float) -> None:
        """Sums other rewards, or with another discount, from the next batch on.

        Raises:
            ConfigError: the memory has no room for so many steps; nothing is changed.
        """
        size = self.batch_size
        check_fits(self.memory, batch_size=size, n_step=n_step, gamma=gamma)
        self.n_step, self.gamma = n_step, gamma

    def sample(self, *, beta: float | None = None) -> Transitions:
        """The next batch; its arrays are written anew by the next call.

        Args:
            beta: exponent of the weights, where there are priorities.

        Raises:
            NothingLeftError: no shard holds a step that can be drawn.
            EnvError: an actor is gone, and nothing may take its place.
        """
        asked = {
            "agent": self.agent,
            "beta": beta,
            "n_step": self.n_step,
            "gamma": self.gamma,
        }
        with self._actors.meter.measure("transfer"):
            while (found := self._sampled(asked)) is None:
                continue
            self._merge(found, beta)
        self._generations[:] = self._actors.generations
        return self.batch

    def prioritize(
        self, keys: NDArray[np.int64], errors: torch.Tensor | NDArray[np.float32]
    ) -> None:
        """Makes |error| + epsilon the priority of each key of the last batch; nobody waits until it is.

        Keys of records that were overwritten since, or of a lost shard, are left out.

        Raises:
            ValueError: an error is NaN or infinite; nothing is changed.
        """
        if isinstance(errors, torch.Tensor):
            errors = errors.detach().cpu().numpy()
        numbers = np.ascontiguousarray(errors, np.float32)
        if not np.isfinite(numbers).all():
            at = int(np.flatnonzero(~np.isfinite(numbers))[0])
            raise ValueError(f"the error at {at} is not finite")
        own, shards = np.divmod(keys, self._actors.num_shards)
        there = self._generations == self._actors.generations
        for number in np.unique(shards).tolist():
            if there[number]:
                at = shards == number
                self._actors.prioritize(self.agent, number, own[at], numbers[at])

    def state(self) -> dict[str, Any]:
        """What `restore` needs beside the actors' state."""
        return {"drawn": self._drawn}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`, when the actors were restored."""
        self._drawn = int(state["drawn"])

    def _sampled(
        self, asked: dict[str, Any]
    ) -> list[tuple[int, dict[str, Any]]] | None:
        """The parts of a batch; None where a shard was lost meanwhile."""
        self._actors.settle()
        masses = self._actors.masses[self.agent]
        if not masses.any():
            raise NothingLeftError(
                "nothing can be drawn: no actor holds two records of one row"
            )
        return self._actors.sample(self._shared_out(masses), asked)

    def _shared_out(self, masses: NDArray[np.float64]) -> NDArray[np.int64]:
        """How many of a batch fall to each shard: with priorities one draw of each equal part, as in one memory."""
        rng = np.random.default_rng([self._seed, self._drawn])
        self._drawn += 1
        position = rng.random(self.batch_size)
        if self._actors.sharding.alpha:
            position = (np.arange(self.batch_size) + position) / self.batch_size
        ends = np.cumsum(masses)
        found = np.searchsorted(ends, position * ends[-1], side="right")
        last = np.flatnonzero(masses)[-1]  # rounding may lead past the end
        return np.bincount(np.minimum(found, last), minlength=len(masses))

    def _merge(
        self, found: list[tuple[int, dict[str, Any]]], beta: float | None
    ) -> None:
        """Writes the parts one behind the other; weights and keys become those of all shards together."""
        least = min(said["least"] for _, said in found)
        first, shards = 0, self._actors.num_shards
        for number, said in found:
            part = said["batch"]
            if beta is not None:
                # A part's weight is 1 where its own chance is least, and the batch's where that of all is.
                part["weight"] = part["weight"] * (said["least"] / least) ** -beta
            part["key"] = part["key"] * shards + number
            at = slice(first, first + len(part["key"]))
            for name, array in self._arrays.items():
                assign(array, at, part[name])
            first = at.stop
        self.batch.error.zero_()
