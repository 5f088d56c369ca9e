"""Sessions: who has which environments of a server, and who has not been heard of for too long."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal import _native
from shoal.remote import environments_pb2 as wire
from shoal.remote.batches import Batches, ReadyWriter, fits_native, ready_layout
from shoal.remote.frames import MOST_BYTES, SPIN_S
from shoal.remote.messages import Packed, StepRequest
from shoal.remote.settings import Guard
from shoal.remote.states import ROOM, pack, unpack
from shoal.types import ConfigError, EnvError, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.envs.vec_env import VecEnv
    from shoal.remote.frames import Frames

PROTOCOL = 2
"""Of the messages; both sides must have the same."""
KEPT = 4
"""The last replies of a session, for a client that comes back and has not received them; it waits for 3 at most."""
MOST_S = 0.02
"""How long a session stays in native code at a time, where somebody may wait for it."""
LOOK_S = 1.0
"""At most: how often somebody looks who has not been heard of for too long."""


class Session:
    """One client's rows, and the answers to its requests."""

    def __init__(self, env: VecEnv, number: int) -> None:
        """`number`: of the request that opened it."""
        self.env = env
        self.num_envs, self.playing = 0, False
        """What it has taken, and of which environments."""
        self.resume_s = 0.0
        """How long it waits for its client after its stream broke."""
        self.lock = threading.Lock()
        """Held by the call that steps the rows, or closes them."""
        self.heard_s = time.monotonic()
        self.left_s: float | None = None
        """When its stream broke; None where it has one, or never had."""
        self.end: Callable[[], None] = _nothing
        """Ends the stream of the client, where there is one."""
        self.closing = False
        """Whether its rows are to be closed."""
        rows = env.native_pool
        plain = rows is not None and fits_native(env.spec, env.num_rows)
        self._pool = rows.pool if rows is not None and plain else None
        self._actions = Batches(env.spec.action)
        self._writer = ReadyWriter(env.spec)
        self._kept: deque[Any] = deque([wire.Reply(number=number)], KEPT)

    def answer(self, request: Any) -> Any:
        """The reply to a request: what was asked for, or what went wrong.

        A request with the number of one of the last has its reply again, and steps nothing. One without a number says
        that the client is there.
        """
        number = request.number
        with self.lock:
            if not number:
                reply = PONG
            elif number == self._kept[-1].number + 1:
                reply = self._tried(request)
                self._kept.append(reply)
            else:
                reply = self._again(number)
            self.heard_s = time.monotonic()
            return reply

    def go_on(self, frames: Frames) -> None:
        """Answers requests to step all rows in native code, where that can be, for as long as they come at once.

        Whatever else comes is left for `answer`. Errors as of `Frames`.
        """
        if self._pool is None or self.closing:
            return
        with self.lock:
            channel = frames.lend()
            if channel is None:
                return
            last = self._kept[-1].number
            number, replies, rest, quiet = _native.serve_steps(
                self._pool, channel, last, SPIN_S, MOST_S
            )
            first = number - len(replies) + 1
            self._kept.extend(Packed(first + i, data) for i, data in enumerate(replies))
            self.heard_s = time.monotonic()
        frames.take_back(rest, quiet=quiet)

    def _tried(self, request: Any) -> Any:
        try:
            if request.__class__ is StepRequest:
                return self._step(request)
            return self._answer(request)
        except Exception as error:
            return failure(request.number, error)

    def _again(self, number: int) -> Any:
        """A reply that was given before, or that there is none."""
        for reply in self._kept:
            if reply.number == number:
                return reply
        last = self._kept[-1].number
        why = "one was lost" if number > last else "its reply is not kept any more"
        return failure(number, EnvError(f"request {number} came after {last}: {why}"))

    def _answer(self, request: Any) -> Any:
        number, env = request.number, self.env
        match request.WhichOneof("what"):
            case "reset":
                env.reset(self._seeds(request.reset))
                return self._rows(number)
            case "save":
                state = wire.State(state=pack(env.state()))
                return wire.Reply(number=number, state=state)
            case "restore":
                cut = env.restore(unpack(request.restore.state))
                reply = wire.Reply.FromString(self._rows(number).data)
                reply.rows.cut.extend(cut)
                return reply
            case "ping":
                return wire.Reply(number=number, pong=wire.Ping())
            case other:
                raise ConfigError(
                    f"a request of the kind {other!r} is none that this server knows here"
                )

    def _seeds(self, reset: Any) -> list[int]:
        if len(reset.seeds) != self.env.num_rows:
            raise ValueError(f"{len(reset.seeds)} seeds for {self.env.num_rows} rows")
        return list(reset.seeds)

    def _step(self, step: StepRequest) -> Packed:
        count = step.num_rows
        if not 0 < count <= self.env.num_rows - step.first:
            raise ValueError(
                f"rows {step.first} to {step.first + count - 1} are not among {self.env.num_rows}"
            )
        batch = self._actions.of(count)
        batch.read(step.data, step.at, step.size, "an action")
        self.env.send(slice(step.first, step.first + count), batch.tree)
        return self._rows(step.number)

    def _rows(self, number: int) -> Packed:
        """What the rows hand over now."""
        ready = self.env.recv()
        if self.env.spec.masked != self._writer.spec.masked:
            self._writer = ReadyWriter(self.env.spec)
        return self._writer.pack(number, ready)


def _nothing() -> None:
    return


