"""Served policies: the actions of the policy, a memory for each client, who may ask, and what is refused."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from gymnasium import spaces

import shoal
from shoal.deploy.description import Provenance
from shoal.deploy.policy_server import NAME, PolicyServer
from shoal.envs.preprocessing import Preprocessing
from shoal.remote import policies_pb2 as wire
from shoal.remote.settings import Guard, Remote
from shoal.types import ConfigError, EnvError, Spec
from tests.deploy.cases import CASES, Case, observations
from tests.deploy.test_c import allowed, assert_same, torch_actions

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "a token that is long enough"
ROWS = 50


def served(case: Case, **settings: Any) -> tuple[Any, Spec, PolicyServer]:
    policy, spec = case.make()
    return policy, spec, PolicyServer(policy, spec, **settings)


@pytest.mark.parametrize(
    "name",
    ["joint", "lstm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("categorical", "q-dueling", "sac"))],
)
def test_the_actions_of_the_policy(name: str) -> None:
    policy, spec, server = served(CASES[name])
    obs = observations(spec.observation_space, ROWS)
    state = policy.initial_state(ROWS)
    with server, shoal.remote_policy(server.name, spec=spec) as client:
        for _ in range(3):
            action = client.act(obs)
            wanted, state = torch_actions(policy, obs, state=state)
            assert_same(spec, action, wanted)
        one = client.act({k: v[0] for k, v in obs.items()} if isinstance(obs, dict) else obs[0])
        begun, _ = torch_actions(policy, obs, state=policy.initial_state(ROWS))
        first = {k: v[0] for k, v in begun.items()} if isinstance(begun, dict) else begun[0]
        for mine, theirs in zip(spec.action.flat(one), spec.action.flat(first), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_masks_starts_and_draws() -> None:
    policy, spec, server = served(CASES["gru"])
    obs, mask = observations(spec.observation_space, ROWS), allowed(spec, ROWS)
    start = np.arange(ROWS) % 2 == 0
    with server, shoal.remote_policy(server.name) as client:
        client.act(obs)
        _, state = torch_actions(policy, obs, state=policy.initial_state(ROWS))
        action = client.act(obs, action_mask=list(mask), start=start)
        state = state.clone()
        state[start] = 0
        wanted, _ = torch_actions(policy, obs, mask=mask, state=state)
        assert_same(spec, action, wanted)
        with shoal.remote_policy(server.name, sample=True, seed=3) as drawing:
            drawn = drawing.act(obs)
        with shoal.remote_policy(server.name, sample=True, seed=3) as again:
            np.testing.assert_array_equal(again.act(obs), drawn)
        assert (drawn != client.act(obs)).any()


def test_clients_at_once_have_memories_of_their_own() -> None:
    policy, spec, server = served(CASES["lstm"])
    seen = [observations(spec.observation_space, ROWS, seed) for seed in (1, 2)]

    def play(obs: np.ndarray) -> list[np.ndarray]:
        with shoal.remote_policy(server.name) as client:
            both.wait(10)
            return [client.act(obs) for _ in range(20)]

    both = threading.Barrier(2)
    with server, ThreadPoolExecutor(2) as pool:
        for obs, actions in zip(seen, pool.map(play, seen), strict=True):
            state = policy.initial_state(ROWS)
            for action in actions:
                wanted, state = torch_actions(policy, obs, state=state)
                assert_same(spec, action, wanted)


def test_what_is_refused_changes_no_memory() -> None:
    policy, spec, server = served(CASES["gru"])
    obs = observations(spec.observation_space, 3)
    with server, shoal.remote_policy(server.name) as client:
        client.act(obs)
        bad = obs.copy()
        bad[1, 2] = np.nan
        with pytest.raises(ValueError, match="observation of row 1 is not finite or outside its space"):
            client.act(bad)
        with pytest.raises(ValueError, match="mask of row 0 leaves no option"):
            client.act(obs, action_mask=[[False] * 4] * 3)
        with pytest.raises(ValueError, match=r"expected an observation \(6,\) or \[N, ...\], got \(3, 5\)"):
            client.act(obs[:, :5])
        with pytest.raises(ValueError, match="expected an observation of type float32, got object"):
            client.act({"a": 1})
        with pytest.raises(ValueError, match="expected an observation of type float32, got <U"):
            client.act([["a"] * 6] * 3)
        with pytest.raises(ValueError, match=r"start is a bool, or \[3\] of them .* got \(1,\)"):
            client.act(obs, start=[True])
        _, state = torch_actions(policy, obs, state=policy.initial_state(3))
        np.testing.assert_array_equal(client.act(obs), torch_actions(policy, obs, state=state)[0])
    with pytest.raises(EnvError, match="is closed; make another one by remote_policy"):
        client.act(obs)


def test_another_specification() -> None:
    _, spec, server = served(CASES["gaussian"])
    other = Spec.of("Other-v0", spec.observation_space, spaces.Box(-1, 1, (3,), np.float32))
    with server:
        with pytest.raises(ConfigError, match=r"trained for Case-v0, whose specification is another.*actions: Box"):
            shoal.remote_policy(server.name, spec=other)
        with grpc.insecure_channel(server.address) as channel:
            call = channel.stream_stream(f"/{NAME}/Session")
            asked = wire.PolicyOpen(protocol=1, rows=1, spec_sha256="0" * 64)
            replies = call(iter([wire.PolicyRequest(open=asked).SerializeToString()]))
            with pytest.raises(grpc.RpcError, match="trained for other observations or actions"):
                next(replies)


@pytest.mark.parametrize("rows", [0, 9])
def test_too_many_rows(rows: int) -> None:
    _, spec, server = served(CASES["gaussian"], most_rows=8)
    obs = observations(spec.observation_space, rows)
    with server, shoal.remote_policy(server.name) as client:
        with pytest.raises((ConfigError, ValueError), match=r"has 1 to 8 rows|expected an observation"):
            client.act(obs)
        assert len(client.act(observations(spec.observation_space, 8))) == 8


def test_messages_of_another_size_and_no_messages() -> None:
    _, _, server = served(CASES["gaussian"])
    with server, grpc.insecure_channel(server.address) as channel:
        call = channel.stream_stream(f"/{NAME}/Session")
        opened = wire.PolicyRequest(open=wire.PolicyOpen(protocol=1, rows=2))
        short = wire.PolicyRequest(act=wire.PolicyStep(obs=b"12345"))
        replies = call(iter([opened.SerializeToString(), short.SerializeToString(), b"\xff\xff"]))
        next(replies)
        refused = wire.PolicyReply.FromString(next(replies)).refused
        assert "observations of 5 bytes where" in refused
        with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
            next(replies)
        with pytest.raises(grpc.RpcError, match="must be `open`"):
            next(call(iter([short.SerializeToString()])))
        with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
            next(call(iter([b"\xff\xff"])))


@pytest.mark.slow
def test_clients_beyond_the_limit_and_silent_ones() -> None:
    _, spec, server = served(CASES["gaussian"], guard=Guard(max_clients=1, idle_s=1))
    obs = observations(spec.observation_space, 2)
    with server, shoal.remote_policy(server.name) as first, shoal.remote_policy(server.name) as second:
        first.act(obs)
        with pytest.raises(ConfigError, match="takes no more of them"):
            second.act(obs)
        assert first._session is not None
        with pytest.raises(grpc.RpcError, match="CANCELLED"):
            next(first._session.replies)  # it is ended without a request
        with pytest.raises(EnvError, match="begins another one"):
            first.act(obs)
        second.act(obs)


def test_tokens_and_certificates(tmp_path: Path) -> None:
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1")
    paths = {name: str(tmp_path / name) for name in ("ca", "cert", "key", "token", "other")}
    authority.cert_pem.write_to_path(paths["ca"])
    pair.cert_chain_pems[0].write_to_path(paths["cert"])
    pair.private_key_pem.write_to_path(paths["key"])
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "other").write_text("another one, as long as that")
    guard = Guard(cert=paths["cert"], key=paths["key"], token_file=paths["token"])
    _, spec, server = served(CASES["gaussian"], guard=guard)
    obs = observations(spec.observation_space, 2)
    with server:
        assert server.name.startswith("grpcs://")
        shown = Remote(ca=paths["ca"], token_file=paths["token"])
        with shoal.remote_policy(server.name, remote=shown) as client:
            client.act(obs)
        for wrong in (Remote(ca=paths["ca"]), Remote(ca=paths["ca"], token_file=paths["other"])):
            with pytest.raises(ConfigError, match="asks for a token"):
                shoal.remote_policy(server.name, remote=wrong)
    policy, spec = CASES["gaussian"].make()
    with pytest.raises(ConfigError, match="could ask the policy for actions; give a certificate"):
        PolicyServer(policy, spec, listen="0.0.0.0:0")


def test_health_and_the_duties_of_a_caller() -> None:
    policy, spec = CASES["gaussian"].make()
    origin = Provenance("run1", "ppo", preprocessing=Preprocessing(frame_stack=2))
    with PolicyServer(policy, spec, provenance=origin) as server, grpc.insecure_channel(server.address) as channel:
        asked = health_pb2.HealthCheckRequest(service=NAME)
        stub: Any = health_pb2_grpc.HealthStub(channel)
        said = stub.Check(asked, timeout=10)
        assert said.status == health_pb2.HealthCheckResponse.SERVING
        with shoal.remote_policy(server.name) as client:
            assert any("Stack the last 2 observations" in line for line in client.caller)


def test_nobody_there() -> None:
    with pytest.raises(ConfigError, match=r"no policy answers at 127\.0\.0\.1:1 .*shoal serve-policy RUN"):
        shoal.remote_policy("grpc://127.0.0.1:1", timeout_s=1)
