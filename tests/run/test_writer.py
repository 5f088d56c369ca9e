"""The writer of checkpoints: what is saved is the moment of the call, errors arrive, and one is written at a time."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from shoal.memory.pieces import Pieces
from shoal.run import checkpoint, snapshot, writer
from shoal.run.checkpoint import files_of, load, rolling
from shoal.run.writer import Writer

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.run.checkpoint import Checkpoint

KIND = {"env": "CartPole-v1", "algo": "ppo"}


def make(folder: Path, keep_last: int = 3) -> Writer:
    """A writer of checkpoints into `folder`."""
    return Writer(folder, kind=KIND, keep_last=keep_last)


def loaded(folder: Path, tag: str = "") -> Checkpoint:
    """The newest checkpoint, which is whole."""
    found = load(folder, kind=KIND, tag=tag)
    assert found is not None
    assert found.warnings == []
    return found


@pytest.fixture(params=["copied", "forked"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small snapshots are copied in this process; here a child writes them too."""
    if request.param == "forked":
        monkeypatch.setattr(snapshot, "COPY_BYTES", 0)
    return request.param


class Held:
    """Holds the thread that writes until it is let go, or makes it fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.let_go = threading.Semaphore(0), threading.Semaphore(0)
        self.under_way = self.most = 0
        self.error: BaseException | None = None
        self.real = checkpoint.write
        monkeypatch.setattr(checkpoint, "write", self.write)

    def write(self, *args: Any, **kwargs: Any) -> Any:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.begun.release()
        assert self.let_go.acquire(timeout=20)
        try:
            if self.error is not None:
                raise self.error
            return self.real(*args, **kwargs)
        finally:
            self.under_way -= 1


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """The thread that writes waits to be let go."""
    return Held(monkeypatch)


@pytest.mark.usefixtures("way")
def test_what_is_saved_is_the_moment_of_the_call(tmp_path: Path) -> None:
    """Whatever becomes of arrays, tensors, lists and dicts after `save`, the checkpoint holds what they were."""
    array, tensor = np.arange(1_000_000), torch.zeros(1_000, 300)
    numbers, named = [1, 2], {"a": 1.5}
    strided = np.arange(10_000).reshape(100, 100)
    saves = make(tmp_path)
    saves.save({"x": {"a": array, "t": tensor, "n": numbers, "d": named, "s": strided[:, ::2]}}, updates=1)
    array[:] = -1
    tensor.fill_(-1)
    numbers.append(3)
    named["a"] = 2.5
    strided[:] = -1
    saves.close()
    x = loaded(tmp_path).tree["x"]
    assert np.array_equal(x["a"], np.arange(1_000_000))
    assert torch.equal(x["t"], torch.zeros(1_000, 300))
    assert (x["n"], x["d"]) == ([1, 2], {"a": 1.5})
    assert np.array_equal(x["s"], np.arange(10_000).reshape(100, 100)[:, ::2])


def test_only_large_snapshots_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 MiB are copied, one number more is written by a child; copies of our own count for nothing."""
    children: list[Any] = []
    real = snapshot.forked.start

    def start(files: Any) -> Any:
        children.append([path.name for path in files])
        return real(files)

    monkeypatch.setattr(snapshot.forked, "start", start)
    saves = make(tmp_path)
    saves.save({"a": np.zeros(4 << 20), "own": np.zeros((2, 4 << 20))[:, ::2]}, updates=1)
    saves.wait()
    assert children == []
    saves.save({"a": np.zeros((4 << 20) + 1), "b": torch.ones(3)}, updates=2)
    saves.close()
    assert [[name.split(".")[1:3] for name in names] for names in children] == [[["a", "0"], ["b", "1"]]]
    assert loaded(tmp_path).tree["a"].shape == ((4 << 20) + 1,)


def test_best_is_named_with_the_rolling_one(tmp_path: Path) -> None:
    """`best` and the rolling one name the same files; `keep_last` rolling ones stay."""
    saves = make(tmp_path, keep_last=2)
    for updates in (1, 2, 3, 4):
        saves.save({"x": np.full(9, updates)}, updates=updates, best=updates == 2)
    saves.close()
    assert [int(path.stem) for path in rolling(tmp_path)] == [3, 4]
    assert loaded(tmp_path, "best").updates == 2
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


