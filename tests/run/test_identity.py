"""A run's files belong together: id, settings, metrics and versions; what is lost, edited or another's is said."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import shoal
from shoal.run import checkpoint, directory, loop
from shoal.run.directory import RunDirectory, create, list_runs
from shoal.run.log import Log, read
from shoal.types import ConfigError
from tests.run.beats import Beats, every, linear, make_run

if TYPE_CHECKING:
    from collections.abc import Callable

TINY: Any = {"num_envs": 2, "num_steps": 16, "num_minibatches": 1, "update_epochs": 1, "panel": "none"}
SHOAL = str(Path(sys.executable).with_name("shoal"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten updates, which tests copy."""
    place = tmp_path_factory.mktemp("trained")
    settings = TINY | {"total_timesteps": 320, "stop_at": float("inf"), "env_kwargs": {"max_episode_steps": 400}}
    return shoal.train("CartPole-v1", run_dir=place, **settings).path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy, which needs no flag."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def edit(run: Path, old: str, new: str) -> None:
    text = (run / "config.toml").read_text()
    assert re.search(old, text, re.MULTILINE)
    (run / "config.toml").write_text(re.sub(old, new, text, flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("^gamma = .*", "gamma = 0.9", r"algorithm\.gamma is 0\.9, trained with 0\.99\. "),
        ("^learning_rate = .*", "learning_rate = 0.5", r"algorithm\.learning_rate is 0\.5, trained with "),
        ("^seed = 1", "seed = 2", r"seed is 2, trained with 1\. "),
        ("= 400$", "= 300", r"env_kwargs is \{'max_episode_steps': 300\}, trained with \{'max_episode_steps': 400\}"),
        ("^gamma = .*", "gamma = 0.99\ntarget_kl = 0.1", r"algorithm\.target_kl is 0\.1, trained with unset"),
        ("^schedule = .*", 'schedule = "overlap"', r"schedule is 'overlap', trained with 'sync'"),
        ('^run = "', 'run = "00', r"belongs to the run \w+, but config\.toml names the run 00"),
        (r"^\[origin\]\n.*\n", "", r"belongs to the run \w+, but config\.toml names no run"),
    ],
)
def test_an_edited_setting_is_named(run: Path, old: str, new: str, told: str) -> None:
    """By resume and by load, before anything is written."""
    edit(run, old, new)
    metrics = (run / "metrics.jsonl").read_bytes()
    for attempt in (lambda: shoal.resume(run, panel="none"), lambda: shoal.load(run)):
        with pytest.raises(ConfigError, match=told):
            attempt()
    assert (run / "metrics.jsonl").read_bytes() == metrics


def test_what_may_change_in_the_file_changes(run: Path) -> None:
    edit(run, "^total_timesteps = .*", "total_timesteps = 352")
    assert shoal.resume(run, panel="none").steps == 352


def test_another_run_s_checkpoints_are_refused(run: Path, tmp_path: Path) -> None:
    """Equal settings do not make it the same run."""
    other = shoal.train(
        "CartPole-v1", run_dir=tmp_path, env_kwargs={"max_episode_steps": 400}, total_timesteps=32, **TINY
    )
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(other.path / "checkpoints", run / "checkpoints")
    with pytest.raises(ConfigError, match="belongs to the run"):
        shoal.resume(run, panel="none")


