"""Rollouts of rows on servers that are native calls: as in one process bit for bit, whatever comes between."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from benchmarks.cutting_proxy import CuttingProxy
from shoal import _native
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make, on_servers
from shoal.learn.acting import Acting
from shoal.nets.policy import Network, make_policy
from shoal.remote import environments_pb2 as wire
from shoal.remote.linked import LinkedServers
from shoal.remote.server import Server
from shoal.remote.settings import Remote, Terms
from shoal.stream.rollouts import Rollouts, rollouts
from shoal.types import EnvError
from tests.remote.test_remote import serve
from tests.stream.test_rollouts import pull, same

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS, ROWS = 40, 7
SHORT = {"max_episode_steps": 11}
TASKS: dict[str, dict[str, Any]] = {
    "CartPole-v1": SHORT,
    "Pendulum-v1": SHORT | {"g": "uniform:8,12"},
}


def rows_on(*names: str, plane: Any = "unix", reconnect_s: float = 10.0, **terms: Any) -> Any:
    """Rows of servers."""
    address = "grpc://" + ",".join(name.removeprefix("grpc://") for name in names)
    given: Any = {"timeout_s": 10.0} | terms
    asked = Terms(Remote(plane=plane, reconnect_s=reconnect_s), **given)
    return on_servers(address, ROWS, None, (), Preprocessing(), terms=asked)


def stream_of(rows: Any) -> Rollouts:
    """Rollouts of a small network."""
    torch.manual_seed(3)
    policy = make_policy(rows.spec, Network(hidden=(8,)), 3)
    return rollouts(rows, policy, num_steps=STEPS, acting=Acting(5))


@pytest.fixture
def rolled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each rollout in native code."""
    counted: list[int] = []
    roll = LinkedServers.roll

    def noted(self: LinkedServers, rollout: Any) -> None:
        roll(self, rollout)
        counted.append(1)

    monkeypatch.setattr(LinkedServers, "roll", noted)
    return counted


def collected(rows: Any) -> tuple[list[Any], list[Any]]:
    """Four rollouts, and the episodes that ended in each."""
    stream = stream_of(rows)
    found, ended = [], []
    for _ in range(4):
        found += pull(stream, 1)
        ended.append(stream.episodes)
    return found, ended


@pytest.mark.parametrize("env_id", TASKS)
def test_it_equals_rollouts_in_this_process(env_id: str, rolled: list[int]) -> None:
    """Every field, with shares that differ, what episodes drew, and episodes that are cut."""
    made = partial(make, env_id, env_kwargs=TASKS[env_id])
    with closing(made(ROWS)) as rows:
        steps, ended = collected(rows)
    assert any(one.truncated.any() for one in steps)
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(made, num_envs=8, listen="127.0.0.1:0")) for _ in range(2)]
        rows = stack.enter_context(closing(rows_on(*(server.name for server in servers))))
        theirs, their_ends = collected(rows)
    assert len(rolled) == 3  # how long a rollout takes is known after the first
    same(steps, theirs)
    for mine, other in zip(ended, their_ends, strict=True):
        np.testing.assert_array_equal(mine.returns, other.returns)
        np.testing.assert_array_equal(mine.lengths, other.lengths)
        for key, values in mine.info.items():
            np.testing.assert_array_equal(values, other.info[key])


@pytest.mark.parametrize("kept", [{"plane": "grpc"}, {"on_fault": "drop"}, {"backend": "serial"}])
def test_rows_that_are_stepped_from_python(kept: dict[str, Any], rolled: list[int]) -> None:
    """On another plane, where faults are survived, and where not every step need be valid."""
    backend = kept.pop("backend", "native")
    made = partial(make, "CartPole-v1", backend=backend)
    with (
        Server(made, num_envs=ROWS, listen="127.0.0.1:0") as server,
        closing(rows_on(server.name, **kept)) as rows,
    ):
        collected(rows)
    assert not rolled


