"""How gRPC reads and writes what the server's calls take and give: steps and rows as the bytes that they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from shoal.remote import environments_pb2 as wire
from shoal.remote.messages import read_call, read_request, to_bytes
from shoal.remote.streams import NAME, NO_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def add_service(service: Any, server: Any) -> None:
    """Has a gRPC server answer by the methods of a `Service`."""
    handlers = {
        "Describe": _one(service.Describe, wire.DescribeRequest.FromString),
        "Session": _many(service.Session),
        "Open": _one(service.Open, wire.OpenRequest.FromString),
        "Call": _one(service.Call, read_call),
        "Close": _one(service.Close, wire.SessionRequest.FromString),
    }
    found = grpc.method_handlers_generic_handler(NAME, handlers)
    server.add_generic_rpc_handlers((found,))


def _one(answer: Callable[..., Any], read: Callable[[bytes], Any]) -> Any:
    """A call with one request. It is read here, not by gRPC, which keeps calls forever whose request cannot be read."""

    def call(data: bytes, context: Any) -> Any:
        try:
            request = read(data)
        except DecodeError:
            return context.abort(grpc.StatusCode.INVALID_ARGUMENT, NO_MESSAGE)
        return answer(request, context)

    return grpc.unary_unary_rpc_method_handler(call, None, to_bytes)


def _many(answer: Callable[..., Iterator[Any]]) -> Any:
    """A stream of requests, which ends where one cannot be read."""

    def call(requests: Iterator[bytes], context: Any) -> Iterator[Any]:
        try:
            yield from answer(map(read_request, requests), context)
        except DecodeError:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, NO_MESSAGE)

    return grpc.stream_stream_rpc_method_handler(call, None, to_bytes)
