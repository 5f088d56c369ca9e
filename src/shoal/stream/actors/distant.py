"""An actor on another machine as its learner sees it."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from shoal.envs.workers.pipe import pack
from shoal.envs.workers.processes import LOOK_S, START_S
from shoal.remote import states
from shoal.stream.actors.answers import Answers
from shoal.stream.actors.host import BEAT_S, MOST_BYTES
from shoal.stream.actors.messages import Op
from shoal.stream.actors.parts import Part
from shoal.stream.actors.process import LateError, check_late
from shoal.stream.actors.trees import plain, request_tree, weights_tree
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.remote.frames import Frames
    from shoal.stream.actors.messages import Beginning, Begun, Request, Rows
    from shoal.stream.actors.weights import Weights
    from shoal.stream.ending import Ending

SILENT_S = 10 * BEAT_S
"""One that does not even say that it lives is gone."""
MESSAGE_S = 300.0
"""What a message may take that has begun to come."""


class Places(Protocol):
    """Whoever placed an actor: what holds classes or functions goes by it."""

    @property
    def where(self) -> str:
        """In words, for messages."""
        ...

    def rows(self, timeout_s: float) -> Rows:
        """What the actor's rows are."""
        ...

    def begin(self, said: bytes, timeout_s: float) -> Begun:
        """Has it reset them; `said` is a packed `Beginning`."""
        ...

    def connect(self, timeout_s: float) -> Frames:
        """A connection to it."""
        ...

    def end(self) -> None:
        """Ends it, whatever it is doing."""
        ...


