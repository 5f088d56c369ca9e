"""Rows on servers: training through them, their faults, and what is refused."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import gymnasium as gym
import numpy as np
import pytest

import shoal
import shoal.remote
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.remote import environments_pb2 as wire
from shoal.remote import rows as remote
from shoal.remote.address import servers_of
from shoal.remote.batches import Batch, ready_layout
from shoal.remote.description import read_description, write_description
from shoal.remote.environments_pb2_grpc import EnvironmentsStub
from shoal.remote.messages import read_request, to_bytes
from shoal.remote.server import Server, Service
from shoal.remote.sessions import PROTOCOL
from shoal.remote.settings import Guard, Terms
from shoal.remote.states import pack, unpack
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ALL = slice(None)
SMALL: dict[str, Any] = {
    "algo": "ppo",
    "total_timesteps": 2_048,
    "num_envs": 8,
    "num_steps": 32,
    "panel": "none",
    "preset": "none",
    "final_episodes": 0,
    "network": {"hidden": (8,)},
    "num_threads": 1,
}


@pytest.fixture
def server() -> Iterator[Server]:
    """CartPole, 8 environments."""
    made = Server(partial(make, "CartPole-v1"), num_envs=8, listen="127.0.0.1:0")
    yield made
    made.stop(0.0)


def weights_of(run: Any) -> bytes:
    """All numbers of the policy that a run came to."""
    return b"".join(array.numpy().tobytes() for array in shoal.load(run.path).policy.state_dict().values())


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Until it is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def served(*addresses: str) -> str:
    return "grpc://" + ",".join(addresses)


def test_weights_are_those_of_rows_in_this_process(server: Server, run_dir: Path) -> None:
    """On one server, and on two."""
    other = Server(partial(make, "CartPole-v1"), num_envs=8, listen="127.0.0.1:0")
    names = ["CartPole-v1", served(server.address), served(server.address, other.address)]
    runs = [shoal.train(name, run_dir=run_dir, **SMALL) for name in names]
    other.stop(0.0)
    assert len({weights_of(run) for run in runs}) == 1


def test_a_run_that_ended_goes_on(server: Server, run_dir: Path) -> None:
    """Half of it, then the rest from the checkpoint: as in one go."""
    name = served(server.address)
    whole = shoal.train(name, run_dir=run_dir, **SMALL)
    shorter: dict[str, Any] = SMALL | {"total_timesteps": 1_024}
    half = shoal.train(name, run_dir=run_dir, **shorter)
    rest = shoal.resume(half.path, total_timesteps=2_048, panel="none")
    assert weights_of(rest) == weights_of(whole)


def test_evaluation_has_environments_of_its_own(server: Server, run_dir: Path) -> None:
    """Training may have all of the server's: they are evaluated in besides."""
    settings: dict[str, Any] = SMALL | {"final_episodes": 5, "eval_every": 1_024, "eval_episodes": 3}
    assert np.isfinite(shoal.train(served(server.address), run_dir=run_dir, **settings).greedy_return)


def test_clients_take_disjoint_environments(server: Server) -> None:
    """Each is told how many are left, and an environment is free again when its client has gone."""
    name = served(server.address)
    with closing(make(name, 5)) as first:
        first.reset(3)
        with pytest.raises(ConfigError, match="4 environments are asked for, and 3 of 8 are free"):
            make(name, 4)
        with closing(make(name, 3)) as second:
            second.reset(3)
            assert np.array_equal(first.recv().obs[:3], second.recv().obs)
    deadline = time.monotonic() + 5
    while server.service.sessions.free < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    make(name, 8).close()


