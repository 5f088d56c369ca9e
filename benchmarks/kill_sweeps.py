"""Kills a sweep again and again, wherever it is, and counts what was lost: no finished trial may be.

python -m benchmarks.kill_sweeps              20 kills; appended to benchmarks/results/kill_sweeps.jsonl
python -m benchmarks.kill_sweeps --kills 5 --out kills.jsonl

The sweep gets SIGKILL at a random time after a trial has reported, or, every second time, after one has finished, and
its trials end with it; then the same command
goes on. After each kill what finished trials had written is compared, byte for byte, with what is there when the sweep
has come to its end, and so are their rows in the study.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine
from shoal.experiment.sweep.plan import kept_plan
from shoal.experiment.sweep.results import rows_of
from shoal.experiment.sweep.study import copy_journal, open_study, quiet

RESULT = Path(__file__).parent / "results" / "kill_sweeps.jsonl"
WAIT_S = 2.0
"""How long after a report it is killed, at most: a trial takes about as long."""
FILE = """
env = "CartPole-v1"
total_timesteps = 100_000
checkpoint_every = 8192
[sweep]
trials = {trials}
episodes = 5
finalists = 1
confirm_seeds = 1
[space.learning_rate]
low = 1e-3
high = 1e-2
log = true
"""


def rows_in(folder: Path) -> dict[int, Any]:
    """The finished trials of a sweep's study."""
    with quiet(), tempfile.TemporaryDirectory() as copy:
        copy_journal(folder, Path(copy))
        plan = kept_plan(folder)
        rows = rows_of(plan, open_study(Path(copy), plan))
    return {row.number: row for row in rows if row.state in ("complete", "stopped early", "failed")}


def told_in(folder: Path) -> int:
    """The bytes that trials have reported."""
    return sum(path.stat().st_size for path in folder.glob("jobs/*.jsonl"))


def ended_in(folder: Path) -> int:
    """How many trials have finished."""
    return len(ends_in(folder))


def ends_in(folder: Path) -> dict[str, bytes]:
    """What finished trials have written."""
    return {path.name: path.read_bytes() for path in (folder / "jobs").glob("[0-9]*.json")}


def goes_on(process: subprocess.Popen[bytes], progress: Callable[[Path], int], out: Path) -> None:
    """Waits until there is more progress than now, or the sweep is over."""
    before = progress(out)
    while process.poll() is None and progress(out) == before:
        time.sleep(0.05)


def main() -> None:
    """Kills, goes on, and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, ended)
    rng = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="shoal-kill-sweeps-"))
    file, out = folder / "sweep.toml", folder / "out"
    file.write_text(FILE.format(trials=options.trials))
    command = [sys.executable, "-m", "shoal", "sweep", str(file), "--out", str(out)]
    rows: dict[int, Any] = {}
    ends: dict[str, bytes] = {}
    kills = 0
    with (folder / "log").open("ab") as log:
        while kills < options.kills and len(rows) < options.trials:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            try:
                goes_on(process, ended_in if kills % 2 else told_in, out)
                time.sleep(rng.uniform(0.0, WAIT_S))
                if process.poll() is not None:
                    break
            finally:
                if process.poll() is None:
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()
            kills += 1
            time.sleep(1.0)
            rows |= rows_in(out) if (out / "study.journal").exists() else {}
            ends |= ends_in(out)
            print(f"kill {kills}: {len(rows)} of {options.trials} trials are finished", flush=True)
        status = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    last, written = rows_in(out), ends_in(out)
    lost = [number for number, row in rows.items() if last.get(number) != row]
    changed = [name for name, data in ends.items() if written.get(name) != data]
    states = [row.state for row in last.values()]
    line: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "kills": kills,
        "asked": options.kills,
        "status": status,
        "trials": {state: states.count(state) for state in dict.fromkeys(states)},
        "finished_before_a_kill": len(rows),
        "lost": lost,
        "changed": changed,
        "machine": machine.describe(),
        "versions": machine.versions(),
    }
    with options.out.open("a", encoding="utf-8") as told:
        told.write(json.dumps(line) + "\n")
    print(json.dumps({name: x for name, x in line.items() if name not in ("machine", "versions")}))
    print(f"run directories: {folder}")
    judge(line)


def judge(line: dict[str, Any]) -> None:
    """Fails where something was lost, or nothing could be."""
    if not line["finished_before_a_kill"]:
        sys.exit("no trial had finished before any kill, so that none could be lost")
    if line["kills"] < line["asked"]:
        sys.exit(f"only {line['kills']} of {line['asked']} kills: the sweep was over before; give it more --trials")
    if line["status"] or line["lost"] or line["changed"]:
        sys.exit(f"the sweep ended with status {line['status']}; lost: {line['lost']}, changed: {line['changed']}")


def ended(number: int, frame: object) -> None:
    """Leaves by an exception, so that the sweep is ended too."""
    del frame
    sys.exit(f"ended by signal {number}")


if __name__ == "__main__":
    main()
