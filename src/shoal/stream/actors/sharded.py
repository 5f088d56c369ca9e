"""Actors that keep their steps: they say how many there are, and batches are drawn from all their memories as one."""

from __future__ import annotations

import logging
from collections import deque
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.memory.pieces import Pieces
from shoal.memory.replay_block import NO_STATE, RecordForm
from shoal.stream.actors.collecting import Actors
from shoal.stream.actors.distant import DistantActor
from shoal.stream.actors.host import MOST_BYTES
from shoal.stream.actors.messages import Op
from shoal.stream.actors.parts import Part, joined_episodes
from shoal.stream.actors.pool import ActorPool
from shoal.types import ConfigError
from shoal.types.room import GIB

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from shoal.stream.actors.rows import ActorRows
    from shoal.stream.actors.shard import Sharding
    from shoal.stream.in_process import Wanted
    from shoal.stream.meter import Meter
    from shoal.types import Episodes

_LOG = logging.getLogger(__name__)
SAVED = 0.9
"""The share of a message that a memory may take; rows have the rest."""


class ShardPool(ActorPool):
    """Actors of which each one that fails takes its shard along."""

    lost: Callable[[int], None] | None = None
    """Told of an actor that another one takes the place of, or nobody."""

    def settle(self, number: int, error: Exception) -> None:
        """Does what `on_fault` says of an actor that failed."""
        if self.lost is not None and self.env.settings.on_fault != "raise":
            self.lost(number)
        super().settle(number, error)