def test_checkpoints_of_earlier_versions_are_taken(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They name neither the run nor its settings nor versions, and no sha256 of the metrics."""
    path = run / "config.toml"
    path.write_text(re.sub(r"(?s)\[origin\].*", "", path.read_text()))
    reads = checkpoint._read_manifest

    def without(path: Path) -> dict[str, Any]:
        manifest = reads(path)
        for name in ("run", "settings", "versions"):
            del manifest[name]
        del manifest["parts"]["run"]["tree"]["log_sha256"]
        del manifest["parts"]["run"]["tree"]["log_ends"]
        return manifest

    monkeypatch.setattr(checkpoint, "_read_manifest", without)
    assert shoal.resume(run, panel="none", total_timesteps=352).steps == 352
    assert [line["update"] for line in read(run / "metrics.jsonl")] == list(range(1, 12))


@pytest.mark.parametrize("gone", [(), ("run.json",)], ids=["checkpoints", "run.json too"])
def test_lost_checkpoints(run: Path, gone: tuple[str, ...]) -> None:
    """Nothing begins anew over what was trained, and nothing is cut."""
    shutil.rmtree(run / "checkpoints")
    for name in gone:
        (run / name).unlink()
    metrics = (run / "metrics.jsonl").read_bytes()
    told = "metrics.jsonl says" if gone else "run.json says"
    for _ in range(2):
        with pytest.raises(ConfigError, match=rf"no checkpoint .*{told} that the run made 10 updates"):
            shoal.resume(run, panel="none")
        assert (run / "metrics.jsonl").read_bytes() == metrics


def test_a_run_without_its_first_checkpoint_begins_anew(tmp_path: Path, capsys: Any) -> None:
    """It was killed before; the lines that it wrote are moved aside."""
    run = make_run(tmp_path, total_timesteps=20)
    lines = b'{"step": 10, "update": 1}\n'
    (tmp_path / "metrics.jsonl").write_bytes(lines)
    (tmp_path / "run.json").write_text('{"state": "running", "updates": 0}')
    run.close()
    run = make_run(tmp_path, total_timesteps=20)
    list(run.loop(Beats(1, [1.0]), linear()))
    run.close()
    assert (tmp_path / "metrics.old.jsonl").read_bytes() == lines
    assert [line["update"] for line in read(tmp_path / "metrics.jsonl")] == [1, 2]


@pytest.mark.parametrize(
    ("change", "kept", "said"),
    [
        (lambda data: data.replace(b"\n", b"\r\n"), [1, 2, 3], "its last 2 lines were moved to metrics.old.jsonl"),
        (lambda data: b"x" + data, [2, 3], "its last 2 lines were moved"),
        (lambda data: data[:50] + data[51:], None, "its last 2 lines were moved"),
        (lambda data: b"".join(reversed(data.splitlines(keepends=True))), [], "its last 5 lines were moved"),
        (
            lambda data: b"x" + b"".join(data.splitlines(keepends=True)[:3]),
            [2, 3],
            "update 3; all of its lines are kept",
        ),
        (lambda data: b"".join(data.splitlines(keepends=True)[:2]), [1, 2], "41 bytes less; all of its lines are kept"),
        (
            lambda data: data[-41:],
            [],
            "bytes less, and has neither this run's first line nor its last; its last line was",
        ),
        (
            lambda data: data.replace(b"0.1", b"0.2"),
            [],
            "3, and has neither this run's first .* its last 5 lines were moved",
        ),
        (lambda data: data.replace(b"0.1", b"0.2")[:41], [], "bytes less, and has neither .* its last line was moved"),
    ],
    ids=[
        "crlf",
        "a byte more",
        "a byte less",
        "another order",
        "no later line",
        "too short",
        "only a later line",
        "another run's",
        "short",
    ],
)
def test_changed_metrics_are_cut_at_a_line(
    change: Callable[[bytes], bytes], kept: list[int] | None, said: str, tmp_path: Path
) -> None:
    """The lines after the checkpoint go to metrics.old.jsonl, and that is said, but only where there are some."""
    path = tmp_path / "metrics.jsonl"
    log = Log(path, [])
    position, sha256, ends = 0, "", set[str]()
    for update in range(1, 6):
        log.write({"step": update * 10, "update": update, "loss/a": 0.1})
        if update == 3:
            position, sha256, ends = log.position(), log.sha256(), set(log.ends())
    log.close()
    data = change(path.read_bytes())
    path.write_bytes(data)
    log = Log(path, [])
    (told,) = log.cut(position, sha256, 3, ends=ends)
    log.close()
    assert "is not what this run wrote up to update 3" in told
    assert re.search(said, told)
    left, moved = path.read_bytes(), tmp_path / "metrics.old.jsonl"
    assert left + (moved.read_bytes() if moved.exists() else b"") == data
    assert moved.exists() == ("moved" in told)
    assert left == b"" or left.endswith(b"\n")
    if kept is not None:
        assert [line["update"] for line in read(path)] == kept


def test_unchanged_metrics_are_cut_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = Log(path, [])
    log.write({"step": 1, "update": 1})
    position, sha256 = log.position(), log.sha256()
    log.write({"step": 2, "update": 2})
    assert log.cut(position, sha256, 1) == []
    assert log.sha256() == sha256
    log.close()
    assert [line["update"] for line in read(path)] == [1]
    assert [line["update"] for line in read(tmp_path / "metrics.old.jsonl")] == [2]


def test_other_versions_are_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = directory.versions() | {"torch": "99.0", "shoal": "0.0.1"}
    monkeypatch.setattr("shoal.run.progress.versions", lambda: newer)
    with pytest.warns(UserWarning, match="trained with") as warned:
        shoal.resume(run, panel="none")
    told = str(warned[0].message)
    assert re.search(r"trained with .*shoal \S+, now 0\.0\.1", told)
    assert re.search(r"torch \S+, now 99\.0", told)
    assert "numpy" not in told


def test_a_lost_newest_checkpoint_is_said(run: Path) -> None:
    (run / "checkpoints" / "0000000010.json").unlink()
    with pytest.warns(UserWarning, match=r"the newest checkpoint is of update 9: 0000000010\.json is lost"):
        assert shoal.resume(run, panel="none").steps == 320


def test_drafts_of_a_killed_process_go(run: Path) -> None:
    """Those of this version and of earlier ones; other hidden files stay."""
    names = (".run.json.4711", f".run.json.{'a' * 16}", f".config.toml.{'b' * 16}", ".notes.txt")
    for name in names:
        (run / name).touch()
    shoal.resume(run, panel="none")
    assert sorted(path.name for path in run.glob(".*")) == [".notes.txt"]


def test_drafts_are_not_written_through_links(run: Path, tmp_path: Path) -> None:
    """The page of a run replaces a link instead of what it leads to; links in the place of folders are refused."""
    outside = tmp_path / "outside"
    outside.write_text("mine")
    for name in ("summary.html", "curves.png", "run.json"):
        (run / name).unlink(missing_ok=True)
    for name in ("summary.html", "curves.png"):
        (run / name).symlink_to(outside)
    from shoal.report.html import write_report

    write_report(RunDirectory(run))
    assert outside.read_text() == "mine"
    shutil.move(run / "checkpoints", tmp_path / "elsewhere")
    (run / "checkpoints").symlink_to(tmp_path / "elsewhere")
    for attempt in (lambda: shoal.resume(run, panel="none"), lambda: shoal.load(run)):
        with pytest.raises(ConfigError, match="checkpoints is a link"):
            attempt()


def test_runs_behind_a_linked_folder(tmp_path: Path) -> None:
    """They are listed once, though links go round in circles; a link inside a run is not followed."""
    told: Any = {"env": "E", "algo": "a", "seed": 1, "config": {}}
    far = create(tmp_path / "far", name="x", **told).path
    near = create(tmp_path / "near", name="y", **told).path
    (tmp_path / "near" / "linked").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "round").symlink_to(tmp_path / "near")
    hidden = create(tmp_path / "hidden", name="z", **told).path
    (near / "more").symlink_to(hidden.parent)
    found = [run.path.resolve() for run in list_runs(tmp_path / "near")]
    assert sorted(found) == sorted([far, near])


def test_threads_make_runs_of_one_name(tmp_path: Path) -> None:
    """In the same second, with one seed: each gets its own directory."""
    made: list[Path] = []
    together = threading.Barrier(8)

    def make() -> None:
        together.wait()
        made.append(create(tmp_path, env="E", algo="a", seed=1, name=None, config={}).path)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*made}) == 8
    assert all((path / "config.toml").is_file() for path in made)


def test_a_lock_names_who_holds_it(tmp_path: Path) -> None:
    """Also a child that inherited it."""
    log = Log(tmp_path / "metrics.jsonl", [])
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[log._file]) as child:
        log.close()
        with pytest.raises(ConfigError, match=rf"another process \(pid {child.pid}\) trains in"):
            Log(tmp_path / "metrics.jsonl", [])
        assert child.stdin is not None
        child.stdin.close()
    Log(tmp_path / "metrics.jsonl", []).close()


def test_a_status_is_written_on_a_full_disk(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(directory, "write_atomic", full)
    where = RunDirectory(run)
    where.write_last_status(where.read_status() | {"state": "failed", "reason": "OSError"})
    assert where.read_status()["state"] == "failed"


def test_a_save_after_so_many_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the counts of updates, and never as the best: the clock would decide which one that is."""
    every(monkeypatch, save=1000)
    monkeypatch.setattr(loop, "SAVE_S", -1.0)
    run = make_run(tmp_path)
    found: list[list[str]] = []
    for _ in run.loop(Beats(100, [1.0]), linear()):
        if run._writer is not None:
            run._writer.wait()
        found.append(sorted(path.name for path in (tmp_path / "checkpoints").glob("*.json")))
    run.close()
    assert found[2] == ["0000000001.json", "0000000002.json"]
    assert "best.json" not in found[-1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_as_ctrl_c_does(number: signal.Signals, tmp_path: Path) -> None:
    """A checkpoint is written, the run can be resumed, and run.json says what ended it."""
    command = [SHOAL, "train", "CartPole-v1", "--total-timesteps", "5000000", "--stop-at", "inf", "--name", "x"]
    ignored = signal.signal(number, signal.SIG_DFL)  # nohup may have told the tests to
    piped = subprocess.Popen([*command, "--json"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    signal.signal(number, ignored)
    with piped as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.01)
        process.send_signal(number)
        out = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    run = RunDirectory(tmp_path / "runs/CartPole-v1/ppo/x")
    status = run.read_status()
    assert (status["state"], status["reason"]) == ("stopped", number.name)
    assert (run.checkpoints / f"{status['updates']:010d}.json").is_file()
    assert "goes on" in json.loads(out.splitlines()[-1])["warning"]


def test_ignored_signals_stay_ignored(tmp_path: Path) -> None:
    """As nohup does it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = make_run(tmp_path, total_timesteps=30)
        for _ in run.loop(Beats(1, [1.0]), linear()):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
        run.close()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert run.updates == 3
