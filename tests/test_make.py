"""What `make` takes and refuses: ids, paths, callables, keywords; and in which words."""

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.wrappers import TimeLimit

from shoal.envs.registry import make
from shoal.types import ConfigError, EnvError
from tests.contract.toys import Corridor, Lamps
from tests.envs.test_envs import Scripted, in_turn, step


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("CartPole-v7", r"no environment 'CartPole-v7' .*did you mean CartPole-v1"),
        ("cartpole-v1", "did you mean CartPole-v1"),
        ("LunarLander-v2", "did you mean .*LunarLander-v3"),
        ("Nothing-at-all", "`shoal envs` lists what is there|did you mean"),
        ("", "no environment ''"),
        ("tests.contract.toys:Coridor", r"has no 'Coridor'; did you mean tests.contract.toys:Corridor\?"),
        ("tests.contract.toys:", "tests.contract.toys has no ''"),
        ("tests.contract.nowhere:Corridor", "no module 'tests.contract.nowhere'; is it on PYTHONPATH"),
        (":Corridor", "'' is no module's name; write package.module:function"),
        ("my env:Corridor", "'my env' is no module's name"),
        ("nowhere_at_all:Some-v0", "no module 'nowhere_at_all'"),
        ("tests.contract.toys:__doc__", "is a str; pass a callable that returns a gymnasium.Env"),
    ],
)
def test_names_that_are_not_there(env_id: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(env_id, 2)


def test_a_module_that_fails_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import a_module_that_is_missing\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="needs_more needs the module 'a_module_that_is_missing', which is not"):
        make("needs_more:Env", 1)
    assert "needs_more" not in sys.modules


def test_a_path_makes_rows() -> None:
    env = make("tests.contract.toys:make_pointer", 3)
    assert (env.num_rows, env.spec.env_id) == (3, "tests.contract.toys:make_pointer")
    assert env.spec.max_episode_steps == 40
    env.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 0}, "num_envs and num_threads must be at least 1, got 0 and 1"),
        ({"num_envs": -3}, "must be at least 1"),
        ({"num_threads": 0}, "got 2 and 0"),
        ({"backend": "seriall"}, "unknown backend 'seriall'; did you mean serial"),
        ({"env": Corridor, "backend": "native"}, "has no native version; backend='serial' runs it"),
        ({"env": "CartPole-v0", "backend": "native"}, "no native version; did you mean CartPole-v1"),
        ({"env_kwargs": {"sutton_barto": 1}}, r"no parameter 'sutton_barto'; did you mean sutton_barto_reward\?"),
        ({"env_kwargs": {"render_mode": "human"}}, "backend='serial' takes the keywords"),
        ({"env_kwargs": {"max_episode_steps": "9"}}, "needs a number for max_episode_steps, got '9'"),
        ({"env_kwargs": {"max_episode_steps": 1.5}}, "max_episode_steps must be a whole number"),
        (
            {"backend": "serial", "env_kwargs": {"sutton_bart": 1}},
            "no keyword 'sutton_bart'; did you mean sutton_barto",
        ),
        ({"env": "LunarLander-v3", "env_kwargs": {"gravitty": -9}}, r"did you mean gravity\?"),
        ({"env": Scripted, "env_kwargs": {"att": 3}}, "Scripted has no keyword 'att'; did you mean at"),
        ({"env": Corridor, "env_kwargs": {"length": 3}}, "Corridor has no keyword 'length'; it takes none"),
        ({"env": 3}, "3 is a int; pass a callable"),
        ({"env": lambda: 3}, "returned int, expected a gymnasium.Env"),
        ({"info_keys": ("score",)}, "the native CartPole-v1 has no infos; backend='serial'"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"env": "CartPole-v1", "num_envs": 2} | settings
    with pytest.raises(ConfigError, match=message):
        make(given.pop("env"), given.pop("num_envs"), **given)


def test_keywords_reach_the_environment() -> None:
    env = make("CartPole-v1", 2, backend="serial", env_kwargs={"max_episode_steps": 3, "sutton_barto_reward": True})
    assert env.spec.max_episode_steps == 3
    env.reset(0)
    env.recv()
    assert step(env, 3).truncated.tolist() == [True, True]
    env.close()


def test_one_environment_instead_of_a_callable() -> None:
    instance: Any = Corridor()
    with pytest.raises(ConfigError, match="is one environment; pass a function that makes a new one each time"):
        make(instance, 2)


def test_the_same_environment_twice() -> None:
    one = Corridor()
    with pytest.raises(ConfigError, match="rows 0 and 1 are the same object; the callable must make a new environment"):
        make(lambda: one, 2)
    with pytest.raises(ConfigError, match="rows 0 and 1 are the same object"):
        make(lambda: TimeLimit(one, 5), 2)


def test_rows_of_different_kinds() -> None:
    with pytest.raises(EnvError, match="row 1 has another observation_space than row 0"):
        make(in_turn(Corridor, Lamps), 2)


def test_an_environment_without_spaces() -> None:
    class Bare(gym.Env[Any, Any]):
        pass

    with pytest.raises(EnvError, match="row 0 has no observation_space; set it to a"):
        make(Bare, 1)


def test_failing_construction_closes_the_others() -> None:
    closed: list[int] = []

    class Closing(Corridor):
        def close(self) -> None:
            closed.append(1)

    with pytest.raises(EnvError, match="row 2"):
        make(in_turn(Closing, Closing, Lamps), 3)
    assert len(closed) == 2
