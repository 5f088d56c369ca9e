"""A sweep from its file to its verdict; the same call goes on with one that was interrupted."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.experiment.sweep.confirm import Confirmation, Verdict
from shoal.experiment.sweep.jobs import JOBS, TRIALS
from shoal.experiment.sweep.on_fleet import FleetWorkers
from shoal.experiment.sweep.outcome import (
    SweepResult,
    summary_of,
    table_of,
    total_cost,
    write_outcome,
)
from shoal.experiment.sweep.pictures import write_pictures
from shoal.experiment.sweep.plan import FILE, keep_plan, kept_plan, read_plan
from shoal.experiment.sweep.processes import Processes
from shoal.experiment.sweep.results import importance_of, rows_of
from shoal.experiment.sweep.search import SPENT, Search
from shoal.experiment.sweep.study import (
    JOURNAL,
    check_optuna,
    copy_journal,
    enqueue_base,
    open_study,
    quiet,
)
from shoal.experiment.sweep.teller import Teller
from shoal.run.reading import check_folder, read_toml
from shoal.types import ConfigError
from shoal.types.arguments import path_of, string_of
from shoal.types.calls import worded

if TYPE_CHECKING:
    from collections.abc import Generator

    from optuna.study import Study

    from shoal.experiment.sweep.plan import Plan
    from shoal.experiment.sweep.processes import Workers
    from shoal.experiment.sweep.results import Row

ROOT = Path("sweeps")
"""Where sweeps stand, unless a directory is named."""
LOCK = "sweep.lock"
LOCK_S = 10.0
"""For so long the processes of a sweep that was killed are waited for; they end within milliseconds."""


@worded()
def sweep(
    source: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    parallel: int | None = None,
    fleet: str | None = None,
    panel: str = "auto",
    trust: bool = False,
) -> SweepResult:
    """Searches settings, confirms the best ones on fresh seeds, and leaves a directory; a second call goes on with it.

    Args:
        source: a sweep's file (TOML), what one holds as a mapping, or the directory of a sweep, which is continued.
        out: the sweep's directory; default: `sweeps/` and the file's name.
        trials: another budget of trials than the file's.
        seconds: another budget of seconds of searching.
        parallel: other trials at a time.
        fleet: train on a Ray cluster: local, auto or ray://HOST:PORT.
        panel: auto prints a line for each trial, none nothing.
        trust: import and run what the file names, whoever wrote it. What a mapping names the caller names.

    Raises:
        ConfigError: settings, a search space, an objective or a budget that cannot work, or the directory of another
            sweep; nothing has run then.
        EnvError: too many trials in a row failed; the message has the first of their errors.
        KeyboardInterrupt: Ctrl-C; what ran has saved a checkpoint, and the same call goes on.
    """
    if string_of("panel", panel) not in ("auto", "none"):
        raise ConfigError(f'panel of a sweep must be "auto" or "none", got {panel!r}')
    check_optuna()
    changes: dict[str, Any] = {
        "trials": trials,
        "seconds": seconds,
        "parallel": parallel,
        "fleet": fleet,
    }
    folder, plan = _planned(source, out, trust=trust, changes=changes)
    teller = Teller(silent=panel == "none")
    with quiet(), locked(folder) as lock, closing(teller):
        keep_plan(folder, plan)
        for name in (TRIALS, JOBS):
            check_folder(folder / name)
            (folder / name).mkdir(exist_ok=True)
        study = open_study(folder, plan)
        if not study.get_trials(deepcopy=False):
            enqueue_base(plan, study)
        with _workers(plan, folder, lock) as (workers, count):
            teller.say(
                f"sweep in {folder}: {count} at a time; Ctrl-C stops it, the same command goes on"
            )
            return _run(plan, study, folder, workers, count, teller)


def _run(
    plan: Plan,
    study: Study,
    folder: Path,
    workers: Workers,
    count: int,
    teller: Teller,
) -> SweepResult:
    """Searches and confirms; on Ctrl-C what runs saves a checkpoint first."""
    try:
        Search(plan, study, folder, workers, parallel=count, teller=teller).run()
        rows = rows_of(plan, study)
        confirmation = Confirmation(
            plan, folder, workers, parallel=count, teller=teller
        )
        winner = confirmation.winner(rows)
        verdict = None if winner is None else confirmation.verdict(winner)
    except KeyboardInterrupt:
        teller.say(
            f"stopped; `shoal sweep {folder}` goes on when what runs has saved its checkpoints"
        )
        workers.interrupt()
        raise
    result = result_of(plan, study, folder, winner, verdict)
    write_outcome(plan, result, verdict)
    title = f"{plan.base.options.algo} on {plan.base.options.env}"
    chosen = None if winner is None else winner.number
    write_pictures(folder, title, rows, result.importance, chosen)
    teller.close()
    for line in table_of(plan, result):
        teller.say(line)
    return result


def show(
    folder: str | Path, *, trust: bool = False, as_json: bool = False
) -> SweepResult:
    """Prints what a sweep has found so far, also while it goes on elsewhere; nothing runs or changes.

    Args:
        folder: its directory.
        trust: import what its file names, whoever wrote it.
        as_json: print the summary as JSON instead of lines.

    Raises:
        ConfigError: it is no sweep's directory, or a damaged one.
    """
    check_optuna()
    where = path_of("folder", folder)
    if not is_sweep(where):
        raise ConfigError(f"{where} is no directory of a sweep: it has no {FILE}")
    plan = kept_plan(where, trust=trust)
    with quiet(), tempfile.TemporaryDirectory(prefix="shoal-sweep-") as copy:
        copy_journal(where, Path(copy))
        study = open_study(Path(copy), plan, copy_of=where)
        rows = rows_of(plan, study)
        winner, verdict = _kept_verdict(where, rows)
        result = result_of(plan, study, where, winner, verdict)
    if as_json:
        print(json.dumps(summary_of(plan, result, verdict)))
        return result
    for line in table_of(plan, result):
        print(line)
    return result


def result_of(
    plan: Plan,
    study: Study,
    folder: Path,
    winner: Row | None,
    verdict: Verdict | None,
) -> SweepResult:
    """What a study and its confirmation come to."""
    rows = tuple(rows_of(plan, study))
    said = "no trial came to its end, so there are no best settings"
    if verdict is not None:
        said = verdict.said
    elif winner is not None or any(row.values for row in rows):
        said = "not confirmed yet: the sweep is not over"
    return SweepResult(
        path=folder,
        trials=rows,
        best={} if winner is None else winner.settings,
        best_trial=None if winner is None else winner.number,
        confirmed=None if verdict is None else verdict.confirmed,
        verdict=said,
        ratio=None if verdict is None else verdict.ratio,
        importance=importance_of(plan, study, rows),
        seconds=float(study.user_attrs.get(SPENT, 0.0)),
        cost_s=total_cost(rows),
    )


def _kept_verdict(folder: Path, rows: list[Row]) -> tuple[Row | None, Verdict | None]:
    """What `summary.json` says of the winner; nothing where the sweep is not over."""
    from shoal.experiment.sweep.kept import read_verdict

    found = read_verdict(folder, len(rows))
    if found is None:
        return None, None
    number, verdict = found
    named = [row for row in rows if row.number == number]
    return (named[0], verdict) if named else (None, None)


def _planned(
    source: str | Path | Mapping[str, Any],
    out: str | Path | None,
    *,
    trust: bool,
    changes: Mapping[str, Any],
) -> tuple[Path, Plan]:
    """The directory of a sweep and its plan, read from there or from its file."""
    out = None if out is None else path_of("out", out)
    if isinstance(source, Mapping):
        folder = ROOT / "sweep" if out is None else out
        plan = read_plan(source, trust=trust, ours=True, **changes)
        return folder.absolute(), plan
    path = path_of("source", source)
    if path.is_dir():
        if out is not None:
            raise ConfigError(
                f"{path} is the directory of a sweep, which goes on there; leave out away"
            )
        if not is_sweep(path):
            raise ConfigError(f"{path} is no directory of a sweep: it has no {FILE}")
        return path.absolute(), kept_plan(path, trust=trust, **changes)
    folder = ROOT / path.stem if out is None else out
    return folder.absolute(), read_plan(read_toml(path), trust=trust, **changes)


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep, whole or damaged."""
    return os.path.lexists(folder / FILE) or os.path.lexists(folder / JOURNAL)


