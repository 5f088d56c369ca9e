"""What other modules write into a report has its Japanese: every sentence in their code, and every text of a page."""

# ruff: noqa: RUF001

from __future__ import annotations

import ast
import json
import re
import shutil
import string
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import shoal
from shoal.deploy.stages.drift import Drift
from shoal.experiment.sweep.settings import RETURN, SECONDS, THRESHOLD
from shoal.report.doctor.doctor import diagnose
from shoal.report.signed.sentences import entries, in_japanese
from shoal.report.signed.signed import write_signed
from shoal.report.signed.sweep import Sweep
from shoal.report.signed.words import catalogue
from shoal.run.directory import RunDirectory
from shoal.run.guard.seen import ACTIONS
from shoal.run.stage_file import STAGES, Criterion, Entry, Signature, Stages, write_stages

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(shoal.__file__).parent
DOCTORED = Path(__file__).parents[1] / "doctor" / "runs"
JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
WORDS = re.compile(r"[a-z]{2,} .*[a-z]{2}")
"""What is a sentence, or a part of one, rather than a key."""
NOT_SHOWN: dict[str, set[str]] = {
    "report/doctor/endings": {"not finite"},
    "run/guard/guard": {"guard: {}; {}"},  # two sentences of their own
    "run/guard/ending": {
        "{} ends as its verified best, of update {}",
        "the guard acted in this run: {}",
        "shoal: the checkpoint 'best' holds the verified best policy, of {}; "
        "`shoal resume` goes on from the newest one",
        "no gradient step was taken in {} updates, so the guard looked at nothing and never called the rules that it "
        "was given: train for longer, or begin to learn earlier",
    },
    "experiment/sweep/confirm": {
        "finalists: trials {}, on {} other seeds each",
        "confirming trial {} against the settings that the sweep began from, on {} fresh seeds",
    },
    "run/loop": {"update {} at step {}"},
    "run/reading": {"a key has more than 32 parts"},
    "run/records": {"{} cannot be {}"},
    "run/stage_file": {"at least", "at most", "{}: {}, must be {} {}: {}"},  # words.toml has them
}
"""Sentences of these modules that no report shows: they are said elsewhere."""
SHOWN_ONLY = {
    "deploy/stages/drift": ("has drifted",),
    "run/together": ("learner {}", "a signal to"),
    "report/explain/text": ("standard deviations, in episode",),
    "experiment/sweep/sweep": ("no trial came", "not confirmed yet"),
    "experiment/sweep/search": ("below the median", "slower than"),
    "run/watching": ("shoal stop, by",),
    "report/curves": ("training: mean", "greedy", "threshold", "more numbers"),
    "deploy/stages/measures": ("ALARM",),
    "experiment/staging": ("measured by",),
}
"""Of these modules, which say much else: what shown sentences hold."""


SILENT = {
    "report/doctor/doctor",
    "report/doctor/evidence",
    "report/doctor/finding",
    "report/doctor/course",
    "run/guard/journal",
    "run/guard/notes",
    "run/guard/own",
    "run/guard/settings",
    "run/guard/unwatched",
    "run/guard/readings",
    "run/guard/recent",
    "run/guard/seen",
    "run/guard/ladder",
}
"""Modules without sentences for a report."""


def texts_of(module: str) -> set[str]:
    """The sentences of a module but documentation and errors that end a command; {} is where something is put in."""
    tree = ast.parse((SOURCE / f"{module}.py").read_text(encoding="utf-8"))
    passed: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            passed.add(id(node.value))
        raised = isinstance(node, ast.Raise) and "ValueError" not in ast.unparse(node)
        if raised or isinstance(node, ast.JoinedStr):
            passed |= {id(part) for part in ast.walk(node) if part is not node}
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in passed:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            found.add("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(re.sub(r"\{[^}]*\}", "{}", node.value))
    wanted = SHOWN_ONLY.get(module)
    kept = {text for text in found if WORDS.search(text)} - NOT_SHOWN.get(module, set())
    return kept if wanted is None else {text for text in kept if any(part in text for part in wanted)}


