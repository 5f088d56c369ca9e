"""A server of environments over gRPC: each client has rows of its own."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from shoal.envs.registry import make
from shoal.remote import environments_pb2 as wire
from shoal.remote import environments_pb2_grpc as service
from shoal.remote.address import ENCRYPTED, SCHEME
from shoal.remote.description import write_description
from shoal.remote.greetings import Greetings
from shoal.remote.handlers import add_service
from shoal.remote.plane import Plane
from shoal.remote.sessions import PONG, PROTOCOL, Sessions, failure
from shoal.remote.settings import Guard, read_token
from shoal.remote.streams import NAME
from shoal.remote.trust import OPTIONS, TokenCheck, add_port
from shoal.types import ConfigError, text_of
from shoal.types.calls import worded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shoal.envs.vec_env import VecEnv
    from shoal.remote.sessions import Playing

STOP_S = 5.0
"""What gRPC may take to end calls beyond the grace; it has been seen to keep some forever."""
SPARE_CALLS = 16
"""Calls at a time besides the clients' streams; further ones are refused."""


@worded()
def serve(
    env: str | Callable[..., Any],
    *,
    num_envs: int = 64,
    listen: str = "127.0.0.1:0",
    backend: str = "auto",
    num_threads: int | None = None,
    env_kwargs: dict[str, Any] | None = None,
    info_keys: tuple[str, ...] = (),
    guard: Guard | None = None,
) -> Server:
    """Starts a server of environments in this process; `with` or `stop()` ends it.

    Args:
        env: as of `shoal.train`, a callable too: clients name the address alone.
        num_envs: environments for all clients together.
        listen: HOST:PORT; port 0 takes a free one, which `address` names.
        backend: as of `shoal.train`.
        num_threads: threads that step native rows of each client; None: one for each core.
        env_kwargs: keywords of the environment's constructor.
        info_keys: numbers of every episode's last info that clients get (not native).
        guard: who may connect; None: whoever is on this machine, at a loopback address.

    Raises:
        ConfigError: an environment that cannot be made, or an address that is taken, or that others can reach who are
            not asked who they are.
    """
    if num_envs < 1:
        raise ConfigError(f"num_envs must be at least 1, got {num_envs}")
    make_rows = partial(
        make,
        env,
        backend=backend,
        num_threads=num_threads or os.cpu_count() or 1,
        env_kwargs=env_kwargs,
        info_keys=info_keys,
    )
    return Server(make_rows, num_envs=num_envs, listen=listen, guard=guard)