def test_connections_that_break(rolled: list[int]) -> None:
    """In the middle of messages either way: no step is lost or comes twice."""
    made = partial(make, "CartPole-v1", env_kwargs=SHORT)
    with closing(made(ROWS)) as rows:
        steps = pull(stream_of(rows), 60)
    with ExitStack() as stack:
        server = stack.enter_context(Server(made, num_envs=ROWS, listen="127.0.0.1:0"))
        plane = server.service.plane
        assert plane is not None
        proxy = stack.enter_context(CuttingProxy(plane.path, np.random.default_rng(1)))
        plane.path = proxy.path
        rows = stack.enter_context(closing(rows_on(server.name)))
        stream = stream_of(rows)
        theirs = pull(stream, 2)
        proxy.mean_bytes = 100_000
        proxy.cut()
        theirs += pull(stream, 58)
        assert proxy.cuts >= 8
    assert len(rolled) > 10
    same(steps, theirs)


def test_a_server_that_goes(rolled: list[int]) -> None:
    """It is said, and nothing goes on before the next reset."""
    with Server(partial(make, "CartPole-v1"), num_envs=ROWS, listen="127.0.0.1:0") as server:
        rows = rows_on(server.name)
        stream = stream_of(rows)
        pull(stream, 2)
    with closing(rows):
        with pytest.raises(EnvError, match="is lost"):
            pull(stream, 1)
        with pytest.raises(RuntimeError, match="a step failed halfway"):
            rows.state()
    assert len(rolled) == 1


def test_servers_that_are_stopped_or_killed(rolled: list[int]) -> None:
    """The time-out is that of any reply."""
    for number, words in ((signal.SIGSTOP, "gave no answer for 1 s"), (signal.SIGKILL, "is lost")):
        process, address = serve("--num-envs", "8")
        try:
            with closing(rows_on(address, timeout_s=1.0, reconnect_s=0.0)) as rows:
                stream = stream_of(rows)
                pull(stream, 2)
                killer = threading.Timer(0.3, os.kill, (process.pid, number))
                killer.start()
                with pytest.raises(EnvError, match=words):
                    pull(stream, 1_000_000)
                killer.join()
        finally:
            process.kill()
            process.communicate()
    assert len(rolled) > 2


def test_a_policy_that_is_no_number(rolled: list[int]) -> None:
    """It is refused as in one process, and the rows begin anew afterwards."""
    with (
        Server(partial(make, "Pendulum-v1"), num_envs=ROWS, listen="127.0.0.1:0") as server,
        closing(rows_on(server.name)) as rows,
    ):
        policy = make_policy(rows.spec, Network(hidden=(8,)), 3)
        stream = rollouts(rows, policy, num_steps=STEPS, acting=Acting(5))
        pull(stream, 2)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.fill_(np.nan)
        stream.publish()
        with pytest.raises(ValueError, match="row 0: the policy chose an action that is not a number"):
            next(stream)
        rows.reset(3)
        assert rows.recv().obs.shape == (ROWS, 3)
    assert len(rolled) == 1


# By hand: a server that says what it likes.

SPEC: dict[str, Any] = {"obs_size": 4, "hidden": [8], "head": "categorical", "action_nvec": [2], "activation": "tanh"}


