"""What the page is told: states, curves in buckets, only what is new, and harmlessly."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from shoal.report.page.buckets import bucketed, level_of
from shoal.run.timeline import FORMAT, LEARNER
from shoal.stream.spans import KINDS
from tests.report.page.conftest import Page, line, write_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def until(check: Callable[[], bool]) -> None:
    """Waits until it holds; at most five seconds."""
    end = time.monotonic() + 5
    while not check():
        assert time.monotonic() < end, "it never held"
        time.sleep(0.02)


def ask(page: Page, key: str, **more: Any) -> dict[str, Any]:
    """One curve."""
    axis, width = more.pop("axis", "step"), more.pop("width", 100)
    table = {"run": 1, "key": key, "since": 0} | more
    (head,) = page.post("/api/curves", {"axis": axis, "width": width, "curves": [table]}).curves()
    return head


def test_buckets() -> None:
    """The lowest and the highest of each bucket, in their order, worked by hand."""
    x = np.arange(10.0)
    y = np.array([5.0, 1, 2, 9, 3, 3, 3, 3, 7, 8])
    np.testing.assert_array_equal(bucketed(x, y, 2), [[1, 1], [3, 9], [4, 3], [4, 3], [8, 7], [9, 8]])
    np.testing.assert_array_equal(bucketed(x, y, 2, since=2), [[8, 7], [9, 8]])
    np.testing.assert_array_equal(bucketed(x, y, 0, since=8), [[8, 7], [9, 8]])
    assert bucketed(x, y, 2, since=9).shape == (0, 2)
    assert bucketed(x[:0], y[:0], 3).shape == (0, 2)


@pytest.mark.parametrize(("points", "width", "level"), [(0, 10, 0), (10, 10, 0), (11, 10, 1), (20, 10, 1), (21, 10, 2)])
def test_level(points: int, width: int, level: int) -> None:
    assert level_of(points, width) == level


def test_buckets_are_lasting() -> None:
    """A curve that is taken in pieces, each from the last bucket on, is the curve taken at once."""
    rng = np.random.default_rng(1)
    x, y = np.arange(1000.0), rng.normal(size=1000)
    whole = bucketed(x, y, 3)
    held = bucketed(x[:501], y[:501], 3)
    for count in (502, 504, 505, 777, 1000):
        since = len(held) // 2 - 1
        held = np.concatenate([held[: 2 * since], bucketed(x[:count], y[:count], 3, since)])
    np.testing.assert_array_equal(held, whole)
    assert whole[:, 1].max() == y.max()


def test_state(tmp_path: Path, serve: Callable[..., Page]) -> None:
    """Where a run stands: what config.toml, run.json and the last line say."""
    write_run(tmp_path / "runs" / "Toy-v0" / "ppo" / "one")
    page = serve(tmp_path / "runs")
    (run,) = page.state(1)["runs"]
    assert run["name"] == "Toy-v0/ppo/one"
    assert (run["env"], run["algo"], run["seed"], run["device"]) == ("Toy-v0", "ppo", 3, "cpu")
    assert (run["state"], run["reason"], run["problems"]) == ("finished", "stop_at", [])
    assert (run["steps"], run["total"], run["counted"]) == (900, 10_000, "steps")
    assert (run["mean_return"], run["elapsed_s"], run["speed"]) == (2.0, 4.5, 200.0)
    assert run["lines"] == 10
    assert "episode/return" in run["keys"]
    assert run["shares"] == pytest.approx({"learning": 0.6, "environment": 0.2, "waiting": 0.2})
    assert "keys" not in page.state()["runs"][0]


def test_not_modified(tmp_path: Path, serve: Callable[..., Page]) -> None:
    write_run(tmp_path / "a")
    page = serve(tmp_path / "a")
    for path in ("/page.js", "/api/state"):
        tag = page.ask(path).headers["ETag"]
        again = page.ask(path, page.headers | {"If-None-Match": tag})
        assert (again.status, again.data) == (304, b"")


def test_curve(tmp_path: Path, serve: Callable[..., Page]) -> None:
    write_run(tmp_path / "a")
    page = serve(tmp_path / "a")
    curve = ask(page, "episode/return")
    np.testing.assert_array_equal(curve["values"], [[100 * n, n % 7] for n in range(10)])
    by_time = ask(page, "episode/return", axis="seconds")
    np.testing.assert_array_equal(by_time["values"][:, 0], 0.5 * np.arange(10))
    assert ask(page, "no/such")["points"] == 0
    empty = page.post("/api/curves", {"axis": "step", "width": 9, "curves": [{"run": 77, "key": "x"}]})
    assert empty.curves() == []


def test_only_what_is_new(tmp_path: Path, serve: Callable[..., Page]) -> None:
    """Lines that are added are sent from the last bucket on; a torn one is not."""
    run = write_run(tmp_path / "a", lines=1000)
    page = serve(tmp_path / "a")
    until(lambda: page.state(1)["runs"][0]["lines"] == 1000)
    curve = ask(page, "episode/return", width=128)
    assert (curve["level"], curve["points"]) == (3, 250)
    with run.metrics.open("a") as file:
        file.write(json.dumps(line(1000)) + "\n" + json.dumps(line(1001)) + "\n" + '{"step": 1')
    until(lambda: page.state(1)["runs"][0]["lines"] == 1002)
    held = {name: curve[name] for name in ("generation", "level")}
    more = ask(page, "episode/return", width=128, since=124, **held)
    assert (more["since"], more["level"], more["generation"]) == (124, 3, curve["generation"])
    assert more["values"][-1].tolist() == [100_100, 1001 % 7]
    assert more["points"] == 4
    assert ask(page, "episode/return", width=128, since=124, **held | {"level": 4})["since"] == 0


def test_part(tmp_path: Path, serve: Callable[..., Page]) -> None:
    """A part that is zoomed into comes in more points, and reaches beyond its ends."""
    write_run(tmp_path / "a", lines=5000)
    page = serve(tmp_path / "a")
    until(lambda: page.state(1)["runs"][0]["lines"] == 5000)
    part = ask(page, "loss/value", **{"from": 100_000.0, "to": 102_000.0})
    assert part["level"] == 0
    assert part["values"][0, 0] < 100_000
    assert part["values"][-1, 0] > 102_000
    assert part["points"] < 30


def test_glance(tmp_path: Path, serve: Callable[..., Page]) -> None:
    """Of a large file a part is shown at once, all of it soon after, and the page is told of the second reading."""
    write_run(tmp_path / "a", lines=8000)
    page = serve(tmp_path / "a")
    first = page.state(1)["runs"][0]
    assert 100 < first["lines"] <= 8000
    until(lambda: page.state(1)["runs"][0]["lines"] == 8000)
    again = page.state(1)["runs"][0]
    assert first["lines"] == 8000 or again["generation"] > first["generation"]


def test_resumed(tmp_path: Path, serve: Callable[..., Page]) -> None:
    """A resumed run cuts the file and writes on: what was sent of it no longer holds."""
    run = write_run(tmp_path / "a", lines=30)
    page = serve(tmp_path / "a")
    until(lambda: page.state(1)["runs"][0]["lines"] == 30)
    before = page.state(1)["runs"][0]
    kept = run.metrics.read_text().splitlines(keepends=True)[:20]
    other = [json.dumps(line(n) | {"episode/return": 100.0}) + "\n" for n in range(20, 40)]
    with run.metrics.open("r+") as file:  # the same file, as `resume` does it
        file.truncate()
        file.write("".join(kept + other))
    until(lambda: page.state(1)["runs"][0]["lines"] == 40)
    assert page.state(1)["runs"][0]["generation"] > before["generation"]
    assert ask(page, "episode/return")["values"][25, 1] == 100.0


def test_deleted(tmp_path: Path, serve: Callable[..., Page]) -> None:
    """A run that is deleted says so and keeps its curves; a new one of its name begins anew."""
    write_run(tmp_path / "runs" / "a")
    page = serve(tmp_path / "runs")
    page.state(1)
    shutil.rmtree(tmp_path / "runs" / "a")
    until(lambda: page.state(1)["runs"][0]["state"] == "deleted")
    assert ask(page, "episode/return")["points"] == 10
    write_run(tmp_path / "runs" / "a", lines=4)
    until(lambda: page.state(1)["runs"][0]["lines"] == 4)
    until(lambda: page.state(1)["runs"][0]["state"] == "finished")


def test_new_runs(tmp_path: Path, serve: Callable[..., Page], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that begin below the folder appear."""
    monkeypatch.setattr("shoal.report.page.watched.SEARCH_S", 0.05)
    write_run(tmp_path / "runs" / "a")
    page = serve(tmp_path / "runs")
    write_run(tmp_path / "runs" / "b")
    until(lambda: [run["name"] for run in page.state()["runs"]] == ["a", "b"])


