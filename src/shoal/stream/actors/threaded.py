"""An actor in a thread of its learner's process: native rows and policies, which step and act beside the learner."""

from __future__ import annotations

import queue
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from shoal.envs.workers.pipe import pack
from shoal.envs.workers.processes import LOOK_S
from shoal.stream.actors.actor import Actor, rows_of
from shoal.stream.actors.answers import Answers
from shoal.stream.actors.messages import Introduction, Op, Rows
from shoal.stream.actors.parts import Part
from shoal.stream.actors.process import LateError, check_late
from shoal.stream.actors.serving import Serving
from shoal.stream.actors.trees import copied
from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.stream.actors.messages import Beginning, Begun, Request
    from shoal.stream.actors.serving import Answer
    from shoal.stream.actors.slots import Slot, Slots
    from shoal.stream.actors.weights import Weights
    from shoal.stream.ending import Ending

END_S = 1.0
"""A thread is waited for so long when it is to end; one in a native call is left alone then, and stops after it."""


class Shared:
    """Carries values as they are: an actor's own slabs, of which it fills another one meanwhile; states as copies."""

    slabs_in_turn = True

    def __init__(self, slots: Slots) -> None:
        """`slots`: where versions of weights lie."""
        self._slots = slots
        self.steps = 0
        self.kept: Any = None
        """What the actor kept last."""

    def write(self, value: object, region: int) -> Any:
        """A part as it is, a state as a copy."""
        return value if isinstance(value, Part) else copied(value)

    def read(self, packed: dict[str, Slot]) -> dict[str, Weights]:
        """Weights by role."""
        return {name: slot.weights for name, slot in packed.items()}

    def let_go(self, packed: dict[str, Slot]) -> None:
        """They were taken over."""
        for slot in packed.values():
            self._slots.let_go(slot)

    def read_copy(self, packed: Any) -> Any:
        """A state."""
        return packed

    def keep(self, value: object) -> None:
        """Keeps a copy."""
        self.kept = copied(value)

    def count(self) -> None:
        """Counts one more."""
        self.steps += 1


class ThreadActor:
    """One actor, which collects in native calls that leave Python to the learner."""

    def __init__(
        self, make: bytes, number: int, rows: slice, num_envs: int, slots: Slots
    ) -> None:
        """Makes its environments; the thread begins with `begin`.

        Args:
            make: packed: makes the rows of so many environments.
            number: counted from 0.
            rows: which ones of the run it has.
            num_envs: of them.
            slots: where the learner's weights lie.
        """
        self.number, self.rows = number, rows
        self.late = False
        """Whether it is in a step that nobody waits for any more."""
        self._env = rows_of(Introduction(make, number, num_envs))
        self._carrier, self._slots, self._closing = Shared(slots), slots, 0
        self._talk = Talk(self.__str__, lambda: self._carrier.steps)

    def __str__(self) -> str:
        """The actor in a message."""
        first, last = self.rows.start, self.rows.stop - 1
        return f"actor {self.number} (a thread, rows {first}..{last})"

    @property
    def pid(self) -> int:
        """The system's number of the thread, which no process has."""
        thread = self._talk.thread
        return 0 if thread is None or thread.native_id is None else thread.native_id

    @property
    def native(self) -> bool:
        """Whether its rows are native."""
        return self._env.native_pool is not None

    @property
    def gone(self) -> str | None:
        """Who is gone, where the thread is."""
        return f"{self} is gone" if self._talk.gone else None

    @property
    def steps(self) -> int:
        """What it has counted: where it does not grow, nothing goes on."""
        return self._carrier.steps

    def described(self) -> Rows:
        """What its rows are."""
        env = self._env
        return Rows(env.spec, env.num_rows, env.capabilities)

    def begin(self, said: Beginning, timeout_s: float) -> Begun:
        """Has it reset its rows."""
        name = f"shoal-actor-{self.number}"
        self._talk.begin(threading.Thread(target=self._serve, name=name, daemon=True))
        task = self._talk.ask(Op.BEGIN, pack(said))
        begun: Begun = self._talk.answer(task, timeout_s, "resetting its environments")
        self._talk.answers.come = 0
        return begun

    def give(self, weights: dict[str, Weights]) -> None:
        """Publishes versions of roles to it, which it takes over before its next rollout."""
        pinned = {name: self._slots.pin(name, own) for name, own in weights.items()}
        self._talk.put((int(Op.WEIGHTS), pinned))

    def ask(self, request: Request) -> None:
        """Has it collect a rollout, after those that it was asked for before."""
        self._talk.answers.expect(self._talk.ask(Op.COLLECT, request))

    def collected(self, timeout_s: float, ending: Ending) -> Part:
        """The rollout that was asked for first; its arrays are the actor's own until it is asked for another one.

        Args:
            timeout_s: what a native call may take.
            ending: whether anybody waits any longer.

        Raises:
            EnvError: nothing went on in it for so long.
            EndingError: nobody waits any longer; nothing is lost.
        """
        task = self._talk.answers.first
        part: Part = self._talk.answer(task, timeout_s, "collecting", ending.check)
        self._talk.answers.took_first()
        return part

    def arrived(self) -> list[Part]:
        """Copies of rollouts that came before they were asked after, the oldest first."""
        return [part.copied() for good, part in self._talk.answers.early() if good]

    def tell(self, op: Op) -> None:
        """Has it stand still, or go on: that has no answer."""
        self._talk.put((int(op), (0, None)))
        self._talk.move()

    def ask_shard(self, op: Op, value: dict[str, Any]) -> int:
        """Asks for something of the memory that it keeps; the number of the task."""
        return self._talk.ask(op, value)

    def shard_answer(self, task: int, timeout_s: float) -> dict[str, Any]:
        """What comes of it."""
        return self._talk.answer(task, timeout_s, "drawing from its shard")

    def ask_state(self, *, last: bool) -> int:
        """Asks for all that `restore` needs; the number of the task.

        With `last` the actor does nothing more then, and waits until it is closed.
        """
        return self._talk.ask(Op.STATE, {"last": last})

    def state(
        self, task: int, timeout_s: float, until_s: float
    ) -> dict[str, Any] | None:
        """What comes of it; None where the actor has not answered when the clock (`time.monotonic`) is at `until_s`."""
        check = partial(check_late, until_s)
        try:
            return self._talk.answer(task, timeout_s, "saving its environments", check)
        except LateError:
            return None

    def kept(self, timeout_s: float) -> dict[str, Any] | None:
        """The state that it kept by itself, of the rollout that it is in; None where it kept none."""
        found = self._carrier.kept
        if found is None or found["collected"] != self._talk.answers.come:
            return None
        return found["state"]

    def restore(self, state: dict[str, Any], timeout_s: float) -> list[str]:
        """Continues from a state; what could not be continued."""
        task = self._talk.ask(Op.RESTORE, copied(state))
        return self._talk.answer(task, timeout_s, "restoring its environments")

    def ask_to_close(self) -> None:
        """Has it close its environments, when it is done with what it does."""
        if self._talk.thread is None:
            self._env.close()
        elif not self._talk.gone:
            self._closing = self._talk.ask(Op.CLOSE, None)

    def closed(self, timeout_s: float) -> None:
        """Waits until it has; an exception of an environment's own close is raised."""
        if self._closing:
            self._talk.answer(self._closing, timeout_s, "closing its environments")

    def end(self) -> None:
        """Has the thread end, after the native call that it is in; may be called twice."""
        thread = self._talk.thread
        if thread is None or self._talk.gone:
            return
        if not self._closing:
            self._closing = self._talk.ask(Op.CLOSE, None)
        thread.join(0.0 if self.late else END_S)

    def _serve(self) -> None:
        """The thread's whole life."""

        def carry(sizes: tuple[int, ...]) -> Shared:
            return self._carrier

        actor = Actor(self._env, carry, cpu_s=time.thread_time)
        with torch.no_grad():
            Serving(actor, self._talk, self.number, self._failed).run()

    def _failed(self, error: BaseException) -> BaseException:
        """An exception as it is said."""
        error.add_note(f"shoal: in {self}")
        return error


