"""A server of a trained policy over gRPC: clients send observations and get actions, each with a memory of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from shoal.deploy.description import Provenance, duties, sha256_of
from shoal.deploy.player import Player
from shoal.deploy.policy_sessions import PROTOCOL, Limits, PolicySessions
from shoal.envs.masks import MaskReader
from shoal.remote import policies_pb2 as wire
from shoal.remote.address import ENCRYPTED, SCHEME
from shoal.remote.description import write_spec
from shoal.remote.greetings import Greetings
from shoal.remote.settings import Guard, read_token
from shoal.remote.streams import NO_MESSAGE
from shoal.remote.trust import OPTIONS, TokenCheck, add_port
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from shoal.types import Spec

NAME = "shoal.v1.Policies"
SPARE_CALLS = 16
"""Calls at a time besides the clients' streams; further ones are refused."""
STOP_S = 5.0
MOST_ROWS = 4096


class PolicyServer:
    """Serves a policy until it is stopped."""

    def __init__(
        self,
        policy: nn.Module,
        spec: Spec,
        *,
        listen: str = "127.0.0.1:0",
        guard: Guard | None = None,
        most_rows: int = MOST_ROWS,
        provenance: Provenance | None = None,
        native: bool = True,
    ) -> None:
        """Listens at once.

        Args:
            policy: in the signature of policies; its weights are copied where a session begins.
            spec: of the environment it was trained in.
            listen: HOST:PORT; port 0 takes a free one, which `address` names.
            guard: who may connect; None: whoever is on this machine, at a loopback address.
            most_rows: observations in one step of a client.
            provenance: which run the policy is of.
            native: acts in native code where the policy can be.

        Raises:
            ConfigError: others can reach the address and are not asked who they are, or it cannot be listened at.
        """
        if most_rows < 1:
            raise ConfigError(f"most_rows must be at least 1, got {most_rows}")
        guard, self._greetings = guard or Guard(), Greetings()
        provenance = provenance or Provenance()
        self._grpc = _new_server(guard, self._greetings)
        could = "ask the policy for actions"
        self.port = add_port(self._grpc, listen, guard, could=could)
        self.address = f"{listen.rpartition(':')[0]}:{self.port}"
        self.name = (SCHEME if guard.cert is None else ENCRYPTED) + self.address
        """As clients name it; of a server of all addresses they put a host's in its place."""

        def make_player(rows: int, sample: bool, seed: int) -> Player:  # noqa: FBT001
            return Player(
                policy,
                spec,
                rows,
                seed=seed,
                greedy=not sample,
                native=native,
                guard=provenance.action_guard,
            )

        limits = Limits(most_rows, guard.max_clients, guard.idle_s)
        self._sessions = PolicySessions(make_player, spec, limits)
        self._about = _describe(spec, provenance, limits)
        self._health = health.HealthServicer()
        self._add_services()
        self._grpc.start()

    def __enter__(self) -> PolicyServer:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stops."""
        self.stop()

    def wait(self) -> None:
        """Serves until `stop`."""
        self._grpc.wait_for_termination()

    def stop(self, grace_s: float = 1.0) -> None:
        """Ends the sessions, in `grace_s` seconds at most."""
        self._health.enter_graceful_shutdown()
        self._grpc.stop(grace_s).wait(grace_s + STOP_S)
        self._sessions.stop()

    def _add_services(self) -> None:
        """The policy's own calls, and health."""
        handlers = {
            "Describe": grpc.unary_unary_rpc_method_handler(
                self._describe, None, _bytes
            ),
            "Session": grpc.stream_stream_rpc_method_handler(
                self._session, None, _bytes
            ),
        }
        found = grpc.method_handlers_generic_handler(NAME, handlers)
        self._grpc.add_generic_rpc_handlers((found,))
        self._health.set(NAME, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)

    def _describe(self, _: bytes, context: Any) -> Any:
        """What the policy observes and does."""
        return self._about

    def _session(self, requests: Iterator[bytes], context: Any) -> Iterator[Any]:
        """A client's rows, from its first request to the end of the stream."""

        def end() -> None:
            context.cancel()

        try:
            with self._greetings.waiting(end):
                first = next(requests, None)
            if first is None:
                return
            asked = wire.PolicyRequest.FromString(first)
            if asked.WhichOneof("what") != "open":
                raise ConfigError("the first request of a session must be `open`")
            session = self._sessions.open(asked.open, end)
        except ConfigError as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
            return
        except DecodeError:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, NO_MESSAGE)
            return
        try:
            yield wire.PolicyReply(opened=self._about)
            for data in requests:
                self._sessions.hear(end)
                yield session.act(wire.PolicyRequest.FromString(data).act)
        except DecodeError:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, NO_MESSAGE)
        finally:
            self._sessions.close(end)


def _new_server(guard: Guard, greetings: Greetings) -> Any:
    """A gRPC server that asks clients for the token, where there is one."""
    checks: list[grpc.ServerInterceptor] = []
    if guard.token_file:
        checks.append(TokenCheck(read_token(guard.token_file), greetings))
    calls = guard.max_clients + SPARE_CALLS
    pool = ThreadPoolExecutor(calls, thread_name_prefix="shoal-policy")
    return grpc.server(
        pool,
        interceptors=checks,
        options=[("grpc.so_reuseport", 0), *OPTIONS],
        maximum_concurrent_rpcs=calls,
    )


def _describe(spec: Spec, provenance: Provenance, limits: Limits) -> Any:
    return wire.PolicyDescription(
        protocol=PROTOCOL,
        spec=write_spec(spec),
        spec_sha256=sha256_of(spec),
        run=provenance.run,
        algo=provenance.algo,
        most_rows=limits.most_rows,
        caller=duties(spec, provenance.preprocessing),
        options=MaskReader(spec).size,
        idle_s=limits.idle_s,
    )


def _bytes(message: Any) -> bytes:
    return message.SerializeToString()
