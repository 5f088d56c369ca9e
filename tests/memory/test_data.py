"""Data sets: what is written comes back as transitions, and what no step can hold is refused with a sentence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.memory.data import read_data
from shoal.memory.data_file import DataFile, DataWriter, Episode
from shoal.memory.reader import Reader
from shoal.types import ConfigError, Spec, map_tree
from shoal.types.space_text import difference, read_space, write_space

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

h5py = pytest.importorskip("h5py")
SPEC = Spec.of("World-v0", spaces.Box(-9, 9, (1,)), spaces.Discrete(3, start=1))


def episode(first: float, steps: int, *, terminated: bool = True, cut: bool = False) -> Episode:
    """Observations first, first + 1, ...; actions 1, 2, 3, 1, ...; rewards 10 for the first step, then 20, ..."""
    ends = np.zeros((2, steps), np.bool_)
    if not cut:
        ends[0 if terminated else 1, -1] = True
    obs = np.arange(first, first + steps + 1, dtype=np.float32)[:, None]
    actions = 1 + np.arange(steps) % 3
    return Episode(obs, actions, np.arange(10.0, 10.0 * steps + 1, 10.0), ends[0], ends[1])


def write(folder: Path, *episodes: Episode, spec: Spec = SPEC) -> Path:
    writer = DataWriter(folder, spec, {"dataset_id": "world-v0"})
    for one in episodes:
        writer.add(one)
    writer.close()
    return folder


def read(folder: Path, spec: Spec = SPEC, **settings: Any) -> Any:
    return read_data(folder, spec, lambda action: map_tree(lambda x: x - 1, action), **settings)


def test_transitions_by_hand(tmp_path: Path) -> None:
    """Three episodes: two steps and an end, one step cut by its recording, one step and a time limit."""
    folder = write(tmp_path / "set", episode(0, 2), episode(5, 1, cut=True), episode(7, 1, terminated=False))
    data = read(folder, reward_scale=0.5)
    reader = Reader(data.memory(SPEC), batch_size=200, gamma=0.5)
    batch = reader.sample()
    columns = (batch.obs[:, 0], batch.action, batch.reward, batch.discount, batch.next_obs[:, 0])
    found = {tuple(row) for row in torch.stack([x.double() for x in columns], 1).tolist()}
    expected = {(0, 0, 5, 0.5, 1), (1, 1, 10, 0, 2), (5, 0, 5, 0.5, 6), (7, 0, 5, 0.5, 8)}
    assert found == expected
    assert data.episodes == 3


def test_the_hash_is_of_all_bytes(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a", episode(0, 2)), write(tmp_path / "b", episode(1, 2))
    assert DataFile.find(one).sha256() != DataFile.find(other).sha256()
    assert read(one).sha256 == DataFile.find(one / "data").sha256()


def change(folder: Path, name: str, values: Any) -> None:
    with h5py.File(folder / "data/main_data.hdf5", "r+") as file:
        del file[f"episode_1/{name}"]
        if values is not None:
            file[f"episode_1/{name}"] = values


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("observations", [[0.0], [np.nan], [2.0]], "episode 1: the numbers of observations are not finite in step 1"),
        ("observations", [[0.0], [1.0]], r"observations must be an array \[3, 1\], as there are 2 rewards"),
        ("rewards", [1.0, np.inf], "episode 1: the numbers of rewards are not finite in step 1"),
        ("actions", [1, 4], "the action 4 of step 1 is outside"),
        ("actions", [1.0, 1.5], "int64 does not hold all numbers of actions"),
        ("actions", [b"a", b"b"], "expected numbers as actions, got an array of the type"),
        ("terminations", [True, False], "ends in step 0, before its last one, 1"),
        ("truncations", [False], "2 rewards, and other numbers of terminations or truncations"),
        ("rewards", None, "is damaged or cut off"),
    ],
)
def test_what_no_step_can_hold(tmp_path: Path, name: str, values: Any, said: str) -> None:
    folder = write(tmp_path / "set", episode(0, 1), episode(0, 2), episode(0, 1))
    change(folder, name, values)
    with pytest.raises(ConfigError, match=said):
        read(folder)


def cut_off(records: Path, _: Path) -> None:
    records.write_bytes(records.read_bytes()[:-100])


def flip_a_byte(records: Path, _: Path) -> None:
    """Of a reward, 170 in little-endian float64, which no checksum but the file's own can tell."""
    whole = bytearray(records.read_bytes())
    at = whole.index(np.array([160.0, 170.0]).tobytes())
    whole[at + 15] ^= 1
    records.write_bytes(bytes(whole))


def empty(records: Path, _: Path) -> None:
    records.write_bytes(b"")


def lose_episodes(_: Path, metadata: Path) -> None:
    whole = json.loads(metadata.read_text()) | {"total_episodes": 5}
    metadata.write_text(json.dumps(whole))


