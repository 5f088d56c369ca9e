"""The run directory: runs/ENV/ALGO/DATE-seed/, with its configuration, its state, and where everything stands."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from shoal.types import ConfigError


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """`config.toml`, which `--config` takes."""
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        """`metrics.jsonl`."""
        return self.path / "metrics.jsonl"

    @property
    def status(self) -> Path:
        """`run.json`: where the run stands."""
        return self.path / "run.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    def read_config(self) -> dict[str, Any]:
        """The configuration; ConfigError when this is no run directory."""
        return read_toml(self.config)

    def read_status(self) -> dict[str, Any]:
        """Where the run stands; empty when it never got so far."""
        return json.loads(self.status.read_text()) if self.status.exists() else {}

    def write_status(self, status: dict[str, Any]) -> None:
        """Replaces `run.json` in one step."""
        write_atomic(self.status, json.dumps(status, indent=1).encode())

    def remove(self) -> None:
        """Deletes the directory: the run never began."""
        shutil.rmtree(self.path)


def create(root: Path, *, env: str, algo: str, seed: int, name: str | None, config: dict[str, Any]) -> RunDirectory:
    """A new run directory that holds its configuration; it appears whole or not at all."""
    folder = root / re.sub(r"[^\w.-]+", "_", env) / algo
    folder.mkdir(parents=True, exist_ok=True)
    stem = name or f"{time.strftime('%Y%m%d-%H%M%S')}-{seed}"
    draft = folder / f".{stem}.{os.getpid()}"
    draft.mkdir()
    try:
        (draft / "checkpoints").mkdir()
        (draft / "config.toml").write_text(tomli_w.dumps(config))
        for number in range(1000):
            path = folder / (stem if number == 0 else f"{stem}-{number}")
            if not path.exists():
                draft.rename(path)
                return RunDirectory(path)
    finally:
        if draft.exists():
            shutil.rmtree(draft)
    raise ConfigError(f"{folder} already holds 1,000 runs named {stem}; choose another --name")


def find(path: str | Path, root: Path = Path("runs")) -> RunDirectory:
    """The run at `path`; a path with several runs below means the newest. ConfigError when there is none."""
    for base in (Path(path), root / path):
        if (base / "config.toml").exists():
            return RunDirectory(base)
        below = [p.parent for p in base.glob("**/config.toml")]
        if below:
            return RunDirectory(max(below, key=lambda p: (p / "config.toml").stat().st_mtime_ns))
    raise ConfigError(f"no run at {path}; `shoal runs` lists them")


def list_runs(root: Path) -> list[RunDirectory]:
    """All runs below `root`, oldest first."""
    found = [path.parent for path in root.glob("**/config.toml") if not path.parent.name.startswith(".")]
    return [RunDirectory(p) for p in sorted(found, key=lambda p: (p / "config.toml").stat().st_mtime_ns)]


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file; ConfigError when it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"no file {path}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces `path` by `data` so that a crash leaves the old file or the new one, never half."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
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
