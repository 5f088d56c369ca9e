"""Collector: acts, steps and records into sinks, whatever keeps the steps and whenever the rows act."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from shoal.stream.sights import Sights
from shoal.stream.straight import straight_of
from shoal.stream.under_way import UnderWay, cut_restored
from shoal.types import ActedStep, ConfigError, map_tree, select

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.envs.vec_env import VecEnv
    from shoal.memory.slab import Slab
    from shoal.stream.meter import Meter
    from shoal.stream.roles import Role
    from shoal.stream.straight import Straight
    from shoal.stream.under_way import Between
    from shoal.types import Episodes, Ready, Tree

    Index: TypeAlias = slice | np.ndarray[Any, np.dtype[np.intp]]


class Sink(Protocol):
    """Keeps what a role's rows see, do and get; steps are counted from the beginning of a `collect`."""

    def write_acted(self, t: int, rows: Index, step: ActedStep) -> None:
        """`rows` saw and chose in step t. In games of turns it comes when the step is complete."""
        ...

    def write_step(self, t: int, rows: slice, ready: Ready, part: Index) -> None:
        """Step t of `rows` is over; theirs is `part` of what `ready` holds."""
        ...

    def write_executed(self, t: int, rows: Index, action: Tree) -> None:
        """`rows` did this in step t, as the policy would have chosen it, and not what was chosen."""
        ...