def test_many_runs(tmp_path: Path, serve: Callable[..., Page], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than are listed the newest are, and it is said that there are others."""
    monkeypatch.setattr("shoal.report.page.watched.MOST_RUNS", 3)
    for number in range(5):
        write_run(tmp_path / "runs" / f"{number}", lines=1)
    state = serve(tmp_path / "runs").state()
    assert [run["name"] for run in state["runs"]] == ["2", "3", "4"]
    assert state["left_out"] == 2


def test_hostile(tmp_path: Path, serve: Callable[..., Page]) -> None:
    """Markup in names stays text, links out of the folder are not followed, damage is said in words."""
    secret = tmp_path / "secret"
    secret.write_text('{"step": 1, "secret/number": 7}\n')
    run = write_run(tmp_path / "runs" / "<img src=x onerror=alert(1)>", env="<script>alert(1)</script>")
    with run.metrics.open("a") as file:
        file.write('{"step": 2000, "<b>loss/x</b>": 1.0}\nnonsense\n')
    linked = write_run(tmp_path / "runs" / "linked")
    linked.metrics.unlink()
    linked.metrics.symlink_to(secret)
    linked.status.unlink()
    linked.status.symlink_to(secret)
    page = serve(tmp_path / "runs")
    answer = page.ask("/api/state?run=1&run=2")
    assert answer.headers["Content-Type"] == "application/json"
    by_name = {run["name"]: run for run in answer.json()["runs"]}
    marked = by_name["<img src=x onerror=alert(1)>"]
    assert marked["env"] == "<script>alert(1)</script>"
    assert "<b>loss/x</b>" in marked["keys"]
    assert "1 line was damaged" in marked["problems"][0]
    other = by_name["linked"]
    assert other["keys"] == []
    assert b"secret/number" not in answer.data
    assert any("is a link" in said for said in other["problems"])
    assert other["state"] == "unreadable"


@pytest.fixture
def going(tmp_path: Path) -> Iterator[Path]:
    """The directory of a run whose process is there: one that sleeps."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    started = psutil.Process(process.pid).create_time()
    status: dict[str, object] = {"state": "running", "pid": process.pid, "process_started": started, "steps": 7}
    yield write_run(tmp_path / "runs" / "a", status=status).path
    process.kill()
    process.wait()


def test_orders(going: Path, serve: Callable[..., Page]) -> None:
    """Buttons are there for what a run can be asked, and place the files that `shoal pause` and `stop` do."""
    page = serve(going)

    def run() -> dict[str, Any]:
        return page.state(1)["runs"][0]

    assert (run()["state"], run()["orders"], run()["asked"]) == ("running", ["pause", "stop"], "")
    assert run()["processes"] == 1
    assert page.post("/api/order", {"run": 1, "order": "pause"}).json() == {"said": "asked to pause"}
    assert (going / "pause").exists()
    assert (run()["asked"], run()["orders"]) == ("asked to pause", ["continue", "stop"])
    assert page.post("/api/order", {"run": 1, "order": "continue"}).status == 200
    assert not (going / "pause").exists()
    again = page.post("/api/order", {"run": 1, "order": "continue"})
    assert (again.status, b"is not paused" in again.data) == (409, True)
    assert page.post("/api/order", {"run": 1, "order": "stop"}).status == 200
    assert (going / "stop").exists()
    assert (run()["asked"], run()["orders"]) == ("asked to stop", [])


def test_no_orders(tmp_path: Path, serve: Callable[..., Page]) -> None:
    """A run that has ended can be asked nothing, nor one of another machine, nor by another page."""
    write_run(tmp_path / "runs" / "a")
    write_run(tmp_path / "runs" / "b", status={"state": "running", "pid": 1, "host": "elsewhere"})
    page = serve(tmp_path / "runs")
    first, second = page.state(1)["runs"]
    assert first["orders"] == second["orders"] == []
    assert "on elsewhere" in second["reason"]
    answer = page.post("/api/order", {"run": 1, "order": "stop"})
    assert (answer.status, b"does not run" in answer.data) == (409, True)
    assert page.post("/api/order", {"run": 1, "order": "delete"}).status == 400
    assert page.post("/api/order", {"run": 9, "order": "stop"}).status == 409
    assert page.post("/api/order", {"run": 1, "order": "stop"}, Origin="http://evil.example").status == 403
    assert page.ask("/api/order?run=1&order=stop").status == 404
    assert not (tmp_path / "runs" / "a" / "stop").exists()


def test_guard(tmp_path: Path, serve: Callable[..., Page]) -> None:
    """What the guard did is shown, the last times of many; a damaged file is said."""
    run = write_run(tmp_path / "a")
    page = serve(tmp_path / "a")
    assert page.state(1)["runs"][0]["guard"] == {"count": 0, "last": []}
    one = {"learner": "", "rule": "kl", "action": "halved", "said": "It was 0.3.\x1b[31m"}
    acted = [{"update": number, "step": 10 * number} | one for number in range(80)]
    (run.path / "guard.json").write_text(json.dumps({"count": 90, "interventions": acted}))
    until(lambda: page.state(1)["runs"][0]["guard"]["count"] == 90)
    last = page.state(1)["runs"][0]["guard"]["last"]
    assert len(last) == 50
    assert last[-1] == {"update": 79, "step": 790, "rule": "kl", "action": "halved", "said": "It was 0.3.\\x1b[31m"}
    (run.path / "guard.json").write_text('{"count": "many"}')
    until(lambda: "guard.json is damaged" in "".join(page.state(1)["runs"][0]["problems"]))


def test_films(tmp_path: Path, serve: Callable[..., Page]) -> None:
    """Films of the run's own folder are played, in parts too; links and other files are not."""
    run = write_run(tmp_path / "a")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (run.path / "videos").mkdir()
    (run.path / "videos" / "step-10.mp4").write_bytes(bytes(range(100)))
    (run.path / "videos" / "linked.mp4").symlink_to(tmp_path / "secret.mp4")
    (run.path / "videos" / "page.html").write_text("<script>alert(1)</script>")
    page = serve(tmp_path / "a")
    assert [film["name"] for film in page.state(1)["runs"][0]["films"]] == ["videos/step-10.mp4"]
    address = "/film?run=1&name=videos/step-10.mp4"
    whole = page.ask(address)
    assert (whole.status, whole.headers["Content-Type"], whole.data) == (200, "video/mp4", bytes(range(100)))
    part = page.ask(address, page.headers | {"Range": "bytes=10-19"})
    assert (part.status, part.headers["Content-Range"], part.data) == (206, "bytes 10-19/100", bytes(range(10, 20)))
    assert page.ask(address, page.headers | {"Range": "bytes=90-"}).data == bytes(range(90, 100))
    for name in ("videos/linked.mp4", "videos/page.html", "../secret.mp4", "config.toml", ""):
        assert page.ask(f"/film?run=1&name={name}").status == 409
    assert page.ask(address, {}).status == 403
    shutil.rmtree(run.path)
    gone = page.post("/api/film", {"run": 1})
    assert (gone.status, b"No such file or directory" in gone.data) == (409, True)


def test_films_are_made_one_at_a_time(tmp_path: Path, serve: Callable[..., Page], monkeypatch: Any) -> None:
    """A film is made by a process that ends with the page; what it said where it failed is shown."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho one\necho 'this run names code'\nexit 2\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    write_run(tmp_path / "a")
    page = serve(tmp_path / "a")
    assert page.post("/api/film", {"run": 1}).status == 200
    until(lambda: page.state(1)["runs"][0]["filming"] == "this run names code")
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    assert page.post("/api/film", {"run": 1}).status == 200
    assert page.state(1)["runs"][0]["filming"] == "making"
    assert b"wait for it" in page.post("/api/film", {"run": 1}).data
    begun = time.monotonic()
    page.server.filming.close()
    assert time.monotonic() - begun < 2


def test_timeline(tmp_path: Path, serve: Callable[..., Page]) -> None:
    """A lane for each process; a damaged file is refused in words."""
    run = write_run(tmp_path / "a")
    page = serve(tmp_path / "a")
    assert page.state(1)["runs"][0]["timeline"] is False
    assert b"has no timeline" in page.ask("/api/timeline?run=1").data
    lines = [
        {"timeline": FORMAT, "kinds": list(KINDS)},
        {"update": 4, "begun": 1000, "ended": 2000, "cores": {"0": 900}},
        {"process": LEARNER, "pid": 7, "cpu": 900, "left_out": 0, "spans": [[2, 1000, 1600], [3, 1600, 2000]]},
    ]
    run.timeline.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = page.ask("/api/timeline?run=1").json()
    assert (told["first"], told["last"], told["elapsed_us"], told["left_out"]) == (4, 4, 1000, 0)
    (lane,) = told["lanes"]
    assert lane["spans"] == [2, 0, 600, 3, 600, 400]
    assert lane["shares"] == pytest.approx({"learning": 0.6, "waiting": 0.4})
    run.timeline.write_text("nonsense\n")
    answer = page.ask("/api/timeline?run=1")
    assert (answer.status, b"is damaged" in answer.data) == (409, True)
