"""Checkpoints: what they hold, and that a crash, a flipped byte or a full disk costs at most the newest one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import resource
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch
import torch

from shoal.memory.pieces import Pieces
from shoal.run import checkpoint, snapshot
from shoal.run.checkpoint import files_of, load, prune, rolling
from shoal.run.snapshot import take
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
KIND = {"env": "CartPole-v1", "algo": "ppo"}


@pytest.fixture(params=["copied", "forked"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small snapshots are copied in this process; here a child writes them too."""
    if request.param == "forked":
        monkeypatch.setattr(snapshot, "COPY_BYTES", 0)
    return request.param


def save(folder: Path, parts: dict[str, Any], *, updates: int, tags: tuple[str, ...] = ("",)) -> None:
    """Takes a snapshot and writes it in this thread."""
    checkpoint.write(folder, take(folder, parts, known={}), updates=updates, kind=KIND, tags=tags)


def write(folder: Path, updates: int, value: float, tag: str = "") -> None:
    """A checkpoint whose array and number are `value`."""
    save(folder, {"x": np.full(100, value), "y": value}, updates=updates, tags=(tag,))


def manifest_of(folder: Path, updates: int) -> Path:
    """The manifest of a rolling checkpoint."""
    return folder / f"{updates:010d}.json"


def tensors_of(folder: Path, updates: int) -> Path:
    """The one file of tensors of a checkpoint."""
    (path,) = files_of(manifest_of(folder, updates))
    return path


