"""The actors of a stream: how they begin, what they are asked, and what follows where one fails."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from shoal.stream.actors.beginning import ActedRole, beginning_of
from shoal.stream.actors.coming import Coming
from shoal.stream.actors.hearing import Hearing
from shoal.stream.actors.messages import Beginning, Request
from shoal.stream.actors.threaded import ThreadActor
from shoal.stream.actors.weights import Weights
from shoal.stream.ending import EndingError
from shoal.stream.roles import casting
from shoal.types import ConfigError, EnvError, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from shoal.stream.actors.messages import Begun
    from shoal.stream.actors.parts import Part
    from shoal.stream.actors.rows import ActorRows
    from shoal.stream.in_process import Wanted
    from shoal.stream.meter import Meter

_LOG = logging.getLogger(__name__)


class ActorPool:
    """All actors of an environment's rows, collecting for one stream."""

    def __init__(
        self, env: ActorRows, wanted: Wanted, ahead: int, meter: Meter
    ) -> None:
        """Has all rows reset.

        Args:
            env: the actors' rows.
            wanted: what they are to collect.
            ahead: rollouts that may be collected before the one that is learned from.
            meter: where what they did goes, where that is recorded, and whether the run is to end.
        """
        if env.in_use:
            raise ConfigError(
                "these rows are collected by another stream already; actors serve one"
            )
        env.in_use = True
        self.env, self._wanted, self.ahead = env, wanted, ahead
        sources, places = casting(wanted.policies, wanted.cast, env.num_rows)
        every = np.arange(env.num_rows)
        self.roles = [
            ActedRole(name, sources[name], every[rows], wanted.acting.values)
            for name, rows in places.items()
        ]
        count = len(env.processes)
        self._sent: list[dict[str, int]] = [{} for _ in range(count)]
        """Which version of each role's weights an actor has."""
        self.restarts = [0] * count
        self._asked = [0] * count
        """Rollouts, of each actor since it began."""
        self.under_way = [0] * count
        """Those that were not taken."""
        spans = meter.spans
        self._heard = None if spans is None else Hearing(spans, env.processes)
        self.ending = meter.ending
        self._coming: dict[int, Coming] = {}
        """Processes that are to take the place of others, by the actor's number."""
        begun = _begin_all(env, wanted, self._begin)
        env.spec, self.in_turns = begun[0].spec, begun[0].in_turns

    @property
    def numbers(self) -> list[int]:
        """The actors that were not dropped."""
        return [
            number
            for number, rows in enumerate(self.env.rows)
            if not self.env.dropped[rows.start]
        ]

    def look(self, number: int) -> None:
        """Where an actor is gone by now, begins to start another one, before anybody waits for it."""
        self.env.keep_spare()
        gone, settings = self.env.processes[number].gone, self.env.settings
        if gone is None or number in self._coming or settings.on_fault != "restart":
            return
        if self.restarts[number] < settings.max_restarts:
            self._coming[number] = self._start_another(number, gone)

    def publish(self, number: int) -> None:
        """Sends an actor the weights that it does not have, for the rollouts that it has not begun."""
        sent = self._sent[number]
        weights: dict[str, Weights] = {}
        for role in self.roles:
            there = len(role.columns(self.env.rows[number]))
            if there and sent.get(role.name) != role.source.version:
                weights[role.name] = Weights.of(role.source, sent.get(role.name))
                sent[role.name] = role.source.version
        if weights:
            self.env.processes[number].give(weights)

    def ask(self, number: int) -> None:
        """Has an actor collect one more rollout, with the newest weights that it has when it begins."""
        epsilon: dict[str, NDArray[np.float32]] = {}
        values: dict[str, bool] = {}
        for role in self.roles:
            columns = role.columns(self.env.rows[number])
            if not len(columns):
                continue
            values[role.name] = role.values
            if role.epsilon is not None:
                epsilon[role.name] = role.epsilon[columns]
        region = self.ahead + 2 + self._asked[number] % (self.ahead + 1)
        self._asked[number] += 1
        self.under_way[number] += 1
        self.env.processes[number].ask(Request(region, epsilon, values))
        if self._heard is not None:
            self._heard.asked(number)

    def answer(self, number: int) -> Part | None:
        """The oldest rollout that an actor was asked for, by it or another one in its place; None where it is dropped.

        Raises:
            EnvError: the actor is gone or silent, and nothing may take its place; the environment's own exceptions
                arrive unchanged.
            EndingError: nobody waits any longer.
        """
        while number in self.numbers:
            process = self.env.processes[number]
            try:
                part = process.collected(self.env.settings.timeout_s, self.ending)
            except EndingError:
                raise
            except Exception as error:  # the environment's own too
                self.settle(number, error)
                continue
            self.under_way[number] -= 1
            if self._heard is not None:
                self._heard.take(number, part)
            return part
        return None

    def begin_anew(self, number: int) -> None:
        """Has other episodes begin in an actor's rows, in another process."""
        self.restarts[number] += 1
        fresh = self.env.started(number)
        fresh.described()
        self.env.put(number, fresh)
        self._begin(number)

    def forget(self, number: int) -> None:
        """An actor has none of the weights that it was sent."""
        self._sent[number].clear()

    def _begin(self, number: int) -> Begun:
        """Has an actor reset its rows, with the policies of the roles that it has rows of."""
        said = self._beginning(number)
        if self._heard is not None:
            self._heard.begin(number)
        self._sent[number] = {}
        return self.env.processes[number].begin(said, self.env.settings.timeout_s)

    def _beginning(self, number: int) -> Beginning:
        """What an actor is told."""
        return beginning_of(
            self._wanted,
            self.roles,
            self.env.rows[number],
            num_actors=len(self.env.processes),
            ahead=self.ahead,
            restarts=self.restarts[number],
            recorded=self._heard is not None,
        )

    def settle(self, number: int, error: Exception) -> None:
        """Does what `on_fault` says of an actor that failed."""
        match self.env.settings.on_fault:
            case "raise":
                raise error
            case "drop":
                self._go_on_without(number, error)
            case _:
                self._restart(number, error)

    def _restart(self, number: int, error: Exception) -> None:
        """Another process takes the rows over, whose episodes begin anew, as long as the budget lasts."""
        most = self.env.settings.max_restarts
        while True:
            coming = self._coming.pop(number, None)
            if coming is None:
                if self.restarts[number] >= most:
                    error.add_note(
                        f"shoal: after {most} restarts, as max_restarts allows"
                    )
                    raise error
                coming = self._start_another(number, error)
            try:
                self.env.put(number, coming.result(self.ending))
            except EnvError as again:
                error = again
                continue
            if self._heard is not None:
                self._heard.begin(number)
            self._sent[number] = {}
            self.publish(number)
            left, self.under_way[number] = self.under_way[number], 0
            for _ in range(left):
                self.ask(number)
            return

    def _start_another(self, number: int, error: object) -> Coming:
        """Begins to start a process for an actor's rows; nobody waits for it yet."""
        self.restarts[number] += 1
        count, most = self.restarts[number], self.env.settings.max_restarts
        _LOG.warning("%s; restart %d of %d", text_of(error), count, most)
        return Coming(self.env, number, self._beginning(number))

    def _go_on_without(self, number: int, error: Exception) -> None:
        self.drop(number)
        if not self.numbers:
            error.add_note("shoal: it was the last actor; all others were dropped")
            raise error
        left = int((~self.env.dropped).sum())
        _LOG.warning("%s; it is dropped, and %d rows go on", text_of(error), left)

    def drop(self, number: int) -> None:
        """Goes on without an actor."""
        self.env.dropped[self.env.rows[number]] = True
        self.env.processes[number].end()


def _begin_all(
    env: ActorRows, wanted: Wanted, begin: Callable[[int], Begun]
) -> list[Begun]:
    """Has all actors begin, in threads or in processes."""
    numbers = range(len(env.processes))
    if env.threaded and (why := _why_no_threads(env, wanted)):
        env.leave_threads(why)
    begun = [begin(number) for number in numbers]
    if env.threaded and not all(one.native for one in begun):
        env.leave_threads("this policy does not act in native code in these rows")
        begun = [begin(number) for number in numbers]
    return begun


def _why_no_threads(env: ActorRows, wanted: Wanted) -> str:
    """Why actors cannot be threads, as far as that is known before they begin; empty where they may be."""
    threads = [one for one in env.processes if isinstance(one, ThreadActor)]
    if not all(one.native for one in threads):
        return "each step of these environments goes through Python"
    if wanted.sharding is not None:
        return "memories of actors (replay.shards) are in processes of their own"
    return ""
