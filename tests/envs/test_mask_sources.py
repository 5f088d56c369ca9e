"""Where action masks may come from, in every backend and in check-env: observations, infos, a method."""

from __future__ import annotations

import sys
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from shoal.check.check_env import check_env
from shoal.envs.registry import make
from shoal.envs.workers.settings import Workers
from shoal.learn.acting import Acting
from shoal.nets.policy import Network, make_policy
from shoal.run.evaluate import evaluate
from shoal.stream.rollouts import rollouts
from shoal.types import EnvError
from tests.envs.test_batched import Clock, started, stepped, text_rewards

pytestmark = pytest.mark.usefixtures("warm_workers")

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # worker processes need not import torch


class Keyed(gym.Env[Any, Any]):
    """Four steps; only option t % 4 is allowed in step t, and another one raises. `where` has the mask."""

    where = "info"
    action_space = gym.spaces.Discrete(4)
    observation_space: gym.Space[Any] = gym.spaces.Box(0, 1, (1,), np.float32)

    def mask(self) -> Any:
        return np.eye(4, dtype=np.int8)[self.clock % 4]

    def seen(self) -> tuple[Any, dict[str, Any]]:
        obs = np.zeros(1, np.float32)
        if self.where == "observation":
            return {"action_mask": self.mask() * (self.clock < 3), "x": obs}, {}
        return obs, {"action_mask": self.mask()} if self.where == "info" else {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.clock = 0
        return self.seen()

    def step(self, action: int) -> Any:
        assert action == self.clock % 4
        self.clock += 1
        obs, info = self.seen()
        return obs, 1.0, self.clock == 3, False, info


class Seen(Keyed):
    """In the observation, and none is left where the episode ends."""

    where = "observation"
    observation_space = gym.spaces.Dict(action_mask=gym.spaces.MultiBinary(4), x=Keyed.observation_space)


class Called(Keyed):
    """By sb3-contrib's method, as a list."""

    where = "method"

    def action_masks(self) -> list[bool]:
        return [bool(option) for option in self.mask()]


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("kind", [Keyed, Seen, Called])
def test_masks_reach_the_policy_from_wherever_they_are(kind: Any, mode: AutoresetMode) -> None:
    """In each way to reset; the environments assert it, and evaluation and streams read the same masks."""

    def rows(num_envs: int) -> SyncVectorEnv:
        return SyncVectorEnv([kind] * num_envs, autoreset_mode=mode)

    env = started(make(rows, 2, backend="vector"))
    assert env.spec.masked
    policy = make_policy(env.spec, Network(hidden=(4,)), 0)
    steps = next(rollouts(env, policy, num_steps=12))
    assert steps.action_mask.gather(-1, steps.action.unsqueeze(-1)).all()
    assert steps.reward[steps.valid].all()
    assert evaluate(policy, make(rows, 2, backend="vector"), episodes=4, acting=Acting(0)).returns.tolist() == [3] * 4


def test_a_vector_environments_own_masks() -> None:
    """Its method gives them for all rows; infos of a step alone are refused."""

    class Masked(Clock):
        def action_masks(self) -> Any:
            return np.array([[True, False], [False, True]])

    env = started(make(Masked, 2, backend="vector"))
    assert env.out.action_mask.tolist() == [[True, False], [False, True]]

    def late(made: list[Any]) -> list[Any]:
        return [*made[:4], {"action_mask": np.ones((2, 2)), "_action_mask": np.ones(2, np.bool_)}]

    env = started(make(Clock, 2, backend="vector", env_kwargs={"spoil": late}))
    with pytest.raises(EnvError, match=r"the library gave info\['action_mask'\], though its reset gave none"):
        stepped(env, [0, 0])


@pytest.mark.parametrize("backend", ["serial", "workers"])
def test_masks_of_a_method_are_those_of_infos(backend: str) -> None:
    """sb3-contrib's `action_masks()` in the backends of Python environments, behind a wrapper too."""
    settings: Any = {"workers": Workers(1)} if backend == "workers" else {}
    env = started(make(lambda: gym.wrappers.TransformReward(Called(), float), 2, backend=backend, **settings))
    assert env.out.action_mask.astype(int).tolist() == [[1, 0, 0, 0]] * 2
    assert stepped(env, [0, 0]).action_mask.argmax(1).tolist() == [1, 1]
    env.close()


@pytest.mark.parametrize("backend", ["serial", "workers"])
def test_masks_in_infos_of_steps_alone_are_refused(backend: str) -> None:
    """Also of the last step of an episode, whose info is followed by a reset's."""

    class Late(Keyed):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return super().reset(seed=seed)[0], {}

        def step(self, action: int) -> Any:
            obs, _, _, _, info = super().step(action)
            return obs, 1.0, True, False, info

    settings: Any = {"workers": Workers(1)} if backend == "workers" else {}
    env = started(make(Late, 1, backend=backend, **settings))
    with pytest.raises(EnvError, match=r"row 0 at step 1 .* gave info\['action_mask'\], though its reset gave none"):
        stepped(env, [0])
    env.close()


def test_check_env_looks_at_vector_environments() -> None:
    """Gymnasium's own, one with masks in its observations, and one whose rewards are text."""
    report = check_env("CartPole-v1", steps=400, backend="vector")
    assert (report.ok, report.warnings) == (True, ())

    def rows(num_envs: int) -> SyncVectorEnv:
        return SyncVectorEnv([Seen] * num_envs)

    report = check_env(rows, steps=400, backend="vector")
    assert (report.ok, [finding.name for finding in report.warnings]) == (True, ["seed"])
    assert "masks" in {finding.name for finding in report.findings}
    (error,) = check_env(Clock, steps=400, backend="vector", env_kwargs={"spoil": text_rewards}).errors
    assert "reward of shape" in error.says


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Keyed, Seen, Called])
def test_check_env_chooses_among_what_masks_leave(kind: Any) -> None:
    """The environment raises on anything else; in rows and in processes too."""
    report = check_env(kind, steps=200, backend="workers" if kind is Called else "serial")
    assert report.ok
    assert {"masks", "rows", "resume"} <= {finding.name for finding in report.findings}