class Peer:
    """A native rollout of two rows and three steps, and the other end of its socket."""

    def __init__(self) -> None:
        """Nothing is sent yet."""
        mine, self.socket = socket.socketpair()
        with mine:
            self.channel = _native.Channel(mine.fileno())
        self.socket.settimeout(5.0)
        params = np.zeros(4 * 8 + 8 + 8 * 2 + 2 + 4 * 8 + 8 + 8 + 1, np.float32)
        plan = _native.MlpPlan(params, **SPEC, num_threads=1, act_block=64, grad_shards=1)
        shape, flag = (3, 2), np.uint8
        self.reward, self.truncated = np.zeros(shape, np.float32), np.zeros(shape, flag)
        self.obs, self.final_obs = np.zeros((*shape, 4), np.float32), np.zeros((6, 4), np.float32)
        floats = [np.zeros(shape, np.float32) for _ in range(3)]
        arrays = [
            np.zeros((2, 4), np.float32), np.zeros(2, flag), np.zeros(2, np.int64), self.obs, np.zeros(shape, flag),
            np.zeros((*shape, 1), np.int64), *floats, self.reward, np.zeros(shape, flag), self.truncated,
            np.zeros(shape, np.int32), self.final_obs, np.zeros(shape), np.zeros(shape, np.int64),
            np.zeros((*shape, 0)),
        ]  # fmt: skip
        self.rollout = _native.LinkedRollout(plan, [(2, 5)], 0, arrays, 1, 0, np.arange(2))

    def close(self) -> None:
        """The other end."""
        self.socket.close()

    def run(self) -> int:
        """What the rollout says."""
        return self.rollout.run([self.channel], 1.0)

    def request(self) -> Any:
        """The next one, as protobuf reads it."""
        (size,) = struct.unpack("<I", self.socket.recv(4, socket.MSG_WAITALL))
        return wire.Request.FromString(self.socket.recv(size, socket.MSG_WAITALL))

    def send(self, message: bytes) -> None:
        """A frame."""
        self.socket.sendall(struct.pack("<I", len(message)) + message)


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A server by hand."""
    with closing(Peer()) as made:
        yield made


def reply(number: int, *, value: float = 0.5, first: int = 0, valid: bool = True, over: bool = False) -> bytes:
    """A step of two rows."""
    flags = np.array([over, False])
    obs = np.full((2, 4), value, np.float32)
    arrays: list[Any] = [obs, np.full(2, value), np.zeros(2, np.bool_), flags, np.array([valid, True]), np.zeros(2)]
    arrays.append(np.zeros(2, np.int64))
    final = [obs + np.float32(1)]
    made = _native.pack_rows(number, first, False, arrays, arrays, final, arrays[2], flags)
    assert made is not None
    return made


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(wire.Reply(pong=wire.Ping()).SerializeToString(), id="pong"),
        pytest.param(wire.Reply(number=6, failure=wire.Failure(kind="EnvError")).SerializeToString(), id="failure"),
        pytest.param(reply(5), id="older"),
        pytest.param(reply(7), id="newer"),
        pytest.param(reply(6, first=1), id="other rows"),
        pytest.param(reply(6, value=np.nan), id="not finite"),
        pytest.param(reply(6, valid=False), id="not valid"),
        pytest.param(reply(6)[:-1], id="cut"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff" * 100, id="no message"),
    ],
)
def test_what_is_no_plain_reply_is_left_to_others(peer: Peer, other: bytes) -> None:
    """With the request that is under way; when its reply was handed over the rollout goes on."""
    peer.send(other)
    assert peer.run() == 0
    assert peer.request().number == 6
    assert peer.channel.unread == struct.pack("<I", len(other)) + other
    [(number, under_way, rest)] = peer.rollout.requests()
    assert (number, rest) == (6, b"")
    assert under_way is not None
    assert wire.Request.FromString(under_way).step.count == 2
    peer.channel.load(b"")
    data = reply(6, over=True)
    found = _native.read_rows(data)
    assert found is not None
    peer.rollout.take(0, data, *found[4:])
    with pytest.raises(ValueError, match="it is no reply"):
        peer.rollout.take(0, data, *found[4:])  # twice
    assert peer.truncated.tolist() == [[1, 0], [0, 0], [0, 0]]
    assert peer.final_obs[0].tolist() == [1.5] * 4
    for number in (7, 8):
        peer.send(reply(number, value=float(number)))
        assert peer.run() == (0 if number == 7 else -1)  # after a while in which nothing came
        assert peer.request().number == number
    assert peer.reward[:, 0].tolist() == [0.5, 7, 8]
    assert peer.obs[:, 0, 0].tolist() == [0, 0.5, 7]


@pytest.mark.parametrize("said", [b"", struct.pack("<I", 0xFFFFFFFF)])
def test_streams_that_end_or_announce_too_much(peer: Peer, said: bytes) -> None:
    """The rollout asks for help; nothing is allocated for what is announced."""
    peer.socket.sendall(said)
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.run() == 0
    assert peer.rollout.requests()[0][1] is not None


# The other side by hand: what a server's native loop answers.


def served(*frames: bytes, spin_s: float = 0.05) -> tuple[Any, Any, socket.socket]:
    """What `serve_steps` gives for these frames after request 5, its channel, and the client's socket."""
    server, client = socket.socketpair()
    with server:
        channel = _native.Channel(server.fileno())
    pool: Any = make("CartPole-v1", 2)
    pool.reset(1)
    pool.recv()
    for frame in frames:
        client.sendall(struct.pack("<I", len(frame)) + frame)
    return _native.serve_steps(pool.pool, channel, 5, spin_s, 1.0), channel, client


