"""A run whose environment has action masks says so: to `act`, to exports and on its pages."""

from html import unescape
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import shoal
from shoal.report.html import write_report
from shoal.run.directory import RunDirectory

SMALL: dict[str, Any] = {"num_envs": 2, "num_steps": 8, "total_timesteps": 32, "final_episodes": 0, "panel": "none"}


class Masked(gym.Env[Any, np.int64]):
    """Allows the second of three actions alone; `inside`: the observation holds the mask."""

    def __init__(self, *, inside: bool = False) -> None:
        place = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Discrete(3)
        self.inside, self.count = inside, 0
        masks = spaces.MultiBinary(3)
        self.observation_space = spaces.Dict({"place": place, "action_mask": masks}) if inside else place

    def told(self) -> Any:
        """Observation and info."""
        mask, place = np.array([0, 1, 0], np.int8), np.zeros(2, np.float32)
        return ({"place": place, "action_mask": mask}, {}) if self.inside else (place, {"action_mask": mask})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self.told()

    def step(self, action: np.int64) -> Any:
        assert action == 1
        self.count += 1
        obs, info = self.told()
        return obs, 1.0, self.count == 4, False, info


@pytest.mark.parametrize(("algo", "more"), [("ppo", {}), ("dqn", {"replay": {"learning_starts": 16}})])
def test_masks_beside_observations(algo: str, more: dict[str, Any], tmp_path: Path) -> None:
    """`act` warns once without one, a graph reads one without being asked, and the page hands one over."""
    path = shoal.train(Masked, algo=algo, run_dir=tmp_path, **SMALL, **more).path
    assert RunDirectory(path).read_status()["action_masks"] is True
    agent = shoal.load(path, factory=Masked)
    obs, mask = np.zeros(2, np.float32), np.array([0, 1, 0], np.int8)
    assert agent.act(obs, action_mask=mask) == 1
    with pytest.warns(UserWarning, match="Masked has action masks, and without one act may choose what is not allowed"):
        agent.act(obs)
    agent.act(obs)  # no second warning
    agent.export(tmp_path / "graph", to="torchscript")
    assert '"action_mask"' in (tmp_path / "graph" / "spec.json").read_text()
    text = unescape(write_report(RunDirectory(path)).read_text())
    assert 'action = agent.act(obs, action_mask=info["action_mask"])' in text
    again = shoal.resume(path, factory=Masked, panel="none")
    assert again.stop_reason == "total_timesteps"
    assert RunDirectory(path).read_status()["action_masks"] is True  # also where nothing more was collected


def test_masks_in_observations(tmp_path: Path) -> None:
    """They hold by themselves."""
    path = shoal.train(Masked, env_kwargs={"inside": True}, run_dir=tmp_path, **SMALL).path
    assert "action_masks" not in RunDirectory(path).read_status()
    agent = shoal.load(path, factory=Masked)
    assert agent.act({"place": np.zeros(2, np.float32), "action_mask": np.array([0, 1, 0], np.int8)}) == 1
    assert "agent.act(obs)" in unescape(write_report(RunDirectory(path)).read_text())