class Unseen(Keyed):
    """Masks in the infos of steps alone; any action goes."""

    def seen(self) -> tuple[Any, dict[str, Any]]:
        return np.zeros(1, np.float32), {"action_mask": np.ones(4)} if self.clock else {}

    def step(self, action: int) -> Any:
        return super().step(self.clock % 4)


class Blocked(Unseen):
    """No option in the middle of an episode."""

    def seen(self) -> tuple[Any, dict[str, Any]]:
        return np.zeros(1, np.float32), {"action_mask": np.full(4, self.clock != 1)}


class Wide(Unseen):
    """Five numbers for four options."""

    def seen(self) -> tuple[Any, dict[str, Any]]:
        return np.zeros(1, np.float32), {"action_mask": np.ones(5)}


@pytest.mark.parametrize(
    ("kind", "told"),
    [(Unseen, "though its reset gave none"), (Blocked, "without any option"), (Wide, "5 numbers, but Discrete")],
)
def test_check_env_finds_masks_that_are_wrong(kind: Any, told: str) -> None:
    (error,) = check_env(kind, steps=200).errors
    assert (error.name, told in error.says) == ("masks", True)


class Renamed(Keyed):
    """Its masks have another name than the one that is read."""

    def seen(self) -> tuple[Any, dict[str, Any]]:
        obs, info = super().seen()
        return obs, {"action_masks": info["action_mask"], "legal_moves": ["e4", "d4"]}


class SeenRenamed(Keyed):
    observation_space = gym.spaces.Dict(valid_actions=gym.spaces.MultiBinary(4), x=Keyed.observation_space)

    def seen(self) -> tuple[Any, dict[str, Any]]:
        return {"valid_actions": self.mask(), "x": np.zeros(1, np.float32)}, {}


@pytest.mark.parametrize(("kind", "name"), [(Renamed, "action_masks"), (SeenRenamed, "valid_actions")])
@pytest.mark.parametrize("backend", ["serial", "vector"])
def test_masks_under_another_name_are_said(kind: Any, name: str, backend: str) -> None:
    """Once, and only what can be a mask."""

    def rows(num_envs: int) -> SyncVectorEnv:
        return SyncVectorEnv([kind] * num_envs)

    env = make(rows if backend == "vector" else kind, 2, backend=backend)
    with pytest.warns(UserWarning, match=rf"\['{name}'\] looks like a mask .*call it 'action_mask'"):
        env.reset(0)
    env.reset(1)
    assert not env.spec.masked
