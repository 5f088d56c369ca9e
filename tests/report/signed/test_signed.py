"""The report to be signed: what it says of runs, in both languages, as HTML and PDF; strangers' runs do no harm."""

from __future__ import annotations

import io
import json
import re
import string
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tomli_w
from PIL import Image

from shoal import cli
from shoal.deploy.stages.criteria import Simulate
from shoal.deploy.stages.measures import simulated
from shoal.report.html import applied, flat
from shoal.report.signed.gather import gather
from shoal.report.signed.signed import choose, write_signed
from shoal.report.signed.untested import untested
from shoal.report.signed.words import Words, catalogue
from shoal.run.directory import RunDirectory
from shoal.run.evaluate import Score
from shoal.run.stage_file import Criterion, Entry, Signature, Stages, write_stages
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[..., RunDirectory]

CONFIG: dict[str, Any] = {"env": "CartPole-v1", "algo": "ppo", "total_timesteps": 300, "final_episodes": 50}


@pytest.fixture(autouse=True)
def drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves take half a second to draw, so most tests have a dot for them."""
    if request.node.get_closest_marker("usefixtures") is None:
        dot = io.BytesIO()
        Image.new("RGB", (1, 1)).save(dot, "PNG")
        for name in ("draw", "draw_all"):
            monkeypatch.setattr(f"shoal.report.signed.signed.{name}", lambda *_: dot.getvalue())


@pytest.fixture
def curves() -> None:
    """Asks for curves."""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a small run directory."""

    def make(seed: int = 1, *, status: dict[str, Any] | None = None, **changes: Any) -> RunDirectory:
        run = RunDirectory(tmp_path / "runs" / f"seed{seed}")
        run.path.mkdir(parents=True)
        run.config.write_text(tomli_w.dumps(CONFIG | {"seed": seed} | changes), encoding="utf-8")
        told = {
            "state": "finished",
            "steps": 30_100,
            "seconds": 2.0,
            "threshold": 45.0,
            "greedy_return": 40.0 + 4 * seed,
        }
        run.status.write_text(json.dumps(told | {"greedy_std": 1.5} | (status or {})), encoding="utf-8")
        lines = [
            {"step": step, "episode/count": step, "episode/return": step / 10 + seed, "episode/return_std": 1.0}
            for step in range(30, 301, 30)
        ]
        run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return run

    return make


def page_of(run: RunDirectory, **settings: Any) -> str:
    """The page of one run."""
    path, *_ = write_signed([run], run.path, pdf=False, **settings)
    return path.read_text(encoding="utf-8")


@pytest.mark.usefixtures("curves")
def test_seeds_and_their_interval(write: Write, tmp_path: Path) -> None:
    runs = [write(seed) for seed in (3, 1, 2)]
    written = write_signed(runs, tmp_path / "out", pdf=False)
    assert [path.name for path in written] == ["report.html", "curves.png"]
    page = written[0].read_text(encoding="utf-8")
    assert "3 runs (seeds 1, 2, 3)" in page
    assert "The threshold 45 was reached by 2 of 3 runs" in page
    assert "Mean return of greedy episodes: 48; 95 % interval over seeds 44 to 52" in page
    assert "More seeds: of 3 the interval is too narrow" in page
    assert page.index("seed1") < page.index("seed2") < page.index("seed3")
    assert "Training took 6.0 s and 90,300 environment steps" in page
    assert page.count("<td>30,100</td>") == 3


def test_costs_and_their_limit(write: Write, tmp_path: Path) -> None:
    """Where the environment has costs they stand beside the returns, with the limit that was learned under."""
    told = [{"greedy_cost": cost, "greedy_cost_std": 1.0, "greedy_cost_worst": 2 * cost} for cost in (4.0, 6.0)]
    runs = [write(seed, status=status, algorithm={"cost_limit": 5.0}) for seed, status in enumerate(told)]
    page = page_of(runs[0])
    assert "Mean cost of a greedy episode: 4, of the costliest one 8." in page
    assert "The limit of 5 on the mean cost of an episode was kept by 1 of 1 runs" in page
    page = write_signed(runs, tmp_path / "out", pdf=False)[0].read_text(encoding="utf-8")
    assert "Mean cost of a greedy episode: 5; 95 % interval over seeds 4 to 6" in page
    assert "was kept by 1 of 2 runs" in page
    assert "<th>worst cost</th>" in page
    assert "cost</th>" not in page_of(write(9))


def test_nothing_is_loaded_from_elsewhere(write: Write) -> None:
    page = page_of(write())
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert "default-src 'none'" in page
    assert "<script" not in page