def flip(path: Path, at: int) -> None:
    """Flips one bit of the byte at `at`."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def same(a: Any, b: Any) -> bool:
    """Whether two trees are equal in values, types, dtypes and shapes."""
    if type(a) is not type(b):
        return False
    match a:
        case dict():
            return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
        case list() | tuple():
            return len(a) == len(b) and all(map(same, a, b))
        case torch.Tensor():
            bits = [x.reshape(-1).view(torch.uint8).tolist() for x in (a, b)]
            return a.dtype == b.dtype and a.shape == b.shape and bits[0] == bits[1]
        case np.ndarray():
            return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        case float():
            return a == b or (a != a and b != b)
        case _:
            return a == b


@pytest.mark.usefixtures("way")
def test_round_trip(tmp_path: Path) -> None:
    """Every kind of value that a run saves comes back with its type, dtype, shape and bits."""
    tree = {
        "numbers": [0, -1, 2**127 + 1, 0.1, float("inf"), -float("inf"), float("nan"), True, None, "a ÿ"],
        "int keys": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(2, 3)}, 1: {}},
        "other keys": {None: 1, 2.5: 2, "s": 3},
        "looks like a mark": {"__array__": "x", "torch": True},
        "tuple": (1, (2, [np.arange(3)]), ()),
        "0-d": np.array(7, np.uint64),
        "empty": np.zeros((0, 4), np.float32),
        "bool": np.array([[True, False]]),
        "transposed": np.arange(6, dtype=np.int16).reshape(2, 3).T,
        "nan": np.array([np.nan, -0.0]),
        "half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "0-d half": torch.tensor(1.5, dtype=torch.bfloat16),
        "bool tensor": torch.tensor([True, False]),
        "gradient": torch.nn.Parameter(torch.ones(2)).detach(),
        "a.b": np.array([1.0]),
        "a": {"b": np.array([2.0])},
        "__metadata__": np.array([3]),
    }
    save(tmp_path, {"part": tree, "__metadata__": np.array([4]), "empty-1": {}}, updates=5)
    found = load(tmp_path, kind=KIND)
    assert found is not None
    assert (found.updates, found.warnings) == (5, [])
    assert same(found.tree, {"part": tree, "__metadata__": np.array([4]), "empty-1": {}})
    found.tree["part"]["transposed"][0, 0] = 9  # a copy of its own, not a view of the file


def test_numpy_scalars_become_numbers(tmp_path: Path) -> None:
    """A NumPy scalar comes back as the Python number, big-endian arrays as native ones."""
    save(tmp_path, {"i": np.int64(3), "b": np.bool_(True), "big": np.array([1.5], ">f4")}, updates=1)
    found = load(tmp_path)
    assert found is not None
    assert same(found.tree, {"i": 3, "b": True, "big": np.array([1.5], np.float32)})


def test_random_state_round_trips(tmp_path: Path) -> None:
    """A restored generator draws what the saved one draws next."""
    rng = np.random.Generator(np.random.PCG64(3))
    rng.random(5)
    save(tmp_path, {"rng": rng.bit_generator.state}, updates=1)
    found, other = load(tmp_path), np.random.Generator(np.random.PCG64(0))
    assert found is not None
    other.bit_generator.state = found.tree["rng"]
    assert np.array_equal(other.integers(0, 2**62, 9), rng.integers(0, 2**62, 9))


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (object(), "object"),
        ({1, 2}, "set"),
        (b"bytes", "bytes"),
        (np.array([object()]), "object"),
        (np.array(["text"]), "<U4"),
        (np.array([1j]), "complex128"),
        (1j, "complex"),
        (np.complex64(1j), "complex64"),
        ({(1, 2): 3}, r"the key \(1, 2\)"),
    ],
)
def test_refuses_what_it_cannot_hold(tmp_path: Path, value: Any, named: str) -> None:
    """TypeError names the type and where it stands; nothing is written."""
    with pytest.raises(TypeError, match=rf"{named}.* at 'outer\.inner'"):
        save(tmp_path, {"outer": {"inner": value}}, updates=1)
    assert list(tmp_path.iterdir()) == []


def test_a_part_needs_a_name(tmp_path: Path) -> None:
    """A part's name begins a file's: a path is refused."""
    with pytest.raises(ValueError, match=r"letters, digits, '_' and '-', got '../x'"):
        save(tmp_path, {"../x": 1}, updates=1)


def test_no_pickle_on_disk(tmp_path: Path) -> None:
    """A checkpoint is a JSON manifest and safetensors files; the package names neither pickle nor torch.load."""
    save(tmp_path, {"x": np.arange(3), "part": {"a": torch.ones(2, 2), "b": np.array([True])}}, updates=1)
    assert json.loads(manifest_of(tmp_path, 1).read_text())["manifest"]["updates"] == 1
    x, part = (safetensors.torch.load_file(path) for path in files_of(manifest_of(tmp_path, 1)))
    assert same(x, {"x": torch.arange(3)})
    assert same(part, {"part.a": torch.ones(2, 2), "part.b": torch.tensor([True])})
    for path in Path(checkpoint.__file__).parent.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert not any(word in source for word in ("pickle", "torch.load", "torch.save", "allow_pickle")), path


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    """A flipped bit anywhere in the newest checkpoint: the one before is used, and said so, or nothing has changed."""
    for updates in (1, 2):
        value = float(updates)
        parts = {"a": np.full(100, value), "b": {"y": value, "z": [torch.full((9,), value)]}}
        save(tmp_path, parts, updates=updates)
    newest = manifest_of(tmp_path, 2)
    for path in (newest, *files_of(newest)):
        whole, found_damage = path.read_bytes(), 0
        for at in range(0, len(whole), 3):
            flip(path, at)
            found = load(tmp_path, kind=KIND)
            assert found is not None
            if found.updates == 1:
                assert len(found.warnings) == 1
                assert "0000000002.json is damaged" in found.warnings[0]
                assert "using the one before" in found.warnings[0]
                found_damage += 1
            assert found.tree["b"]["y"] == found.updates
            assert found.tree["a"][0] == found.tree["b"]["z"][0][0] == found.updates
            path.write_bytes(whole)
        assert found_damage > 0.9 * len(range(0, len(whole), 3))  # a flipped space between two keys is harmless


@pytest.mark.parametrize("damage", ["truncate tensors", "empty manifest", "not JSON", "a list", "no tensors"])
def test_damaged_newest_gives_the_one_before(tmp_path: Path, damage: str) -> None:
    """Whatever is wrong with the newest, the one before is loaded with a warning that names the file."""
    write(tmp_path, 1, 1.0)
    write(tmp_path, 2, 2.0)
    manifest, tensors = manifest_of(tmp_path, 2), tensors_of(tmp_path, 2)
    match damage:
        case "truncate tensors":
            tensors.write_bytes(tensors.read_bytes()[:-1])
        case "empty manifest":
            manifest.write_bytes(b"")
        case "not JSON":
            manifest.write_bytes(b"\xff\xfe{")
        case "a list":
            manifest.write_text("[1]")
        case _:
            tensors.unlink()
    found = load(tmp_path, kind=KIND)
    assert found is not None
    assert found.updates == 1
    assert "0000000002.json is damaged" in found.warnings[0]


def test_nothing_whole_is_an_error_and_nothing_at_all_is_none(tmp_path: Path) -> None:
    """All damaged: ConfigError names each; an empty folder, or one that is not there: None."""
    assert load(tmp_path) is None
    assert load(tmp_path / "missing") is None
    for updates in (1, 2):
        write(tmp_path, updates, 1.0)
        flip(tensors_of(tmp_path, updates), -1)
    with pytest.raises(ConfigError, match=r"no checkpoint in .* is whole.*0000000002.*0000000001.*train again"):
        load(tmp_path)


@pytest.mark.parametrize(("name", "other"), [("env", "Acrobot-v1"), ("algo", "a2c")])
def test_refuses_another_run(tmp_path: Path, name: str, other: str) -> None:
    """A checkpoint of another environment or algorithm is refused by name."""
    write(tmp_path, 1, 1.0)
    with pytest.raises(ConfigError, match=f"belongs to {name} '{KIND[name]}', not '{other}'"):
        load(tmp_path, kind=KIND | {name: other})


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of another version is whole, and still no policy of this one."""
    with monkeypatch.context() as older:
        older.setattr(checkpoint, "FORMAT", 1)
        write(tmp_path, 1, 1.0)
    with pytest.raises(ConfigError, match="has the format 1, but this version of shoal reads 3; train again"):
        load(tmp_path)