def test_what_is_no_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence each, and what would work."""
    name = served(server.address)
    with pytest.raises(ConfigError, match=r"shoal serve ENV --num-envs N --listen 127\.0\.0\.1:1"):
        remote.make("grpc://127.0.0.1:1", 2, Terms(timeout_s=1.0))
    for bad in ("grpc://", "grpc://here", "grpc://a:b", "grpc://a:1,a:1", "grpc://a:99999"):
        with pytest.raises(ConfigError, match=r"HOST:PORT|twice"):
            servers_of(bad)
    with pytest.raises(ConfigError, match="env_kwargs, max_episode_steps is for whoever makes"):
        make(name, 2, env_kwargs={"a": 1}, preprocessing=Preprocessing(max_episode_steps=9))
    with pytest.raises(ConfigError, match="backend='serial'"):
        make(name, 2, backend="serial")
    with pytest.raises(ConfigError, match="grpc://127"):
        make("CartPole-v1", 2, backend="remote")
    with pytest.raises(ConfigError, match="another program does"):
        Server(partial(make, "CartPole-v1"), num_envs=1, listen=server.address)
    for open_to_all in ("0.0.0.0:0", "[::]:0", "example.com:0"):
        with pytest.raises(ConfigError, match="give a certificate"):
            Server(partial(make, "CartPole-v1"), num_envs=1, listen=open_to_all)
    monkeypatch.delattr(shoal.remote, "rows")
    monkeypatch.setitem(sys.modules, "shoal.remote.rows", None)
    with pytest.raises(ConfigError, match=r"pip install 'shoal-rl\[remote\]'"):
        make(name, 2)


def test_servers_of_different_environments(server: Server) -> None:
    other = Server(partial(make, "Acrobot-v1"), num_envs=2, listen="127.0.0.1:0")
    with pytest.raises(ConfigError, match="CartPole-v1 and Acrobot-v1, which differ in env_id, observation_space"):
        make(served(server.address, other.address), 2)
    other.stop(0.0)


class Call:
    """What gRPC hands a service beside the requests."""

    def cancel(self) -> None:
        """It never is."""


def spoken(service: Service, asked: list[Any]) -> list[Any]:
    """What a service replies on one stream, over the wire's bytes."""
    requests = (read_request(request.SerializeToString()) for request in asked)
    return [wire.Reply.FromString(to_bytes(reply)) for reply in service.Session(requests, Call())]


def test_another_protocol(server: Server) -> None:
    service = Service(partial(make, "CartPole-v1"), 2)
    asked = [wire.Request(number=1, open=wire.OpenRequest(protocol=99, num_envs=1))]
    (reply,) = spoken(service, asked)
    assert "speaks protocol 2, the client 99" in reply.failure.text


def test_what_an_environment_raises_while_it_is_made_for_a_client_is_told() -> None:
    """The server could make the one that it describes; those of a client it cannot."""
    made = [0]

    def once() -> Any:
        made[0] += 1
        if made[0] > 1:
            raise RuntimeError("there is one simulator")
        return gym.make("CartPole-v1").unwrapped

    words = r"its environments cannot be made \(RuntimeError: there is one simulator\)$"
    with shoal.serve(once, num_envs=2) as server, pytest.raises(ConfigError, match=words):
        shoal.train(f"grpc://{server.address}", num_envs=2, total_timesteps=256, panel="none")


def test_requests_out_of_order_are_refused() -> None:
    """One that came twice steps nothing twice."""
    service = Service(partial(make, "CartPole-v1"), 2)
    step = wire.Step(first=0, count=1, action=bytes(64))
    asked = [
        wire.Request(number=1, open=wire.OpenRequest(protocol=PROTOCOL, num_envs=1)),
        wire.Request(number=2, reset=wire.Reset(seeds=[0])),
        wire.Request(number=3, step=step),
        wire.Request(number=3, step=step),
        wire.Request(number=4, step=wire.Step(first=0, count=9, action=b"")),
        wire.Request(number=5, step=wire.Step(first=0, count=1, action=b"short")),
        wire.Request(number=6),
        wire.Request(number=9, step=step),
        wire.Request(number=7, step=step),
    ]
    replies = spoken(service, asked)
    kinds = [(reply.WhichOneof("what"), reply.failure.text) for reply in replies]
    assert [kind for kind, _ in kinds] == ["opened", "rows", "rows", "rows", *["failure"] * 4, "rows"]
    assert "rows 0 to 8 are not among 1" in kinds[4][1]
    assert "of 5 bytes where 64 belong" in kinds[5][1]
    assert "None is none that this server knows" in kinds[6][1]
    assert "request 9 came after 6: one was lost" in kinds[7][1]
    lengths = [reply.rows.arrays for reply in replies[2:4]]
    assert lengths[0] == lengths[1]
    (reply,) = spoken(service, [wire.Request(number=1, ping=wire.Ping())])
    assert "must be `open` or `resume`" in reply.failure.text


