"""Folders that are whole or not there: drafts that are renamed, and the cache of models."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

JSON_BYTES = 64 << 20
"""What a JSON file of a model's folder may take; the index of a large model takes some millions."""


def cache_folder() -> Path:
    """Where models that shoal made or converted are kept; it may not be there yet.

    $SHOAL_CACHE if it is set, else shoal/models in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        ConfigError: SHOAL_CACHE is not an absolute path.
    """
    own = os.environ.get("SHOAL_CACHE", "")
    if own:
        if not os.path.isabs(own):
            raise ConfigError(f"SHOAL_CACHE must be an absolute path, got {own!r}")
        return Path(own)
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return base / "shoal" / "models"


@contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Generator[None]:
    """Holds a file that one process at a time can hold; the system lets go of it when a process ends.

    Args:
        path: the file, which is made and stays.
        waiting: called once if another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def drafted_folder(folder: Path) -> Generator[Path]:
    """A new folder beside `folder`, which takes its place when the block ends without an error; else it is deleted.

    Files that the block wrote are on the disk before the rename. A folder that stood there is deleted after it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = _beside(folder)
    draft.mkdir()
    try:
        yield draft
        for path in [*draft.iterdir(), draft]:
            _sync(path)
        _replace(draft, folder)
        _sync(folder.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _replace(draft: Path, folder: Path) -> None:
    if not folder.exists():
        draft.rename(folder)
        return
    old = _beside(folder)
    folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old)


def _beside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")


def _sync(path: Path) -> None:
    """Makes a file's content, or a folder's names, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