class Server:
    """Serves environments until it is stopped."""

    def __init__(
        self,
        make_rows: Callable[[int], VecEnv],
        *,
        num_envs: int,
        listen: str,
        guard: Guard | None = None,
        playing: Playing | None = None,
    ) -> None:
        """Listens at once.

        Args:
            make_rows: rows of so many environments.
            num_envs: of all clients together.
            listen: HOST:PORT; port 0 takes a free one.
            guard: who may connect; None: whoever is on this machine, at a loopback address.
            playing: what clients evaluate in; None: as many as they train in, made alike.

        Raises:
            ConfigError: others can reach the address and are not asked who they are, or it cannot be listened at.
        """
        guard, greetings = guard or Guard(), Greetings()
        checks: list[grpc.ServerInterceptor] = []
        if guard.token_file:
            token = read_token(guard.token_file)
            checks.append(TokenCheck(token, greetings))
        calls = guard.max_clients + SPARE_CALLS
        pool = ThreadPoolExecutor(calls, thread_name_prefix="shoal-client")
        self._grpc = grpc.server(
            pool,
            interceptors=checks,
            options=[("grpc.so_reuseport", 0), *OPTIONS],
            maximum_concurrent_rpcs=calls,
        )
        self.port = add_port(self._grpc, listen, guard)
        self.address = f"{listen.rpartition(':')[0]}:{self.port}"
        self.name = (SCHEME if guard.cert is None else ENCRYPTED) + self.address
        """As clients name it; of a server of all addresses they put a host's in its place."""
        self.service = Service(make_rows, num_envs, guard, playing, greetings)
        if guard.plane:
            host = listen.rpartition(":")[0].strip("[]")
            self.service.plane = Plane(self.service, host, guard)
        add_service(self.service, self._grpc)
        self._health = health.HealthServicer()
        self._health.set(NAME, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        self._grpc.start()

    def __enter__(self) -> Server:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stops."""
        self.stop()

    def wait(self) -> None:
        """Serves until `stop`."""
        self._grpc.wait_for_termination()

    def stop(self, grace_s: float = 1.0) -> None:
        """Ends the sessions, in `grace_s` seconds at most, and closes their rows."""
        self._health.enter_graceful_shutdown()
        self._grpc.stop(grace_s).wait(grace_s + STOP_S)
        if self.service.plane is not None:
            self.service.plane.close()
        self.service.sessions.stop()


class Service(service.EnvironmentsServicer):
    """What clients call, by gRPC's names."""

    def __init__(
        self,
        make_rows: Callable[[int], VecEnv],
        num_envs: int,
        guard: Guard | None = None,
        playing: Playing | None = None,
        greetings: Greetings | None = None,
    ) -> None:
        """Makes one environment, to say what it is."""
        guard = guard or Guard()
        first = make_rows(1)
        try:
            self._said = write_description(first)
        finally:
            first.close()
        self.sessions = Sessions(make_rows, num_envs, guard, playing)
        self.greetings = greetings or Greetings()
        self.plane: Plane | None = None

    def Describe(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What the rows are."""
        return self._description()

    def Session(  # noqa: N802
        self, request_iterator: Iterator[Any], context: Any
    ) -> Iterator[Any]:
        """A client's rows, from its first request to the end of the stream."""

        def end() -> None:
            context.cancel()

        try:
            with self.greetings.waiting(end):
                first = next(request_iterator, None)
        except ConfigError as error:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
            return
        if first is None:
            return
        try:
            name, reply = self._named(first)
            session = self.sessions.attach(name, end)
        except Exception as error:
            yield failure(first.number, error)
            return
        try:
            yield reply
            for request in request_iterator:
                reply = session.answer(request)
                if reply.number:
                    yield reply
        finally:
            self.sessions.detach(name, end)

    def Open(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Rows for a client that calls once a step."""
        try:
            name, _ = self.sessions.open(request, 0)
        except ConfigError as error:
            return context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except Exception as error:  # an environment's own
            said = f"its environments cannot be made ({type(error).__name__}: {text_of(error)})"
            return context.abort(grpc.StatusCode.FAILED_PRECONDITION, said)
        return self._opened(name)

    def Call(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The reply to one request of a client."""
        try:
            name, asked = request
            session = self.sessions.of(name)
        except ConfigError as error:
            return context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        return session.answer(asked)

    def Close(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Closes a client's rows; may be called twice."""
        self.sessions.close(request.session)
        return wire.Closed()

    def _named(self, first: Any) -> tuple[str, Any]:
        """The session that the first request of a stream is for, and the reply to it."""
        match first.WhichOneof("what"):
            case "open":
                name, _ = self.sessions.open(first.open, first.number)
                return name, wire.Reply(number=first.number, opened=self._opened(name))
            case "resume":
                return first.resume.session, PONG
            case _:
                raise ConfigError(
                    "the first request of a stream must be `open` or `resume`"
                )

    def _opened(self, name: str) -> Any:
        idle_s = self.sessions.idle_s
        return wire.Opened(session=name, description=self._description(), idle_s=idle_s)

    def _description(self) -> Any:
        return wire.Description(
            protocol=PROTOCOL,
            spec=self._said,
            num_envs=self.sessions.num_envs,
            free_envs=self.sessions.free,
            socket="" if self.plane is None else self.plane.path,
            tls_port=0 if self.plane is None else self.plane.tls_port,
        )
