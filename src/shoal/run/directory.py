"""The run directory: runs/ENV/ALGO/DATE-seed/, with its configuration, its state, and where everything stands."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
import time
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w

from shoal.run.drafts import (
    draft_of,
    sweep_files,
    sweep_folders,
    sync_folder,
    write_atomic,
)
from shoal.run.origin import TABLE, Origin
from shoal.run.reading import check_folder, read_toml
from shoal.run.records import read_status
from shoal.types import ConfigError

CONFIG = "config.toml"
MASKED = "action_masks"
"""In run.json: that action masks came beside the observations."""
MOST_NAME = 200
"""Bytes of a run's name; file systems hold 255, and drafts have longer ones."""
NOT_RUNS = ("checkpoints", "tensorboard", "stages")
"""Folders of a run, below which there are no others."""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths of one run."""

    path: Path
    made: tuple[Path, ...] = field(default=(), compare=False)
    """Folders above it that were made for it, the nearest first."""

    @property
    def config(self) -> Path:
        """`config.toml`, which `--config` takes."""
        return self.path / CONFIG

    @property
    def metrics(self) -> Path:
        """`metrics.jsonl`."""
        return self.path / "metrics.jsonl"

    @property
    def answers(self) -> Path:
        """`answers.jsonl`: what a language model said in training."""
        return self.path / "answers.jsonl"

    @property
    def status(self) -> Path:
        """`run.json`: where the run stands."""
        return self.path / "run.json"

    @property
    def timeline(self) -> Path:
        """`timeline.jsonl`: who did what when, where that is recorded."""
        return self.path / "timeline.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def is_saved(self) -> bool:
        """Whether there is a checkpoint, whole or not."""
        return any(self.checkpoints.glob("*.json"))

    @property
    def is_masked(self) -> bool:
        """Whether action masks came beside the observations."""
        return self.read_status().get(MASKED) is True

    @property
    def model(self) -> Path:
        """The language model that was trained, as transformers reads it."""
        return self.path / "model"

    @property
    def replay(self) -> Path:
        """`replay.bin`: the records of a replay memory that is kept in a file."""
        return self.path / "replay.bin"

    def read_config(self) -> dict[str, Any]:
        """The settings of config.toml; ConfigError when this is no run directory, or a damaged one."""
        saved = read_toml(self.config, links=False)
        saved.pop(TABLE, None)
        return saved

    def read_shown(self) -> dict[str, Any]:
        """The settings as pages show and compare them: with the name of a policy that was given as an object."""
        named = self.read_origin().policy
        return self.read_config() | ({"policy": named} if named else {})

    def read_origin(self) -> Origin:
        """Which run this is and who made it, as config.toml says it."""
        return Origin.of_file(read_toml(self.config, links=False), self.config)

    def read_status(self) -> dict[str, Any]:
        """Where the run stands; empty when it never got so far. ConfigError when it is damaged; `resume` needs none."""
        return read_status(self.status)

    def check(self) -> None:
        """ConfigError where what is written into it would land elsewhere."""
        for name in NOT_RUNS:
            check_folder(self.path / name)

    def sweep(self) -> None:
        """Deletes drafts that a killed process left; whoever calls it is the only one that trains there."""
        written = (self.config, self.status, self.timeline)
        sweep_files(self.path, *(path.name for path in written))

    def write_config(self, config: dict[str, Any]) -> None:
        """Replaces `config.toml` in one step."""
        write_atomic(self.config, _toml(config))

    def write_status(self, status: dict[str, Any]) -> None:
        """Replaces `run.json` in one step."""
        write_atomic(self.status, json.dumps(status, indent=1).encode())

    def write_last_status(self, status: dict[str, Any]) -> None:
        """As `write_status`; on a full disk it is written into the room that the file has, rather than not at all."""
        try:
            self.write_status(status)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            handle = os.open(self.status, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                os.ftruncate(handle, os.write(handle, json.dumps(status).encode()))
            finally:
                os.close(handle)

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
    if name is not None and len(name.encode()) > MOST_NAME:
        raise ConfigError(
            f"a run's name has at most {MOST_NAME} bytes, got {len(name.encode())}"
        )
    text = _toml(config)
    folder = root / re.sub(r"[^\w.-]+", "_", env) / algo
    above = (folder, *folder.parents)
    made = tuple(place for place in above if not place.exists())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, PermissionError) as error:
        raise ConfigError(
            f"{folder} cannot be made: {error.strerror}; choose another run_dir"
        ) from error
    sweep_folders(folder)
    stem = name or f"{time.strftime('%Y%m%d-%H%M%S')}-{seed}"
    draft = draft_of(folder / stem)
    draft.mkdir()
    try:
        (draft / "checkpoints").mkdir()
        write_atomic(draft / CONFIG, text)
        for number in range(1000):
            path = folder / (stem if number == 0 else f"{stem}-{number}")
            if os.path.lexists(path):
                continue
            try:
                draft.rename(path)
            except OSError:
                if not os.path.lexists(path):  # else another was quicker
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
    path, root = os.path.expanduser(path), root.expanduser()
    for base in (Path(path), root / path):
        if is_run(base):
            return [RunDirectory(base)]
        below = list_runs(base)
        if below:
            return below
    named = [run for run in list_runs(root) if run.path.name == str(path)]
    if len(named) > 1:
        said = ", ".join(str(run.path) for run in named)
        raise ConfigError(f"several runs are called {path}: {said}; give a path")
    if not named:
        _refuse_file(Path(path), root)
        raise ConfigError(f"no run at {path}; `shoal runs` lists them")
    return named


def _refuse_file(path: Path, root: Path) -> None:
    """ConfigError where a path is of a file, or names a zip (their suffix may be left out): runs are folders."""
    zipped = f"{path}.zip"
    names = (path, root / path, Path(zipped), root / zipped)
    file = next((name for name in names if name.is_file()), None)
    if file is None and path.suffix != ".zip":
        return
    file = file or path
    if file.suffix == ".zip":
        raise ConfigError(
            f"{file} is no run: zips, such as Stable-Baselines3's models, are not read. A run is a folder that "
            "`shoal train` wrote: train one here; or load the zip with Stable-Baselines3, copy its weights into a "
            "torch module of your own and begin with that: shoal.train(env, policy=module)"
        )
    run = next((folder for folder in file.parents if is_run(folder)), None)
    hint = "give the folder that `shoal train` wrote; `shoal runs` lists them"
    if run is not None:
        hint = f"it lies in the run {run}: give that"
    raise ConfigError(f"{file} is a file, and a run is a folder: {hint}")


def is_run(folder: Path) -> bool:
    """Whether a configuration stands in a folder, whole or damaged."""
    return os.path.lexists(folder / CONFIG)


def list_runs(root: Path) -> list[RunDirectory]:
    """All runs below `root`, also behind linked folders, oldest first; no link that lies in a run is followed."""
    found: list[tuple[int, Path]] = []
    seen: set[tuple[int, int]] = set()
    for folder, names, files in os.walk(root, followlinks=True):
        here = Path(folder)
        status = here.stat()
        key = status.st_dev, status.st_ino
        inside = CONFIG in names or CONFIG in files
        names[:] = [name for name in names if _leads_on(here / name, inside_run=inside)]
        if key in seen:  # links that go round in circles
            names.clear()
        elif inside:
            found.append(((here / CONFIG).lstat().st_mtime_ns, here))
        seen.add(key)
    return [RunDirectory(path) for _, path in sorted(found)]


def _leads_on(folder: Path, *, inside_run: bool) -> bool:
    """Whether runs are looked for below a folder."""
    if folder.name.startswith("."):
        return False
    return not inside_run or not (folder.name in NOT_RUNS or folder.is_symlink())


def rolling(folder: Path) -> list[Path]:
    """Manifests of the rolling checkpoints, oldest first."""
    named = (path for path in folder.glob("*.json") if path.stem.isdigit())
    return sorted(path for path in named if path.is_file())


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