def test_what_was_not_tested(write: Write) -> None:
    words = Words()
    said = untested(gather([write()]), words)
    assert said[0].startswith("Other seeds: this is one run")
    assert any("only 50 greedy episodes" in one for one in said)
    assert any("the environment CartPole-v1" in one for one in said)
    assert any("shoal explain" in one for one in said)
    state = {"state": "failed", "reason": "KeyError: 'coffee'", "greedy_return": None}
    ranges = {"gravity": "uniform:8,12", "length": 0.5}
    said = untested(gather([write(2, status=state, env_kwargs=ranges)]), words)
    assert said[0] == "The end of training: 1 of 1 runs did not finish (failed)."
    assert any("outside the ranges that training drew them from: gravity uniform:8,12" in one for one in said)
    assert any("than those of training: length 0.5" in one for one in said)
    assert any("1 of 1 runs ended without greedy episodes" in one for one in said)


def stage(name: str, *criteria: Criterion, notes: tuple[str, ...] = ()) -> Entry:
    """A measured stage of one policy."""
    return Entry(name, "then", "a" * 64, 8, "source", criteria=criteria, notes=notes)


def test_what_was_not_tested_follows_the_stages(write: Write) -> None:
    """Each stage takes something from the list, and says what it leaves open."""
    run = write(status={"threshold": None}, preprocessing={"cost_key": "cost"}, guard="off")
    score = Score(np.full(200, 50.0), np.ones(200), np.full(200, 2.0))
    measured = simulated(score, Simulate(), 45.0)
    entries = (
        stage("simulate", *measured.criteria, notes=measured.notes),
        stage("replay", Criterion("upper_bound_of_the_estimated_cost", 2.0, 5.0, least=False)),
        stage("shadow", Criterion("episodes", 30, 10)),
        stage("canary", Criterion("episodes_of_the_policy", 12, 10), Criterion("gain_at_least", -9.0, 0.0)),
    )

    def beginnings(count: int) -> set[str]:
        write_stages(run.path, Stages(entries[:count]))
        said = untested(gather([run]), Words())
        assert ("only 50 greedy" in str(said)) == (count == 0)
        return {one.split(":")[0] for one in said}

    every = [beginnings(count) for count in range(5)]
    real = "The real machine", "The real system", "Rare failures of the real system"
    assert [sorted(said & set(real)) for said in every] == [[real[0]], [real[0]], [real[1]], [real[1]], [real[2]]]
    baseline = "Another controller", "The present controller in the same episodes"
    assert [sorted(said & set(baseline)) for said in every] == [[baseline[0]]] * 2 + [[baseline[1]]] * 2 + [[]]
    assert ["Whether it is good enough" in said for said in every] == [True] + [False] * 4
    assert ["Whether it costs too much" in said for said in every] == [True, True, False, False, False]
    assert "What comes after the stage canary" in every[4]
    assert all("Learning that breaks unseen" in said for said in every)
    assert "asked for a mean return of 45 in greedy episodes, and 50 was measured" in page_of(run)


def test_what_other_files_tell(write: Write) -> None:
    run = write()
    note = {"update": 7, "step": 70, "learner": "", "rule": "kl", "action": "halve", "said": "the KL was <b>9</b>"}
    (run.path / "guard.json").write_text(json.dumps({"count": 1, "interventions": [note]}), encoding="utf-8")
    write_stages(run.path, climbed())
    (run.path / "episodes.gif").write_bytes(b"GIF89a")
    folder = run.path / "explanation"
    folder.mkdir()
    told = {"importance": [["pole angle", 0.8]], "surrogate": {"fidelity": 0.7, "depth": 4}, "notes": ["a note"]}
    (folder / "explanation.json").write_text(json.dumps(told), encoding="utf-8")
    page = page_of(run)
    for part in (
        "The guard acted 1 times",
        "the KL was &lt;b&gt;9&lt;/b&gt;",
        "replay</td><td>gain: 1",
        "A. Sato &lt;i&gt;, now",
    ):
        assert part in page
    for part in ("data:image/gif", "pole angle</td><td>80.0 %", "fidelity is 0.70", "<li>a note</li>"):
        assert part in page
    assert "the environment CartPole-v1, and nothing" not in page  # stages compare it
    for part in ("shadow: B, later (it &lt;b&gt;shook&lt;/b&gt;)", "replay: ALARM: angle has drifted", "not signed"):
        assert part in page


def climbed() -> Stages:
    """A simulator, a log of the controller, and a shadow that was withdrawn."""
    criteria = (Criterion("gain", 1.0, 0.0),)
    entry = Entry("simulate", "then", "a" * 64, 8, "simulator", criteria=criteria)
    word = Signature("A. Sato <i>", "now")
    replay = replace(entry, stage="replay", signed=word, notes=("ALARM: angle has drifted", "a note"))
    shadow = replace(entry, stage="shadow", withdrawn=Signature("B", "later", "it <b>shook</b>"))
    return Stages((entry, replay, shadow))