def bare(text: str) -> str:
    """An entry's English as `texts_of` writes it."""
    parts = string.Formatter().parse(text)
    return "".join(literal + ("" if name is None else "{}") for literal, name, _, _ in parts)


def modules() -> list[str]:
    """Those that the catalogue names, and all of the doctor's and the guard's rules."""
    rules = [*(SOURCE / "report" / "doctor").glob("*.py"), *(SOURCE / "run" / "guard").glob("*.py")]
    named = {str(path.relative_to(SOURCE).with_suffix("")) for path in rules}
    return sorted({name for name in entries() if "/" in name} | named)


def test_every_sentence_has_its_japanese() -> None:
    known = {bare(one["en"]) for part in entries().values() for one in part}
    missing = {module: texts_of(module) - known for module in modules()}
    said = {module: sorted(texts) for module, texts in missing.items() if texts and module not in SILENT}
    assert said == {}


def test_no_sentence_is_left_over() -> None:
    """What the catalogue has under a module is in its code."""
    for module, part in entries().items():
        if "/" in module and module not in ("run/reading", "run/records", "deploy/stages/measures", "run/stage_file"):
            code = (SOURCE / f"{module}.py").read_text(encoding="utf-8")
            for one in part:
                words = re.findall(r"[a-z_]{4,}", bare(one["en"]))
                lost = [word for word in words if word not in code]
                assert lost == [], one["en"]


def test_names() -> None:
    named = {name: [one["en"] for one in entries()[name]] for name in ("states", "actions", "stages")}
    assert named["actions"] == list(ACTIONS)
    assert named["stages"] == list(STAGES)
    assert [one["en"] for one in entries()["aims"]] == [RETURN, SECONDS, THRESHOLD]
    code = (SOURCE / "deploy" / "stages" / "measures.py").read_text(encoding="utf-8")
    code += "".join(f'Criterion("episodes_of_the_{who}"' for who in ("policy", "controller"))
    criteria = {name.replace("_", " ") for name in re.findall(r'Criterion\(\s*f?"(\w+)"', code)}
    assert criteria <= {one["en"] for one in entries()["deploy/stages/measures"]}
    assert {"greedy return", "agreement", "drifted features"} <= criteria


def test_parts_are_the_same_in_both_languages() -> None:
    for part in entries().values():
        for one in part:
            names = [sorted(name for _, name, _, _ in string.Formatter().parse(text) if name) for text in one.values()]
            assert list(one) == ["en", "ja"], one
            assert names[0] == names[1], one["en"]
            assert JAPANESE.search(one["ja"]), one["en"]
            assert "}{" not in one["en"], "nobody could tell where one part ends"


def test_one_style() -> None:
    """である, as the rest of the report: no です or ます, and no English comma between Japanese words."""
    said = [one["ja"] for part in entries().values() for one in part] + [one["ja"] for one in catalogue().values()]
    for text in said:
        assert not re.search(r"(です|ます|ください|でした|ません)", text), text
        assert not re.search(r"[\u3040-\u9fff],", text), text


@pytest.mark.parametrize(
    ("said", "japanese"),
    [
        (
            "the KL divergence of the update is 3.1, above 0.5 (kl); policy goes on with 0.5 times its learning rate",
            "更新の KL ダイバージェンスが 3.1 で、上限 0.5 を超えた（kl）；policy は 0.5 倍の学習率で学習を続ける",
        ),
        (
            "guard: the weights are not finite (finite); the run ends with the verified best of update 1,200 (mean "
            "return 5.25)",
            "ガード：重みが有限でない（finite）；更新 1,200（平均収益 5.25）の検証済みの最良の状態で学習を終了する",
        ),
        (
            "not confirmed, so not called better: seconds: median 3.1 against 4 (0.78 x) on 5 fresh seeds, p = 0.155; "
            "return 9 against never",
            "確認されず、改善したとは言えない。秒数の中央値は 3.1、比較対象では 4（0.78 倍）（新しい 5 シード、"
            "p = 0.155、収益は 9、比較対象では 未達）",
        ),
        ("my own rule; it is bad", "my own rule; it is bad"),
        ("a run of mine", "a run of mine"),
        ("KeyError: 'coffee; tea'", "KeyError: 'coffee; tea'"),
    ],
)
def test_said(said: str, japanese: str) -> None:
    assert in_japanese(said) == japanese