PONG = wire.Reply(pong=wire.Ping())
"""The reply to a ping that has no number, and to who comes back."""


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
        guard: Guard | None = None,
        playing: Playing | None = None,
    ) -> None:
        """`make` gives rows of so many environments: `num_envs` in all to train in, and `playing` to evaluate in."""
        guard = guard or Guard()
        self.num_envs, self.idle_s, self.most = (
            num_envs,
            guard.idle_s,
            guard.max_clients,
        )
        self._make, self._playing = make, playing or Playing(make, num_envs)
        self.free, self.free_to_play = num_envs, self._playing.num_envs
        self._clients = 0
        self._open: dict[str, Session] = {}
        self._lock = threading.Condition()
        """Told whenever environments become free or a client comes back."""
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
            self._wait_for_the_gone(wanted, playing=playing)
            self._check(wanted, playing=playing)
            self._take(wanted, playing=playing)
        try:
            make = self._playing.make if playing else self._make
            session = Session(_checked(make(wanted)), number)
        except BaseException:
            with self._lock:
                self._give(wanted, playing=playing)
            raise
        session.num_envs, session.playing = wanted, playing
        session.resume_s = min(max(0.0, asked.resume_s), self.idle_s)
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

    def attach(self, name: str, end: Callable[[], None]) -> Session:
        """The session of a name, which has a stream from now on that `end` ends; ConfigError as of `of`.

        A stream that it had before ends: its client may know that it broke before the server does.
        """
        session = self.of(name)
        with self._lock:
            before, session.end = session.end, end
            session.left_s, session.heard_s = None, time.monotonic()
            self._lock.notify_all()
        before()
        return session

    def detach(self, name: str, end: Callable[[], None]) -> None:
        """The stream that `end` ends is no more: its client may come back, if it has said that it would.

        Nobody can tell whether the client ended it or the connection broke; one that goes for good calls Close.
        """
        with self._lock:
            session = self._open.get(name)
            if session is None or session.end is not end:
                return  # another stream has it
            session.end, session.left_s = _nothing, time.monotonic()
        if not session.resume_s:
            self.close(name)

    def close(self, name: str) -> None:
        """Closes a session's rows, when the call under way has ended; nothing where there is none."""
        with self._lock:
            session = self._open.pop(name, None)
        if session is None:
            return
        session.closing = True
        with (
            session.lock,
            suppress(Exception),
        ):  # an environment's own close: nobody is there to be told
            session.env.close()
        session.end()
        with self._lock:
            self._give(session.num_envs, playing=session.playing)

    def stop(self) -> None:
        """Closes all."""
        self._stopped.set()
        self.close_all()

    def close_all(self) -> None:
        """Closes what is open now."""
        for name in list(self._open):
            self.close(name)

    def _check(self, wanted: int, *, playing: bool) -> None:
        """ConfigError where a client cannot have so many now; with the lock held."""
        if self._clients >= self.most:
            raise ConfigError(
                f"{self._clients} clients have environments here, as many as this server takes at a time; end one, or "
                "start the server with a larger --guard.max-clients (training and evaluation count as one each)"
            )
        free = self.free_to_play if playing else self.free
        if not 0 < wanted <= free:
            raise ConfigError(
                f"{wanted} environments are asked for{' to evaluate in' * playing}, and {free} of {self.num_envs} "
                "are free here; ask for fewer, or start the server with more (--num-envs)"
            )

    def _wait_for_the_gone(self, wanted: int, *, playing: bool) -> None:
        """Waits while it takes those environments whose clients are gone and may come back; with the lock held."""
        longest = max((s.resume_s for s in self._open.values()), default=0.0)
        deadline = time.monotonic() + longest + 2 * LOOK_S
        while time.monotonic() < deadline:
            gone = [s for s in self._open.values() if s.left_s is not None]
            kept = sum(s.num_envs for s in gone if s.playing == playing)
            free = self.free_to_play if playing else self.free
            crowded = wanted > free or self._clients >= self.most
            enough = wanted <= free + kept and self._clients - len(gone) < self.most
            if not (crowded and enough):
                return
            self._lock.wait(LOOK_S)

    def _take(self, count: int, *, playing: bool) -> None:
        """A client more has so many; with the lock held."""
        self._clients += 1
        if playing:
            self.free_to_play -= count
        else:
            self.free -= count

    def _give(self, count: int, *, playing: bool) -> None:
        """A client less has so many; with the lock held."""
        self._clients -= 1
        if playing:
            self.free_to_play += count
        else:
            self.free += count
        self._lock.notify_all()

    def _look(self) -> None:
        while not self._stopped.wait(min(LOOK_S, self.idle_s / 4)):
            with self._lock:
                sessions = list(self._open.items())
            now = time.monotonic()
            for name, session in sessions:
                silent = now - session.heard_s > self.idle_s
                left = session.left_s
                gone = left is not None and now - left > session.resume_s
                if (silent or gone) and not session.lock.locked():
                    self.close(name)


def _checked(env: VecEnv) -> VecEnv:
    """The same; ConfigError where a message about all of its rows is larger than one may be."""
    _, nbytes = ready_layout(env.spec, masked=env.spec.masked).offsets((env.num_rows,))
    _, final = env.spec.observation.offsets((env.num_rows,))
    if nbytes + final + ROOM > MOST_BYTES:
        env.close()
        raise ConfigError(
            f"{env.num_rows} rows of {env.spec.env_id} are {nbytes + final:,} bytes a message, more than the "
            f"{MOST_BYTES:,} that one may have; take fewer from each server"
        )
    return env


def failure(number: int, error: BaseException) -> Any:
    """The reply to a request that failed."""
    kind = type(error).__name__
    notes = getattr(error, "__notes__", [])
    text = "\n".join([text_of(error), *notes])
    return wire.Reply(number=number, failure=wire.Failure(kind=kind, text=text))
