"""Served policies hold actions to the run's action guard; exported ones are in test_guarded.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import shoal
from shoal.deploy.description import Provenance
from shoal.deploy.policy_server import PolicyServer
from shoal.envs.action_guard.settings import ActionGuard
from shoal.nets.policy import Network, make_policy
from shoal.types import Spec

if TYPE_CHECKING:
    pass

ROWS = 10_000
GUARD = ActionGuard(low=(-0.1, -2), high=(0.3,), max_change=(0.05, 0.7))


def policy_of(dtype: Any = np.float32, **network: Any) -> tuple[Any, Spec]:
    spec = Spec.of("toy", spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-2, 2, (2,), dtype))
    policy = make_policy(spec, Network(hidden=(8,), **network), 1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(30)
    return policy, spec


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
