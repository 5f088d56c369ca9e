"""Sessions: who has which environments of a server, and who has not been heard of for too long."""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.remote import environments_pb2 as wire
from shoal.remote.batches import Batches, ReadyWriter
from shoal.remote.states import pack, unpack
from shoal.types import ConfigError, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.envs.vec_env import VecEnv

PROTOCOL = 1
"""Of the messages; both sides must have the same."""
LOOK_S = 1.0


class Session:
    """One client's rows, and the answers to its requests."""

    def __init__(self, env: VecEnv, number: int) -> None:
        """`number`: of the request that opened it."""
        self.env = env
        self.num_envs, self.playing = 0, False
        """What it has taken, and of which environments."""
        self.lock = threading.Lock()
        """Held by the call that steps the rows, or closes them."""
        self.heard_s = time.monotonic()
        self.end: Callable[[], None] = _nothing
        """Ends the stream of the client, where there is one."""
        self._actions = Batches(env.spec.action)
        self._writer = ReadyWriter(env.spec)
        self._last = wire.Reply(number=number)

    def answer(self, request: Any) -> Any:
        """The reply to a request: what was asked for, or what went wrong.

        A request with the number of the last one has its reply again, and steps nothing.
        """
        with self.lock:
            last = self._last.number
            if request.number != last:
                try:
                    if request.number != last + 1:
                        raise ConfigError(
                            f"request {request.number} came after {last}: one was lost"
                        )
                    self._last = self._answer(request)
                except Exception as error:
                    lost = request.number != last + 1
                    found = failure(request.number, error)
                    if lost:
                        return found
                    self._last = found
            self.heard_s = time.monotonic()
            return self._last

    def _answer(self, request: Any) -> Any:
        number, env = request.number, self.env
        match request.WhichOneof("what"):
            case "step":
                return wire.Reply(number=number, rows=self._step(request.step))
            case "reset":
                env.reset(list(request.reset.seeds))
                return wire.Reply(number=number, rows=self._rows([]))
            case "save":
                state = wire.State(state=pack(env.state()))
                return wire.Reply(number=number, state=state)
            case "restore":
                cut = env.restore(unpack(request.restore.state))
                return wire.Reply(number=number, rows=self._rows(cut))
            case "ping":
                return wire.Reply(number=number, pong=wire.Ping())
            case other:
                raise ConfigError(
                    f"a request of the kind {other!r} is none that this server knows here"
                )

    def _step(self, step: Any) -> Any:
        count = step.count
        if not 0 < count <= self.env.num_rows - step.first:
            raise ValueError(
                f"rows {step.first} to {step.first + count - 1} are not among {self.env.num_rows}"
            )
        batch = self._actions.of(count)
        batch.read(step.action, "an action")
        self.env.send(slice(step.first, step.first + count), batch.tree)
        return self._rows([])

    def _rows(self, cut: list[str]) -> Any:
        """What the rows hand over now."""
        ready = self.env.recv()
        if self.env.spec.masked != self._writer.spec.masked:
            self._writer = ReadyWriter(self.env.spec)
        arrays, final = self._writer.pack(ready)
        first, last = ready.rows.start, ready.rows.stop
        return wire.Rows(
            first=first,
            count=last - first,
            masked=self.env.spec.masked,
            arrays=arrays,
            final_obs=final,
            cut=cut,
        )


def _nothing() -> None:
    return


class Playing(NamedTuple):
    """The rows that clients evaluate in: how they are made, and of how many environments in all."""

    make: Callable[[int], VecEnv]
    num_envs: int


class Sessions:
    """All sessions of a server, by a name that nobody can guess."""

    def __init__(
        self,
        make: Callable[[int], VecEnv],
        num_envs: int,
        idle_s: float,
        playing: Playing | None = None,
    ) -> None:
        """`make` gives rows of so many environments: `num_envs` in all to train in, and `playing` to evaluate in."""
        self.num_envs, self.idle_s = num_envs, idle_s
        self._make, self._playing = make, playing or Playing(make, num_envs)
        self.free, self.free_to_play = num_envs, self._playing.num_envs
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def open(self, asked: Any, number: int) -> tuple[str, Session]:
        """Rows for a client; ConfigError where it speaks another protocol or too few environments are free."""
        if asked.protocol != PROTOCOL:
            raise ConfigError(
                f"this server speaks protocol {PROTOCOL}, the client {asked.protocol}; install the same shoal on both "
                "sides"
            )
        wanted, playing = asked.num_envs, asked.playing
        with self._lock:
            free = self.free_to_play if playing else self.free
            if not 0 < wanted <= free:
                raise ConfigError(
                    f"{wanted} environments are asked for{' to evaluate in' * playing}, and {free} of {self.num_envs} "
                    "are free here; ask for fewer, or start the server with more (--num-envs)"
                )
            self._take(-wanted, playing=playing)
        try:
            make = self._playing.make if playing else self._make
            session = Session(make(wanted), number)
        except BaseException:
            with self._lock:
                self._take(wanted, playing=playing)
            raise
        session.num_envs, session.playing = wanted, playing
        name = secrets.token_urlsafe(18)
        with self._lock:
            self._open[name] = session
        return name, session

    def of(self, name: str) -> Session:
        """The session of a name; ConfigError where there is none, or none any more."""
        with self._lock:
            found = self._open.get(name)
        if found is None:
            raise ConfigError(
                f"there is no such session; it was closed, or nobody called for {self.idle_s:g} s: open another one"
            )
        return found

    def take_over(self, name: str, end: Callable[[], None]) -> Session:
        """The session of a name, whose stream `end` ends; ConfigError as of `of`, or where it has a stream."""
        session = self.of(name)
        with self._lock:
            if session.end is not _nothing:
                raise ConfigError("this session has a stream already")
            session.end = end
        return session

    def close(self, name: str) -> None:
        """Closes a session's rows, when the call under way has ended; nothing where there is none."""
        with self._lock:
            session = self._open.pop(name, None)
        if session is None:
            return
        with (
            session.lock,
            suppress(Exception),
        ):  # an environment's own close: nobody is there to be told
            session.env.close()
        session.end()
        with self._lock:
            self._take(session.num_envs, playing=session.playing)

    def _take(self, more: int, *, playing: bool) -> None:
        """So many more are free; with the lock held."""
        if playing:
            self.free_to_play += more
        else:
            self.free += more

    def stop(self) -> None:
        """Closes all."""
        self._stopped.set()
        self.close_all()

    def close_all(self) -> None:
        """Closes what is open now."""
        for name in list(self._open):
            self.close(name)

    def _look(self) -> None:
        while not self._stopped.wait(LOOK_S):
            with self._lock:
                sessions = list(self._open.items())
            now = time.monotonic()
            for name, session in sessions:
                if now - session.heard_s > self.idle_s and not session.lock.locked():
                    self.close(name)


def failure(number: int, error: BaseException) -> Any:
    """The reply to a request that failed."""
    kind = type(error).__name__
    notes = getattr(error, "__notes__", [])
    text = "\n".join([text_of(error), *notes])
    return wire.Reply(number=number, failure=wire.Failure(kind=kind, text=text))
