"""Reports: the page parsed again, the figure's axes counted, runs that ended badly, drawings that fail."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
import tomli_w
from gymnasium import spaces
from matplotlib.container import ErrorbarContainer
from PIL import Image

import shoal
from shoal import cli
from shoal.experiment import session
from shoal.report.curves import column, draw_run
from shoal.report.html import flat, shown, write_report
from shoal.run import log
from shoal.run.directory import RunDirectory, versions
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

TINY: dict[str, Any] = {
    "num_envs": 8,
    "num_steps": 16,
    "num_minibatches": 2,
    "update_epochs": 1,
    "total_timesteps": 640,
}
LINES: list[dict[str, Any]] = [
    {"step": 100, "loss/value": 4.0, "loss/policy": None, "speed/sps": 1000.0},
    {"step": 200, "episode/return": 20.0, "episode/return_std": 5.0, "loss/value": 2.0, "speed/sps": 1100.0},
    {"step": 300, "episode/return": 40.5, "episode/return_std": 0.0, "loss/value": 1.0, "speed/sps": 900.0}
    | {"eval/return": 50.0, "eval/std": 2.5},
]
STATUS: dict[str, object] = {
    "state": "finished",
    "steps": 300,
    "greedy_return": 55.25,
    "threshold": 45.0,
    "seconds": 3.69874,
    "versions": {"torch": "9.9"},
}


class Page(HTMLParser):
    """Tables as lists of rows, pictures, preformatted text and headings; every tag must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.pictures: list[str] = []
        self.texts: dict[str, list[str]] = {"h1": [], "h2": [], "pre": [], "title": []}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])
        elif tag != "meta":
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        tag = self._open[-1] if self._open else ""
        if tag in ("td", "th"):
            self.tables[-1][-1].append(data)
        elif tag in self.texts:
            self.texts[tag].append(data)

    def pairs(self) -> dict[str, str]:
        """The rows of two cells, of all tables."""
        return {row[0]: row[1] for table in self.tables for row in table if len(row) == 2}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., RunDirectory]:
    """Writes a run directory by hand."""

    def made(lines: list[dict[str, Any]] = LINES, status: dict[str, Any] | None = None, **config: Any) -> RunDirectory:
        path = tmp_path / "a run"
        path.mkdir()
        whole = {"env": "Toy-v0", "algo": "ppo", "seed": 3, "algorithm": {"network": {"hidden": [64, 64]}}} | config
        (path / "config.toml").write_text(tomli_w.dumps(whole))
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (path / "run.json").write_text(json.dumps(STATUS if status is None else status))
        return RunDirectory(path)

    return made


def test_figure() -> None:
    """The return has wide axes, each other number small ones; bands, points and the threshold are where they belong."""
    figure = draw_run(LINES, STATUS, "Toy")
    axes: list[Any] = figure.axes
    main, *small = axes
    assert [one.get_title() for one in small] == ["loss/value", "loss/policy", "speed/sps"]
    assert main.get_title() == "Toy"
    mean, greedy, threshold = (line for line in main.lines if not line.get_label().startswith("_"))
    assert mean.get_xydata()[1:].tolist() == [[200, 20], [300, 40.5]]
    assert np.isnan(mean.get_xydata()[0, 1])
    assert greedy.get_xydata().tolist() == [[300, 55.25]]
    assert threshold.get_ydata() == [45, 45]
    (box,) = [path.get_extents() for path in main.collections[0].get_paths()]
    assert (box.y0, box.y1) == (15, 40.5)  # 20 - 5, 40.5 + 0
    (evaluated,) = [part for part in main.containers if isinstance(part, ErrorbarContainer)]
    assert np.asarray(evaluated.lines[0].get_xydata()).tolist() == [[300, 50]]
    assert small[0].lines[0].get_xydata().tolist() == [[100, 4], [200, 2], [300, 1]]
    assert np.isnan(column(LINES, "loss/policy")).all()


def test_steps_under_the_axes_do_not_overlap() -> None:
    """Steps of a long run stand as 1M, at places that leave room, also under the small axes."""
    figure = draw_run([line | {"step": 1_250_000 * at} for at, line in enumerate(LINES, 1)], STATUS, "Toy")
    figure.canvas.draw()
    for axes in figure.axes:
        if axes.get_title() == "loss/policy":  # no numbers
            continue
        low, high = axes.get_xlim()
        marks = [mark for mark in axes.xaxis.get_ticklabels() if low <= mark.get_position()[0] <= high]
        assert all(mark.get_text().endswith("M") for mark in marks)
        boxes = [mark.get_window_extent() for mark in marks]
        assert len(boxes) > 1
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_figure_of_nothing() -> None:
    """A run that has written no line yet has empty axes."""
    assert len(draw_run([], {}, "Toy").axes) == 1


