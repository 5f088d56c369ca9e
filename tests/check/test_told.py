"""`check_env` finds what training warns of, in its report and nowhere else."""

from __future__ import annotations

import re
import threading
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv

from shoal.check.check_env import check_env
from shoal.check.report import Report


class OddMask(gym.Env[Any, Any]):
    """Says what may be chosen under a name that nobody reads."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self.seen(), {"legal_actions": np.array([1, 1, 0], np.int8)}

    def seen(self) -> Any:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def step(self, action: Any) -> Any:
        self.count += 1
        info = {"legal_actions": np.array([1, 1, 0], np.int8)}
        return self.seen(), 1.0, False, self.count >= 10, info


def odd_rows(num_envs: int) -> Any:
    return gym.vector.SyncVectorEnv([OddMask] * num_envs)


def scaled() -> Any:
    return gym.wrappers.NormalizeReward(OddMask())


def scaled_rows(num_envs: int) -> Any:
    return gym.wrappers.vector.NormalizeObservation(odd_rows(num_envs))


@pytest.mark.parametrize(
    ("made", "backend", "check", "says", "advice"),
    [
        (OddMask, "serial", "masks", r"info\['legal_actions'\] looks like a mask", "call it 'action_mask'"),
        (odd_rows, "vector", "masks", r"info\['legal_actions'\] looks like a mask", "call it 'action_mask'"),
        (scaled, "serial", "wrappers", "its wrapper NormalizeReward keeps running statistics", "--normalize-reward"),
        (scaled, "workers", "wrappers", "its wrapper NormalizeReward keeps running statistics", "--normalize-reward"),
        (scaled_rows, "vector", "wrappers", "its wrapper NormalizeObservation keeps", "--network.normalize-obs"),
        (CartPoleEnv, "serial", "time-limit", "itself has no time limit", "pass that id"),
    ],
)
@pytest.mark.parametrize("here", [True, False])
def test_what_training_warns_of_is_found(
    made: Any,
    backend: str,
    check: str,
    says: str,
    advice: str,
    here: bool,  # noqa: FBT001
) -> None:
    """In the report and nowhere else, a thread that is not the main one included; pytest raises any warning."""
    reports: list[Report] = []

    def run() -> None:
        reports.append(check_env(made, steps=100, backend=backend))

    if here:
        run()
    else:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    found = {finding.name: finding for finding in reports[0].findings}[check]
    assert found.verdict == "warning"
    assert re.search(says, found.says)
    assert advice in found.advice
