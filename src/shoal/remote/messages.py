"""Messages as bytes: native code packs and reads steps and rows, in protobuf's encoding; protobuf reads the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from shoal import _native
from shoal.remote import environments_pb2 as wire

if TYPE_CHECKING:
    from collections.abc import Sequence


_made = tuple.__new__
"""Makes a named tuple of all its values, in half the time that its class takes."""


class StepRequest(NamedTuple):
    """A request to step rows: its action is data[at:at + size]."""

    number: int
    first: int
    num_rows: int
    at: int
    size: int
    data: bytes

    def WhichOneof(self, _: str) -> str:  # noqa: N802
        """As of protobuf's message."""
        return "step"


class RowsReply(NamedTuple):
    """A reply about rows: their arrays and the final observations lie in `data`, each from an offset on."""

    number: int
    first: int
    num_rows: int
    masked: bool
    at: int
    size: int
    final_at: int
    final_size: int
    data: bytes
    cut: Sequence[str] = ()

    def WhichOneof(self, _: str) -> str:  # noqa: N802
        """As of protobuf's message."""
        return "rows"


class Packed(NamedTuple):
    """A reply that is bytes already."""

    number: int
    data: bytes


def read_request(data: bytes) -> Any:
    """A `StepRequest`, or protobuf's `Request` of another kind; DecodeError where it is none."""
    return _request(data, 0, len(data))


def read_call(data: bytes) -> tuple[str, Any]:
    """The session of a `SessionRequest`, and its request as of `read_request`; DecodeError where it is none."""
    found = _native.read_call(data)
    if found is None:
        call = wire.SessionRequest.FromString(data)
        return call.session, _step_of(call.request)
    at, size, request_at, request_size = found
    session = data[at : at + size].decode("ascii", "replace")
    return session, _request(data, request_at, request_size)


def read_reply(data: bytes) -> Any:
    """A `RowsReply`, or protobuf's `Reply` of another kind; DecodeError where it is none."""
    found = _native.read_rows(data)
    if found is not None:
        return _made(RowsReply, (*found, data, ()))
    reply = wire.Reply.FromString(data)
    if reply.WhichOneof("what") != "rows":
        return reply
    rows = reply.rows
    ends = len(rows.arrays), len(rows.final_obs)
    return RowsReply(
        number=reply.number,
        first=rows.first,
        num_rows=rows.count,
        masked=rows.masked,
        at=0,
        size=ends[0],
        final_at=ends[0],
        final_size=ends[1],
        data=rows.arrays + rows.final_obs,
        cut=list(rows.cut),
    )


def to_bytes(message: Any) -> bytes:
    """Of a `Packed` one, or of protobuf's."""
    if message.__class__ is Packed:
        return message.data
    return message.SerializeToString()


def _request(data: bytes, at: int, size: int) -> Any:
    found = _native.read_step(data, at, size)
    if found is None:
        return _step_of(wire.Request.FromString(data[at : at + size]))
    return _made(StepRequest, (*found, data))


def _step_of(request: Any) -> Any:
    """The same, unless it is a step that protobuf had to read."""
    if request.WhichOneof("what") != "step":
        return request
    step = request.step
    return StepRequest(
        request.number, step.first, step.count, 0, len(step.action), step.action
    )