class Talk:
    """What a learner asks of a thread, and what that says; to `Serving` it is a pipe."""

    def __init__(self, who: Callable[[], str], steps: Callable[[], int]) -> None:
        """Nothing was asked or said.

        Args:
            who: the actor in a message.
            steps: what it has counted: where that does not grow, nothing goes on.
        """
        self._who, self._steps = who, steps
        self._asked: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._said: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.put, self.receive = self._asked.put, self._asked.get
        self.answers = Answers[tuple[bool, Any]]()
        """Whether a task went well, and what came of it."""
        self.thread: threading.Thread | None = None
        self._tasks, self._seen, self._moved_s = 0, -1, 0.0

    def poll(self) -> bool:
        """Whether there is a request."""
        return not self._asked.empty()

    def send(self, answer: Answer) -> None:
        """What has come of one."""
        self._said.put(answer)

    @property
    def gone(self) -> bool:
        """Whether the thread was there and is no more."""
        return self.thread is not None and not self.thread.is_alive()

    def begin(self, thread: threading.Thread) -> None:
        """Has the thread begin that serves."""
        self.thread = thread
        thread.start()

    def ask(self, op: Op, value: object) -> int:
        """The number of the task."""
        self._tasks += 1
        self.put((int(op), (self._tasks, value)))
        self.move()
        return self._tasks

    def move(self) -> None:
        """Nobody blames it for the time until now."""
        self._seen, self._moved_s = -1, time.monotonic()

    def answer(
        self,
        task: int,
        timeout_s: float,
        doing: str,
        check: Callable[[], object] = lambda: None,
    ) -> Any:
        """What comes of a task; nothing may stand still for longer than the time-out.

        Rollouts that come before are put aside. `check` is called again and again while nothing comes.
        """
        while not self.answers.has(task):
            try:
                answered, good, value = self._said.get(timeout=LOOK_S)
            except queue.Empty:
                check()
                self._check(timeout_s, doing)
                continue
            self.answers.put(answered, (good, value), task)
        good, value = self.answers.pop(task)
        if good:
            return value
        raise value

    def _check(self, timeout_s: float, doing: str) -> None:
        """EnvError where the thread is gone, or stands still."""
        if self.gone and self._said.empty():
            raise EnvError(f"{self._who()}, {doing}, ended without an answer")
        steps = self._steps()
        if steps != self._seen:
            self._seen, self._moved_s = steps, time.monotonic()
        if time.monotonic() - self._moved_s > timeout_s:
            raise EnvError(
                f"{self._who()}, {doing}, said nothing for {timeout_s:g} s; a thread cannot be ended from outside, "
                'a process can: actors_in="processes"'
            )
