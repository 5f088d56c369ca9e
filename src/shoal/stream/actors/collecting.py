"""Rollouts that actors collect: their parts are joined, and equal those of one process bit for bit."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.stream.actors.parts import Joining, Part, joined_episodes
from shoal.stream.actors.pool import ActorPool
from shoal.stream.actors.standing import StandingActors
from shoal.stream.actors.states import restore_to, state_of
from shoal.stream.in_process import slab_of
from shoal.stream.schedules import Async

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.memory.slab import Slab
    from shoal.stream.actors.rows import ActorRows
    from shoal.stream.in_process import Wanted
    from shoal.stream.meter import Meter
    from shoal.types import Episodes, Tree


class Actors:
    """Rollouts into slabs, one a role, by all actors of an environment's rows.

    Rollout j is made of one part of each actor. When it is asked for, actors are asked for part j + k (k:
    `max_staleness`) with the weights of that moment or newer ones, so that nothing is learned from more than k rollouts
    later, and nothing is collected to be thrown away. With k = 0 all wait for each other, as in `Sync`.
    """

    native = False

    def __init__(self, env: ActorRows, wanted: Wanted, meter: Meter) -> None:
        """As of `rollouts`; the rows are reset here."""
        self.env, self.meter = env, meter
        schedule = wanted.schedule
        self.ahead = schedule.max_staleness if isinstance(schedule, Async) else 0
        self.pool = self._make_pool(wanted)
        meter.halt.parties.append(StandingActors(self.pool))
        self.roles = self.pool.roles
        self.slabs: list[Slab] = [
            slab_of(
                env.spec,
                role.count,
                role.source.policy,
                wanted.num_steps,
                wanted.acting,
                in_turns=self.pool.in_turns,
            )
            for role in self.roles
        ]
        """The memory of the last rollout, one a role; the next one overwrites it."""
        self.states: list[Tree] = [None] * len(self.roles)
        self._latest: list[Tree] = [None] * len(self.roles)
        self._held: list[deque[Part]] = [deque() for _ in env.processes]
        """What of each actor is at hand, and nobody has learned from."""
        self._rollout = 0
        self._published: list[dict[int, int]] = [{} for _ in self.roles]
        """Of each role: in which rollout a version was the newest for the first time."""
        self._returned_s = self.meter.clock()

    def collect(self) -> Episodes:
        """The next rollout, left in `slabs`; the episodes that ended.

        Raises:
            EndingError: nobody waits any longer; `state` has what is under way.
        """
        begun = self.meter.clock()
        self.meter.ending.check()
        with self.meter.show("publishing"):
            self._ask()
        joins = [Joining(slab) for slab in self.slabs]
        parts: dict[int, Part] = {}
        for number, rows in enumerate(self.env.rows):
            with self.meter.show("waiting"):
                part = self._part_of(number)
            with self.meter.show("transfer"):
                self._join(joins, rows, part)
            if part is not None:
                parts[rows.start] = part
        with self.meter.show("transfer"):
            for place, joining in enumerate(joins):
                self.states[place], self._latest[place] = joining.finish()
        self._take_parts()
        self._account(parts, begun)
        self._rollout += 1
        return joined_episodes(parts, self.env.spec.info_keys)

    def latest(self, number: int) -> Tree:
        """What the rows of a role see and have not acted on yet [n, ...]."""
        return self._latest[number]

    def state(self) -> dict[str, Any]:
        """All that `restore` needs: of every actor's rows, of who acts in them, and what nobody has learned from yet.

        That is rollouts that came, and those that actors are in the middle of; they go on with them.
        """
        state = state_of(self.pool)
        held: dict[str, Any] = {}
        for number, parts in enumerate(self._held):
            copied = [part.copied() for part in parts]
            if number in self.pool.numbers:
                copied += self.env.processes[number].arrived()
            held[str(number)] = [part.saved() | {"recorded": None} for part in copied]
        return state | {
            "held": held,
            "rollout": self._rollout,
            "published": [list(versions.items()) for versions in self._published],
        }

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Continues from `state`; a sentence for each episode that could not be continued."""
        for number in self.pool.numbers:
            while self.pool.under_way[number]:
                self.pool.answer(number)
        lost = restore_to(self.pool, state)
        for number, own in enumerate(self._held):
            own.clear()
            own.extend(Part.of_saved(part) for part in state["held"][str(number)])
        self._rollout = int(state["rollout"])
        self._published = [
            {int(version): int(first) for version, first in versions}
            for versions in state["published"]
        ]
        return lost

    def _make_pool(self, wanted: Wanted) -> ActorPool:
        return ActorPool(self.env, wanted, self.ahead, self.meter)

    def _part_of(self, number: int) -> Part | None:
        """An actor's part of this rollout; None where it was dropped. It stays held until all have theirs."""
        held = self._held[number]
        if not held:
            part = self.pool.answer(number)
            if part is None:
                return None
            held.append(part)
        return held[0]

    def _take_parts(self) -> None:
        """Nobody needs the parts of this rollout any more."""
        for held in self._held:
            if held:
                held.popleft()

    def _ask(self) -> None:
        """Has every actor collect as far ahead as it may, with weights as they are now."""
        for role, published in zip(self.roles, self._published, strict=True):
            for version, first in list(published.items()):
                if first < self._rollout - self.ahead - 1:
                    del published[version]
            published.setdefault(role.source.version, self._rollout)
        for number in self.pool.numbers:
            self.pool.look(number)
            self.pool.publish(number)
            while self.pool.under_way[number] + len(self._held[number]) <= self.ahead:
                self.pool.ask(number)

    def _join(self, joins: list[Joining], rows: slice, part: Part | None) -> None:
        for role, joining in zip(self.roles, joins, strict=True):
            columns = role.columns(rows)
            if not len(columns):
                continue
            if part is None:
                joining.lose(columns)
            else:
                joining.put(columns, part.roles[role.name])

    def _account(self, parts: Mapping[int, Part], begun_s: float) -> None:
        """Where the time went, and how many rollouts the weights lie behind that chose the actions."""
        now = self.meter.clock()
        waited_s = now - begun_s
        spent: dict[str, float] = {}
        for name in ("environment", "acting", "waiting"):
            spent[name] = sum(part.seconds[name] for part in parts.values())
        busy_s = spent["environment"] + spent["acting"]
        if self.ahead:
            self.meter.add("waiting", waited_s, shown=False)
        elif busy_s:
            for name in ("environment", "acting"):
                self.meter.add(name, waited_s * spent[name] / busy_s, shown=False)
        self.meter.note("speed/learner_waits", waited_s / (now - self._returned_s))
        self.meter.note("speed/actors_wait", spent["waiting"] / sum(spent.values()))
        if len(parts) > 1:
            self.meter.note("speed/slowest_actor", slowest(parts))
        staleness = self._staleness()
        if len(staleness):
            self.meter.note("actors/staleness", float(staleness.mean()))
            self.meter.note("actors/staleness_max", float(staleness.max()))
        self._returned_s = now

    def _staleness(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Of every step that counts: how many rollouts before this one its weights were published."""
        found: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        for slab, published in zip(self.slabs, self._published, strict=True):
            versions, where = np.unique(slab.version[slab.valid], return_inverse=True)
            behind = [
                self._rollout - published[version] for version in versions.tolist()
            ]
            found.append(np.array(behind, np.int64)[where])
        return np.concatenate(found)


def slowest(parts: Mapping[int, Part]) -> float:
    """How many times as long as the one in the middle (of two: the other) the slowest actor was busy."""
    each = (part.seconds for part in parts.values())
    busy = sorted(seconds["environment"] + seconds["acting"] for seconds in each)
    return busy[-1] / max(busy[(len(busy) - 1) // 2], 1e-9)
