"""Files of a data set in Minari's layout: FOLDER/data/main_data.hdf5 and metadata.json beside it."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.types import ConfigError, leaf_spaces
from shoal.types.files import read_object
from shoal.types.space_text import write_space

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from shoal.types import Spec, Tree

RECORDS, METADATA = "main_data.hdf5", "metadata.json"
METADATA_BYTES = 16 << 20
"""What the metadata of a data set may take; shoal's own take some thousand bytes."""
LOG_PROB = "behavior_log_prob"
"""Among an episode's infos: of each action, under the policy that acted."""
COST = "cost"
"""Among them: what each step cost."""
MINARI = "0.5.4"
"""The version of Minari whose layout is written."""


@dataclass(frozen=True, slots=True)
class Episode:
    """What happened in one episode of T steps, as the environment gave and took it."""

    observations: Tree
    """[T + 1, ...]: the last one is what the last step came to."""
    actions: Tree
    """[T, ...]"""
    rewards: NDArray[np.float64]
    terminations: NDArray[np.bool_]
    truncations: NDArray[np.bool_]
    behavior_log_prob: NDArray[np.float64] | None = None
    """[T], how likely each action was under the policy that acted, where it is known."""
    costs: NDArray[np.float64] | None = None
    """[T], what each step cost, where that is known."""


class DataWriter:
    """Writes the episodes of a data set, which appears in its folder when it is whole."""

    def __init__(self, folder: Path, spec: Spec, about: Mapping[str, Any]) -> None:
        """A draft beside `folder`; `about` is what the metadata say besides the spaces and counts.

        ConfigError: the folder is there already, or h5py is not installed.
        """
        h5py = needs_h5py()
        if folder.exists():
            raise ConfigError(f"{folder} is there already; name another folder")
        self.folder, self.spec = folder, spec
        self.episodes = self.steps = 0
        self._about = {
            "observation_space": write_space(spec.observation_space),
            "action_space": write_space(spec.action_space),
            **about,
        }
        self._draft = folder.with_name(f".{folder.name}.draft")
        shutil.rmtree(self._draft, ignore_errors=True)
        self._data = self._draft / "data"
        self._data.mkdir(parents=True)
        self._file = h5py.File(self._data / RECORDS, "w", track_order=True)

    def add(self, episode: Episode) -> None:
        """Writes an episode behind the others."""
        group = self._file.create_group(f"episode_{self.episodes}")
        group.attrs["id"] = self.episodes
        group.attrs["total_steps"] = len(episode.rewards)
        _write(group, "observations", episode.observations)
        _write(group, "actions", episode.actions)
        for name in ("rewards", "terminations", "truncations"):
            _write(group, name, getattr(episode, name))
        told = {LOG_PROB: episode.behavior_log_prob, COST: episode.costs}
        infos = {name: values for name, values in told.items() if values is not None}
        if infos:
            _write(group, "infos", infos)
        self.episodes += 1
        self.steps += len(episode.rewards)

    def close(self) -> None:
        """Writes the metadata, and gives the draft its name."""
        self._file.close()
        size = (self._data / RECORDS).stat().st_size
        metadata = {
            **self._about,
            "total_episodes": self.episodes,
            "total_steps": self.steps,
            "data_format": "hdf5",
            "jpeg_encoding": False,
            "dataset_size": round(size / 1e6, 1),
            "minari_version": MINARI,
        }
        text = json.dumps(metadata, indent=1)
        (self._data / METADATA).write_text(text, encoding="utf-8")
        self._draft.rename(self.folder)

    def discard(self) -> None:
        """Deletes the draft; nothing after `close`."""
        self._file.close()
        shutil.rmtree(self._draft, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data set that is there, and what its metadata say."""

    folder: Path
    data: Path
    metadata: Mapping[str, Any]

    @classmethod
    def find(cls, folder: Path) -> DataFile:
        """The data set in a folder, or in its folder `data`.

        Raises:
            ConfigError: there is none, or one of another format or with damaged metadata.
        """
        needs_h5py()
        places = (folder / "data", folder)
        data = next((at for at in places if (at / METADATA).is_file()), None)
        if data is None:
            raise ConfigError(
                f"no data set at {folder}: a folder with data/{METADATA} and data/{RECORDS} is one; "
                "`shoal record RUN` writes one"
            )
        metadata = read_object(data / METADATA, at_most=METADATA_BYTES)
        kind = metadata.get("data_format")
        if kind != "hdf5" or not (data / RECORDS).is_file():
            raise ConfigError(
                f"{folder}: only data sets of the format hdf5, in {RECORDS}, are read, this one is {kind}"
            )
        return cls(folder, data, metadata)

    def sha256(self) -> str:
        """Of the metadata and of all episodes."""
        total = sha256()
        for name in (METADATA, RECORDS):
            with (self.data / name).open("rb") as file:
                while block := file.read(2**20):
                    total.update(block)
        return total.hexdigest()

    def episodes(self, spec: Spec) -> list[Episode]:
        """All episodes, in order, with trees as `spec` nests them; what they hold is as it was written.

        Raises:
            ConfigError: the file is damaged or cut off.
        """
        h5py = needs_h5py()
        try:
            with h5py.File(self.data / RECORDS, "r") as file:
                names = [f"episode_{number}" for number in range(len(file))]
                found = [_read(file[name], spec) for name in names]
        except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise ConfigError(
                f"{self.data / RECORDS} is damaged or cut off ({type(error).__name__}: {error}); copy it again"
            ) from error
        said = self.metadata.get("total_episodes")
        if len(found) != said:
            raise ConfigError(
                f"{self.data / RECORDS} holds {len(found)} episodes, and its metadata say {said}; copy it again"
            )
        return found


def needs_h5py() -> Any:
    """The package h5py; ConfigError where it is not installed."""
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise ConfigError(
            "data sets need h5py: pip install 'shoal-rl[data]'"
        ) from error


def _write(group: Any, name: str, tree: Tree) -> None:
    """A tree as Minari nests it: a group of its keys, or of _index_0, _index_1, ... of a tuple."""
    if isinstance(tree, tuple):
        tree = {f"_index_{at}": part for at, part in enumerate(tree)}
    if isinstance(tree, dict):
        inside = group.create_group(name)
        for key, part in tree.items():
            _write(inside, key, part)
        return
    shape = (None, *tree.shape[1:])
    group.create_dataset(name, data=tree, chunks=True, maxshape=shape, fletcher32=True)


def _read(group: Any, spec: Spec) -> Episode:
    steps = [group[name][()] for name in ("rewards", "terminations", "truncations")]
    trees: list[Tree] = []
    for name, space, layout in (
        ("observations", spec.observation_space, spec.observation),
        ("actions", spec.action_space, spec.action),
    ):
        leaves: list[NDArray[Any]] = []
        for path, _ in leaf_spaces(space):
            at = group[name]
            for key in path:
                at = at[f"_index_{key}" if isinstance(key, int) else key]
            leaves.append(np.asarray(at[()]))
        trees.append(layout.tree(leaves))
    infos = group.get("infos", {})
    told = [infos[name][()] if name in infos else None for name in (LOG_PROB, COST)]
    return Episode(*trees, *steps, *told)
