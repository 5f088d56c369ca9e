"""Serving: an actor answers its learner, between two rollouts, and between two steps where it cannot wait."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from shoal.envs import forks
from shoal.stream.actors.messages import WORD, Op
from shoal.types import RAISED

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.stream.actors.actor import Actor

Answer: TypeAlias = "tuple[int, bool, Any]"
"""The number of a task, whether it went well, and what came of it."""
LOOK_S = 0.002
"""Between two steps the learner is heard once in so many seconds."""
URGENT = (Op.STATE, Op.CLOSE, Op.PAUSE, Op.GO_ON)
"""What does not wait until a rollout is over."""


class ClosedError(Exception):
    """The learner wants nothing more: the rollout under way is left."""


class Asks(Protocol):
    """Where a learner's requests come from."""

    def poll(self) -> bool:
        """Whether there is one."""
        ...

    def receive(self) -> tuple[int, Any]:
        """The next one: an `Op`, and what it is about."""
        ...

    def send(self, answer: Answer) -> None:
        """What has come of one."""
        ...


class Requests:
    """What the learner asks, in its order; weights that came meanwhile are there before the next rollout."""

    def __init__(self, pipe: Asks) -> None:
        """Over the actor's pipe."""
        self._pipe = pipe
        self._weights: list[Any] = []
        self._waiting: deque[tuple[Op, Any]] = deque()
        self.urgent: deque[tuple[Op, Any]] = deque()
        """What does not wait."""

    def look(self) -> None:
        """Takes what has come."""
        while self._pipe.poll():
            self._take()

    def next(self) -> tuple[list[Any], Op, Any]:
        """Weights that came, the oldest first; then what is asked, and with what: first what is urgent."""
        self.look()
        while not (self.urgent or self._waiting):
            self._take()
            self.look()
        if self.urgent:
            return [], *self.urgent.popleft()
        weights, self._weights = self._weights, []
        return weights, *self._waiting.popleft()

    def next_urgent(self) -> tuple[Op, Any]:
        """The next thing that is urgent, waited for."""
        while not self.urgent:
            self._take()
        return self.urgent.popleft()

    def _take(self) -> None:
        number, value = self._pipe.receive()
        op = Op(number)
        if op is Op.WEIGHTS:
            self._weights.append(value)
        elif op in URGENT:
            self.urgent.append((op, value))
        else:
            self._waiting.append((op, value))


class Serving:
    """An actor's answers until it is told to close."""

    def __init__(
        self,
        actor: Actor,
        pipe: Asks,
        number: int,
        failed: Callable[[BaseException], Any],
    ) -> None:
        """`failed` gives what is sent of an exception."""
        self._actor, self._pipe, self._number, self._failed = (
            actor,
            pipe,
            number,
            failed,
        )
        self._pid = os.getpid()
        self._requests = Requests(pipe)
        self._looked_s = 0.0
        self._closing: Any = None
        """What the learner said when it wanted nothing more in the middle of a rollout."""
        self._broke: Any = None
        """What is sent of the exception that ended a rollout in its middle: its rows have no state since."""

    def run(self) -> None:
        """Its whole life."""
        while self._closing is None:
            weights, op, (task, value) = self._requests.next()
            if op in URGENT:
                self._serve_urgent(op, task, value)
                continue
            self._respond(op, task, value, weights)
        task, value = self._closing
        self._respond(Op.CLOSE, task, value)

    def due(self) -> bool:
        """Whether the learner wants something that cannot wait, or the actor itself something to be kept."""
        now = time.perf_counter()
        if now - self._looked_s >= LOOK_S:
            self._looked_s = now
            self._requests.look()
        return bool(self._requests.urgent) or self._actor.keeping_due(now)

    def pause(self) -> None:
        """Does it.

        Raises:
            ClosedError: the learner wants nothing more.
        """
        while self._requests.urgent:
            op, (task, value) = self._requests.urgent.popleft()
            self._serve_urgent(op, task, value)
        if self._closing is not None:
            raise ClosedError
        if self._actor.keeping_due(time.perf_counter()):
            self._actor.keep()

    def _serve_urgent(self, op: Op, task: int, value: Any) -> None:
        """Gives a state, stands still, or notes that it is to close.

        Who stands still, or has given its last state, does nothing more but these.
        """
        standing = last = False
        while True:
            if op is Op.CLOSE:
                self._closing = task, value
                return
            if op is Op.STATE:
                self._respond(op, task, value)
                last |= value["last"]
            else:
                standing = op is Op.PAUSE
            if not (standing or last):
                return
            op, (task, value) = self._requests.next_urgent()

    def _respond(self, op: Op, task: int, value: Any, weights: Any = ()) -> None:
        if op is Op.STATE and self._broke is not None:
            self._pipe.send((task, False, self._broke))
            return
        try:
            self._actor.take(weights)
            if op is Op.COLLECT:
                answer = (task, True, self._actor.collect(value, self))
            else:
                answer = (task, True, self._actor.answer(op, value))
                if op in (Op.BEGIN, Op.RESTORE):
                    self._broke = None
        except ClosedError:
            return
        except RAISED as error:
            answer = (task, False, self._failed(error))
            if op is Op.COLLECT:
                self._broke = answer[2]
        forks.end_if_forked(self._pid, f"{WORD} {self._number}'s {op.name.lower()}")
        self._pipe.send(answer)