def test_stages_that_are_damaged_are_said(write: Write) -> None:
    run = write()
    (run.path / "stages.json").write_text('{"shadow": {"signed": "A. Sato"}}', encoding="utf-8")
    page = page_of(run)
    assert "no signature in it counts" in page
    assert "A. Sato" not in page
    assert "the environment CartPole-v1, and nothing" in page


def test_whether_a_guard_watched(write: Write) -> None:
    assert "No guard watched all of the runs" in page_of(write(1))
    assert "The guard never acted" in page_of(write(2, guard="on"))


@pytest.mark.parametrize("name", ["stages.json", "explanation"])
def test_links_and_damage_are_not_followed(write: Write, tmp_path: Path, name: str) -> None:
    run = write()
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "explanation.json").write_text(json.dumps({"importance": [["secret", 1.0]], "notes": ["secret"]}))
    target = secret if name == "explanation" else secret / "explanation.json"
    (run.path / name).symlink_to(target)
    assert "secret" not in page_of(run)


def test_hostile_text_is_text(write: Write) -> None:
    run = write(status={"state": "failed", "reason": "</pre><script>alert(1)</script>\x1b[2J"}, algo="<img src=x>")
    page = page_of(run)
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize(
    "damage", ["[1]", "{", '{"importance": 3, "surrogate": [], "notes": {}, "counterfactuals": 1}']
)
def test_a_damaged_explanation_is_left_out(write: Write, damage: str) -> None:
    run = write()
    (run.path / "explanation").mkdir()
    (run.path / "explanation" / "explanation.json").write_text(damage, encoding="utf-8")
    assert "Signatures" in page_of(run)


def test_other_configurations_are_refused(write: Write, tmp_path: Path) -> None:
    """With each setting that differs, its values and whose they are; what makes runs of two lengths equal is said."""
    runs = [write(1), write(2, total_timesteps=400), write(3)]
    before = CONFIG["total_timesteps"]
    told = (
        f"their seed: total_timesteps: {before} (seed1, seed3), 400 (seed2); bring them to one length by `shoal resume"
    )
    with pytest.raises(ConfigError, match=re.escape(told)):
        write_signed(runs, tmp_path, pdf=False)
    other = write(4, algorithm={"gamma": 0.5}, num_envs=3)
    told = "num_envs: unset (seed1), 3 (seed4)"
    with pytest.raises(ConfigError, match=f"{re.escape(told)}.*; report each, or see `shoal compare`"):
        write_signed([runs[0], other], tmp_path, pdf=False)
    with pytest.raises(ConfigError, match=r"gamma: unset \(seed1\), 0.5 \(seed4\)"):
        write_signed([runs[0], other], tmp_path, pdf=False)


def test_the_newest_of_a_seed(write: Write, tmp_path: Path) -> None:
    old, new = write(1), RunDirectory(tmp_path / "again")
    old.path.rename(new.path)
    assert choose([write(1), write(2), new]) == [new, RunDirectory(tmp_path / "runs" / "seed2")]


def test_a_run_with_other_settings_is_not_left_out_for_its_seed(write: Write, tmp_path: Path) -> None:
    old, new = write(1), RunDirectory(tmp_path / "again")
    old.path.rename(new.path)
    with pytest.raises(ConfigError, match="differ in more than their seed"):
        write_signed(choose([new, write(1, total_timesteps=400)]), tmp_path, pdf=False)


OWN = {"run": "a" * 32, "policy": "Net(...)"}
SHOALS = OWN | {"policy": "shoal.nets.policy:MlpPolicy(...)"}
TABLES: dict[str, Any] = {"model": "tiny", "language": {"slots": 8}}
NETWORK: dict[str, Any] = {"gamma": 0.9, "network": {"hidden": [64, 64]}}


@pytest.mark.parametrize(
    ("changes", "listed"),
    [
        ({"algorithm": NETWORK}, ["algorithm.gamma", "algorithm.network.hidden"]),
        ({"algorithm": NETWORK, "policy": "my:Net"}, ["algorithm.gamma"]),
        ({"algorithm": NETWORK, "origin": OWN}, ["algorithm.gamma"]),
        ({"algorithm": NETWORK, "origin": SHOALS}, ["algorithm.gamma", "algorithm.network.hidden"]),
        ({"algorithm": {"num_generations": 4}}, ["algorithm.num_generations", "language.slots", "model"]),
        ({"origin": {"run": "a" * 32, "unexplained": "language"}}, ["language.slots", "model"]),
    ],
)
def test_settings_that_applied(write: Write, changes: dict[str, Any], listed: list[str]) -> None:
    """None of the default network beside a policy of one's own, none of language models elsewhere."""
    run = write(**TABLES | changes)
    names = [name for name in applied(flat(run.read_shown()), run.read_origin()) if name not in CONFIG]
    assert sorted(set(names) - {"seed", "policy"}) == listed
    page = page_of(run)
    for name in ("language.slots", "algorithm.network.hidden"):
        assert (name in page) == (name in listed)


