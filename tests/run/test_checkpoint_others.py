"""Checkpoints that are whole and yet not this run's: of another format, or of other settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.run import checkpoint
from shoal.run.snapshot import take
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

KIND = {"env": "CartPole-v1", "algo": "ppo"}


def write(folder: Path, updates: int, kind: dict[str, str]) -> None:
    """A checkpoint that holds a number."""
    checkpoint.write(folder, take(folder, {"x": updates}, known={}), updates=updates, kind=kind)


@pytest.mark.parametrize("other", ["format", "num_envs"])
def test_what_is_whole_but_of_something_else_is_not_damaged(
    tmp_path: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest is of a newer format or another num_envs: no older one stands in, and no file goes."""
    sixteen = KIND | {"num_envs": "16"}
    write(tmp_path, 1, sixteen)
    with monkeypatch.context() as newer:
        if other == "format":
            newer.setattr(checkpoint, "FORMAT", 99)
        write(tmp_path, 2, sixteen if other == "format" else KIND | {"num_envs": "8"})
    before = sorted(tmp_path.iterdir())
    told = "has the format 99, but .* reads 3" if other == "format" else "belongs to num_envs '8', not '16'"
    with pytest.raises(ConfigError, match=told) as error:
        checkpoint.load(tmp_path, kind=sixteen)
    assert "0000000002.json" in str(error.value)
    assert not any(word in str(error.value) for word in ("damaged", "is whole", "copy"))
    assert sorted(tmp_path.iterdir()) == before


def test_folders_among_the_checkpoints_are_somebody_else_s(tmp_path: Path) -> None:
    """Whatever they are called: they are neither read nor deleted."""
    for name in (".x.y", "9999999999.json", "z.safetensors"):
        (tmp_path / name).mkdir()
    for updates in (1, 2, 3):
        checkpoint.write(tmp_path, take(tmp_path, {"x": updates}, known={}), updates=updates, kind={})
        checkpoint.prune(tmp_path, 2)
    assert len(list(tmp_path.iterdir())) == 3 + 2
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert found.tree == {"x": 3}
