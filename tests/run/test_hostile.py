"""Every command answers a stranger's or a damaged run with a sentence or a result: nothing imported, nothing raw."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest

from shoal.run.directory import list_runs
from tests.run import hostile, hostile_stages

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fork_server import Interpreter

hostile.CASES.update(hostile_stages.CASES)
PROGRAM = """
import contextlib, gc, importlib, io, json, os, re, signal, sys, time, traceback
import shoal
from shoal import cli
from shoal.types import ConfigError
import matplotlib.figure

def megabytes(name):
    with open("/proc/self/status") as file:
        return int(re.search(name + r":\\s+(\\d+)", file.read())[1]) / 1024

def run(arguments):
    if arguments[0] == "load":
        try:
            shoal.load(*arguments[1:2], **dict(pair.split("=") for pair in arguments[2:]))
        except ConfigError as error:
            cli._fail(2, str(error))
        return 0
    sys.argv = ["shoal", *arguments]
    cli.main()

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)

def as_pixel(figure, file, **settings):
    with contextlib.ExitStack() as held:
        if not hasattr(file, "write"):
            file = held.enter_context(open(file, "wb"))
        file.write(PIXEL)

def answer(arguments):
    out, err, status = io.StringIO(), io.StringIO(), 0
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before, begun, busy = megabytes("VmRSS"), time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run(arguments)
        except SystemExit as ended:
            status = ended.code
        except BaseException:
            traceback.print_exc()
    busy, seconds, taken = time.process_time() - busy, time.perf_counter() - begun, megabytes("VmHWM") - before
    return [" ".join(arguments), status, out.getvalue(), err.getvalue(), busy, seconds, taken]

def forked(commands, drawn):
    # A process for each run, as its modules, signals and paths are no business of the next one's.
    ours, its = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(100)
        if not drawn:  # the curves of the sound run, once more
            matplotlib.figure.Figure.savefig = as_pixel
        with os.fdopen(its, "w") as pipe:
            answers = [answer(arguments) for arguments in commands]
            json.dump([answers, sorted(sys.modules)], pipe)
        os._exit(0)
    os.close(its)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not said or status:
        return [[[" ".join(commands[0]), status or 1, "", "no answer to one of these: Traceback", 0.0, 0.0, 0.0]], []]
    return json.loads(said)

found = []
with open(sys.argv[1]) as file:
    groups = json.load(file)
for commands, drawn in groups:
    answers, modules = forked(commands, drawn)
    if not found:  # all others begin with what the first one has imported, but for what somebody may have planted
        for name in modules:
            if name.partition(".")[0] not in ("__main__", "__mp_main__", *sys.argv[2:]):
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        gc.freeze()  # or a collection in a child would copy all that they share
    found.append(answers)
print(json.dumps(found))
"""

DRAWN = ("config", "status", "metrics")
"""Beginnings of the names of those that differ in what curves are drawn from."""
STAGED = ("stages", "deployed", "reference", "log")
"""Beginnings of the names of those that differ in what `stage` reads."""


TRAIN = ["train", "CartPole-v1", "--total-timesteps", "64", "--final-episodes", "0", "--panel", "none", "--no-report"]


class Answer(NamedTuple):
    command: str
    status: int
    out: str
    err: str
    busy: float
    """Processor seconds."""
    seconds: float
    megabytes: float


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small run, and modules that must not be imported."""
    folder = tmp_path_factory.mktemp("hostile")
    hostile.plant(folder)
    hostile.train_base(folder / "base")
    return folder


def base_of(place: Path) -> Path:
    (run,) = list_runs(place / "base")
    return run.path


def ask(interpreter: Interpreter, place: Path, *groups: tuple[list[list[str]], bool]) -> list[list[Answer]]:
    """The answers to groups of commands, each in a process of its own; the first one warms those behind it up.

    With each group stands whether its curves are drawn, or a point in their place.
    """
    asked = place / "asked.json"
    asked.write_text(json.dumps(groups))
    done = interpreter.run(PROGRAM, str(asked), *hostile.NAMES, folder=place, cwd=place, timeout_s=550)
    assert done.returncode == 0, done.stderr
    return [[Answer(*answer) for answer in answers] for answers in json.loads(done.stdout.splitlines()[-1])]


def commands_for(run: Path, *, staged: bool = True) -> list[list[str]]:
    path = str(run)
    log = str(run / "stages" / "shadow-0.jsonl")
    climbing = [
        ["stage", path],
        ["stage", path, "--enter", "shadow", "--data", log],
        ["stage", path, "--sign", "B. Ito"],
        ["load", path, "tag=deployed"],
        ["report", path, "--language", "ja", "--replace"],
        ["stage", path, "--rollback", "C. Mori", "--reason", "it shook"],
    ]
    return [
        ["report", path],
        ["compare", path, "--plot", str(run.parent / "plot.png")],
        ["eval", path, "--episodes", "1"],
        ["load", path],
        *(climbing if staged else []),
        ["resume", path, "--plain", "--no-report"],
    ]