def test_order_of_what_is_around(tmp_path: Path) -> None:
    """`before` runs when nothing is written yet, `after` when the manifest is there; both in the thread."""
    told: list[tuple[str, int, bool]] = []

    def note(name: str) -> None:
        own = threading.current_thread() is not threading.main_thread()
        told.append((name, len(rolling(tmp_path)), own))

    saves = make(tmp_path)
    saves.save({"x": 1}, updates=1, before=partial(note, "before"), after=partial(note, "after"))
    saves.close()
    assert told == [("before", 0, True), ("after", 1, True)]


def test_one_at_a_time(tmp_path: Path, held: Held) -> None:
    """A second save waits for the first, and takes its snapshot after it."""
    saves, array = make(tmp_path), np.zeros(3)
    saves.save({"x": array}, updates=1)
    assert held.begun.acquire(timeout=20)
    second = threading.Thread(target=saves.save, args=({"x": array},), kwargs={"updates": 2})
    second.start()
    array[:] = 5
    assert not held.begun.acquire(timeout=0.1)
    held.let_go.release(2)
    second.join(20)
    saves.close()
    assert held.most == 1
    assert np.array_equal(loaded(tmp_path).tree["x"], np.full(3, 5.0))


def test_a_writer_that_hangs_is_said(tmp_path: Path, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting is bounded: TimeoutError names the update and the folder; nothing is lost when it goes on."""
    monkeypatch.setattr(writer, "WAIT_S", 0.05)
    saves = make(tmp_path)
    saves.save({"x": 1}, updates=7)
    for attempt in (saves.close, partial(saves.save, {"x": 2}, updates=8)):
        with pytest.raises(TimeoutError, match=rf"update 7 is still being written after 0.05 s; .*{tmp_path}"):
            attempt()
    held.let_go.release()
    monkeypatch.setattr(writer, "WAIT_S", 20)
    saves.close()
    assert loaded(tmp_path).updates == 7


@pytest.mark.parametrize("call", ["save", "wait", "close"])
@pytest.mark.parametrize("place", ["before", "write", "after"])
def test_errors_of_the_thread_arrive(tmp_path: Path, held: Held, call: str, place: str) -> None:
    """A full disk while the thread writes is raised by the next call, once, and says what to do."""
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail() -> None:
        raise full

    saves = make(tmp_path)
    around = {name: fail if place == name else None for name in ("before", "after")}
    held.error = full if place == "write" else None
    held.let_go.release(9)
    saves.save({"x": 1}, updates=1, before=around["before"], after=around["after"])
    attempts = {"save": partial(saves.save, {"x": 2}, updates=2), "wait": saves.wait, "close": saves.close}
    with pytest.raises(OSError, match=r"No space left on device; .*`shoal resume` once there is room") as caught:
        attempts[call]()
    assert caught.value.errno == errno.ENOSPC
    held.error = None
    saves.save({"x": 3}, updates=3)
    saves.close()
    assert loaded(tmp_path).tree == {"x": 3}


def test_other_errors_of_the_thread_arrive(tmp_path: Path, held: Held) -> None:
    """What is no OSError arrives as it is."""
    held.error = ZeroDivisionError("one by nothing")
    held.let_go.release()
    saves = make(tmp_path)
    saves.save({"x": 1}, updates=1)
    with pytest.raises(ZeroDivisionError, match="one by nothing"):
        saves.close()


def test_close_beside_another_error(tmp_path: Path, held: Held) -> None:
    """While another exception is handled, the thread's becomes a note to it."""
    held.error = OSError(errno.ENOSPC, "No space left on device")
    held.let_go.release()
    saves = make(tmp_path)
    saves.save({"x": 1}, updates=1)
    first = KeyError("first")
    try:
        raise first
    except KeyError:
        saves.close()
    assert "No space left on device; the run goes on" in first.__notes__[0]


def test_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folder is gone, the error says so, whether this process or a child finds it, and promises nothing."""
    for limit in (snapshot.COPY_BYTES, 0):
        monkeypatch.setattr(snapshot, "COPY_BYTES", limit)
        saves = make(tmp_path / "missing")
        saves.save({"x": np.zeros(9)}, updates=4)
        told = r"update 4 was not written \(.*No such file.*\); .*missing is gone, and older ones with it$"
        with pytest.raises(FileNotFoundError, match=told):
            saves.close()


def grow(rows: int, piece: int = 10) -> dict[str, Any]:
    """A memory of `rows` rows: full pieces, and the last one apart."""
    data = np.arange(3.0 * rows).reshape(rows, 3)
    full = rows // piece
    pieces = {str(i * piece): data[i * piece : (i + 1) * piece] for i in range(full)}
    return {"data": Pieces(pieces), "last": data[full * piece :], "rows": rows}


def assert_grown(found: Checkpoint, rows: int) -> None:
    """The memory came back as it was with `rows` rows."""
    memory = found.tree["memory"]
    assert memory["rows"] == rows
    joined = np.concatenate([*memory["data"].arrays.values(), memory["last"]])
    assert np.array_equal(joined, np.arange(3.0 * rows).reshape(rows, 3))


@pytest.mark.usefixtures("way")
def test_append_only_parts_write_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A growing array: each checkpoint stores what is new or changed and refers to the rest, also after a load."""
    stored: list[int] = []
    real = snapshot.Content.store

    def store(self: snapshot.Content, folder: Path) -> snapshot.Stored:
        found = real(self, folder)
        stored.append(found.bytes)
        return found

    monkeypatch.setattr(snapshot.Content, "store", store)
    saves = make(tmp_path)
    counts: list[int] = []
    for updates, rows in enumerate((5, 25, 35, 39), 1):
        stored.clear()
        saves.save({"memory": grow(rows)}, updates=updates)
        saves.wait()
        counts.append(len(stored))
        assert_grown(loaded(tmp_path), rows)
    assert counts == [1, 3, 2, 1]
    assert len(files_of(rolling(tmp_path)[-1])) == 4
    again = make(tmp_path)
    assert again.load() is not None
    stored.clear()
    again.save({"memory": grow(40)}, updates=5)
    again.close()
    assert len(stored) == 2
    assert_grown(loaded(tmp_path), 40)


def test_pieces_that_are_no_longer_named_go(tmp_path: Path) -> None:
    """A ring that drops its oldest piece: the file stays while a checkpoint names it."""
    saves = make(tmp_path, keep_last=2)
    for updates in range(1, 7):
        pieces = {str(i): np.full(4, i) for i in range(updates, updates + 3)}
        saves.save({"ring": Pieces(pieces)}, updates=updates)
    saves.close()
    assert list(loaded(tmp_path).tree["ring"].arrays) == ["6", "7", "8"]
    assert len(list(tmp_path.glob("*.safetensors"))) == 4


def test_a_piece_that_is_lost_is_written_again(tmp_path: Path) -> None:
    """A file of a known piece was deleted: the next checkpoint has it again."""
    saves = make(tmp_path)
    saves.save({"memory": grow(20)}, updates=1)
    saves.wait()
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    saves.save({"memory": grow(20)}, updates=2)
    saves.close()
    assert_grown(loaded(tmp_path), 20)


MEMORY = """
import sys
from pathlib import Path
import numpy as np
from shoal.run.writer import Writer

def peak(reset=False):
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

saves = Writer(Path(sys.argv[1]), kind={}, keep_last=3)
saves.save({"x": np.zeros(9)}, updates=1)
saves.wait()
parts = {"x": {str(i): np.full(1 << 21, i + 1.0) for i in range(8)}}
before = peak(reset=True)
saves.save(parts, updates=2)
saves.close()
print(peak() - before)
del parts
before = peak(reset=True)
found = saves.load()
print(peak() - before)
assert found.updates == 2 and found.tree["x"]["7"][-1] == 8
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_saving_and_loading(tmp_path: Path) -> None:
    """128 MiB of arrays: this process grows by at most 64 MiB to save them and by 1.2 times their size to load them."""
    site = ["-S"] if sys.flags.no_site else []
    command = [sys.executable, *site, "-c", MEMORY, str(tmp_path)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=110).stdout
    saving, loading = map(float, out.split())
    assert saving <= 64
    assert 127 <= loading <= 1.2 * 128
