"""Exported policies hold actions to the run's action guard: in C bit for bit as here, in graphs and on servers."""

from __future__ import annotations

import ctypes
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import shoal
from shoal.deploy.description import Provenance
from shoal.deploy.export import export
from shoal.deploy.player import Player
from shoal.deploy.policy_server import PolicyServer
from shoal.envs.action_guard.limits import limits_of
from shoal.envs.action_guard.settings import ActionGuard
from shoal.nets.policy import Network, make_policy
from shoal.types import Spec
from tests.deploy.compiled import Compiled, pointer
from tests.deploy.test_graphs import Graph

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 10_000
GUARD = ActionGuard(low=(-0.1, -2), high=(0.3,), max_change=(0.05, 0.7))


def policy_of(dtype: Any = np.float32, **network: Any) -> tuple[Any, Spec]:
    spec = Spec.of("toy", spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-2, 2, (2,), dtype))
    policy = make_policy(spec, Network(hidden=(8,), **network), 1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(30)
    return policy, spec


def exported(folder: Path, to: Any, dtype: Any = np.float32, **network: Any) -> tuple[Any, Spec, Path]:
    policy, spec = policy_of(dtype, **network)
    provenance = Provenance(action_guard=GUARD)
    return policy, spec, export(policy, spec, folder / "out", to=to, provenance=provenance).folder


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_c_holds_actions_bit_for_bit(tmp_path: Path, dtype: Any) -> None:
    _, spec, folder = exported(tmp_path, "c", dtype)
    hold = Compiled(folder, spec).library.policy_hold
    limits = limits_of(GUARD, spec)
    assert limits is not None
    rng = np.random.default_rng(0)
    wanted = rng.uniform(-2, 2, (ROWS, 2)).astype(dtype)
    before = np.zeros((1, 2), dtype)
    for number, action in enumerate(wanted):
        begun = number % 7 > 0
        theirs = limits.apply(action[None], before.astype(np.float64), np.array([begun])).astype(dtype)
        mine = action.copy()
        hold(pointer(before) if begun else ctypes.c_void_p(None), pointer(mine))
        assert mine.tobytes() == theirs.tobytes()
        before = theirs


@pytest.mark.parametrize("recurrent", ["none", "gru"])
def test_c_gives_actions_within_the_bounds(tmp_path: Path, recurrent: Any) -> None:
    policy, spec, folder = exported(tmp_path, "c", recurrent=recurrent)
    compiled = Compiled(folder, spec)
    obs = np.random.default_rng(1).uniform(-1, 1, (500, 3)).astype(np.float32)
    status, action = compiled.step(obs, 500, state=compiled.state(500))
    assert status == 0
    free = Player(policy, spec, 500).act(obs, np.ones(500, np.bool_))
    assert ((free < (-0.1, -2)) | (free > 0.3)).any()
    assert action == pytest.approx(np.clip(free, np.float32([-0.1, -2]), np.float32(0.3)), abs=1e-4)
    assert (action.astype(np.float64) <= 0.3).all()
    said = json.loads((folder / "spec.json").read_text())
    assert said["action_guard"]["limits"]["max_change"] == [0.05, 0.7]
    assert "the function ending in `_hold`" in said["caller"][-1]


def test_a_graph_gives_actions_within_the_bounds(tmp_path: Path) -> None:
    policy, spec, folder = exported(tmp_path, "torchscript")
    obs = np.random.default_rng(1).uniform(-1, 1, (50, 3)).astype(np.float32)
    action, _ = Graph(folder, spec)(obs, 50)
    free = Player(policy, spec, 50).act(obs, np.ones(50, np.bool_))
    assert action == pytest.approx(np.clip(free, np.float32([-0.1, -2]), np.float32(0.3)), abs=1e-4)
    assert (action.astype(np.float64) <= 0.3).all()
    assert "to within `max_change`" in json.loads((folder / "spec.json").read_text())["caller"][-1]


def test_a_served_policy_is_held_by_row_and_episode() -> None:
    policy, spec = policy_of()
    server = PolicyServer(policy, spec, provenance=Provenance(action_guard=GUARD))
    rng = np.random.default_rng(2)
    with server, shoal.remote_policy(server.name) as client:
        before = None
        for number in range(20):
            action = client.act(rng.uniform(-1, 1, (4, 3)).astype(np.float32), start=[number == 10] * 4)
            assert (action.astype(np.float64) <= 0.3).all()
            if before is not None and number != 10:
                assert (np.abs(action.astype(np.float64) - before) <= (0.05, 0.7)).all()
            before = action.astype(np.float64)


def test_a_function_that_fails_is_refused_in_words() -> None:
    policy, spec = policy_of()
    guard = ActionGuard(constraint=lambda obs, action: action * np.nan)
    server = PolicyServer(policy, spec, provenance=Provenance(action_guard=guard))
    with (
        server,
        shoal.remote_policy(server.name) as client,
        pytest.raises(ValueError, match=r"action_guard.constraint gave \[nan nan\] for row 0"),
    ):
        client.act(np.zeros((2, 3), np.float32))
