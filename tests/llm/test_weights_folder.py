"""Folders of weights: what a killed process leaves is deleted, and nothing else."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

from shoal.llm.engines import weights_folder
from shoal.llm.engines.weights_folder import WeightsFolder, delete_abandoned


def left_by_a_killed_one(where: Path) -> Path:
    """The folder of a process that was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        made = WeightsFolder(str(where))
        (made.path / "0").mkdir()
        (made.path / "0" / "model.safetensors").write_bytes(b"weights")
        os.write(writing, str(made.path).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        return Path(said.read().decode())


def test_the_next_one_deletes_what_a_killed_process_left(tmp_path: Path) -> None:
    """Its name says whose it was; a living one's, locked, stays, also where its process has no such number here."""
    living = WeightsFolder(str(tmp_path))
    assert re.fullmatch(rf"shoal-weights-\w{{8}}-{os.getpid()}-\d+-\w+", living.path.name)
    # As in another container: the name holds a number that no process has here.
    moved = living.path.rename(tmp_path / living.path.name.replace(f"-{os.getpid()}-", "-99999999-"))
    gone = left_by_a_killed_one(tmp_path)
    assert (gone / "0" / "model.safetensors").exists()
    third = WeightsFolder(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {moved.name, third.path.name}
    third.close()
    assert not third.path.exists()
    living.close()


def test_what_is_no_folder_of_this_machine_and_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links, files, other names, another kernel's folders, another user's."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    here = tmp_path / "here"
    here.mkdir()
    (here / f"shoal-weights-{boot}-1-1-link").symlink_to(elsewhere)
    (here / f"shoal-weights-{boot}-1-1-file").write_text("a file")
    (here / "shoal-weights-00000000-1-1-other").mkdir()
    (here / "shoal-weights-old").mkdir()
    within = here / f"shoal-weights-{boot}-1-1-gone"
    within.mkdir()
    (within / "link").symlink_to(elsewhere)
    kept = sorted(path.name for path in here.iterdir() if path != within)
    assert delete_abandoned(here) == [within.name]
    assert sorted(path.name for path in here.iterdir()) == kept
    assert (elsewhere / "kept").read_text() == "kept"
    within.mkdir()
    mine = os.geteuid()
    monkeypatch.setattr(weights_folder.os, "geteuid", lambda: mine + 1)
    assert delete_abandoned(here) == []


def test_a_folder_that_is_deleted_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process came between."""
    made, paths = tempfile.mkdtemp, list[Path]()

    def deleted_once(**given: Any) -> str:
        path = Path(made(**given))
        paths.append(path)
        if len(paths) == 1:
            assert delete_abandoned(tmp_path) == [path.name]
        return str(path)

    monkeypatch.setattr(weights_folder.tempfile, "mkdtemp", deleted_once)
    folder = WeightsFolder(str(tmp_path))
    assert len(paths) == 2
    assert folder.path == paths[1]
    assert folder.path.is_dir()
    folder.close()
