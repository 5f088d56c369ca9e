"""Exported and served policies behind a run's action guard: the same limits, step for step."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import shoal
from shoal.deploy.description import Provenance
from shoal.deploy.export import Kind, export
from shoal.deploy.policy_server import PolicyServer
from shoal.envs.action_guard.acting import GuardActing
from shoal.envs.action_guard.limits import limits_of
from shoal.envs.action_guard.settings import ActionGuard
from shoal.nets.network import Network
from shoal.nets.policy import make_policy
from shoal.types import ConfigError, Spec
from tests.deploy.cases import CASES, observations
from tests.deploy.compiled import Compiled
from tests.deploy.test_c import torch_actions
from tests.deploy.test_graphs import Graph

ROWS, STEPS = 500, 20
SLOW = ActionGuard(low=(-1.5, -1.0, 0.0), high=(1.0, 0.3, 0.4), max_change=(0.1, 0.07, 0.3))
BOUNDED = ActionGuard(low=(-1.5, -1.0, 0.0), high=(1.0, 0.3, 0.4))


def guarded(policy: Any, spec: Any, guard: ActionGuard) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Observations of some steps, and what is done in each; rows begin anew in the middle."""
    acting = GuardActing(guard, spec)
    seen, done = [], []
    state = policy.initial_state(ROWS)
    for step in range(STEPS):
        obs = observations(spec.observation_space, ROWS, step)
        wanted, state = torch_actions(policy, obs, state=state)
        seen.append(obs)
        done.append(np.asarray(acting.hold(obs, wanted, np.full(ROWS, step == 0))).copy())
    return seen, done


def within(done: list[np.ndarray], guard: ActionGuard, spec: Any) -> None:
    """Every action is within the guard's bounds, and near the one before."""
    tiny = 1e-7  # bounds are numbers of float64, actions of float32 or float64
    for action in done:
        assert (action >= np.array(guard.low) - tiny).all()
        assert (action <= np.array(guard.high) + tiny).all()
    if guard.max_change:
        for one, other in pairwise(done):
            moved = np.abs(other.astype(np.float64) - one.astype(np.float64))
            assert (moved <= np.array(guard.max_change)).all()


@pytest.mark.parametrize(
    ("name", "guard"),
    [
        ("gaussian", SLOW),
        pytest.param("lstm", SLOW, marks=pytest.mark.slow),
        pytest.param("sac", BOUNDED, marks=pytest.mark.slow),
        pytest.param("gaussian-float64", ActionGuard(max_change=(0.05,)), marks=pytest.mark.slow),
    ],
)
def test_c_source_holds_the_limits(name: str, guard: ActionGuard, tmp_path: Path) -> None:
    policy, spec = CASES[name].make()
    made = export(policy, spec, tmp_path / "out", to="c", provenance=Provenance(action_guard=guard))
    library = Compiled(made.folder, spec)
    seen, wanted = guarded(policy, spec, guard)
    state = library.state(ROWS)
    done = [library.step(obs, ROWS, state=state)[1] for obs in seen]
    for mine, theirs in zip(done, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)
    if guard.low:
        within(done, guard, spec)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torchscript", "torch-export"])
@pytest.mark.parametrize(("name", "guard"), [("gaussian", SLOW), ("lstm", SLOW), ("sac", BOUNDED)])
def test_graphs_hold_the_limits(name: str, guard: ActionGuard, kind: Kind, tmp_path: Path) -> None:
    policy, spec = CASES[name].make()
    export(policy, spec, tmp_path / "out", to=kind, provenance=Provenance(action_guard=guard))
    graph = Graph(tmp_path / "out", spec)
    seen, wanted = guarded(policy, spec, guard)
    action, states = graph(seen[0], ROWS)
    done = [action]
    for obs in seen[1:]:
        action, states = graph(obs, ROWS, *states)
        done.append(action)
    for mine, theirs in zip(done, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)
    within(done, guard, spec)


def test_servers_hold_the_limits() -> None:
    policy, spec = CASES["lstm"].make()
    seen, wanted = guarded(policy, spec, SLOW)
    origin = Provenance(action_guard=SLOW)
    with PolicyServer(policy, spec, provenance=origin) as server, shoal.remote_policy(server.name) as client:
        done = [client.act(obs) for obs in seen]
    for mine, theirs in zip(done, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)
    within(done, SLOW, spec)


def halve(obs: Any, action: Any) -> Any:
    return action / 2


def test_a_function_is_in_no_file(tmp_path: Path) -> None:
    policy, spec = CASES["gaussian"].make()
    origin = Provenance(action_guard=ActionGuard(constraint=halve))
    with pytest.raises(ConfigError, match=r"by a function \(.*:halve\), which an export cannot hold"):
        export(policy, spec, tmp_path / "out", to="c", provenance=origin)
    with PolicyServer(policy, spec, provenance=origin) as server, shoal.remote_policy(server.name) as client:
        obs = observations(spec.observation_space, 5)
        np.testing.assert_allclose(client.act(obs), torch_actions(policy, obs)[0] / 2, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_arithmetic_of_limits_bit_for_bit(dtype: Any, tmp_path: Path) -> None:
    """A policy whose mean is what it sees: of one layer, the identity."""
    space = spaces.Box(-2, 2, (2,), dtype)
    spec = Spec.of("Toy-v0", spaces.Box(-np.inf, np.inf, (2,), np.float32), space)
    policy: Any = make_policy(spec, Network(hidden=()), 0)
    with torch.no_grad():
        policy.actor[0].weight.copy_(torch.eye(2))
    guard = ActionGuard(low=(-0.1, -2), high=(0.3,), max_change=(0.05, 0.7))
    made = export(policy, spec, tmp_path / "out", to="c", provenance=Provenance(action_guard=guard))
    library, limits = Compiled(made.folder, spec), limits_of(guard, spec)
    assert limits is not None
    state, before = library.state(ROWS), np.zeros((ROWS, 2))
    for step in range(STEPS):
        wanted = observations(spec.observation_space, ROWS, step)
        action = library.step(wanted, ROWS, state=state)[1]
        inner = np.clip(wanted, space.low, space.high)
        theirs = limits.apply(inner, before, np.full(ROWS, step > 0))
        np.testing.assert_array_equal(action, theirs.astype(dtype))
        before = theirs