def test_page(write: Callable[..., RunDirectory]) -> None:
    """Result, settings, versions, evaluations and the last line stand in tables; the picture is that of curves.png."""
    run = write()
    run.checkpoints.mkdir(exist_ok=True)
    (run.checkpoints / "0000000003.json").write_text("{}")
    report = write_report(run)
    assert report == run.path / "summary.html"
    text = report.read_text()
    page = Page(text)
    assert page.texts["h1"] == page.texts["title"] == ["ppo on Toy-v0, seed 3"]
    pairs = page.pairs()
    expected = {"state": "finished", "environment steps": "300", "threshold": "45", "torch": "9.9"}
    expected |= {"mean return of the greedy evaluation": "55.25", "training time in seconds": "3.699"}
    expected |= {"episode/return": "40.5", "algorithm.network.hidden": "[64, 64]", "speed/sps": "900"}
    assert {name: pairs[name] for name in expected} == expected
    evaluations = [["step", "mean return", "standard deviation"], ["300", "50", "2.5"]]
    assert evaluations in page.tables
    (picture,) = page.pictures
    kind, _, data = picture.partition(",")
    assert kind == "data:image/png;base64"
    stored = (run.path / "curves.png").read_bytes()
    assert base64.b64decode(data) == stored
    with Image.open(io.BytesIO(stored)) as image:
        assert (image.format, image.width) == ("PNG", 1100)
        assert len(np.unique(np.asarray(image))) > 20
    assert f"shoal eval '{run.path}' --video episodes.mp4" in page.texts["pre"][0]
    assert "://" not in text


def test_page_of_a_failure(write: Callable[..., RunDirectory]) -> None:
    """A reason stands first; what would be markup is text; null is a dash."""
    status = {"state": "failed", "reason": "EnvError: row 3 returned <b>nan</b>", "return": None}
    page = Page(write_report(write([], status, env="<i>&")).read_text())
    assert page.texts["h1"] == ["ppo on <i>&, seed 3"]
    assert page.texts["h2"][0] == "What ended it"
    assert page.texts["pre"][0] == "EnvError: row 3 returned <b>nan</b>"
    assert page.pairs()["mean return of the last training episodes"] == "-"
    assert page.pairs()["env"] == "<i>&"


def test_nothing_of_a_run_directory_is_markup(tmp_path: Path) -> None:
    """Markup in every place that a run directory has: names, settings, metrics, versions, messages, the path."""
    path = tmp_path / "<img src=a onerror=b()> \"'&"
    path.mkdir()

    def bad(name: str) -> str:
        return f"{name}</td></table></pre></title><script src=//x>1</script><img src=x onerror='a()'>\"&"

    config: dict[str, Any] = {bad(key): bad("value") for key in ("name", "key")}
    config |= {key: bad(key) for key in ("env", "algo", "name", "policy", "init_from", "device")}
    config |= {"seed": 1, "algorithm": {bad("setting"): [bad("item")], "deep": {bad("in"): bad("inside")}}}
    (path / "config.toml").write_text(tomli_w.dumps(config))
    line = {"step": 100, bad("info/"): 1.0, f"info/{bad('label')}": 2.0, "episode/return": 1.0, "eval/return": 2.0}
    (path / "metrics.jsonl").write_text(json.dumps(line) + "\n" + bad("no line") + "\n")
    status: dict[str, Any] = {key: bad(key) for key in ("state", "reason", "stop_reason", "began_with", "note")}
    status |= {bad("status"): bad("said"), "versions": {bad("torch"): bad("9"), "machine": bad("machine")}}
    (path / "run.json").write_text(json.dumps(status))
    with pytest.warns(UserWarning, match="metrics"):
        text = write_report(RunDirectory(path)).read_text()
    page = Page(text)  # every tag that is opened is closed, so none of those above was one
    assert len(page.pictures) == 1
    assert page.pictures[0].startswith("data:image/png;base64,")
    head = text.partition("</head>")[0]
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\';' in head
    shown_tags = set(re.findall(r"<\s*/?\s*([a-zA-Z0-9!]+)", text))
    known = {"!doctype", "html", "head", "meta", "title", "style", "body", "h1", "h2", "img", "pre"}
    assert shown_tags <= known | {"table", "tr", "td", "th"}
    for name in ("env", "reason", "machine", "setting", "inside", "said", "label", "began_with", "note"):
        assert f"{name}&lt;/td&gt;" in text, name


def test_values() -> None:
    """Numbers as people read them, and nested settings as dotted ones."""
    given = [1234567, 0.123456789, 123456.789, 100480.0, True, None, [1], float("inf")]
    expected = ["1,234,567", "0.123457", "123,456.8", "100,480", "True", "-", "[1]", "inf"]
    assert [shown(value) for value in given] == expected
    assert flat({"a": 1, "b": {"c": {"d": 2}, "e": 3}}) == {"a": 1, "b.c.d": 2, "b.e": 3}


