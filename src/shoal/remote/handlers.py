"""How gRPC reads and writes what the server's calls take and give: steps and rows as the bytes that they are."""

from __future__ import annotations

from typing import Any

import grpc

from shoal.remote import environments_pb2 as wire
from shoal.remote.messages import read_call, read_request, to_bytes
from shoal.remote.streams import NAME


def add_service(service: Any, server: Any) -> None:
    """Has a gRPC server answer by the methods of a `Service`."""
    one, many = (
        grpc.unary_unary_rpc_method_handler,
        grpc.stream_stream_rpc_method_handler,
    )
    handlers = {
        "Describe": one(service.Describe, wire.DescribeRequest.FromString, to_bytes),
        "Session": many(service.Session, read_request, to_bytes),
        "Open": one(service.Open, wire.OpenRequest.FromString, to_bytes),
        "Call": one(service.Call, read_call, to_bytes),
        "Close": one(service.Close, wire.SessionRequest.FromString, to_bytes),
    }
    found = grpc.method_handlers_generic_handler(NAME, handlers)
    server.add_generic_rpc_handlers((found,))