class DistantActor:
    """One actor, over a connection."""

    def __init__(self, placed: Places, number: int, rows: slice) -> None:
        """`rows`: which ones of the run it has."""
        self.number, self.rows, self._placed = number, rows, placed
        self._frames: Frames | None = None
        self._tasks = self._closing = self.steps = 0
        self._moved_s = self._heard_s = 0.0
        self._ended = False
        self.late = False
        """Whether it is in a step that nobody waits for any more."""
        self._answers = Answers[dict[str, Any]]()

    def __str__(self) -> str:
        """The actor in a message."""
        first, last = self.rows.start, self.rows.stop - 1
        return f"actor {self.number} ({self._placed.where}, rows {first}..{last})"

    @property
    def gone(self) -> str | None:
        """Who is gone, where the connection is closed or cut."""
        broken = self._frames is not None and self._frames.broken
        return f"{self} is gone" if broken else None

    def described(self) -> Rows:
        """What its rows are, when they are made."""
        return self._placed.rows(START_S)

    def begin(self, said: Beginning, timeout_s: float) -> Begun:
        """Has it reset its rows, and connects to it."""
        begun = self._placed.begin(pack(said), timeout_s)
        self._frames = self._placed.connect(timeout_s)
        self._frames.most_bytes = MOST_BYTES
        self._moved_s = self._heard_s = time.monotonic()
        return begun

    def give(self, weights: dict[str, Weights]) -> None:
        """Sends versions of roles, which it takes over before its next rollout."""
        self._say(Op.WEIGHTS, weights_tree(weights))

    def ask(self, request: Request) -> None:
        """Has it collect a rollout, after those that it was asked for before."""
        self._answers.expect(self._ask(Op.COLLECT, request_tree(request)))

    def collected(self, timeout_s: float, ending: Ending) -> Part:
        """The rollout that was asked for first.

        Args:
            timeout_s: what a step may take.
            ending: whether anybody waits any longer.

        Raises:
            EnvError: the actor is gone, nothing went on in it for so long, or its environment raised.
            EndingError: nobody waits any longer; nothing is lost.
        """
        task = self._answers.first
        saved = self._answer(task, timeout_s, "collecting", ending.check)
        self._answers.took_first()
        return Part.of_saved(saved)

    def arrived(self) -> list[Part]:
        """Rollouts that came before they were asked after, the oldest first."""
        early = self._answers.early()
        return [Part.of_saved(said["value"]) for said in early if said["good"]]

    def tell(self, op: Op) -> None:
        """Has it stand still, or go on: that has no answer."""
        self._say(op, None)
        self._moved_s = self._heard_s = time.monotonic()

    def take_in(self) -> None:
        """Hears what it has said, while nobody waits for anything; that it is gone the next answer tells."""
        with contextlib.suppress(OSError, EOFError):
            while self._frames is not None and self._frames.comes(0.0):
                self._hear()

    def ask_shard(self, op: Op, value: dict[str, Any]) -> int:
        """Asks for something of the memory that it keeps; the number of the task."""
        return self._ask(op, value)

    def shard_answer(self, task: int, timeout_s: float) -> dict[str, Any]:
        """What comes of it."""
        return self._answer(task, timeout_s, "drawing from its shard")

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
            return self._answer(task, timeout_s, "saving its environments", check)
        except LateError:
            return None

    def kept(self, timeout_s: float) -> dict[str, Any] | None:
        """The state that it kept by itself, where it is of the rollout that it is in; None where there is none.

        Whatever the actor does, it answers.
        """
        found = self.state(
            self._ask(Op.KEPT, None), timeout_s, time.monotonic() + timeout_s
        )
        if found is None or found["collected"] != self._answers.come:
            return None
        return found["state"]

    def restore(self, state: dict[str, Any], timeout_s: float) -> list[str]:
        """Continues from a state; what could not be continued."""
        task = self._ask(Op.RESTORE, plain(state))
        return self._answer(task, timeout_s, "restoring its environments")

    def ask_to_close(self) -> None:
        """Has it close its environments, when it is done with what it does."""
        if self._frames is not None:
            self._closing = self._ask(Op.CLOSE, None)

    def closed(self, timeout_s: float) -> None:
        """Waits until it has."""
        if self._closing:
            self._answer(self._closing, timeout_s, "closing its environments")

    def end(self) -> None:
        """Ends it, and the connection; may be called twice."""
        if self._ended:
            return
        self._ended = True
        if self._frames is not None:
            self._frames.close()
        self._placed.end()

    def _ask(self, op: Op, value: object) -> int:
        """The number of the task."""
        self._tasks += 1
        self._say(op, value)
        self._moved_s = time.monotonic()
        return self._tasks

    def _say(self, op: Op, value: object) -> None:
        """Sends a message; one to an actor that is gone is lost, which the next answer tells."""
        assert self._frames is not None
        data = message(op, self._tasks, value)
        with contextlib.suppress(OSError):
            self._frames.send(data)

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
        assert self._frames is not None
        while not self._answers.has(task):
            try:
                if not self._frames.comes(LOOK_S):
                    check()
                    self._check(timeout_s, doing)
                    continue
                answered = self._hear(task)
            except (OSError, EOFError) as error:
                raise EnvError(f"{self}, {doing}, is gone ({error})") from error
            if not answered:
                check()
                self._check(timeout_s, doing)
        said = self._answers.pop(task)
        if said["good"]:
            return said["value"]
        raise failure_of(said["value"], str(self))

    def _hear(self, task: int = 0) -> bool:
        """Takes in what it says next, while `task` is waited for; whether that answers something."""
        assert self._frames is not None
        said = states.unpack(self._frames.receive(MESSAGE_S))
        self._heard_s = time.monotonic()
        answer = said["task"]
        if answer:
            self._answers.put(answer, said, task)
        elif said["steps"] != self.steps:
            self.steps, self._moved_s = said["steps"], self._heard_s
        return bool(answer)

    def _check(self, timeout_s: float, doing: str) -> None:
        """EnvError where the actor says nothing any more, or stands still."""
        now = time.monotonic()
        if now - self._heard_s > SILENT_S:
            raise EnvError(f"{self}, {doing}, was not heard of for {SILENT_S:g} s")
        if now - self._moved_s > timeout_s:
            raise EnvError(f"{self}, {doing}, made no step for {timeout_s:g} s")


def message(op: Op, task: int, value: object) -> bytes:
    """What an actor is told, as it travels."""
    return states.pack({"op": int(op), "task": task, "value": value}, MOST_BYTES)


def failure_of(said: dict[str, Any], who: str) -> Exception:
    """What an actor raised."""
    kind, text = said["kind"], said["text"]
    error = ConfigError(text) if kind == "ConfigError" else EnvError(text)
    if kind not in ("ConfigError", "EnvError"):
        error = EnvError(f"{kind}: {text}")
    for note in said["notes"]:
        error.add_note(note)
    error.add_note(f"shoal: in {who}")
    return error
