"""Trust on the wire: encrypted channels and ports, and the token that every call shows."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from shoal.remote.address import is_loopback
from shoal.remote.frames import MOST_BYTES
from shoal.remote.settings import read_file, read_token
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shoal.remote.greetings import Greetings
    from shoal.remote.settings import Guard, Remote

HEADER = "authorization"
HEALTH = "/grpc.health.v1.Health/Check"
"""What may be asked without the token: whether the server serves. Who watches over machines has no token to show."""
OPTIONS = [
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.max_send_message_length", MOST_BYTES),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]
"""Of channels and servers: what one message may have, and that a lost connection is soon tried again."""


def channel_to(
    server: str, remote: Remote, *, encrypted: bool
) -> tuple[Any, tuple[tuple[str, str], ...]]:
    """A channel to HOST:PORT, and what every call on it says beside.

    Raises:
        ConfigError: a file cannot be read, or a token or a certificate would go over an open wire.
    """
    if not encrypted and remote.tls:
        raise ConfigError(
            f"remote.ca and remote.cert are for encrypted connections; write grpcs://{server}"
        )
    if not encrypted and remote.token_file and not is_loopback(server):
        raise ConfigError(
            f"the token would go to {server} for everybody on the way to read; start that server with a certificate "
            f"and write grpcs://{server}"
        )
    said: tuple[tuple[str, str], ...] = ()
    if remote.token_file:
        said = ((HEADER, f"Bearer {read_token(remote.token_file)}"),)
    if not encrypted:
        return grpc.insecure_channel(server, options=OPTIONS), said
    files = {"root_certificates": (remote.ca, "remote.ca")}
    files["private_key"] = (remote.key, "remote.key")
    files["certificate_chain"] = (remote.cert, "remote.cert")
    given = {
        name: read_file(path, what) for name, (path, what) in files.items() if path
    }
    return grpc.secure_channel(
        server, grpc.ssl_channel_credentials(**given), options=OPTIONS
    ), said


def add_port(
    server: Any,
    listen: str,
    guard: Guard,
    *,
    could: str = "step and reset the environments",
) -> int:
    """Has a server listen at HOST:PORT; returns the port. `could`: what whoever reaches it can do.

    Raises:
        ConfigError: others can reach the address and would not be asked who they are, or it is taken.
    """
    if not is_loopback(listen) and not guard.knows_clients:
        raise ConfigError(
            f"{listen}: whoever reaches this address could {could}; give a certificate (cert, key) and a token_file or "
            "a client_ca, or listen at 127.0.0.1"
        )
    try:
        if guard.cert is None or guard.key is None:
            return server.add_insecure_port(listen)
        pair = read_file(guard.key, "key"), read_file(guard.cert, "cert")
        clients = read_file(guard.client_ca, "client_ca") if guard.client_ca else None
        credentials = grpc.ssl_server_credentials(
            [pair], root_certificates=clients, require_client_auth=clients is not None
        )
        return server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise ConfigError(
            f"cannot listen at {listen}: another program does, this machine has no such address, or the certificate "
            "and its key do not belong together; port 0 takes a free one"
        ) from error


class TokenCheck(grpc.ServerInterceptor):
    """Refuses calls that do not show the token."""

    def __init__(self, token: str, greetings: Greetings) -> None:
        """`token`: the only one; `greetings`: those who call without it and have said nothing yet."""
        self._expected = f"Bearer {token}".encode()
        self._greetings = greetings

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        """The call's handler, or one that refuses."""
        said = dict(handler_call_details.invocation_metadata).get(HEADER, "")
        found = continuation(handler_call_details)
        asked: str = handler_call_details.method
        shown = hmac.compare_digest(str(said).encode(), self._expected)
        if found is None or shown:
            return found
        if asked == HEALTH:
            return self._in_time(found)

        def refuse(_: Any, context: Any) -> Any:
            context.abort(
                grpc.StatusCode.UNAUTHENTICATED,
                "this server asks for a token, and it is not this one; give remote.token_file",
            )

        # As of a stream, whatever it is: that does not wait for a request.
        return grpc.stream_stream_rpc_method_handler(refuse)

    def _in_time(self, found: Any) -> Any:
        """The same call, whose request must come soon: a thread waits for it."""

        def call(requests: Iterator[bytes], context: Any) -> Any:
            try:
                with self._greetings.waiting(context.cancel):
                    data = next(requests, b"")
                request = found.request_deserializer(data)
            except ConfigError as error:
                return context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
            except DecodeError:
                return context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no message")
            return found.unary_unary(request, context)

        return grpc.stream_unary_rpc_method_handler(
            call, None, found.response_serializer
        )