def stepped(number: int, *, first: int = 0, count: int = 2, action: int = 0) -> bytes:
    """A request."""
    return _native.pack_step(number, first, count, [np.full(count, action)])


def test_plain_steps_are_answered() -> None:
    """The last four replies are kept, for a client that comes back."""
    (number, replies, rest, quiet), _, client = served(*(stepped(6 + i) for i in range(6)))
    assert (number, rest, quiet) == (11, b"", True)
    frames = b"".join(struct.pack("<I", len(data)) + data for data in replies)
    with client:
        assert client.recv(1 << 20).endswith(frames)
    assert [wire.Reply.FromString(data).number for data in replies] == [8, 9, 10, 11]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(stepped(8), id="number"),
        pytest.param(stepped(6), id="again"),
        pytest.param(stepped(7, first=1, count=1), id="one row"),
        pytest.param(stepped(7, count=3), id="too many"),
        pytest.param(stepped(7, action=2), id="bad action"),
        pytest.param(stepped(7)[:-1], id="cut"),
        pytest.param(wire.Request(number=7, save=wire.Save()).SerializeToString(), id="save"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff" * 100, id="no message"),
    ],
)
def test_whatever_else_comes_is_left(other: bytes) -> None:
    """And so is all that comes after it; nothing is stepped for it."""
    (number, replies, _, quiet), channel, client = served(stepped(6), other, stepped(7))
    with client:
        assert (number, len(replies), quiet) == (6, 1, False)
    assert channel.unread.startswith(struct.pack("<I", len(other)) + other)


def test_a_client_that_takes_no_replies() -> None:
    """What it does not take is handed back, to be sent when it does."""
    server, client = socket.socketpair()
    with server, client:
        client.setblocking(False)
        channel = _native.Channel(server.fileno())
        pool: Any = make("CartPole-v1", 256)
        pool.reset(1)
        pool.recv()
        sent = 5
        rest = last = b""
        while not rest:
            sent += 1
            frame = stepped(sent, count=256)
            client.sendall(struct.pack("<I", len(frame)) + frame)
            number, [last], rest, _ = _native.serve_steps(pool.pool, channel, sent - 1, 0.0, 1.0)
            assert number == sent
        assert (struct.pack("<I", len(last)) + last).endswith(rest)
        writer = threading.Thread(target=server.sendall, args=(rest,))
        writer.start()
        client.settimeout(5.0)
        for expected in range(6, sent + 1):
            (size,) = struct.unpack("<I", client.recv(4, socket.MSG_WAITALL))
            assert wire.Reply.FromString(client.recv(size, socket.MSG_WAITALL)).number == expected
        writer.join()


def test_sockets_that_are_closed(peer: Peer) -> None:
    """It is said where the call is made, not by another socket that took the number."""
    left, right = socket.socketpair()
    left.close()
    right.close()
    with pytest.raises(RuntimeError, match="closed"):
        _native.Channel(left.fileno())
    with pytest.raises(ValueError, match="may be loaded"):
        peer.channel.load(bytes(1 << 20))
