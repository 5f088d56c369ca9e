"""Messages that native code packs and reads: what protobuf says of the same bytes, whatever they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from gymnasium import spaces

from shoal import _native
from shoal.envs.outputs import Outputs
from shoal.remote import environments_pb2 as wire
from shoal.remote.arrivals import Arrivals
from shoal.remote.batches import Batch, ReadyWriter
from shoal.remote.messages import Packed, RowsReply, StepRequest, read_call, read_reply, read_request, to_bytes
from shoal.types import EnvError, Ready, Spec

OBS = spaces.Dict({"image": spaces.Box(0, 255, (3, 2), np.uint8), "speed": spaces.Box(-9, 9, (2,), np.float32)})
SPEC = Spec.of("Two-v0", OBS, spaces.Discrete(5))
ROWS = 6


def outputs(seed: int) -> Outputs:
    """Rows of which some have ended."""
    rng, out = np.random.default_rng(seed), Outputs(SPEC, ROWS)
    for obs in (out.obs, out.final_obs):
        obs["image"][:] = rng.integers(0, 256, (ROWS, 3, 2))
        obs["speed"][:] = rng.normal(size=(ROWS, 2))
    out.reward[:] = rng.normal(size=ROWS)
    out.terminated[:] = rng.random(ROWS) < 0.3
    out.truncated[:] = rng.random(ROWS) < 0.2
    return out


def packed(ready: Ready, number: int = 300) -> bytes:
    return to_bytes(ReadyWriter(SPEC).pack(number, ready))


def test_a_step_is_protobufs_message() -> None:
    batch = Batch(SPEC.action, ROWS)
    batch.arrays[0][:] = np.arange(ROWS) % 5
    for number, first in ((1, 0), (127, 128), (2**40, 2**20)):
        data = _native.pack_step(number, first, ROWS, batch.arrays)
        step = wire.Step(first=first, count=ROWS, action=batch.block.tobytes())
        assert data == wire.Request(number=number, step=step).SerializeToString()
        found = read_request(data)
        assert found[:3] == (number, first, ROWS)
        assert data[found.at :][: found.size] == batch.block.tobytes()
        call = wire.SessionRequest(session="its name", request=wire.Request(number=number, step=step))
        name, asked = read_call(call.SerializeToString())
        assert name == "its name"
        assert asked[:3] == found[:3]
        assert asked.data[asked.at :][: asked.size] == batch.block.tobytes()


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_protobufs_message(seed: int) -> None:
    """With the final observations of those that ended, and what arrives is what was sent."""
    out = outputs(seed)
    ready = out.view(slice(1, 5))
    data = packed(ready)
    reply = wire.Reply.FromString(data)
    assert reply.SerializeToString() == data
    assert (reply.number, reply.rows.first, reply.rows.count, reply.rows.masked) == (300, 1, 4, False)
    arrived = Outputs(SPEC, ROWS)
    Arrivals(SPEC, arrived).write(slice(1, 5), 0, read_reply(data), "here:1")
    ended = ready.terminated | ready.truncated
    there = arrived.view(slice(1, 5))
    for leaf in ("image", "speed"):
        assert np.array_equal(there.obs[leaf], ready.obs[leaf])
        assert np.array_equal(there.final_obs[leaf][ended], ready.final_obs[leaf][ended])
        assert not there.final_obs[leaf][~ended].any()
    for name in ("reward", "terminated", "truncated", "valid", "episode_return", "episode_length"):
        assert np.array_equal(getattr(there, name), getattr(ready, name))
    assert not arrived.obs["speed"][[0, 5]].any()


def test_arrays_that_lie_otherwise_in_memory_are_packed_too() -> None:
    out = outputs(0)
    plain = packed(out.view(slice(0, ROWS)))
    for obs in (out.obs, out.final_obs):
        obs["image"] = np.asfortranarray(obs["image"])
        obs["speed"] = obs["speed"].astype(np.float64)
    out.put_obs(out.obs)
    assert packed(out.view(slice(0, ROWS))) == plain


def test_rows_that_are_none_are_refused() -> None:
    """Of another size, not finite, of other rows."""
    out = outputs(1)
    found = read_reply(packed(out.view(slice(0, ROWS))))
    arrivals = Arrivals(SPEC, Outputs(SPEC, ROWS))
    whole = slice(0, ROWS)
    with pytest.raises(EnvError, match="here:1 sent something else than rows: 64 bytes came where"):
        arrivals.write(whole, 0, found._replace(size=64), "here:1")
    with pytest.raises(EnvError, match="0 bytes came where"):
        arrivals.write(whole, 0, found._replace(final_size=0), "here:1")
    with pytest.raises(EnvError, match="not for those that were stepped"):
        arrivals.write(slice(0, 3), 0, found, "here:1")
    for array in (out.obs["speed"], out.reward):
        array[2] = np.inf
        with pytest.raises(EnvError, match="not finite"):
            arrivals.write(whole, 0, read_reply(packed(out.view(whole))), "here:1")
        array[2] = 0
    data = bytearray(found.data)
    flags = found.at + 3 * 64  # after two leaves and the rewards
    assert set(data[flags : flags + ROWS]) <= {0, 1}
    data[flags : flags + ROWS] = [7 * flag for flag in data[flags : flags + ROWS]]
    arrivals.write(whole, 0, found._replace(data=bytes(data)), "here:1")
    assert arrivals.out.terminated.view(np.uint8).max() == 1


def test_other_encodings_of_the_same_message_are_read() -> None:
    """Fields in another order, twice, or cut: protobuf reads what native code leaves to it."""
    step = wire.Step(first=1, count=2, action=b"abc")
    before = wire.Request(step=wire.Step(first=7)).SerializeToString()
    after = wire.Request(number=3, step=step).SerializeToString()
    assert read_request(before + after) == StepRequest(3, 1, 2, 0, 3, b"abc")
    assert read_request(wire.Request(number=3, ping=wire.Ping()).SerializeToString()).WhichOneof("what") == "ping"
    rows = wire.Rows(first=1, count=2, masked=True, arrays=b"ab", final_obs=b"c", cut=["one", "two"])
    found = read_reply(wire.Reply(number=9, rows=rows).SerializeToString())
    assert found == RowsReply(9, 1, 2, True, 0, 2, 2, 1, b"abc", ["one", "two"])
    assert to_bytes(Packed(1, b"as it is")) == b"as it is"


def agree(data: bytes, read: Any, whole: Any) -> bool:
    """Whether native code read the bytes; protobuf then found the same in them, or both found nothing."""
    try:
        expected = whole.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            read(data)
        return False
    found = read(data)
    match found:
        case StepRequest():
            step = expected.step
            assert found[:3] == (expected.number, step.first, step.count)
            assert found.data[found.at :][: found.size] == step.action
        case RowsReply():
            rows = expected.rows
            assert found[:4] == (expected.number, rows.first, rows.count, rows.masked)
            assert found.data[found.at :][: found.size] == rows.arrays
            assert found.data[found.final_at :][: found.final_size] == rows.final_obs
            assert list(found.cut) == list(rows.cut)
        case _:
            assert found == expected
            return False
    return found.data is data


def test_changed_bytes_are_read_as_protobuf_reads_them() -> None:
    rng = np.random.default_rng(0)
    step = _native.pack_step(300, 2, ROWS, Batch(SPEC.action, ROWS).arrays)
    rows = packed(outputs(0).view(slice(0, ROWS)))
    counts = {True: 0, False: 0}
    for _ in range(3_000):
        for data, read, whole in ((step, read_request, wire.Request), (rows, read_reply, wire.Reply)):
            changed = bytearray(data)
            for at in rng.integers(0, 24, rng.integers(1, 4)):
                changed[at] = rng.integers(256) if rng.random() < 0.7 else changed[at] ^ 1 << rng.integers(8)
            if rng.random() < 0.2:
                del changed[rng.integers(len(changed)) :]
            counts[agree(bytes(changed), read, whole)] += 1
    assert min(counts.values()) > 300
