"""What a server allows at a time and for how long, and whether it says that it serves."""

from __future__ import annotations

import queue
import socket
import threading
import time
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import trustme
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from benchmarks.cutting_proxy import CuttingProxy
from shoal.envs.registry import make
from shoal.remote import environments_pb2 as wire
from shoal.remote import rows as remote
from shoal.remote.environments_pb2_grpc import EnvironmentsStub
from shoal.remote.frames import Frames
from shoal.remote.server import Server
from shoal.remote.sessions import PROTOCOL
from shoal.remote.settings import Guard, Remote, Terms
from shoal.remote.streams import NAME
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SERVING, NOT_SERVING = (getattr(health_pb2.HealthCheckResponse, name) for name in ("SERVING", "NOT_SERVING"))


def serving(**guard: Any) -> Server:
    """Four environments of CartPole."""
    return Server(partial(make, "CartPole-v1"), num_envs=4, listen="127.0.0.1:0", guard=Guard(**guard))


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Until it is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def works(server: Server) -> bool:
    """Whether a client gets its rows."""
    with closing(make(server.name, 4)) as rows:
        rows.reset(1)
        rows.recv()
        rows.send(slice(0, 4), np.zeros(4, np.int64))
        return bool(rows.recv().valid.all())


def test_so_many_clients_at_a_time() -> None:
    """One more is refused with a sentence; one that goes makes room."""
    with serving(max_clients=2) as server, closing(make(server.name, 1)):
        with closing(make(server.name, 1)), pytest.raises(ConfigError, match=r"2 clients have.*--guard\.max-clients"):
            make(server.name, 1)
        make(server.name, 1).close()


def is_ended(connected: socket.socket, seconds: float = 5.0) -> bool:
    """Whether the server ends a connection."""
    connected.settimeout(seconds)
    with suppress(ConnectionError):
        return connected.recv(1) == b""
    return True


def test_those_who_say_nothing_at_first(tmp_path: Path) -> None:
    """So many at a time, on every plane together; none for long; and others go on."""
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1")
    files = [str(tmp_path / name) for name in ("cert", "key", "ca")]
    for blob, path in zip((pair.cert_chain_pems[0], pair.private_key_pem, authority.cert_pem), files, strict=True):
        blob.write_to_path(path)
    with serving(cert=files[0], key=files[1]) as server:
        greetings, plane = server.service.greetings, server.service.plane
        assert plane is not None
        greetings._most, greetings._seconds = 3, 0.4
        unix = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for connected in unix[:2]:
            connected.connect(plane.path)
        tls = socket.create_connection(("127.0.0.1", plane.tls_port))
        wait_for(lambda: greetings._count == 3)
        unix[2].connect(plane.path)
        assert is_ended(unix[2], 0.3)
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        with grpc.secure_channel(server.address, credentials) as channel:
            stub = EnvironmentsStub(channel)
            silent: queue.SimpleQueue[Any] = queue.SimpleQueue()
            with pytest.raises(grpc.RpcError, match="3 clients have connected and said nothing yet"):
                next(stub.Session(iter(silent.get, None)))
            assert all(is_ended(connected) for connected in (*unix[:2], tls))
            wait_for(lambda: greetings._count == 0)
            begun = time.monotonic()
            with pytest.raises(grpc.RpcError, match="CANCELLED"):
                next(stub.Session(iter(silent.get, None)))
            assert time.monotonic() - begun < 2
            for _ in range(2):
                silent.put(None)
        for connected in (*unix, tls):
            connected.close()
        with closing(remote.make(server.name, 4, Terms(Remote(ca=files[2])))) as rows:
            rows.reset(1)
            assert rows.recv().valid.all()


def test_a_client_that_never_reads() -> None:
    """It loses its environments when the server could tell it nothing for as long as one may say nothing."""
    with serving(idle_s=1.0) as server:
        plane, sessions = server.service.plane, server.service.sessions
        assert plane is not None
        name, _ = sessions.open(wire.OpenRequest(protocol=PROTOCOL, num_envs=4), 0)
        here = socket.socket(socket.AF_UNIX)
        here.connect(plane.path)
        with closing(Frames(here)) as frames:
            frames.limit_sends(0.2)
            frames.send(wire.Request(resume=wire.Resume(session=name)).SerializeToString())
            frames.send(wire.Request(number=1, reset=wire.Reset(seeds=[1, 2, 3, 4])).SerializeToString())
            with suppress(OSError):
                for number in range(2, 100_000):
                    step = wire.Step(first=0, count=4, action=bytes(64))
                    frames.send(wire.Request(number=number, step=step).SerializeToString())
            assert sessions.free == 0
            wait_for(lambda: sessions.free == 4)
        assert works(server)


@pytest.mark.slow
def test_a_client_that_never_reads_over_grpc() -> None:
    """As over a socket; gRPC takes what is asked, and the server's replies wait."""
    with serving(idle_s=1.0) as server, grpc.insecure_channel(server.address) as channel:
        sessions = server.service.sessions
        name, _ = sessions.open(wire.OpenRequest(protocol=PROTOCOL, num_envs=4), 0)
        asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
        asked.put(wire.Request(resume=wire.Resume(session=name)))
        asked.put(wire.Request(number=1, reset=wire.Reset(seeds=[1, 2, 3, 4])))
        for number in range(2, 20_000):
            asked.put(wire.Request(number=number, step=wire.Step(first=0, count=4, action=bytes(64))))
        stream = EnvironmentsStub(channel).Session(iter(asked.get, None))
        wait_for(lambda: sessions.free == 4, 60.0)
        asked.put(None)
        stream.cancel()
        assert works(server)


@pytest.mark.slow
def test_a_connection_that_is_half_open() -> None:
    """Nothing comes through any more, and nobody says so: both sides notice in bounded time."""
    with serving(idle_s=1.0, plane=False) as server:
        with CuttingProxy(("127.0.0.1", server.port), np.random.default_rng(0)) as proxy:
            name = f"grpc://127.0.0.1:{proxy.port}"
            with closing(remote.make(name, 4, Terms(timeout_s=0.5))) as rows:
                rows.reset(0)
                rows.recv()
                proxy.passing.clear()
                rows.send(slice(0, 4), np.zeros(4, np.int64))
                with pytest.raises(EnvError, match=r"gave no answer for 0\.5 s"):
                    rows.recv()
                wait_for(lambda: server.service.sessions.free == 4)
        assert works(server)


def test_the_standard_health_service(tmp_path: Path) -> None:
    """Whoever asks once needs no token; who watches does, and hears when the server stops."""
    token = "a token of more than 16"
    (tmp_path / "token").write_text(token, encoding="ascii")
    server = serving(token_file=str(tmp_path / "token"))
    with grpc.insecure_channel(server.address) as channel:
        stub: Any = HealthStub(channel)
        for name in ("", NAME):
            assert stub.Check(health_pb2.HealthCheckRequest(service=name)).status == SERVING
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            stub.Check(health_pb2.HealthCheckRequest(service="another"))
        with pytest.raises(grpc.RpcError, match="asks for a token"):
            next(stub.Watch(health_pb2.HealthCheckRequest()))
        said = [("authorization", f"Bearer {token}")]
        watched = stub.Watch(health_pb2.HealthCheckRequest(service=NAME), metadata=said)
        assert next(watched).status == SERVING
        stopping = threading.Thread(target=server.stop, args=(0.3,))
        stopping.start()
        assert next(watched).status == NOT_SERVING
        stopping.join()