def test_a_client_that_calls_once_a_step(server: Server) -> None:
    """Its rows are those of this process; a call that comes twice steps once; silence closes them."""
    with grpc.insecure_channel(server.address) as channel:
        stub = EnvironmentsStub(channel)
        with pytest.raises(grpc.RpcError, match="9 environments are asked for, and 8 of 8 are free"):
            stub.Open(wire.OpenRequest(protocol=PROTOCOL, num_envs=9))
        opened = stub.Open(wire.OpenRequest(protocol=PROTOCOL, num_envs=2))
        here = make("CartPole-v1", 2)
        here.reset([5, 6])
        here.recv()

        def call(number: int, **what: Any) -> Any:
            request = wire.Request(number=number, **what)
            return stub.Call(wire.SessionRequest(session=opened.session, request=request))

        call(1, reset=wire.Reset(seeds=[5, 6]))
        spec, _ = read_description(opened.description.spec)
        action = Batch(spec.action, 2)
        step = wire.Step(first=0, count=2, action=action.block.tobytes())
        found = [call(number, step=step) for number in (2, 2, 3)]
        assert found[0] == found[1]
        here.send(ALL, np.zeros(2, np.int64))
        here.recv()
        here.send(ALL, np.zeros(2, np.int64))
        batch = Batch(ready_layout(spec, masked=False), 2)
        arrays = found[2].rows.arrays
        batch.read(arrays, 0, len(arrays), "rows")
        assert np.array_equal(batch.arrays[0], here.recv().obs)
        assert server.service.sessions.free == 6
        stub.Close(wire.SessionRequest(session=opened.session))
        stub.Close(wire.SessionRequest(session=opened.session))
        assert server.service.sessions.free == 8
        with pytest.raises(grpc.RpcError, match="there is no such session"):
            call(4, step=step)
        here.close()


def test_a_client_that_says_nothing_loses_its_environments() -> None:
    """One that calls, and one whose stream is open; shoal's own says something as often as the server wants."""
    guard = Guard(idle_s=1.0)
    server = Server(partial(make, "CartPole-v1"), num_envs=6, listen="127.0.0.1:0", guard=guard)
    with closing(make(served(server.address), 2)) as rows, grpc.insecure_channel(server.address) as channel, server:
        rows.reset(0)
        rows.recv()
        stub = EnvironmentsStub(channel)
        asked = wire.OpenRequest(protocol=PROTOCOL, num_envs=2, resume_s=9.0)
        assert stub.Open(asked).idle_s == 1
        said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        said.put(wire.Request(number=1, open=asked))
        stream = stub.Session(iter(said.get, None))
        assert next(stream).opened.idle_s == 1
        assert server.service.sessions.free == 0
        wait_for(lambda: server.service.sessions.free == 4)
        with pytest.raises(grpc.RpcError, match="CANCELLED"):
            next(stream)
        said.put(None)
        time.sleep(0.5)
        rows.send(ALL, np.zeros(2, np.int64))
        assert rows.recv().valid.all()
    for idle_s, clients in ((0.5, 1), (1.0, 0)):
        with pytest.raises(ConfigError, match="must be between 1 and"):
            Guard(idle_s=idle_s, max_clients=clients)


def test_what_went_wrong_on_a_server_is_said_here(server: Server) -> None:
    """Its rows go on after the next reset."""
    with closing(make(served(server.address), 2)) as rows:
        with pytest.raises(RuntimeError, match="before reset"):
            rows.send(ALL, np.zeros(2, np.int64))
        rows.reset(1)
        rows.recv()
        with pytest.raises(ValueError, match="row 1"):
            rows.send(ALL, np.array([0, 7]))
        state = rows.state()
        state["parts"][0] = {"nothing": 1}
        with pytest.raises(ConfigError, match=f"{server.address}: CartPole-v1: the saved rows"):
            rows.restore(state)
        rows.reset(1)
        rows.recv()
        rows.send(ALL, np.array([0, 1]))
        assert rows.recv().valid.all()
        with pytest.raises(ConfigError, match="give as many servers"):
            rows.restore(state | {"rows": [1, 1]})


