"""Names of environments that are not there: the package, the missing module or the newest version is named."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import pytest
from gymnasium.vector import SyncVectorEnv

from shoal.envs import factories
from shoal.envs.registry import make
from shoal.types import ConfigError
from tests.contract.toys import Lamps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("warm_workers")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ToyMaze-Empty-v0", "toymaze is installed, .*: write toymaze:ToyMaze-Empty-v0"),
        ("toyroads_env.knights_v10:env", "no module 'toyroads_env.knights_v10'; the newest there is knights_v11$"),
        ("toyroads_env.knights_v11:env", "knights_v11 needs the module 'no_such_physics', which is not installed"),
        ("toyroads_env.broken:env", r"toyroads_env\.broken cannot be imported: cannot import name 'nothing'"),
        ("toyroads-fast-v0", "write toyroads_env:toyroads-fast-v0"),
        ("no_such_package.games:env", r"no module 'no_such_package'; is it on PYTHONPATH\?"),
        ("NoSuchFamily-v0", "`shoal envs` lists what is there"),
        ("CartPole-v9", "did you mean CartPole-v1"),
        ("CartPol-v1", r"\(Environment `CartPol` doesn't exist\.\); did you mean CartPole-v1(, [^,]+){0,2}\?$"),
        ("PongNoFrameskip-v4", r"did you mean ALE/Pong-v5\?$"),
        ("my_envs.py", "a class in a module; write my_envs:Class$"),
        ("my_envs.py:Grid", "named as Python imports it, not by its file; write my_envs:Grid$"),
        ("games/my_envs.py:Grid", r"write games\.my_envs:Grid$"),
        ("/tmp/my_envs.py:Grid", "write my_envs:Grid, with /tmp on PYTHONPATH$"),
        ("toyroads_env.late:make_it", "toyroads_env.late:make_it needs a package .*; pip install no-such-vision"),
    ],
)
def test_what_would_work_is_named(name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(gym.registry, name, raising=False)  # ale_py registers old ids too, where a test imported it
    (tmp_path / "toymaze").mkdir()
    (tmp_path / "toymaze" / "__init__.py").touch()
    games = tmp_path / "toyroads_env"
    games.mkdir()
    (games / "__init__.py").touch()
    for version in (9, 11):
        (games / f"knights_v{version}.py").write_text("import no_such_physics")
    (games / "broken.py").write_text("from json import nothing")
    (games / "late.py").write_text("def make_it():\n    import no_such_vision.draw")
    monkeypatch.setitem(factories.ON_PYPI, "no_such_vision", "no-such-vision")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("toyroads_env", "toyroads_env.broken", "toyroads_env.late"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ConfigError, match=told):
        make(name, 1)


def sized(size: int) -> Lamps:
    return Lamps()


def rows(num_envs: int) -> SyncVectorEnv:
    return SyncVectorEnv([Lamps] * num_envs)


@pytest.mark.parametrize(
    ("env", "backend", "told"),
    [
        ([Lamps, Lamps], "serial", "env is a list; pass one function that makes an environment, and num_envs=2"),
        (rows(2), "serial", "one vector environment; pass a function of num_envs that makes it, with backend='vector'"),
        (rows(2), "vector", "one vector environment; pass a function of num_envs that makes it, with backend='vector'"),
        (rows, "serial", "rows is called with nothing, but .*'num_envs'; backend='vector' gives it num_envs"),
        (rows, "workers", "rows is called with nothing, but .*'num_envs'; backend='vector' gives it num_envs"),
        (sized, "serial", "sized is called with nothing, but .*'size'; give it in env_kwargs"),
    ],
    ids=["list", "instance", "vector", "many", "workers", "keyword"],
)
def test_what_is_no_function_without_arguments(env: Any, backend: str, told: str) -> None:
    """What users of other libraries pass first."""
    with pytest.raises(ConfigError, match=told):
        make(env, 2, backend=backend)


FAMILY = """
import gymnasium as gym
calls = []
def register_envs():
    calls.append(1)
    gym.register("ToyAtar/Breakout-v1", "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=9)
"""


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A family of ids whose module registers them by a function, as MinAtar's does."""
    (tmp_path / "toyatar.py").write_text(FAMILY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(factories.FAMILIES, "ToyAtar", "toyatar")
    monkeypatch.delitem(sys.modules, "toyatar", raising=False)
    yield "ToyAtar/Breakout-v1"
    gym.registry.pop("ToyAtar/Breakout-v1", None)
    sys.modules.pop("toyatar", None)


@pytest.mark.parametrize("backend", ["serial", "workers", "vector"])
def test_a_known_family_registers_itself(family: str, backend: str) -> None:
    env = make(family, 2, backend=backend)
    assert (env.spec.env_id, env.spec.max_episode_steps) == (family, 9)
    env.close()
    with pytest.raises(ConfigError, match=r"no environment 'ToyAtar/Breakot-v1'.*did you mean ToyAtar/Breakout-v1"):
        make("ToyAtar/Breakot-v1", 2)
    assert sys.modules["toyatar"].calls == [1]


def test_a_known_family_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(factories.FAMILIES, "NoSuchFamily", "no_such_family.gym")
    with pytest.raises(ConfigError, match=r"no environment 'NoSuchFamily/Zyxwv-v1'.*pip install no-such-family"):
        make("NoSuchFamily/Zyxwv-v1", 2)


REGISTERS = """
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv
class Toy(CartPoleEnv): pass
for name in ("toybox/Jack-v0", "Puppet-v0"):
    gym.register(name, Toy)
"""


@pytest.mark.parametrize("backend", ["serial", "vector"])
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("toybox:Jack-v0", "toybox:toybox/Jack-v0"),
        ("toybox:Pupet-v0", "toybox:Puppet-v0"),
        ("toybox:Puppet-v7", "toybox:Puppet-v0"),
        ("toybox:Pendulm-v1", "Pendulum-v1"),
        ("toybox:Toy-v0", "toybox:Toy"),
        ("toybox:Tooy", "toybox:Toy"),
    ],
)
def test_what_is_meant_can_be_given_as_it_stands(
    name: str, meant: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toybox.py").write_text(REGISTERS)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(ConfigError, match=rf"did you mean (\S+, )*{meant}[?,]"):
            make(name, 1, backend=backend)
        if backend == "serial":
            make(meant, 1).close()
    finally:
        sys.modules.pop("toybox", None)
        for registered in ("toybox/Jack-v0", "Puppet-v0"):
            gym.registry.pop(registered, None)


def test_a_class_is_told_the_newest_id_that_limits_it() -> None:
    from gymnasium.envs.classic_control import CartPoleEnv

    with pytest.warns(UserWarning, match=r"'CartPole-v1', as which it is registered, ends episodes after 500 steps"):
        make(CartPoleEnv, 1, backend="serial").close()