def test_format_2_is_refused(tmp_path: Path) -> None:
    """A manifest as format 2 had it, one file for all: refused with a sentence, not called damaged."""
    manifest = {"format": 2, "updates": 4, "kind": KIND, "bytes": 8, "sha256": 64 * "0", "tree": {}}
    sealed = {"sha256": hashlib.sha256(json.dumps(manifest).encode()).hexdigest(), "manifest": manifest}
    manifest_of(tmp_path, 4).write_text(json.dumps(sealed))
    with pytest.raises(ConfigError, match="has the format 2, but this version of shoal reads 3; train again"):
        load(tmp_path)


def test_keep_last_and_best(tmp_path: Path) -> None:
    """Pruning keeps the newest rolling ones and the best, and deletes the tensors of the others."""
    for updates in (8, 9, 10, 11, 12):
        write(tmp_path, updates, updates)
        if updates == 9:
            write(tmp_path, updates, updates, tag="best")
    prune(tmp_path, 3)
    assert [int(path.stem) for path in rolling(tmp_path)] == [10, 11, 12]
    assert len(list(tmp_path.iterdir())) == 8
    write(tmp_path, 12, 99.0, tag="best")
    assert len(list(tmp_path.iterdir())) == 8
    best, newest = load(tmp_path, tag="best"), load(tmp_path)
    assert best is not None
    assert newest is not None
    assert (best.tree["y"], newest.tree["y"]) == (99.0, 12)