def more_commands_for(run: Path) -> list[list[str]]:
    """What reads a run to tell of it, to ask it for something, or to use its policy elsewhere."""
    path, beside = str(run), run.parent / "made"
    return [
        *([name, path] for name in ("doctor", "timeline", "cost", "answers")),
        *([name, path, "--timeout-s", "0.1"] for name in ("stop", "pause", "continue")),
        ["explain", path, "--episodes", "4", "--states", "4", "--depth", "1"],
        ["record", path, "--episodes", "1", "--out", str(beside / f"{run.name}-data")],
        ["export", path, "--to", "c", "--out", str(beside / f"{run.name}-c")],
        ["push", path, str(beside / f"{run.name}-model")],
        [*TRAIN, "--init-from", path, "--run-dir", str(beside / f"{run.name}-trained")],
    ]


def faults_of(answer: Answer, *, listed: int) -> list[str]:
    """What is wrong with an answer; `listed` runs have a line each in a list of them all."""
    said = answer.out + answer.err
    most = 40 + (listed if answer.command.startswith("runs ") else 100 if answer.command.startswith("stage ") else 0)
    found = [
        ("a traceback", "Traceback" in said),
        ("control characters", not said.replace("\n", "").isprintable()),
        (f"exit status {answer.status}", answer.status not in (0, 1, 2, 3)),
        ("no sentence", answer.status in (2, 3) and not answer.err.strip()),
        ("many lines", said.count("\n") > most),
    ]
    return [f"{answer.command}: {name}\n{said[-1500:]}" for name, wrong in found if wrong]


def check(place: Path, runs: dict[str, Path], answers: list[Answer]) -> None:
    faults = [fault for answer in answers for fault in faults_of(answer, listed=len(runs))]
    assert faults == [], "\n".join(faults)
    assert not (place / "it-was-imported").exists()
    assert not (place / "it-was-called").exists()
    for page in (run / name for run in runs.values() for name in ("report.html", "summary.html")):
        if page.is_file():
            text = page.read_text()
            assert "Content-Security-Policy" in text
            assert "<script" not in text
    for kept in place.glob("*-elsewhere"):
        assert (kept / ".hidden.file").read_text() == "mine"


def test_one_bad_run_is_one_line(place: Path, interpreter: Interpreter) -> None:
    """`runs` lists the good ones beside it, and a run behind a linked folder."""
    runs = hostile.make_all(
        base_of(place), place / "several", ["config-pipe", "config-escapes", "status-deep", "policy"]
    )
    (place / "several" / "linked").symlink_to(place / "base")
    ((answer,),) = ask(interpreter, place, ([["runs", "--run-dir", str(place / "several")]], True))
    check(place, runs, [answer])
    lines = answer.out.splitlines()
    for name in ("config-pipe", "config-escapes", "status-deep"):
        (line,) = [line for line in lines if line.startswith(name)]
        assert "unreadable" in line
    assert any(line.startswith("policy") and "finished" in line for line in lines)
    assert any(line.startswith("linked/CartPole-v1") and "finished" in line for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_of_them(tmp_path: Path, place: Path, interpreter: Interpreter) -> None:
    """Commands that show, judge and prolong a run, and the list of all."""
    assert len(hostile.CASES) >= 120
    runs = hostile.make_all(base_of(place), tmp_path / "all")
    usual, *others = ask(
        interpreter,
        place,
        (commands_for(shutil.copytree(base_of(place), tmp_path / "usual")), True),
        ([["runs", "--run-dir", str(tmp_path / "all")]], True),
        *((commands_for(run, staged=name.startswith(STAGED)), name.startswith(DRAWN)) for name, run in runs.items()),
    )
    judge(place, runs, usual, others)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_of_them_with_the_other_commands(tmp_path: Path, place: Path, interpreter: Interpreter) -> None:
    """Commands that tell of a run, ask it for something, or use its policy elsewhere."""
    runs = hostile.make_all(base_of(place), tmp_path / "all")
    runs = {name: run for name, run in runs.items() if not name.startswith(STAGED)}
    usual, *others = ask(
        interpreter,
        place,
        (more_commands_for(shutil.copytree(base_of(place), tmp_path / "usual")), True),
        *((more_commands_for(run), False) for run in runs.values()),
    )
    judge(place, runs, usual, others)


def judge(place: Path, runs: dict[str, Path], usual: list[Answer], others: list[list[Answer]]) -> None:
    """Each answer keeps a core busy for at most two seconds more than that of the run they were made from.

    None waits for a minute, nor takes 200 MB.
    """
    assert faults_of(usual[0], listed=0) == []
    assert len(others) >= len(runs)
    most = {answer.command.split()[0]: 2 + answer.busy for answer in usual} | {"runs": 2.0}
    answers = [answer for group in others for answer in group]
    check(place, runs, answers)
    taken = [(a.command, a.busy, a.seconds, a.megabytes) for a in answers]
    assert [one for one in taken if one[1] > most[one[0].split()[0]] or one[2] > 60 or one[3] > 200] == []
