"""Servers that are others than before, say what they should not, or are started anew while they are learned from."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

import shoal
from shoal.envs.registry import make
from shoal.remote import environments_pb2 as wire
from shoal.remote import environments_pb2_grpc as service
from shoal.remote import rows as remote
from shoal.remote import sessions, states
from shoal.remote.server import Server
from shoal.remote.settings import Remote, Terms
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

ALL = slice(0, 2)
NOTHING = np.zeros(2, np.int64)


def serving(env: str = "CartPole-v1", listen: str = "127.0.0.1:0") -> Server:
    return Server(partial(make, env), num_envs=2, listen=listen)


def rows_of(server: Server, plane: Any = "auto", **terms: Any) -> Any:
    given: Any = {"timeout_s": 5.0} | terms
    return remote.make(server.name, 2, Terms(Remote(plane=plane), **given))


class Strange(service.EnvironmentsServicer):
    """Describes itself in another way."""

    def __init__(self, **said: Any) -> None:
        self.said = said

    def Describe(self, request: Any, context: Any) -> Any:  # noqa: N802
        return wire.Description(**self.said)


@contextmanager
def strange(**said: Any) -> Generator[str]:
    """A server that is not shoal's, or of another time."""
    server = grpc.server(ThreadPoolExecutor(2))
    service.add_EnvironmentsServicer_to_server(Strange(**said), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(0).wait()


def test_servers_of_another_protocol_or_none() -> None:
    """Refused before anything starts."""
    with strange(protocol=99) as name, pytest.raises(ConfigError, match="speaks protocol 99, this client 2"):
        make(name, 2)
    with strange(protocol=2, spec="{}") as name, pytest.raises(ConfigError, match=r"description.*cannot be read"):
        make(name, 2)
    other = grpc.server(ThreadPoolExecutor(2))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    with pytest.raises(ConfigError, match=f"no server of environments answers at 127.0.0.1:{port}.*UNIMPLEMENTED"):
        make(f"grpc://127.0.0.1:{port}", 2)
    other.stop(0).wait()


@pytest.mark.slow
@pytest.mark.parametrize("on_fault", ["restart", "raise"])
def test_a_server_that_comes_back_with_another_environment(on_fault: str) -> None:
    """Its rows are none of the run's: its error ends it, within the time-out."""
    first = serving()
    with closing(rows_of(first, on_fault=on_fault, timeout_s=1.0, max_restarts=1)) as rows:
        rows.reset(0)
        rows.recv()
        first.stop(0.0)
        with serving("Acrobot-v1", first.address):
            rows.send(ALL, NOTHING)
            said = "is lost" if on_fault == "raise" else "has another environment now: env_id, observation_space"
            with pytest.raises((EnvError, ConfigError), match=said):
                rows.recv()


@pytest.mark.parametrize("plane", ["auto", pytest.param("grpc", marks=pytest.mark.slow)])
def test_a_server_that_has_ended(plane: str) -> None:
    """Nobody waits for it: nobody listens there."""
    server = serving()
    with closing(rows_of(server, plane)) as rows:
        rows.reset(0)
        rows.recv()
        server.stop(0.0)
        begun = time.monotonic()
        rows.send(ALL, NOTHING)
        with pytest.raises(EnvError, match=r"is lost .* cannot be reached again"):
            rows.recv()
        assert time.monotonic() - begun < 2


def test_replies_that_do_not_belong() -> None:
    """Out of order, twice, of another kind, to nothing: refused, and none is taken for another."""
    with serving() as server, closing(rows_of(server)) as rows:
        stream = rows._servers[0]._link._stream
        receive = stream.receive
        kept: list[Any] = []

        def twice(timeout_s: float) -> Any:
            """Every reply once more."""
            if not kept:
                kept.append(receive(timeout_s))
                return kept[0]
            return kept.pop()

        stream.receive = twice
        rows.reset(0)
        rows.recv()
        for _ in range(3):
            rows.send(ALL, NOTHING)
            assert rows.recv().valid.all()
        stream.receive = lambda timeout_s: wire.Reply(number=receive(timeout_s).number + 7)
        rows.send(ALL, NOTHING)
        with pytest.raises(EnvError, match="answered request 12 where 5 belongs"):
            rows.recv()
    with serving() as server, closing(rows_of(server)) as rows:
        stream = rows._servers[0]._link._stream
        receive = stream.receive
        stream.receive = lambda timeout_s: wire.Reply(number=receive(timeout_s).number, pong=wire.Ping())
        with pytest.raises(EnvError, match="answered with 'pong' where 'rows' belongs"):
            rows.reset(0)


def test_messages_that_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is announced is not waited for; one that would be is not sent, or said at the start."""
    with serving() as server:
        with closing(rows_of(server)) as rows:
            rows._servers[0]._link._stream._frames.most_bytes = 20
            with pytest.raises(EnvError, match="more than the 20 that one may have"):
                rows.reset(0)
        with closing(rows_of(server)) as rows:
            rows.reset(0)
            rows.recv()
            state = rows.state()
            monkeypatch.setattr(states, "MOST_BYTES", 1_100)
            for large in (rows.state, lambda: rows.restore(state)):
                with pytest.raises(ConfigError, match="bytes, more than the 1,100 that a message may have"):
                    large()
        monkeypatch.setattr(sessions, "MOST_BYTES", 1_100)
        with pytest.raises(ConfigError, match=r"2 rows of CartPole-v1 are .* bytes a message, more than the 1,100"):
            rows_of(server)


@pytest.mark.slow
@pytest.mark.parametrize(("plane", "after_s"), [("grpc", 0.7), ("auto", 0.7), ("auto", 0.0)])
def test_a_server_that_is_started_anew_while_it_is_learned_from(plane: str, after_s: float, run_dir: Path) -> None:
    """The run goes on to its end, whether rows were stepping by then or had not begun yet."""
    first = serving()
    again: list[Server] = []

    def replace() -> None:
        while not first.service.sessions._open:
            time.sleep(0.01)
        time.sleep(after_s)
        first.stop(0.0)
        again.append(serving(listen=first.address))

    thread = threading.Thread(target=replace)
    thread.start()
    run = shoal.train(
        first.name, algo="ppo", total_timesteps=15_000, num_envs=2, num_steps=64, panel="none", preset="none",
        final_episodes=0, network={"hidden": (8,)}, num_threads=1, run_dir=run_dir, on_fault="restart",
        remote={"plane": plane}, stop_at=float("inf"),
    )  # fmt: skip
    thread.join()
    assert run.steps >= 15_000
    assert again
    assert again[0].service.sessions.num_envs == 2
    again[0].stop(0.0)
