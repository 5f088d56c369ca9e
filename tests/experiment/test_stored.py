"""An environment's keywords come back from config.toml as they were, or are refused before anything is trained."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import shoal
from shoal.experiment.experiment import Experiment
from shoal.experiment.training import train
from shoal.run.directory import RunDirectory
from shoal.types import ConfigError


class Shop(gym.Env[Any, Any]):
    """Notes what it was made with."""

    action_space = gym.spaces.Discrete(2)
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    made: list[dict[str, Any]] = []  # noqa: RUF012

    def __init__(self, **given: Any) -> None:
        self.made.append(given)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(1, np.float32), 1.0, True, False, {}


KWARGS: dict[str, Any] = {
    "horizon": None,
    "size": (2, 5),
    "empty": [],
    "whole": 3.0,
    "large": 10**30,
    "text": 'a "quote"\n\t',
    "inf": float("-inf"),
    "share": np.float64(0.1),
    "with.dot": [1],
}


def test_every_run_of_a_directory_gets_the_same_keywords(tmp_path: Path) -> None:
    kwargs = KWARGS | {
        "nested": ((1, (2,)), [(3.0, "x")], {"deep": ()}),
        "table": {"none": None, "inside": ({"a": (1,)},)},
    }
    Shop.made.clear()
    run = train(
        Shop,
        env_kwargs=kwargs,
        num_envs=2,
        num_steps=8,
        num_minibatches=2,
        total_timesteps=16,
        panel="none",
        run_dir=str(tmp_path),
    )
    shoal.load(run.path, factory=Shop).evaluate(episodes=1)
    assert len(Shop.made) >= 4
    for given in Shop.made:
        assert type(given["whole"]) is float
        assert given == kwargs
    saved = RunDirectory(run.path).read_config()
    assert Experiment.of_file(saved, source=Shop).to_file() == saved


class Level(enum.IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Level.LOW, r"config\.toml would hold env_kwargs\.x = <Level\.LOW: 1> as 1"),
        ([1, Level.LOW], r"config\.toml would hold env_kwargs\.x\.1"),
        ({1: "a"}, r"env_kwargs\.x: its key 1 is no string"),
        (np.int64(3), "cannot hold these keywords"),
        ([None], "cannot hold these keywords"),
        ("\ud800", "cannot hold these keywords"),
        (Path("x"), "cannot hold these keywords"),
        ({"a.b": (1,)}, r"a tuple under a key with a dot: env_kwargs\.x\.a\.b"),
    ],
)
def test_what_would_not_come_back_is_refused_before_training(value: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        train(Shop, env_kwargs={"x": value}, total_timesteps=16, num_envs=2, panel="none", run_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tuples", "says"),
    [
        ("size", "must be a list of names"),
        (["size"], "names below env_kwargs"),
        ([3], "names below env_kwargs"),
        (["env_kwargs.none"], "is not there"),
        (["env_kwargs.size.7"], "is not there"),
        (["env_kwargs.number"], "is no list"),
    ],
)
def test_a_wrong_list_of_tuples_is_refused(tuples: Any, says: str) -> None:
    saved = {"env": "CartPole-v1", "env_kwargs": {"size": [1], "number": 1}, "tuples": tuples}
    with pytest.raises(ConfigError, match=says):
        Experiment.of_file(saved)
