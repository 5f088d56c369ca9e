"""An actor that its learner reaches over a socket: it serves one learner, and ends with the connection."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from shoal.remote import states
from shoal.remote.frames import Frames
from shoal.stream.actors.actor import Actor, rows_of
from shoal.stream.actors.messages import Begun, Op, Request, Rows
from shoal.stream.actors.serving import Serving
from shoal.stream.actors.trees import Whole, plain
from shoal.types import RAISED, EnvError, text_of

if TYPE_CHECKING:
    import ssl

    from shoal.stream.actors.messages import Introduction
    from shoal.stream.actors.serving import Answer

BEAT_S = 1.0
"""It says so often that it lives, and how far it is."""
SILENT_S = 3600.0
"""A learner may be busy for so long; where its machine is gone, the system ends the connection."""
MOST_BYTES = 2 << 30
"""Of one message: weights, a rollout, or the state of an actor with its memory."""


class ActorHost:
    """Environments and policies in a thread of their own, asked over a connection.

    What holds classes or functions (how environments are made, policies) does not come over the socket: `rows` and
    `begin` are called by whoever placed it here.
    """

    def __init__(self, said: Introduction, listening: socket.socket) -> None:
        """Makes the environments at once.

        Args:
            said: how they are made.
            listening: where the learner connects.
        """
        self.number = said.number
        self._listening = listening
        self._requests: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._futures: dict[int, Future[Any]] = {}
        self._described: Future[Rows] = Future()
        self._carrier = Whole()
        self._frames: Frames | None = None
        self._sending = threading.Lock()
        self.ended = threading.Event()
        """Set when the learner is gone and the environments are closed."""
        self._start(self._work, said)

    def rows(self, timeout_s: float) -> Rows:
        """What its rows are, when they are made; their exception where they cannot be."""
        return self._described.result(timeout_s)

    def begin(self, said: bytes, timeout_s: float) -> Begun:
        """Has it reset its rows; `said` is a packed `Beginning`."""
        task = -1 - len(self._futures)
        self._futures[task] = found = Future[Any]()
        self._requests.put((int(Op.BEGIN), (task, said)))
        return found.result(timeout_s)

    def accept(self, context: ssl.SSLContext | None) -> None:
        """Waits for the learner beside what goes on; encrypted, where there is a context that knows learners."""
        self._start(self._listen, context)

    def close(self) -> None:
        """Closes the environments when what is under way is over."""
        self._listening.close()
        self._requests.put((int(Op.CLOSE), (0, None)))

    # What `serve` needs of a pipe.

    def poll(self) -> bool:
        """Whether there is a request."""
        return not self._requests.empty()

    def receive(self) -> tuple[int, Any]:
        """The next one."""
        return self._requests.get()

    def send(self, answer: Answer) -> None:
        """What has come of one: to whoever called `begin`, or over the connection."""
        task, good, value = answer
        waiting = self._futures.get(task)
        if waiting is None:
            self._say({"task": task, "good": good, "value": plain(value)})
        elif good:
            waiting.set_result(value)
        else:
            waiting.set_exception(value["error"])

    def _start(self, target: Any, *given: object) -> None:
        threading.Thread(target=target, args=given, daemon=True).start()

    def _work(self, said: Introduction) -> None:
        """The thread in which all of the environments and policies happens."""
        import torch

        torch.set_num_threads(1)
        try:
            env = rows_of(said)
        except RAISED as error:
            self._described.set_exception(error)
            self.ended.set()
            return
        self._described.set_result(Rows(env.spec, env.num_rows, env.capabilities))

        def carry(sizes: tuple[int, ...]) -> Whole:
            return self._carrier

        Serving(Actor(env, carry), self, said.number, self._failed).run()
        self.ended.set()

    def _failed(self, error: BaseException) -> dict[str, Any]:
        """What is said of an exception."""
        notes = [text_of(note) for note in getattr(error, "__notes__", ())]
        return {
            "kind": type(error).__name__,
            "text": text_of(error),
            "notes": notes,
            "error": error,
        }

    def _listen(self, context: ssl.SSLContext | None) -> None:
        try:
            connected, _ = self._listening.accept()
            if context is not None:
                connected = context.wrap_socket(connected, server_side=True)
        except OSError:
            self.close()
            return
        self._frames = frames = Frames(connected)
        frames.most_bytes = MOST_BYTES
        self._start(self._beat)
        with contextlib.suppress(OSError, EOFError, TimeoutError, EnvError):
            while True:
                self._take(states.unpack(frames.receive(SILENT_S)))
        frames.close()
        self.close()

    def _take(self, said: dict[str, Any]) -> None:
        """A message of the learner."""
        op, value = Op(said["op"]), said["value"]
        if op is Op.KEPT:  # whatever the rows do
            kept = self._carrier.kept
            self._say({"task": int(said["task"]), "good": True, "value": kept})
            return
        if op is Op.COLLECT:
            value = Request(**value)
        if op is not Op.WEIGHTS:
            value = (int(said["task"]), value)
        self._requests.put((int(op), value))

    def _beat(self) -> None:
        while not self.ended.wait(BEAT_S):
            self._say({"task": 0, "steps": self._carrier.steps})

    def _say(self, message: dict[str, Any]) -> None:
        value = message.get("value")
        if isinstance(value, dict) and "error" in value:
            message["value"] = {
                name: part for name, part in value.items() if name != "error"
            }
        data = states.pack(message, MOST_BYTES)
        if self._frames is not None:
            # Where the learner is gone, whoever listens to it notices.
            with self._sending, contextlib.suppress(OSError):
                self._frames.send(data)
