"""A server of environments over gRPC: each client has rows of its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc

from shoal.remote import environments_pb2 as wire
from shoal.remote import environments_pb2_grpc as service
from shoal.remote.address import check_loopback
from shoal.remote.batches import Batches, ReadyWriter
from shoal.remote.description import write_description
from shoal.remote.states import pack, unpack
from shoal.types import ConfigError, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shoal.envs.vec_env import VecEnv

PROTOCOL = 1
"""Of the messages; both sides must have the same."""
MOST_CLIENTS = 64
MOST_BYTES = 256 << 20
"""Of one message."""
OPTIONS = [
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.max_send_message_length", MOST_BYTES),
]


class Server:
    """Serves environments until it is stopped."""

    def __init__(
        self, make: Callable[[int], VecEnv], *, num_envs: int, listen: str
    ) -> None:
        """Listens at once.

        Args:
            make: rows of so many environments.
            num_envs: of all clients together.
            listen: HOST:PORT of this machine's own loopback; port 0 takes a free one.

        Raises:
            ConfigError: the address is not loopback, or cannot be listened at.
        """
        check_loopback(listen)
        pool = ThreadPoolExecutor(MOST_CLIENTS, thread_name_prefix="shoal-client")
        self._grpc = grpc.server(pool, options=[("grpc.so_reuseport", 0), *OPTIONS])
        self.service = Service(make, num_envs)
        service.add_EnvironmentsServicer_to_server(self.service, self._grpc)
        try:
            self.port = self._grpc.add_insecure_port(listen)
        except RuntimeError as error:
            raise ConfigError(
                f"cannot listen at {listen}: another program does, or this machine has no such address; choose another "
                "port, or 0 for a free one"
            ) from error
        self.address = f"{listen.rpartition(':')[0]}:{self.port}"
        self._grpc.start()

    def wait(self) -> None:
        """Serves until `stop`."""
        self._grpc.wait_for_termination()

    def stop(self, grace_s: float = 1.0) -> None:
        """Ends the sessions, in `grace_s` seconds at most, and closes their rows."""
        self._grpc.stop(grace_s).wait()


class Service(service.EnvironmentsServicer):
    """What clients call."""

    def __init__(self, make: Callable[[int], VecEnv], num_envs: int) -> None:
        """Makes one environment, to say what it is."""
        self._make, self._num_envs, self.free = make, num_envs, num_envs
        self._lock = threading.Lock()
        first = make(1)
        try:
            self._said = write_description(first)
        finally:
            first.close()

    def Describe(self, request: Any, context: Any) -> Any:  # noqa: N802  # as gRPC calls it
        """What the rows are."""
        return self._description()

    def Session(  # noqa: N802  # as gRPC calls it
        self, request_iterator: Iterator[Any], context: Any
    ) -> Iterator[Any]:
        """A client's rows, from its first request to the end of the stream."""
        first = next(request_iterator, None)
        if first is None:
            return
        taken = 0
        try:
            taken = self._take(first)
            rows = SessionRows(self._make(taken))
        except Exception as error:
            self._give_back(taken)
            yield failure(first.number, error)
            return
        try:
            yield wire.Reply(number=first.number, opened=self._description())
            for request in request_iterator:
                yield rows.answer(request)
        finally:
            self._give_back(taken)
            rows.env.close()

    def _description(self) -> Any:
        return wire.Description(
            protocol=PROTOCOL,
            spec=self._said,
            num_envs=self._num_envs,
            free_envs=self.free,
        )

    def _take(self, first: Any) -> int:
        """Environments for the client that asks for them with its first request; ConfigError where there are none."""
        if first.WhichOneof("what") != "open":
            raise ConfigError("the first request of a session must be `open`")
        wanted, theirs = first.open.num_envs, first.open.protocol
        if theirs != PROTOCOL:
            raise ConfigError(
                f"this server speaks protocol {PROTOCOL}, the client {theirs}; install the same shoal on both sides"
            )
        with self._lock:
            if not 0 < wanted <= self.free:
                raise ConfigError(
                    f"{wanted} environments are asked for, and {self.free} of {self._num_envs} are free here; ask "
                    "for fewer, or start the server with more (--num-envs)"
                )
            self.free -= wanted
        return wanted

    def _give_back(self, taken: int) -> None:
        with self._lock:
            self.free += taken


class SessionRows:
    """The rows of one session, and the answers to its requests."""

    def __init__(self, env: VecEnv) -> None:
        """`env` is closed by the caller."""
        self.env = env
        self._actions = Batches(env.spec.action)
        self._writer = ReadyWriter(env.spec)
        self._last = 1
        """The number of the last request."""

    def answer(self, request: Any) -> Any:
        """The reply to a request: what was asked for, or what went wrong."""
        try:
            if request.number != self._last + 1:
                raise ConfigError(
                    f"request {request.number} came after {self._last}: one was lost, or came twice"
                )
            self._last = request.number
            return self._answer(request)
        except Exception as error:
            return failure(request.number, error)

    def _answer(self, request: Any) -> Any:
        number, env = request.number, self.env
        match request.WhichOneof("what"):
            case "step":
                return wire.Reply(number=number, rows=self._step(request.step))
            case "reset":
                env.reset(list(request.reset.seeds))
                return wire.Reply(number=number, rows=self._rows([]))
            case "save":
                return wire.Reply(
                    number=number, state=wire.State(state=pack(env.state()))
                )
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


def failure(number: int, error: BaseException) -> Any:
    """The reply to a request that failed."""
    kind = type(error).__name__
    notes = getattr(error, "__notes__", [])
    text = "\n".join([text_of(error), *notes])
    return wire.Reply(number=number, failure=wire.Failure(kind=kind, text=text))