def test_report_of_a_run(run_dir: Path) -> None:
    """What `train(report=True)` leaves agrees with the run's own metrics and result; without it nothing is drawn."""
    run = shoal.train("CartPole-v1", run_dir=str(run_dir), panel="none", report=True, eval_every=300, **TINY)
    page = Page((run.path / "summary.html").read_text())
    lines = log.read(run.path / "metrics.jsonl")
    pairs = page.pairs()
    assert pairs["episode/return"] == shown(lines[-1]["episode/return"])
    assert pairs["mean return of the greedy evaluation"] == f"{run.greedy_return:.4g}"
    assert pairs["num_envs"] == "8"
    assert {name: pairs[name] for name in versions()} == versions()
    assert versions()["torch"].partition("+")[0] == sys.modules["torch"].__version__.partition("+")[0]
    evaluated = [shown(line["eval/return"]) for line in lines if "eval/return" in line]
    assert [row[1] for table in page.tables for row in table if len(row) == 3][1:] == evaluated
    assert len(evaluated) == 2
    plain = shoal.train("CartPole-v1", run_dir=str(run_dir), panel="none", **TINY)
    assert not (plain.path / "summary.html").exists()


def test_spread_of_returns(run_dir: Path) -> None:
    """Each line with a mean return has its standard deviation, of the same episodes."""
    run = shoal.train("CartPole-v1", run_dir=str(run_dir), panel="none", **TINY)
    lines = log.read(run.path / "metrics.jsonl")
    assert all(("episode/return" in line) == ("episode/return_std" in line) for line in lines)
    assert lines[-1]["episode/return_std"] > 0


def test_failed_drawing_loses_no_run(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the report cannot be drawn a warning says why, and the run's result is returned."""

    def fail(where: RunDirectory) -> None:
        raise OSError("no room")

    monkeypatch.setattr(session, "write_report", fail)
    run = shoal.train("CartPole-v1", run_dir=str(run_dir), panel="plain", report=True, **TINY)
    assert RunDirectory(run.path).read_status()["state"] == "finished"
    printed = capsys.readouterr()
    assert "greedy return" in printed.out
    told = f"warning: no report was drawn (OSError: no room); `shoal report {run.path}` tries again\n"
    assert printed.err == told


class Breaking(gym.Env[Any, Any]):
    """Raises at its step number `at`."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.observation_space, self.action_space = spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        if self.left <= 0:
            raise KeyError("coffee")
        return np.zeros(1, np.float32), 1.0, self.left % 5 == 0, False, {}


def test_failed_run_has_a_report(run_dir: Path) -> None:
    """A run that ends by an error has a report that says why; one that fails in its first update leaves nothing."""
    for at in (40, 10):  # an update is 16 steps of each row
        with pytest.raises(KeyError, match="coffee"):
            shoal.train(Breaking, run_dir=str(run_dir), panel="none", report=True, env_kwargs={"at": at}, **TINY)
    (report,) = run_dir.glob("**/summary.html")
    page = Page(report.read_text())
    assert page.texts["pre"][0] == "KeyError: 'coffee'"
    assert (page.pairs()["state"], page.pairs()["env_kwargs.at"]) == ("failed", "40")


def test_commands(run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`train` draws unless told not to; `report` draws later."""

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["shoal", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0
        return capsys.readouterr().out

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which the command line replaces
    tiny = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    where = ["--run-dir", str(run_dir), "--plain", "--stop-at", "inf"]
    call("train", *where, *tiny, "--name=a")
    call("train", *where, *tiny, "--name=b", "--no-report")
    first, second = (run_dir / "CartPole-v1" / "ppo" / name for name in "ab")
    names = {"summary.html", "curves.png"}
    assert names <= {file.name for file in first.iterdir()}
    assert not names & {file.name for file in second.iterdir()}
    assert call("report", str(second)) == f"{second / 'report.html'}\n"
    signed = second / "report.html"
    signed.write_bytes(signed.read_bytes() + b"<!-- A. Sato -->")
    kept = signed.read_bytes()
    call("resume", str(second), "--plain", "--no-report")
    assert not (second / "summary.html").exists()
    call("resume", str(second), "--plain")
    assert names <= {file.name for file in second.iterdir()}
    assert signed.read_bytes() == kept
    with pytest.raises(ConfigError, match="no file"):
        write_report(RunDirectory(run_dir / "nowhere"))


def test_neither_torch_nor_pyplot(write: Callable[..., RunDirectory]) -> None:
    """Drawing needs no torch and touches no global figure; importing the report costs no matplotlib."""
    run = write()
    program = f"""
import pathlib, sys
from shoal.report.usage import usage
from shoal.run.directory import RunDirectory
from shoal.report.html import write_report
assert "matplotlib" not in sys.modules
write_report(RunDirectory(pathlib.Path({str(run.path)!r})))
sys.exit("torch" in sys.modules or "matplotlib.pyplot" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