@pytest.mark.parametrize(
    "hostile", ["guard: " * 140, "; " * 500, "x (a)" + " (a)" * 200, "metrics.jsonl is damaged: " * 38]
)
def test_strangers_texts_end(hostile: str) -> None:
    in_japanese(hostile)


def test_findings() -> None:
    """Whatever the doctor finds in its collection, and what to try."""
    runs = sorted(DOCTORED.iterdir())
    said = {text for run in runs for one in diagnose(RunDirectory(run)) for text in (one.what, one.advice)}
    assert len(said) > 40
    assert sorted(text for text in said if not JAPANESE.search(in_japanese(text))) == []


def english(page: str) -> Iterator[str]:
    """Sentences of a page's text that are English: five words of small letters in a row."""
    text = re.sub(r"<style>.*?</style>|<pre>.*?</pre>|<[^>]*>", "\n", page, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`", "", text)
    yield from re.findall(r".*(?:\b[a-z]{1,14}[ ,;:]+){4}[a-z]+.*", text)


def test_a_page_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard, stages, doctor, explanation, damage and a sweep on a Japanese page: no English sentence is left."""
    monkeypatch.setattr("shoal.report.signed.signed.draw", lambda *_: b"")
    monkeypatch.setattr("shoal.report.signed.signed.draw_all", lambda *_: b"")
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(DOCTORED / "entropy-gone", run.path)
    with run.metrics.open("ab") as file:
        file.write(b'{"step": true}\n')
    did = "the entropy fell from 0.69 to 0.01 within 20 checks (entropy); policy goes back to update 7, with 0.5 times "
    note = {"update": 9, "step": 70, "learner": "", "rule": "entropy", "action": "rollback"}
    acted = {"count": 1, "interventions": [note | {"said": f"{did}its learning rate"}]}
    (run.path / "guard.json").write_text(json.dumps(acted), encoding="utf-8")
    drift = str(Drift("pole angle", 3.0, 0.5, alarmed=True))
    criteria = (Criterion("agreement", 0.5, 0.9), Criterion("distance", 0.1, 0.2, least=False))
    entry = Entry("shadow", "then", "a" * 64, 8, criteria=criteria, notes=(f"ALARM: {drift}",))
    gone = replace(entry, stage="canary", withdrawn=Signature("A. Sato", "now", "揺れた"))
    write_stages(run.path, Stages((entry, gone)))
    (run.path / "explanation").mkdir()
    change = "pole angle 0.1 -> 0.2, 1.5 standard deviations, in episode 3 at step 9: 'push left' becomes 'push right'"
    told = {"importance": [["pole angle", 0.8]], "surrogate": {"fidelity": 0.7, "depth": 4, "plain": 0.5}}
    told |= {"counterfactuals": [change], "notes": ["several actions are chosen at once, to which no tree is fitted"]}
    (run.path / "explanation" / "explanation.json").write_text(json.dumps(told), encoding="utf-8")
    won = Sweep({"gamma": 0.9}, "not confirmed yet: the sweep is not over", 8, 12.0)

    def page() -> str:
        folder = tmp_path / "out"
        path, *_ = write_signed([run], folder, language="ja", pdf=False, sweep=won, replace=True)
        return path.read_text(encoding="utf-8")

    said = page()
    assert list(english(said)) == []
    for part in (
        "一致率：0.5（0.9 以上であること）：満たさない",
        "警報：pole angle の分布が",
        "巻き戻し",
        "未確認：探索は",
    ):
        assert part in said
    (run.path / "stages.json").write_text("{}", encoding="utf-8")
    assert list(english(page())) == []
