"""Names of environments that are not there: the package, the missing module or the newest version is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from gymnasium.vector import SyncVectorEnv

from shoal.envs.registry import make
from shoal.types import ConfigError
from tests.contract.toys import Lamps

if TYPE_CHECKING:
    from pathlib import Path


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
    ],
)
def test_what_would_work_is_named(name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toymaze").mkdir()
    (tmp_path / "toymaze" / "__init__.py").touch()
    games = tmp_path / "toyroads_env"
    games.mkdir()
    (games / "__init__.py").touch()
    for version in (9, 11):
        (games / f"knights_v{version}.py").write_text("import no_such_physics")
    (games / "broken.py").write_text("from json import nothing")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("toyroads_env", "toyroads_env.broken"):
        monkeypatch.delitem(__import__("sys").modules, module, raising=False)
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
