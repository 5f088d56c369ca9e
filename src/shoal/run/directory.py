"""The run directory: runs/ENV/ALGO/DATE-seed/, with its configuration, its state, and where everything stands."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import time
import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w

from shoal.types import ConfigError


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths of one run."""

    path: Path
    made: tuple[Path, ...] = field(default=(), compare=False)
    """Folders above it that were made for it, the nearest first."""

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
        """Where the run stands; empty when it never got so far. ConfigError when it is damaged; `resume` needs none."""
        try:
            status = json.loads(self.status.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ConfigError("run.json is damaged; delete it") from error
        if not isinstance(status, dict):
            raise ConfigError("run.json is damaged; delete it")
        return status

    def write_config(self, config: dict[str, Any]) -> None:
        """Replaces `config.toml` in one step."""
        write_atomic(self.config, _toml(config))

    def write_status(self, status: dict[str, Any]) -> None:
        """Replaces `run.json` in one step."""
        write_atomic(self.status, json.dumps(status, indent=1).encode())

    def remove(self) -> None:
        """Deletes the directory, and the folders made for it that it leaves empty: the run never began."""
        shutil.rmtree(self.path)
        for folder in self.made:
            try:
                folder.rmdir()
            except OSError:  # other runs stand in it
                return


def create(
    root: Path,
    *,
    env: str,
    algo: str,
    seed: int,
    name: str | None,
    config: dict[str, Any],
) -> RunDirectory:
    """A new run directory that holds its configuration; it appears whole or not at all.

    A name that is taken gets a number: name-1, name-2, ...

    Raises:
        ConfigError: a name that cannot be a folder's, or a configuration that TOML cannot hold.
    """
    if name is not None and not re.fullmatch(r"[\w-][\w.-]*", name):
        raise ConfigError(
            f"a run's name is made of letters, digits, '_', '-' and '.', got {name!r}"
        )
    text = _toml(config)
    folder = root / re.sub(r"[^\w.-]+", "_", env) / algo
    above = (folder, *folder.parents)
    made = tuple(place for place in above if not place.exists())
    folder.mkdir(parents=True, exist_ok=True)
    stem = name or f"{time.strftime('%Y%m%d-%H%M%S')}-{seed}"
    draft = folder / f".{stem}.{os.getpid()}"
    draft.mkdir()
    try:
        (draft / "checkpoints").mkdir()
        write_atomic(draft / "config.toml", text)
        for number in range(1000):
            path = folder / (stem if number == 0 else f"{stem}-{number}")
            if path.exists():
                continue
            try:
                draft.rename(path)
            except OSError:
                if not path.exists():  # else another process was quicker
                    raise
            else:
                sync_folder(folder)
                return RunDirectory(path, made)
    finally:
        if draft.exists():
            shutil.rmtree(draft)
    raise ConfigError(
        f"{folder} already holds 1,000 runs named {stem}; choose another --name"
    )


def find(path: str | Path, root: Path = Path("runs")) -> RunDirectory:
    """The run at `path`, or the one below `root` of that name; a path with several runs below means the newest.

    Raises:
        ConfigError: there is none, or several runs have the name.
    """
    return find_all(path, root)[-1]


def find_all(path: str | Path, root: Path) -> list[RunDirectory]:
    """The run at `path` (as given, or below `root`), all runs below it, or the run of that name; the oldest first.

    Raises:
        ConfigError: there is none, or several runs have the name.
    """
    for base in (Path(path), root / path):
        if (base / "config.toml").exists():
            return [RunDirectory(base)]
        below = list_runs(base)
        if below:
            return below
    named = [run for run in list_runs(root) if run.path.name == str(path)]
    if len(named) > 1:
        said = ", ".join(str(run.path) for run in named)
        raise ConfigError(f"several runs are called {path}: {said}; give a path")
    if not named:
        raise ConfigError(f"no run at {path}; `shoal runs` lists them")
    return named


def list_runs(root: Path) -> list[RunDirectory]:
    """All runs below `root`, oldest first."""
    found = [
        path.parent
        for path in root.glob("**/config.toml")
        if not path.parent.name.startswith(".")
    ]
    return [
        RunDirectory(p)
        for p in sorted(found, key=lambda p: (p / "config.toml").stat().st_mtime_ns)
    ]


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file; ConfigError when it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no file {path}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


@cache
def versions() -> dict[str, str]:
    """What a run's bits depend on, besides its configuration."""
    named = {name: version(name) for name in ("torch", "numpy", "gymnasium")}
    python, machine = (
        platform.python_version(),
        f"{platform.system()} {platform.machine()}",
    )
    return {"shoal": version("shoal-rl"), "python": python, **named, "machine": machine}


def _toml(config: dict[str, Any]) -> bytes:
    try:
        return tomli_w.dumps(config).encode()
    except TypeError as error:
        raise ConfigError(
            f"config.toml cannot hold this configuration: {error}; give objects in a callable"
        ) from error


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces `path` by `data` so that a crash leaves the old file or the new one, never half."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
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