def break_metadata(_: Path, metadata: Path) -> None:
    metadata.write_text(metadata.read_text()[:-20])


def nest_metadata(_: Path, metadata: Path) -> None:
    metadata.write_text('{"data_format": ' + "[" * 100_000 + "]" * 100_000 + "}")


def nest_the_space(_: Path, metadata: Path) -> None:
    deep = '{"type": "Tuple", "subspaces": [' * 50_000
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"observation_space": deep + "]}" * 50_000}))


def widen_the_space(_: Path, metadata: Path) -> None:
    wide = {"type": "Box", "dtype": "float32", "shape": [10**11], "low": 0, "high": 1}
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"observation_space": json.dumps(wide)}))


def swell_metadata(_: Path, metadata: Path) -> None:
    with metadata.open("r+b") as file:
        file.truncate(6 << 30)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (nest_metadata, "metadata.json is not JSON: it is nested too deep"),
        (nest_the_space, "is the text of no space"),
        (widen_the_space, "is the text of no space"),
        (swell_metadata, "metadata.json has 6,442,450,944 bytes, more than the 16,777,216 that are read"),
        (cut_off, "is damaged or cut off"),
        (flip_a_byte, "is damaged or cut off"),
        (empty, "is damaged or cut off"),
        (lose_episodes, "holds 1 episodes, and its metadata say 5"),
        (break_metadata, "metadata.json is not JSON"),
    ],
)
def test_a_damaged_file(tmp_path: Path, damage: Callable[[Path, Path], None], said: str) -> None:
    folder = write(tmp_path / "set", episode(0, 20))
    damage(folder / "data/main_data.hdf5", folder / "data/metadata.json")
    with pytest.raises(ConfigError, match=said):
        read(folder)


@pytest.mark.parametrize(
    ("seen", "done", "said"),
    [
        (spaces.Box(-9, 9, (2,)), SPEC.action_space, "its observation space has"),
        (spaces.Discrete(9), SPEC.action_space, "its observation space has"),
        (SPEC.observation_space, spaces.Discrete(3), "its action space has"),
        (SPEC.observation_space, spaces.Box(-1, 1, (1,)), "its action space has"),
    ],
)
def test_another_environment(tmp_path: Path, seen: Any, done: Any, said: str) -> None:
    folder = write(tmp_path / "set", episode(0, 2))
    with pytest.raises(ConfigError, match=f"is not of Other-v0: {said}"):
        read(folder, Spec.of("Other-v0", seen, done))


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`shoal record RUN` writes one"):
        read(tmp_path / "none")
    with pytest.raises(ConfigError, match="holds no episode"):
        read(write(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="is there already"):
        write(tmp_path / "empty")


def test_masks_and_several_agents(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", episode(0, 2))
    for limits in ({"masked": True}, {"num_agents": 2}):
        with pytest.raises(ConfigError, match="which data sets do not hold"):
            read(folder, Spec.of("World-v0", SPEC.observation_space, SPEC.action_space, **limits))


NESTED = spaces.Dict(
    {
        "hand": spaces.Tuple([spaces.Box(-np.inf, np.inf, (2,), np.float64), spaces.MultiBinary(3)]),
        "dial": spaces.MultiDiscrete([3, 4], start=[1, 0]),
        "eye": spaces.Box(0, 255, (4, 4, 3), np.uint8),
    }
)


def test_nested_spaces_come_back(tmp_path: Path) -> None:
    spec = Spec.of("Nested-v0", NESTED, NESTED)
    NESTED.seed(1)
    samples = [NESTED.sample() for _ in range(4)]

    def stacked(of: list[Any]) -> Any:
        parts = [spec.observation.flat(one) for one in of]
        return spec.observation.tree([np.stack(column) for column in zip(*parts, strict=True)])

    ends = np.array([False, False, True])
    written = Episode(stacked(samples), stacked(samples[:3]), np.ones(3), ends, ~ends & ends)
    found = DataFile.find(write(tmp_path / "set", written, spec=spec)).episodes(spec)[0]
    map_tree(np.testing.assert_array_equal, found.observations, written.observations)
    map_tree(np.testing.assert_array_equal, found.actions, written.actions)


@pytest.mark.parametrize("space", [NESTED, gym.make("CartPole-v1").observation_space, spaces.Discrete(4, start=-1)])
def test_a_space_as_text(space: Any) -> None:
    again = read_space(write_space(space))
    assert again == space
    assert not difference(space, again, bounds=True)


def test_what_spaces_differ_in() -> None:
    ours = spaces.Box(-1, 1, (2,))
    assert not difference(ours, spaces.Box(-5, 5, (2,), np.float64), bounds=False)
    assert "for" in difference(ours, spaces.Box(-5, 5, (2,)), bounds=True)
    assert "keys" in difference(spaces.Dict({"a": ours}), spaces.Dict({"b": ours}), bounds=False)
    with pytest.raises(ConfigError, match="text of no space"):
        read_space('{"type": "Box"}')
