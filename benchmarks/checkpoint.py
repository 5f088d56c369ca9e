"""What a checkpoint of 400 MiB costs: seconds that training is held up, memory that is added to save and to load it.

    python -m benchmarks.checkpoint [--mebibytes N] [--rounds N]

Saves arrays that all changed since the last time: with training quiet while the thread writes, with all the arrays
being changed again at a steady pace, and with all of them changed at once, which makes the forked child keep the old
pages. Memory is what this process's peak grew by, and the child's private memory at its largest. Beside it: a plain
copy of the arrays, and writing them to the disk without hashing. Writes benchmarks/results/checkpoint.json; exits 1
where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from benchmarks import machine
from benchmarks.__main__ import row
from shoal.run.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Generator

RESULT = Path(__file__).parent / "results" / "checkpoint.json"
ARRAYS = 32
MEBI = 1 << 20
HOLD_S, SAVE_MIB, LOAD_RATIO = 0.2, 64.0, 1.2
PACES_S = {"quiet": None, "steady": 2.0, "at once": 0.0}
"""Seconds in which training, while the thread writes, changes every array once."""

Parts = dict[str, dict[str, Any]]


class Memory:
    """What is added while it is measured, in MiB."""

    own = 0.0
    children = 0.0


@contextmanager
def added() -> Generator[Memory]:
    """Measures the growth of this process's peak and the largest private memory of its children."""
    found, over = Memory(), threading.Event()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = peak_mib()
    watcher = threading.Thread(target=watch_children, args=(found, over))
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()
        found.own = peak_mib() - before


def peak_mib() -> float:
    """The largest resident memory since it was last reset."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def watch_children(found: Memory, over: threading.Event) -> None:
    """Keeps the largest sum of what children hold alone: pages that this process has changed since the fork."""
    while not over.wait(0.002):
        held = 0
        for child in psutil.Process().children():
            try:
                lines = Path(f"/proc/{child.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
            except OSError:  # it has just ended
                continue
            held += sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
        found.children = max(found.children, held / 1024)


def change(parts: Parts, pace_s: float) -> None:
    """Training: every array changes, one after the other."""
    for array in parts["learner"].values():
        np.add(array, 1.0, out=array)
        time.sleep(pace_s / ARRAYS)


def save(saves: Writer, parts: Parts, number: int, pace_s: float | None) -> dict[str, float]:
    """One checkpoint; seconds held up and in all, memory of both processes."""
    with added() as memory:
        begun = time.perf_counter()
        saves.save(parts, updates=number)
        held = time.perf_counter() - begun
        if pace_s is not None:
            change(parts, pace_s)
        saves.wait()
        whole = time.perf_counter() - begun
    return {"held": held, "whole": whole, "own": memory.own, "children": memory.children}


def plain_copy_s(parts: Parts) -> float:
    """Seconds to copy the arrays: what a snapshot without fork would hold up."""
    begun = time.perf_counter()
    copies = [array.copy() for array in parts["learner"].values()]
    seconds = time.perf_counter() - begun
    assert len(copies) == ARRAYS
    return seconds


def plain_write_s(folder: Path, parts: Parts) -> float:
    """Seconds to write the arrays and flush them."""
    begun = time.perf_counter()
    with (folder / "plain").open("wb", buffering=0) as file:
        for array in parts["learner"].values():
            file.write(array.data)
        os.fsync(file.fileno())
    seconds = time.perf_counter() - begun
    (folder / "plain").unlink()
    return seconds


def measure(folder: Path, mebibytes: int, rounds: int) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of the table, and the bars that were missed."""
    size = mebibytes * MEBI // ARRAYS // 8
    parts: Parts = {"learner": {str(i): np.full(size, float(i)) for i in range(ARRAYS)}, "run": {"updates": 0}}
    saves = Writer(folder, kind={}, keep_last=2)
    rows: list[dict[str, Any]] = []
    missed: list[str] = []

    def note(claim: str, value: float, unit: str, note: str, bar: float | None = None) -> None:
        text = note if bar is None else f"at most {bar:g}; {note}"
        rows.append(row(claim, round(value, 4), None, unit, text))
        missed.extend([claim] if bar is not None and value > bar else [])
        print(f"{claim:62} {value:10.4f} {unit:7} {'' if bar is None else f'at most {bar:g}'}", flush=True)

    number = 0
    for how, pace_s in PACES_S.items():
        name = f"saving {mebibytes} MiB, changes {how}"
        found: list[dict[str, float]] = []
        for _ in range(rounds):
            number += 1
            change(parts, 0.0)
            found.append(save(saves, parts, number, pace_s))
        note(f"{name}: held up, longest", max(one["held"] for one in found), "seconds", f"of {rounds}", HOLD_S)
        note(f"{name}: held up, median", statistics.median(one["held"] for one in found), "seconds", f"of {rounds}")
        note(f"{name}: until it is durable, median", statistics.median(one["whole"] for one in found), "seconds", "")
        note(f"{name}: this process grew by", max(one["own"] for one in found), "MiB", "its peak", SAVE_MIB)
        bar = None if how == "at once" else SAVE_MIB
        text = "old pages of what was changed" if pace_s is None else f"every array changed in {pace_s:g} s"
        note(f"{name}: the child's private memory", max(one["children"] for one in found), "MiB", text, bar)
    note("a plain copy of the arrays", plain_copy_s(parts), "seconds", "beside it")
    note("writing the arrays and a flush", plain_write_s(folder, parts), "seconds", "beside it")
    del parts
    with added() as memory:
        begun = time.perf_counter()
        assert saves.load() is not None
        seconds = time.perf_counter() - begun
    note("loading: this process grew by, of the size", memory.own / mebibytes, "times", "its peak", LOAD_RATIO)
    note("loading", seconds, "seconds", "")
    return rows, missed


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    info = {"machine": machine.describe(), "versions": machine.versions()}
    with tempfile.TemporaryDirectory() as folder:
        rows, missed = measure(Path(folder), args.mebibytes, args.rounds)
    result: dict[str, Any] = {"name": "checkpoint", "date": time.strftime("%Y-%m-%d"), **info, "rows": rows}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(", ".join(missed) or 0)


if __name__ == "__main__":
    main()
