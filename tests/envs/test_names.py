"""Names of environments that are not there: the package, the missing module or the newest version is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.envs.registry import make
from shoal.types import ConfigError

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