@contextmanager
def locked(folder: Path) -> Generator[int]:
    """The sweep's directory for this process and its trials alone; the lock's descriptor.

    Raises:
        ConfigError: another process sweeps there.
    """
    check_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    lock = os.open(folder / LOCK, flags, 0o644)
    end = time.monotonic() + LOCK_S
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= end:
                    raise ConfigError(
                        f"another process sweeps in {folder}; wait for it, or end it first"
                    ) from error
                time.sleep(0.05)
        yield lock
    finally:
        os.close(lock)


def check_free(folder: Path) -> None:
    """ConfigError where a directory holds something else than a sweep."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; name another one: --out")
    if any(path.name != LOCK for path in folder.iterdir()) and not is_sweep(folder):
        raise ConfigError(
            f"{folder} is there and holds no sweep; name another directory: --out"
        )


@contextmanager
def _workers(plan: Plan, folder: Path, lock: int) -> Generator[tuple[Workers, int]]:
    """What trains the trials, and how many at a time; it ends with this."""
    settings = plan.settings
    if settings.fleet is not None:
        with closing(FleetWorkers(settings, f"sweep in {folder.name}")) as fleet:
            yield fleet, settings.parallel or fleet.room()
        return
    log = folder / JOBS / "log.txt"
    with closing(Processes(log, lock=lock, cpus=settings.cpus)) as here:
        yield here, settings.at_a_time()
