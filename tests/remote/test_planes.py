"""The second plane: which is chosen, and what comes of frames that are none."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trustme

from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make, on_servers
from shoal.remote import environments_pb2 as wire
from shoal.remote.frames import MOST_BYTES, Frames
from shoal.remote.server import Server
from shoal.remote.sessions import PROTOCOL
from shoal.remote.settings import Guard, Remote, Terms
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = slice(None)


@pytest.fixture
def server() -> Iterator[Server]:
    """CartPole, 4 environments, on both planes."""
    with Server(partial(make, "CartPole-v1"), num_envs=4, listen="127.0.0.1:0") as made:
        yield made


def rows_of(name: str, num_envs: int = 2, **remote: Any) -> Any:
    return on_servers(name, num_envs, None, (), Preprocessing(), terms=Terms(Remote(**remote), 10.0))


def played(rows: Any) -> bytes:
    """What 50 steps come to."""
    rows.reset(3)
    parts = [rows.recv().obs.tobytes()]
    for step in range(50):
        rows.send(ALL, np.full(rows.num_rows, step % 2))
        ready = rows.recv()
        ended = ready.terminated | ready.truncated
        parts += [ready.obs.tobytes(), ready.final_obs[ended].tobytes(), ready.reward.tobytes()]
    return b"".join(parts)


def test_the_fastest_plane_is_taken_unless_it_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are the same on each."""
    authority = trustme.CA()
    signed = authority.issue_cert("127.0.0.1")
    files = {name: str(tmp_path / name) for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    signed.cert_chain_pems[0].write_to_path(files["cert"])
    signed.private_key_pem.write_to_path(files["key"])
    found: dict[str, bytes] = {}

    def play(name: str, **remote: Any) -> None:
        with closing(rows_of(name, **remote)) as rows:
            assert found.setdefault(rows.plane, played(rows)) == played(rows)

    play(server.name)
    play(server.name, plane="grpc")
    guard = Guard(files["cert"], files["key"])
    with Server(partial(make, "CartPole-v1"), num_envs=4, listen="127.0.0.1:0", guard=guard) as encrypted:
        play(encrypted.name, ca=files["ca"], plane="tls")
        monkeypatch.setattr(Path, "is_socket", lambda _: False)  # as on another machine
        play(encrypted.name, ca=files["ca"])
        with pytest.raises(ConfigError, match=r"remote\.plane='unix'.*has no such socket"):
            rows_of(encrypted.name, ca=files["ca"], plane="unix")
    with pytest.raises(ConfigError, match="must be auto or unix or tls or grpc"):
        Remote(plane="ipc")  # pyright: ignore[reportArgumentType]
    assert set(found) == {"a Unix socket", "gRPC", "a TLS socket"}
    assert len(set(found.values())) == 1
    silent = Guard(plane=False)
    with Server(partial(make, "CartPole-v1"), num_envs=4, listen="127.0.0.1:0", guard=silent) as alone:
        monkeypatch.undo()
        with closing(rows_of(alone.name)) as rows:
            assert rows.plane == "gRPC"


def test_frames_come_whole_or_not_at_all() -> None:
    """In pieces, several together, too long, none, and after the end."""
    ours, theirs = socket.socketpair()
    with closing(Frames(ours)) as frames, theirs:
        theirs.sendall(struct.pack("<I", 3) + b"ab")
        with pytest.raises(TimeoutError):
            Frames(ours).receive(0.01)
        ours2, theirs2 = socket.socketpair()
        with closing(Frames(ours2)) as whole, theirs2:
            theirs2.sendall(struct.pack("<I", 3) + b"abc" + struct.pack("<I", 0) + struct.pack("<I", 1) + b"d")
            assert [whole.receive(1.0) for _ in range(3)] == [b"abc", b"", b"d"]
            large = bytes(range(256)) * 4_096
            theirs2.sendall(struct.pack("<I", len(large)) + large[:100])
            with pytest.raises(TimeoutError):
                whole.receive(0.05)
        theirs.close()
        with pytest.raises(EOFError):
            frames.receive(1.0)
    ours, theirs = socket.socketpair()
    with closing(Frames(ours)) as frames, theirs:
        theirs.sendall(struct.pack("<I", MOST_BYTES + 1))
        with pytest.raises(EnvError, match="more than the 268,435,456 that one may have"):
            frames.receive(1.0)


def resuming(name: str) -> bytes:
    """The first frame of a stream."""
    return wire.Request(resume=wire.Resume(session=name)).SerializeToString()


def frames_to(server: Server) -> Frames:
    assert server.service.plane is not None
    here = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    here.connect(server.service.plane.path)
    return Frames(here)


def test_a_server_outlives_frames_that_are_none(server: Server) -> None:
    """Sessions that nobody has, and requests with changed bytes: each stream ends, and the rows are free again."""
    rng = np.random.default_rng(0)
    sessions = server.service.sessions
    for first in (b"nobody", b"\xff\xfe", bytes(1_000), bytes(5_000)):
        with closing(frames_to(server)) as frames:
            frames.send(first)
            with pytest.raises(EOFError):
                frames.receive(5.0)
    for name in ("nobody", ""):
        with closing(frames_to(server)) as frames:
            frames.send(resuming(name))
            assert "no such session" in wire.Reply.FromString(frames.receive(5.0)).failure.text
            with pytest.raises(EOFError):
                frames.receive(5.0)
    good = wire.Request(number=1, reset=wire.Reset(seeds=[1, 2])).SerializeToString()
    step = wire.Request(number=2, step=wire.Step(first=0, count=2, action=bytes(64))).SerializeToString()
    for _ in range(100):
        name, _ = sessions.open(wire.OpenRequest(protocol=PROTOCOL, num_envs=2), 0)
        with closing(frames_to(server)) as frames, suppress(EOFError, OSError):
            frames.send(resuming(name))
            frames.send(good)
            for _ in range(2):
                frames.receive(5.0)
            changed = bytearray(step)
            for at in rng.integers(0, len(step), 3):
                changed[at] = rng.integers(256)
            frames.send(bytes(changed[: rng.integers(1, len(step) + 1)]))
            frames.receive(0.2)
    deadline = time.monotonic() + 10
    while sessions.free < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sessions.free == 4
    with closing(rows_of(server.name, 4)) as rows:
        assert played(rows)


def test_a_session_has_one_stream(server: Server) -> None:
    """Who comes second has it from then on, with the replies that may be lost; the first one ends."""
    name, _ = server.service.sessions.open(wire.OpenRequest(protocol=PROTOCOL, num_envs=2), 0)
    request = wire.Request(number=1, reset=wire.Reset(seeds=[1, 2])).SerializeToString()
    with closing(frames_to(server)) as first, closing(frames_to(server)) as second:
        first.send(resuming(name))
        first.send(request)
        found = [first.receive(5.0) for _ in range(2)]
        second.send(resuming(name))
        second.send(request)
        assert [second.receive(5.0) for _ in range(2)] == found
        with pytest.raises(EOFError):
            first.receive(5.0)
        second.send(wire.Request(ping=wire.Ping()).SerializeToString())  # has no reply
        second.send(wire.Request(number=2, ping=wire.Ping()).SerializeToString())
        reply = wire.Reply.FromString(second.receive(5.0))
        assert (reply.number, reply.WhichOneof("what")) == (2, "pong")
