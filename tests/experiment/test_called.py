"""Arguments that a public function does not have are refused in words: other libraries' with the name here."""

import copy
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shoal
from shoal.check.check_env import FOREIGN
from shoal.experiment.agent import Agent
from shoal.experiment.foreign import FOREIGN_ATTRIBUTES, FOREIGN_CALLS, FOREIGN_CLEANRL, FOREIGN_LOAD
from shoal.experiment.result import Result
from shoal.types import ConfigError

SMALL: Any = {"num_envs": 1, "num_steps": 8, "total_timesteps": 8, "num_threads": 1, "panel": "none"}
METHODS = {name for name, _ in inspect.getmembers(Agent, inspect.isfunction) if not name.startswith("_")}
FUNCTIONS = [name for name in shoal.__all__ if inspect.isfunction(getattr(shoal, name))]
SETTINGS = {"train", "resume", "make_vec"}
"""Functions that take settings, or what `gymnasium.make` does, besides their own arguments; those are checked there."""
NO_CALLS = {"get_include", "cmake_dir"}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return shoal.train("CartPole-v1", algo="a2c", run_dir=tmp_path_factory.mktemp("runs"), final_episodes=0, **SMALL)


@pytest.fixture(scope="module")
def agent(result: Result) -> Agent:
    return shoal.load(result.path)


@pytest.mark.parametrize(
    ("method", "name"), [(method, name) for method in FOREIGN_CALLS for name in FOREIGN_CALLS[method]]
)
def test_another_library_s_argument_is_named(method: str, name: str, agent: Agent) -> None:
    """Whose it is and what is to be written here, which is an argument of the method where it is a plain name."""
    call = getattr(agent, method)
    with pytest.raises(ConfigError) as caught:
        call(**{name: 3})
    here = FOREIGN_CALLS[method][name]
    assert str(caught.value) == f"{method} has no argument {name!r}; Stable-Baselines3's {name} is here: {here}"
    assert " " in here or here.startswith("agent.") or here in inspect.signature(call).parameters


@pytest.mark.parametrize("name", FOREIGN_LOAD)
def test_another_library_s_argument_of_load(name: str, agent: Agent) -> None:
    call: Any = shoal.load
    with pytest.raises(ConfigError, match=rf"^load has no argument '{name}'; Stable-Baselines3's {name} is here: "):
        call(agent.provenance.folder, **{name: None})


@pytest.mark.parametrize("name", FOREIGN)
def test_another_library_s_argument_of_check_env(name: str) -> None:
    call: Any = shoal.check_env
    with pytest.raises(ConfigError, match=rf"^check_env has no argument '{name}'; Stable-Baselines3's"):
        call("CartPole-v1", **{name: True})


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_refuses_what_it_does_not_take(method: str, agent: Agent) -> None:
    """By the nearest name, or by all that it takes; too many without a name, by how it is called."""
    call = getattr(agent, method)
    names = list(inspect.signature(call).parameters)
    with pytest.raises(ConfigError, match=f"^{method} has no argument 'zzz'; it takes {', '.join(names) or 'none'}$"):
        call(zzz=1)
    with pytest.raises(ConfigError, match=f"^{method} was given more arguments than it has without their names; it ta"):
        call(*range(9))


@pytest.mark.parametrize("name", sorted({*FUNCTIONS} - SETTINGS - NO_CALLS))
def test_every_function_does_so_too(name: str) -> None:
    call = getattr(shoal, name)
    with pytest.raises(ConfigError, match=f"^{name} has no argument 'zzz'; it takes "):
        call("grpc://nowhere:1", zzz=1)


def test_sentences(agent: Agent) -> None:
    """The nearest names, and how a method is called."""
    call: Any = agent.evaluate
    with pytest.raises(ConfigError, match=r"^evaluate has no argument 'episode'; did you mean episodes\?$"):
        call(episode=3)
    with pytest.raises(ConfigError, match=r"it takes evaluate\(episodes=\.\.\., seed=\.\.\., max_steps=\.\.\.\)$"):
        call(20)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'obs'"):
        agent.act()  # pyright: ignore[reportCallIssue]


def test_what_they_take_arrives(agent: Agent) -> None:
    """Names, defaults and docstrings are as they were."""
    assert len(agent.evaluate(episodes=2, seed=1).returns) == 2
    obs = np.zeros(4, np.float32)
    assert agent.act(obs) == agent.predict(obs)[0]
    assert inspect.signature(Agent.act).parameters["greedy"].default is True
    assert (Agent.evaluate.__doc__ or "").startswith("Greedy episodes")
    assert shoal.load.__name__ == "load"


@pytest.mark.parametrize("name", sorted(FOREIGN_ATTRIBUTES))
def test_another_library_s_attribute_is_named(name: str, agent: Agent, result: Result) -> None:
    """Of a result and of a loaded policy, where they do not have it themselves."""
    for thing in (agent, result):
        if name in dir(thing):
            continue
        with pytest.raises(AttributeError) as caught:
            getattr(thing, name)
        assert f"Stable-Baselines3's {name} is here: {FOREIGN_ATTRIBUTES[name]}" in str(caught.value)


def test_attributes_that_nobody_has(agent: Agent, result: Result) -> None:
    """They are not there for `hasattr`, and copies of a result are as without."""
    for thing in (agent, result):
        assert not hasattr(thing, "zzz")
        with pytest.raises(AttributeError, match=r"object has no attribute 'zzz'$"):
            _ = thing.zzz  # pyright: ignore[reportAttributeAccessIssue]
    assert copy.copy(result).path == result.path


def test_classes_of_algorithms_are_named() -> None:
    with pytest.raises(
        AttributeError, match=r"no attribute 'PPO'; algorithms are named: shoal.train\(env, algo='ppo'\)$"
    ):
        _ = shoal.PPO
    with pytest.raises(AttributeError, match="no attribute 'make_vec_env'; did you mean make_vec, make_env"):
        _ = shoal.make_vec_env
    assert not hasattr(shoal, "zzz")


@pytest.mark.parametrize("name", sorted(FOREIGN_CLEANRL))
def test_cleanrl_s_settings_are_named(name: str, tmp_path: Path) -> None:
    """None of them is a setting here, and the name here is."""
    here = FOREIGN_CLEANRL[name]
    with pytest.raises(ConfigError) as caught:
        shoal.train("CartPole-v1", run_dir=tmp_path, **{name: 1})  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert f"CleanRL's {name} is here: {here}" in str(caught.value)


@pytest.mark.parametrize(("name", "here"), [("callback", "callbacks, a list"), ("reset_num_timesteps", "shoal.resume")])
def test_another_library_s_argument_of_resume(name: str, here: str, result: Result) -> None:
    with pytest.raises(ConfigError, match=f"resume cannot change '{name}'; Stable-Baselines3's {name} is here: {here}"):
        shoal.resume(result.path, panel="none", **{name: None})  # pyright: ignore[reportArgumentType]
