"""Drafts: files written under a name that nobody can foresee, then renamed, so that a crash leaves old or new."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

STALE_S = 3600.0
"""Seconds after which a draft beside other runs was left by a process that is gone; it lives for some milliseconds."""
NAME = re.compile(r"\..+\.([0-9a-f]{16}|\d+)")
"""A draft's name, or one of an earlier version, which ended with a process's number."""


def draft_of(path: Path) -> Path:
    """A free name beside `path` for its draft."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def open_draft(draft: Path, *, mode: int = 0o666) -> BinaryIO:
    """A new file, unbuffered; FileExistsError where there is one, or a link, under that name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(draft, flags, mode), "wb", buffering=0)


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces `path` by `data` so that a crash leaves the old file or the new one; a link there is replaced itself."""
    draft = draft_of(path)
    try:
        with open_draft(draft) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep_files(folder: Path, *names: str) -> None:
    """Deletes the drafts of files of these names; nobody else may be writing them."""
    for path in folder.iterdir():
        stem = path.name[1:].rpartition(".")[0]
        if stem in names and NAME.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)


def sweep_folders(folder: Path) -> None:
    """Deletes the drafts of run directories that processes which are gone have left."""
    for path in folder.glob(".*"):
        if not NAME.fullmatch(path.name):
            continue
        try:
            found = path.lstat()
        except FileNotFoundError:  # renamed meanwhile: it has become a run
            continue
        if stat.S_ISDIR(found.st_mode) and time.time() - found.st_mtime > STALE_S:
            shutil.rmtree(path, ignore_errors=True)