def test_descriptions_and_states_travel_as_json() -> None:
    """Every space and value comes back; what is damaged is refused."""
    rows = make("LunarLanderContinuous-v3", 2)
    text = write_description(rows)
    assert read_description(text)[0] == rows.spec
    with pytest.raises(ConfigError, match="cannot be read"):
        read_description(text[:-9])
    with pytest.raises(ConfigError, match="packs its arrays otherwise"):
        read_description(text.replace('"dtype": "float32", "shape": [8]}]', '"dtype": "float32", "shape": [9]}]'))
    rows.close()
    state: dict[Any, Any] = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": [None, True, 2**80, (1, "x")],
        3: {"__tuple__": np.zeros(0)},
    }
    data = pack(state)
    found = unpack(data)
    assert np.array_equal(found["a"], state["a"])
    assert found["b"] == state["b"]
    assert found[3]["__tuple__"].shape == (0,)
    with pytest.raises(TypeError, match=r"state\.c"):
        pack({"c": object()})
    rng = np.random.default_rng(0)
    for _ in range(300):
        bad = bytearray(data[: rng.integers(len(data) + 1)])
        for at in rng.integers(0, max(len(bad), 1), 3 if bad else 0):
            bad[at] = rng.integers(256)
        with suppress(ConfigError):
            unpack(bytes(bad))