class ShardedActors(Actors):
    """Rollouts that stay where they were collected. `slabs` hold nothing."""

    native = True
    """A rollout counts whatever its slabs hold."""

    def __init__(self, env: ActorRows, wanted: Wanted, meter: Meter) -> None:
        """As of `rollouts`; ConfigError where actors would run ahead."""
        assert wanted.sharding is not None
        _check_sizes(env, wanted.sharding)
        super().__init__(env, wanted, meter)
        self.sharding: Sharding = wanted.sharding
        count = len(env.processes)
        self.seed = wanted.acting.seed
        self.inserted: dict[str, int] = {}
        """Steps of each role in the last rollout."""
        self.masses = {name: np.zeros(count) for name in self.sharding.agents}
        """For each agent, what the steps of each shard weigh."""
        self.counts = np.zeros(count, np.int64)
        """How many steps of each can be drawn."""
        self.generations = np.zeros(count, np.int64)
        """How often each was lost."""
        self.num_lost = 0
        """Steps that went with lost shards."""
        self._pending: list[deque[tuple[int, str]]] = [deque() for _ in range(count)]
        """Of each actor: what it was told of priorities and has not answered, and whose they are."""

    @property
    def num_shards(self) -> int:
        """One of each actor."""
        return len(self.counts)

    def collect(self) -> Episodes:
        """Has every actor collect and keep a rollout; the episodes that ended. EndingError as of any actors."""
        self.meter.ending.check()
        self.settle()
        begun = self.meter.clock()
        with self.meter.show("publishing"):
            self._ask()
        parts: dict[int, Part] = {}
        self.inserted = {}
        for number, rows in enumerate(self.env.rows):
            with self.meter.show("waiting"):
                part = self._part_of(number)
            if part is not None:
                parts[rows.start] = part
                self._take(number, part.shard)
        self._take_parts()
        self._account(parts, begun)
        self._rollout += 1
        return joined_episodes(parts, self.env.spec.info_keys)

    def settle(self) -> None:
        """Hears what shards weigh since they were told of priorities."""
        for number, pending in enumerate(self._pending):
            while pending:
                task, agent = pending[0]
                said = self._answer(number, task)
                if said is None:
                    break  # it is lost, and nothing is pending any more
                pending.popleft()
                self.masses[agent][number], self.counts[number] = said["mass"]

    def sample(
        self, counts: NDArray[np.int64], asked: Mapping[str, Any]
    ) -> list[tuple[int, dict[str, Any]]] | None:
        """What shards answer that are drawn from, as many transitions from each as `counts` says.

        None where one of them was lost: what the others hold is to be looked at anew.
        """
        drawn = np.flatnonzero(counts).tolist()
        region = self.ahead + 2
        tasks: list[int] = []
        for number in drawn:
            own = {"count": int(counts[number]), "region": region, **asked}
            tasks.append(self.env.processes[number].ask_shard(Op.SAMPLE, own))
        found: list[tuple[int, dict[str, Any]]] = []
        whole = True
        for number, task in zip(drawn, tasks, strict=True):
            said = self._answer(number, task)
            if said is None:
                whole = False
            else:
                found.append((number, said))
        return found if whole else None

    def prioritize(self, agent: str, number: int, keys: Any, errors: Any) -> None:
        """Tells a shard the errors of an agent's transitions; nobody waits for it."""
        told = {"agent": agent, "keys": keys, "errors": errors}
        task = self.env.processes[number].ask_shard(Op.PRIORITIZE, told)
        self._pending[number].append((task, agent))

    def state(self) -> dict[str, Any]:
        """All that `restore` needs: what each shard holds too."""
        self.settle()
        state = super().state()
        for number, own in state["actors"].items():
            if not own:
                continue
            # An actor in the place of another one has other records of the same numbers.
            memory = own["shard"]["memory"]
            begun = self.pool.restarts[int(number)]
            named = {f"{begun}-{name}": x for name, x in memory["chunks"].items()}
            memory["chunks"] = Pieces(named)
        return state | {
            "masses": {name: own.copy() for name, own in self.masses.items()},
            "counts": self.counts.copy(),
            "lost": self.num_lost,
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`; a sentence for each episode that could not be continued."""
        if "masses" not in state:
            raise ConfigError(
                "the checkpoint is of a run whose steps the learner keeps; go on with replay.shards=false"
            )
        self.settle()
        actors = {n: _plain(own) if own else own for n, own in state["actors"].items()}
        lost = super().restore(state | {"actors": actors})
        for name, own in self.masses.items():
            own[:] = state["masses"][name]
        self.counts[:] = state["counts"]
        self.num_lost = int(state["lost"])
        for number, own in actors.items():
            if own == {}:
                self._lose(int(number))
        return lost

    def _make_pool(self, wanted: Wanted) -> ActorPool:
        if self.ahead:
            raise ConfigError(
                f"replay.shards: an actor answers when its rollout is over, so with max_staleness={self.ahead} every "
                'batch would wait for one; set max_staleness=0, or schedule="sync"'
            )
        pool = ShardPool(self.env, wanted, self.ahead, self.meter)
        pool.lost = self._lose
        return pool

    def _staleness(self) -> NDArray[np.int64]:
        """Of every step that counts: actors wait for the newest weights."""
        return np.zeros(sum(self.inserted.values()), np.int64)

    def _take(self, number: int, said: Mapping[str, Any]) -> None:
        """What an actor has kept."""
        for name, steps in said["inserted"].items():
            self.inserted[name] = self.inserted.get(name, 0) + int(steps)
        for name, (mass, count) in said["masses"].items():
            self.masses[name][number], self.counts[number] = mass, count

    def _answer(self, number: int, task: int) -> dict[str, Any] | None:
        """What an actor answers; None where it is gone, and another takes its place or nobody."""
        process, timeout_s = self.env.processes[number], self.env.settings.timeout_s
        try:
            return process.shard_answer(task, timeout_s)
        except Exception as error:  # the environment's own too
            self.pool.settle(number, error)
            return None

    def _lose(self, number: int) -> None:
        """Counts what a lost shard held; its keys mean nothing any more."""
        gone = int(self.counts[number])
        self.num_lost += gone
        _LOG.warning(
            "the shard of %s is lost: %d steps of %d; sampling goes on without them",
            self.env.processes[number],
            gone,
            int(self.counts.sum()),
        )
        self.counts[number] = 0
        for own in self.masses.values():
            own[number] = 0
        self.generations[number] += 1
        self._pending[number].clear()
        self.meter.note("replay/steps_lost", float(self.num_lost))


def _check_sizes(env: ActorRows, how: Sharding) -> None:
    """ConfigError where what an actor elsewhere keeps would not come in one message when the run is saved."""
    form = RecordForm.of(env.spec, NO_STATE)
    for process, rows in zip(env.processes, env.rows, strict=True):
        num_rows = rows.stop - rows.start
        priorities = 4 * num_rows * how.slots * len(how.agents) if how.alpha else 0
        nbytes = form.nbytes(num_rows, how.slots) + priorities
        if isinstance(process, DistantActor) and nbytes > SAVED * MOST_BYTES:
            least = ceil(nbytes / (SAVED * MOST_BYTES))
            raise ConfigError(
                f"replay.shards: {process} would keep {nbytes / GIB:.1f} GiB, more than the {MOST_BYTES / GIB:.1f} GiB "
                f"that it can send when the run is saved; set actors to {least} times as many, or replay.buffer_size "
                "to less"
            )


def _plain(saved: Mapping[str, Any]) -> dict[str, Any]:
    """An actor's state as it saved it."""
    shard = saved["shard"]
    chunks = {
        name.partition("-")[2]: np.asarray(x)
        for name, x in shard["memory"]["chunks"].arrays.items()
    }
    memory = {**shard["memory"], "chunks": chunks}
    return {**saved, "shard": {**shard, "memory": memory}}