def test_strays_are_cleaned(tmp_path: Path) -> None:
    """Drafts and tensors that a killed process left go with the next checkpoint."""
    write(tmp_path, 1, 1.0)
    (tmp_path / ".0000000002.json.4711").write_bytes(b"half")
    (tmp_path / ".x.4711").write_bytes(b"half")
    (tmp_path / ".x.0.4711").write_bytes(b"half")
    (tmp_path / f"x-{64 * '0'}.safetensors").write_bytes(b"no manifest yet")
    write(tmp_path, 3, 3.0)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json", ".safetensors", ".safetensors"]


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file of tensors."""
    found = {path.name: path.stat() for path in folder.glob("*.safetensors")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


@pytest.mark.usefixtures("way")
def test_unchanged_parts_and_best_are_the_same_files(tmp_path: Path) -> None:
    """A part that did not change keeps its file, untouched; `best` names the files of the rolling one."""
    frozen = np.arange(50.0)
    save(tmp_path, {"frozen": frozen, "moving": np.zeros(50)}, updates=1)
    first = stamps(tmp_path)
    assert len(first) == 2
    save(tmp_path, {"frozen": frozen, "moving": np.ones(50)}, updates=2, tags=("best", ""))
    second = stamps(tmp_path)
    assert len(second) == 3
    assert first.items() <= second.items()
    assert files_of(tmp_path / "best.json") == files_of(manifest_of(tmp_path, 2))
    prune(tmp_path, 1)
    assert len(stamps(tmp_path)) == 2
    best = load(tmp_path, tag="best")
    assert best is not None
    assert same(best.tree, {"frozen": frozen, "moving": np.ones(50)})


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("damage", ["flip", "truncate", "missing"])
def test_a_damaged_file_that_is_needed_again_is_written_anew(tmp_path: Path, damage: str) -> None:
    """The next checkpoint with the same part does not refer to a file that is not whole."""
    write(tmp_path, 1, 1.0)
    path = tensors_of(tmp_path, 1)
    match damage:
        case "flip":
            flip(path, -1)
        case "truncate":
            path.write_bytes(path.read_bytes()[:-1])
        case _:
            path.unlink()
    write(tmp_path, 2, 1.0)
    found = load(tmp_path)
    assert found is not None
    assert (found.updates, found.warnings, found.tree["x"][99]) == (2, [], 1.0)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("part", ["a", "b", "c"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "longer"])
def test_any_part_that_is_damaged_gives_the_one_before(tmp_path: Path, part: str, damage: str) -> None:
    """Whichever part is wrong, the whole checkpoint is passed over: parts of two are never mixed."""
    for updates in (1, 2):
        parts = {"a": np.full(9, updates), "b": {"n": updates, "t": torch.full((3,), updates)}}
        save(tmp_path, parts | {"c": Pieces({str(updates): np.full(5, updates)})}, updates=updates)
    (path,) = [path for path in files_of(manifest_of(tmp_path, 2)) if path.name.startswith(f"{part}-")]
    match damage:
        case "flip":
            flip(path, -2)
        case "truncate":
            path.write_bytes(path.read_bytes()[:-3])
        case "missing":
            path.unlink()
        case _:
            path.write_bytes(path.read_bytes() + b"0")
    found = load(tmp_path, kind=KIND)
    assert found is not None
    assert (found.updates, found.tree["a"][8], found.tree["b"]["n"]) == (1, 1, 1)
    assert same(dict(found.tree["c"].arrays), {"1": np.full(5, 1)})
    assert path.name in found.warnings[0]


class CrashError(BaseException):
    """The machine stopped: nothing after it reaches the disk."""


class Torn:
    """A file of which only half of what is written arrives when `check` raises."""

    def __init__(self, file: Any, check: Callable[[], None]) -> None:
        self.file, self.check = file, check

    def __enter__(self) -> Torn:
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: Any) -> int:
        try:
            self.check()
        except BaseException:
            self.file.write(data[: len(data) // 2])
            raise
        return self.file.write(data)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, BaseException], list[int]]]:
    """Makes the n-th call that touches the disk raise; after a CrashError, every later one too."""

    def arm(at: int, error: BaseException) -> list[int]:
        calls = [0]

        def check() -> None:
            calls[0] += 1
            if calls[0] == at or (calls[0] > at and isinstance(error, CrashError)):
                raise error

        def wrap(owner: Any, name: str) -> None:
            real = getattr(owner, name)

            def call(*args: Any, **kwargs: Any) -> Any:
                check()
                made = real(*args, **kwargs)
                return Torn(made, check) if hasattr(made, "write") else made

            monkeypatch.setattr(owner, name, call)

        for owner, name in ((os, "fsync"), (os, "open"), (Path, "open"), (Path, "replace"), (Path, "unlink")):
            wrap(owner, name)
        return calls

    yield arm
    monkeypatch.undo()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "error", [CrashError(), OSError(errno.ENOSPC, "No space left on device")], ids=["crash", "full"]
)
@pytest.mark.parametrize("tag", ["", "best"])
def test_failure_at_any_point_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Any, error: BaseException, tag: str
) -> None:
    """Whichever call fails, the folder loads as the old checkpoint or the new one, and the next save succeeds."""
    seen: set[float] = set()
    for at in range(1, 100):
        folder = tmp_path / str(at)
        folder.mkdir()
        write(folder, 1, 1.0, tag)
        calls = failing(at, error)
        with contextlib.suppress(CrashError, OSError):
            write(folder, 2, 2.0, tag)
        monkeypatch.undo()
        found = load(folder, kind=KIND, tag=tag)
        assert found is not None
        assert found.warnings == []
        assert found.tree["x"][0] == found.tree["y"]
        seen.add(found.tree["y"])
        if calls[0] < at:
            break
        write(folder, 3, 3.0, tag)
        found = load(folder, kind=KIND, tag=tag)
        assert found is not None
        assert found.tree["y"] == 3.0
        assert not list(folder.glob(".*"))
    else:
        pytest.fail("the calls never ended")
    assert at > 8
    assert seen == {1.0, 2.0}


def check_full(folder: Path) -> None:
    """A checkpoint too large is refused with what happened; the older ones load; nothing of the new one stays."""
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(OSError, match=r"the checkpoint of update 2 was not written .*older ones are safe"):
        save(folder, {"x": np.zeros(1 << 20)}, updates=2)
    assert sorted(path.name for path in folder.iterdir()) == before
    found = load(folder, kind=KIND)
    assert found is not None
    assert found.updates == 1
    (folder / "empty").mkdir()
    with pytest.raises(OSError, match=r"the checkpoint of update 2 was not written .*there is no older one"):
        save(folder / "empty", {"x": np.zeros(1 << 20)}, updates=2)


@pytest.mark.usefixtures("way")
def test_file_too_large(tmp_path: Path) -> None:
    """A limit on the size of files fails in the middle of writing, as a full disk does."""
    write(tmp_path, 1, 1.0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        check_full(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("way")
def test_full_disk(tmp_path: Path) -> None:
    """A real file system of 1 MiB, where one may be mounted."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        write(tmp_path, 1, 1.0)
        check_full(tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