class Collector:
    """Rows of an environment, the roles that play them, and what lies between two steps.

    `groups` are the slices of rows that act and step together: one for all, or two halves of which one acts while the
    other steps.
    """

    def __init__(
        self,
        env: VecEnv,
        roles: Sequence[Role],
        groups: Sequence[slice],
        meter: Meter,
        first: Ready,
    ) -> None:
        """`first` is what the reset gave."""
        self.env, self.roles, self.groups, self.meter = env, roles, groups, meter
        self._order = np.argsort(np.concatenate([role.actor.rows for role in roles]))
        self.sights = Sights(groups)
        self.under_way = UnderWay(len(groups))
        self._sinks: Sequence[Sink] = ()
        self._straight: Straight | None = None
        """What does the most of it in native code, where that can be."""
        self.begin(first)

    def state(self, slabs: Sequence[Slab]) -> dict[str, Any]:
        """How far the rollout under way is, whose steps are in `slabs`; empty between two rollouts."""
        if not self.under_way.begun:
            return {}
        return self.under_way.state(self.roles, slabs, self.env.spec.info_keys)

    def restore(
        self, state: Mapping[str, Any], slabs: Sequence[Slab], ready: Ready
    ) -> None:
        """Continues from `state`, with rows that were restored."""
        self.begin(ready)
        self.under_way.begun = bool(state)
        if not state:
            return
        self.under_way.restore(state, self.roles, slabs)
        done = np.zeros(self.env.num_rows, np.int64)
        for count, group in zip(self.under_way.done, self.groups, strict=True):
            done[group] = count
        for role, slab in zip(self.roles, slabs, strict=True):
            cut_restored(role, slab, done[role.rows], ready)

    def begin(self, ready: Ready) -> None:
        """Starts from the observations of all rows, after a reset or a restore."""
        if self.env.spec.masked and ready.action_mask is None:
            raise ConfigError(
                f"{self.env.spec.env_id}: its backend does not hand over its action masks; serial does"
            )
        self.sights.begin(ready)
        for role in self.roles:
            role.start |= ready.truncated[role.rows]

    def collect(
        self, num_steps: int, sinks: Sequence[Sink], between: Between | None = None
    ) -> Episodes:
        """Has every row act and step `num_steps` times; a sink for each role keeps it.

        What somebody wants `between` two steps is done when no row is under way. A rollout that was restored, or that
        an exception of it left, is gone on with.

        Returns:
            The episodes that ended.
        """
        self._sinks, under_way = sinks, self.under_way
        self._straight = straight_of(self, sinks, self._straight)
        if not under_way.begun:
            under_way.begin()
            for role in self.roles:
                role.refresh()
                role.final_values.clear()
        stepping: deque[int] = deque()
        while True:
            if not stepping:
                if between is not None and between.due():
                    between.pause()
                stepping.extend(self._act_all(num_steps))
                if not stepping:
                    break
            number = stepping.popleft()
            self._take_step(number)
            if between is not None and between.due():
                continue  # nobody acts until the others have stepped too
            if under_way.done[number] < num_steps:
                self._act(under_way.done[number], number, self.groups[number])
                stepping.append(number)
        under_way.begun = False
        return under_way.episodes(self.env.spec.info_keys)

    def _act_all(self, num_steps: int) -> list[int]:
        """Has each group act that has steps left."""
        left = [n for n, done in enumerate(self.under_way.done) if done < num_steps]
        for number in left:
            self._act(self.under_way.done[number], number, self.groups[number])
        return left

    def _take_step(self, number: int) -> None:
        """Waits for the step of a group, and records it."""
        begun = time.perf_counter()
        ready = self.env.recv()
        self.meter.add("environment", time.perf_counter() - begun)
        self.sights.take(number, ready)
        self._record(self.under_way.done[number], ready)
        self.under_way.done[number] += 1

    def _act(self, t: int, number: int, group: slice) -> None:
        begun = time.perf_counter()
        if self._straight is not None:
            together = self._straight.act(t, self.sights.obs[number])
        else:
            together = self._act_roles(t, number, group)
        sent = time.perf_counter()
        self.meter.add("acting", sent - begun)
        self.env.send(group, together)
        self.meter.add("environment", time.perf_counter() - sent)

    def _act_roles(self, t: int, number: int, group: slice) -> Tree:
        """The environment's actions of a group."""
        actions: list[Tree] = []
        for role, sink in zip(self.roles, self._sinks, strict=True):
            places = role.local(group)
            if places is not None:
                actions.append(self._act_role(t, number, role, sink, places))
        return actions[0] if len(actions) == 1 else map_tree(self._joined, *actions)

    def _act_role(
        self, t: int, number: int, role: Role, sink: Sink, places: tuple[slice, Index]
    ) -> Tree:
        """The environment's actions of the rows that a role has in a group."""
        mine, theirs = places
        obs = select(self.sights.obs[number], theirs)
        masks, turns = self.sights.masks[number], self.sights.turns[number]
        mask = None if masks is None else masks[theirs]
        start = role.start[mine]
        state = role.state_of(mine)
        acted = role.actor.act(obs, start, mine, action_mask=mask)
        step = ActedStep(
            obs=obs,
            start=start,
            action=acted.action,
            log_prob=acted.log_prob,
            value=acted.value,
            action_mask=mask,
            version=role.version,
            state=state,
        )
        if role.held is None or turns is None:
            sink.write_acted(t, mine, step)
        else:
            acting = np.flatnonzero(turns[theirs])
            role.held.write_acted(0, acting + mine.start, step.at(acting))
            role.start[acting + mine.start] = False
        return acted.env_action

    def _record(self, t: int, ready: Ready) -> None:
        if self._straight is not None and self._straight.record(t, ready):
            return
        for role, sink in zip(self.roles, self._sinks, strict=True):
            places = role.local(ready.rows)
            if places is not None:
                self._record_role(t, ready, role, sink, places)
        self.under_way.note_ends(t, ready, self.env.spec.info_keys)

    def _record_role(
        self, t: int, ready: Ready, role: Role, sink: Sink, places: tuple[slice, Index]
    ) -> None:
        mine, theirs = places
        valid = ready.valid[theirs]
        ended = ready.terminated[theirs] | ready.truncated[theirs]
        if role.held is None:
            role.start[mine] = ended | ~valid
        else:
            complete = np.flatnonzero(valid) + mine.start
            sink.write_acted(t, complete, role.held.acted(0, complete))
            role.start[mine] |= ended
        # What was cut before belongs to the step before; an agent whose game ended before it acted has no step.
        ended &= valid
        sink.write_step(t, mine, ready, theirs)
        if role.keeps_executed and ready.changed is not None:
            changed = np.flatnonzero(ready.changed[theirs])
            if len(changed):
                done = select(select(ready.executed, theirs), changed)
                sink.write_executed(t, changed + mine.start, role.kept(done))
        if not role.values:
            return
        cut = np.flatnonzero(ended & ~ready.terminated[theirs])
        if len(cut):
            begun = time.perf_counter()
            obs = select(select(ready.final_obs, theirs), cut)
            rows = cut + mine.start
            values = role.actor.value(obs, np.zeros(len(cut), np.bool_), rows)
            role.final_values.append((t, rows, values))
            self.meter.add("acting", time.perf_counter() - begun)

    def _joined(self, *parts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The roles' actions in the order of rows."""
        return np.concatenate(parts)[self._order]