def test_both_languages_say_the_same_things() -> None:
    for name, said in catalogue().items():
        parts = [sorted(part for _, part, _, _ in string.Formatter().parse(text) if part) for text in said.values()]
        assert list(said) == ["en", "ja"], name
        assert parts[0] == parts[1], name


def test_every_word_is_used() -> None:
    folder = Path(__file__).parents[3] / "src" / "shoal" / "report" / "signed"
    code = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    assert [name for name in catalogue() if not re.search(rf"[\"']{name}[\"']", code)] == []


@pytest.mark.usefixtures("curves")
def test_japanese(write: Write, tmp_path: Path) -> None:
    runs = [write(1), write(2)]
    page = write_signed(runs, tmp_path, language="ja", pdf=False)[0].read_text(encoding="utf-8")
    assert '<html lang="ja">' in page
    assert "基準値 45 に達したのは 2 件中 1 件" in page
    assert "試験していないこと" in page


@pytest.mark.parametrize("language", ["en", "ja"])
def test_pdf(write: Write, tmp_path: Path, language: Any) -> None:
    pytest.importorskip("fpdf")
    run = write()
    (run.path / "film.mp4").write_bytes(b"0")
    written = write_signed([run, write(2)], tmp_path, language=language)
    data = written[1].read_bytes()
    assert data.startswith(b"%PDF-")
    assert data.count(b"/Type /Page\n") >= 2
    assert b"/FontFile2" in data  # its letters stand in it


def test_what_a_pdf_needs(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.report.signed.to_pdf.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"shoal-rl\[report\]"):
        write_signed([write()], tmp_path)
    assert not (tmp_path / "report.html").exists()


PRICES = """
date = 2026-11-01
source = "a bill"
currency = "JPY"
default = "own"
[machines.own]
per_hour = 3600
cores = 2
"""


def test_money(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prices.toml").write_text(PRICES, encoding="utf-8")
    monkeypatch.setenv("SHOAL_PRICES", str(tmp_path / "prices.toml"))
    page = page_of(write(2))
    assert "On own that is 2 JPY, of which 0 JPY went into runs that came to nothing" in page
    assert "For each run that met its threshold: 2 JPY" in page
    monkeypatch.setenv("SHOAL_PRICES", str(tmp_path / "nowhere.toml"))
    assert "No price is known" in page_of(write(3))


def test_a_sweep(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, rate in ((1, 0.1), (2, 0.2), (3, 0.2)):
        write(seed, algorithm={"learning_rate": rate, "gamma": 1.0})
    folder = tmp_path / "runs"
    summary = {"best": {"learning_rate": 0.2, "gamma": 1}, "verdict": "trial 1 won", "cost_s": 12.0, "trials": [1, 2]}
    (folder / "summary.json").write_text(json.dumps(summary | {"importance": {"learning_rate": 0.9}}), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["shoal", "report", str(folder)])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "2 runs (seeds 2, 3)" in page
    assert "2 trials took 12 s of training" in page
    assert "<td>learning_rate</td><td>0.2</td><td>0.90</td>" in page
    (folder / "summary.json").write_text("[]", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    (folder / "summary.json").unlink()
    (folder / "study.journal").touch()
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "has no result yet" in capsys.readouterr().err


def test_command(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write(1), write(2)]

    def call(*arguments: str) -> tuple[Any, str]:
        monkeypatch.setattr("sys.argv", ["shoal", "report", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out + said.err

    folder = tmp_path / "runs"
    assert call(str(folder)) == (0, f"{folder / 'report.html'}\n")
    assert call(str(runs[0].path)) == (0, f"{runs[0].path / 'report.html'}\n")
    signed = runs[0].path / "report.html"
    signed.write_text("A. Sato")
    status, said = call(str(runs[0].path))
    assert (status, signed.read_text()) == (2, "A. Sato")
    assert "--out FOLDER" in said
    assert call(str(runs[0].path), "--replace")[0] == 0
    assert "A. Sato" not in signed.read_text()
    status, said = call(*(str(run.path) for run in runs))
    assert status == 2
    assert "--out FOLDER" in said
    assert call("--out", str(tmp_path / "out"), *(str(run.path) for run in runs))[0] == 0
    assert call()[0] == 2
