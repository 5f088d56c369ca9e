"""An actor as its learner sees it: what it is asked, and how it dies."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal.envs.workers.pipe import pack
from shoal.envs.workers.processes import LOOK_S, START_S
from shoal.memory.arena import Arena
from shoal.stream.actors.answers import Answers
from shoal.stream.actors.messages import (
    KEPT_REGIONS,
    STATE_REGION,
    Introduction,
    Op,
)
from shoal.stream.actors.spare import Spare
from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.stream.actors.messages import Beginning, Begun, Request, Rows
    from shoal.stream.actors.parts import Part
    from shoal.stream.actors.weights import Weights
    from shoal.stream.ending import Ending


class LateError(Exception):
    """No answer came in time."""


def check_late(until_s: float) -> None:
    """LateError when the clock (`time.monotonic`) is beyond `until_s`."""
    if time.monotonic() > until_s:
        raise LateError


class ActorProcess:
    """One actor. Nothing that it starts outlives `end`, or this process."""

    def __init__(
        self,
        make: bytes,
        number: int,
        rows: slice,
        num_envs: int,
        spare: Spare | None = None,
    ) -> None:
        """Starts it; `described` is its answer.

        Args:
            make: packed: makes the rows of so many environments.
            number: counted from 0.
            rows: which ones of the run it has.
            num_envs: of them.
            spare: a process that becomes it; None: a new one.
        """
        self.number, self.rows = number, rows
        self._process = spare or Spare(number, rows)
        self._process.become(number, rows)
        self._worker = self._process.worker
        self._worker.send(Introduction(make, number, num_envs))
        self._arena: Arena | None = None
        self._weight_regions, self._given = 1, 0
        self._tasks = self._closing = 0
        self._seen, self._moved_s = -1, 0.0
        self.late = False
        """Whether it is in a step that nobody waits for any more."""
        self._answers = Answers[tuple[bool, Any]]()
        """Whether a task went well, and what came of it."""

    def __str__(self) -> str:
        """The actor in a message."""
        return str(self._worker)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._worker.pid

    @property
    def gone(self) -> str | None:
        """Who is gone and how, where the process is; what it said before can still be taken."""
        return None if self._worker.alive else f"{self} {self._worker.death()}"

    @property
    def steps(self) -> int:
        """What it has counted, step by step: where it does not grow, nothing goes on."""
        return 0 if self._arena is None else self._arena.steps

    def described(self) -> Rows:
        """What its rows are, when they are made."""
        return self._worker.receive(START_S, doing="making its environments")

    def begin(self, said: Beginning, timeout_s: float) -> Begun:
        """Has it reset its rows."""
        task = self._ask(Op.BEGIN, pack(said))
        begun: Begun = self._answer(task, timeout_s, "resetting its environments")
        self._arena, self._answers.come = Arena(self._process.fd, begun.sizes), 0
        self._weight_regions = said.weight_regions
        return begun

    def give(self, weights: dict[str, Weights]) -> None:
        """Sends versions of roles, which it takes over before its next rollout."""
        packed = self._arena_.write(weights, self._given % self._weight_regions)
        self._given += 1
        self._worker.send((int(Op.WEIGHTS), packed))

    def ask(self, request: Request) -> None:
        """Has it collect a rollout, after those that it was asked for before."""
        self._answers.expect(self._ask(Op.COLLECT, request))

    def collected(self, timeout_s: float, ending: Ending) -> Part:
        """The rollout that was asked for first; its arrays are views until its region is asked for again.

        Args:
            timeout_s: what a step may take.
            ending: whether anybody waits any longer.

        Raises:
            EnvError: the process is gone, or nothing went on in it for so long; it is killed then.
            EndingError: nobody waits any longer; nothing is lost.
        """
        task = self._answers.first
        packed = self._answer(task, timeout_s, "collecting", ending.check)
        self._answers.took_first()
        return self._arena_.read(packed)

    def arrived(self) -> list[Part]:
        """Copies of rollouts that came before they were asked after, the oldest first."""
        good = [packed for good, packed in self._answers.early() if good]
        return [self._arena_.read(packed).copied() for packed in good]

    def tell(self, op: Op) -> None:
        """Has it stand still, or go on: that has no answer, and one that is gone is not told."""
        if self._worker.alive:
            self._worker.send((int(op), (0, None)))
        self._seen, self._moved_s = -1, time.monotonic()

    def ask_shard(self, op: Op, value: dict[str, Any]) -> int:
        """Asks for something of the memory that it keeps; the number of the task."""
        return self._ask(op, value)

    def shard_answer(self, task: int, timeout_s: float) -> dict[str, Any]:
        """What comes of it; arrays are views until its next answer."""
        packed = self._answer(task, timeout_s, "drawing from its shard")
        return self._arena_.read(packed)

    def ask_state(self, *, last: bool) -> int:
        """Asks for all that `restore` needs, in the middle of a rollout too; the number of the task.

        With `last` the actor does nothing more then, and waits until it is closed.
        """
        return self._ask(Op.STATE, {"last": last})

    def state(
        self, task: int, timeout_s: float, until_s: float
    ) -> dict[str, Any] | None:
        """What comes of it; None where the actor has not answered when the clock (`time.monotonic`) is at `until_s`."""
        check = partial(check_late, until_s)
        try:
            packed = self._answer(task, timeout_s, "saving its environments", check)
        except LateError:
            return None
        return self._arena_.read_copy(packed)

    def kept(self, timeout_s: float) -> dict[str, Any] | None:
        """The state that it kept by itself, of the rollout that it is in, whatever it does; None where it kept none."""
        found = self._arena_.kept(KEPT_REGIONS)
        if found is None or found["collected"] != self._answers.come:
            return None
        return found["state"]

    def restore(self, state: dict[str, Any], timeout_s: float) -> list[str]:
        """Continues from a state; what could not be continued."""
        task = self._ask(Op.RESTORE, self._arena_.write(state, STATE_REGION))
        return self._answer(task, timeout_s, "restoring its environments")

    def ask_to_close(self) -> None:
        """Has it close its environments, when it is done with what it does."""
        if self._worker.alive:
            self._closing = self._ask(Op.CLOSE, None)

    def closed(self, timeout_s: float) -> None:
        """Waits until it has; an exception of an environment's own close is raised."""
        if self._closing and self._worker.alive:
            self._answer(self._closing, timeout_s, "closing its environments")

    def end(self) -> None:
        """Kills the process and all that it started."""
        self._process.end()

    @property
    def _arena_(self) -> Arena:
        assert self._arena is not None
        return self._arena

    def _ask(self, op: Op, value: object) -> int:
        """The number of the task."""
        self._tasks += 1
        self._worker.send((int(op), (self._tasks, value)))
        self._seen, self._moved_s = -1, time.monotonic()
        return self._tasks

    def _answer(
        self,
        task: int,
        timeout_s: float,
        doing: str,
        check: Callable[[], object] = lambda: None,
    ) -> Any:
        """What comes of a task; nothing may stand still for longer than the time-out.

        Rollouts that come before are put aside. `check` is called again and again while nothing comes.
        """
        while not self._answers.has(task):
            while not self._worker.pipe.poll(LOOK_S):
                check()
                if not self._worker.alive and not self._worker.pipe.poll():
                    raise EnvError(f"{self}, {doing}, {self._worker.death()}")
                if self._stands(timeout_s):
                    what = f"said nothing for {timeout_s:g} s{self._worker.stack()}"
                    self._worker.kill()
                    raise EnvError(f"{self}, {doing}, {what}")
            answer, good, value = self._worker.hear(timeout_s, doing=doing)
            self._answers.put(answer, (good, value), task)
        good, value = self._answers.pop(task)
        if good:
            return value
        raise value.exception()

    def _stands(self, timeout_s: float) -> bool:
        """Whether no step was counted for so long."""
        steps = self.steps
        if steps != self._seen:
            self._seen, self._moved_s = steps, time.monotonic()
        return time.monotonic() - self._moved_s > timeout_s