def serve(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, and where it listens."""
    command = [sys.executable, "-m", "shoal", "serve", "CartPole-v1", "--listen", "127.0.0.1:0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.readline()
    return process, said.split(" at ")[1].split(";")[0]


def test_a_server_that_is_stopped_or_killed_is_noticed() -> None:
    """A stopped one after the time-out, a killed one at once; both say where."""
    process, address = serve("--num-envs", "4")
    try:
        with closing(remote.make(served(address), 4, Terms(timeout_s=1.0))) as rows:
            rows.reset(0)
            rows.recv()
            os.kill(process.pid, signal.SIGSTOP)

            def step_on() -> None:
                for _ in range(1_000):  # it may do a little more before it stops
                    rows.send(ALL, np.zeros(4, np.int64))
                    rows.recv()

            with pytest.raises(EnvError, match=f"{address} gave no answer for 1 s"):
                step_on()
            os.kill(process.pid, signal.SIGCONT)
        with closing(remote.make(served(address), 4, Terms(timeout_s=30.0))) as rows:
            rows.reset(0)
            rows.recv()
            process.kill()
            rows.send(ALL, np.zeros(4, np.int64))
            with pytest.raises(EnvError, match=f"{address} is lost"):
                rows.recv()
    finally:
        process.kill()
        process.communicate()


def lossy(*names: str, on_fault: str, num_envs: int = 4) -> Any:
    terms = Terms(timeout_s=5.0, on_fault=on_fault, max_restarts=2)
    return remote.make(served(*names), num_envs, terms)


def test_rows_go_on_in_a_new_session_where_theirs_is_lost(server: Server) -> None:
    """Their episodes are cut as truncated with what was seen last, in both halves under way; the others' go on."""
    other = Server(partial(make, "CartPole-v1"), num_envs=8, listen="127.0.0.1:0")
    with closing(lossy(server.address, other.address, on_fault="restart")) as rows, other:
        rows.reset(0)
        rows.recv()
        rows.send(ALL, np.zeros(4, np.int64))
        before = rows.recv().obs.copy()
        other.service.sessions.close_all()
        rows.send(slice(0, 3), np.zeros(3, np.int64))
        rows.send(slice(3, 4), np.zeros(1, np.int64))
        first = rows.recv()
        assert first.valid.tolist() == [True, True, False]
        assert first.truncated.tolist() == [False, False, True]
        assert first.final_obs[2].tolist() == before[2].tolist()
        assert (first.episode_return[2], first.episode_length[2]) == (1, 1)
        assert first.obs[2].tolist() != before[2].tolist()
        last = rows.recv()
        assert last.truncated.tolist() == [True]
        rows.send(ALL, np.zeros(4, np.int64))
        again = rows.recv()
        assert again.valid.all()
        assert not again.truncated.any()
        for _ in range(2):
            other.service.sessions.close_all()
            rows.send(ALL, np.zeros(4, np.int64))
            with suppress(EnvError):
                rows.recv()
        with pytest.raises(RuntimeError, match="failed halfway"):
            rows.recv()


def test_one_lost_session_is_one_restart_with_two_sends_under_way(server: Server) -> None:
    """The second half was asked of the session that is gone, though the first is asked of the new one by then."""
    first, second = slice(0, 3), slice(3, 4)
    with closing(lossy(server.address, on_fault="restart")) as rows:
        rows.reset(0)
        rows.recv()
        server.service.sessions.close_all()
        rows.send(first, np.zeros(3, np.int64))
        rows.send(second, np.zeros(1, np.int64))
        assert rows.recv().truncated.tolist() == [True] * 3
        rows.send(first, np.zeros(3, np.int64))
        assert rows.recv().truncated.tolist() == [True]
        again = rows.recv()
        assert again.valid.tolist() == [True] * 3
        assert not again.truncated.any()
        assert rows._recovery.last_seen.restarts == [1] * 4


def test_the_others_go_on_without_a_server(server: Server) -> None:
    """Its rows are invalid from then on; a checkpoint says which they were; the last server's error ends it."""
    other = Server(partial(make, "CartPole-v1"), num_envs=8, listen="127.0.0.1:0")
    with closing(lossy(server.address, other.address, on_fault="drop")) as rows, other:
        rows.reset(0)
        rows.recv()
        other.service.sessions.close_all()
        rows.send(ALL, np.zeros(4, np.int64))
        assert rows.recv().truncated.tolist() == [False, False, True, True]
        rows.send(ALL, np.zeros(4, np.int64))
        ready = rows.recv()
        assert ready.valid.tolist() == [True, True, False, False]
        assert not ready.truncated.any()
        assert rows.dropped.tolist() == [False, False, True, True]
        state = rows.state()
        server.service.sessions.close_all()
        rows.send(ALL, np.zeros(4, np.int64))
        with pytest.raises(EnvError, match="is lost"):
            rows.recv()
        rows.reset(0)
        assert rows.recv().valid.all()
        rows.send(ALL, np.zeros(4, np.int64))
        assert rows.recv().valid.all()
        assert not rows.dropped.any()
    third = Server(partial(make, "CartPole-v1"), num_envs=8, listen="127.0.0.1:0")
    with closing(lossy(server.address, third.address, on_fault="drop")) as rows, third:
        cut = rows.restore(state)
        assert [sentence.split(";")[0] for sentence in cut] == [
            "CartPole-v1: row 2 was dropped",
            "CartPole-v1: row 3 was dropped",
        ]
        assert rows.recv().truncated.tolist() == [False, False, True, True]


def test_a_server_ends_when_it_is_told_to() -> None:
    process, _ = serve()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 0


@pytest.mark.slow
def test_the_client_of_the_docs_in_another_language(server: Server, tmp_path: Path) -> None:
    """As npm and node take it; its rewards are those of the same rows here."""
    page = (Path(__file__).parents[2] / "docs" / "servers.md").read_text(encoding="utf-8")
    (tmp_path / "client.mjs").write_text(page.split("```js\n")[1].split("```")[0], encoding="utf-8")
    wanted = ["@grpc/grpc-js@1.14.1", "@grpc/proto-loader@0.8.0"]
    subprocess.run(["npm", "install", "--silent", "--no-save", *wanted], cwd=tmp_path, check=True, timeout=100)
    command = ["node", "client.mjs", str(shoal.remote.PROTO), server.address]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    with closing(make("CartPole-v1", 2)) as rows:
        rows.reset([0, 1])
        rows.recv()
        total = 0.0
        for _ in range(100):
            rows.send(ALL, np.array([1, 0]))
            total += float(rows.recv().reward.sum())
    assert done.stdout == f"CartPole-v1: reward {total:g} in 100 steps of 2 rows\n", done.stderr
    assert server.service.sessions.free == 8
