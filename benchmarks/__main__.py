"""`make bench` and `make bench-peers`: one table, and a results file for each group of parts.

python -m benchmarks                        shoal against the machine's own limit
python -m benchmarks --peers                and beside the competition, in the same run
python -m benchmarks --only whole           a single part of either, a few minutes; may be given again
python -m benchmarks --only sb3-8 --out DIR figures into another folder

The rows of single parts take the place of the same claims in the results file, which must be of the same machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks import beside_peers, limits, machine, speed
from shoal.envs import native

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parent / "results"
SAME = ("cpu", "cores", "system", "python")
Row = dict[str, Any]


def row(
    claim: str,
    ours: float | None,
    theirs: float | None,
    unit: str,
    note: str,
    *,
    bar: float | None = None,
    ratio: float | None = None,
) -> Row:
    """One line of the table; the ratio is ours over theirs, or the one that is given."""
    if ratio is None and ours and theirs:
        ratio = ours / theirs
    return {"claim": claim, "ours": ours, "theirs": theirs, "ratio": ratio, "bar": bar, "unit": unit, "note": note}


def stepping_rows(make: Callable[..., Row]) -> list[Row]:
    """Every native environment on one and two threads."""
    rows: list[Row] = []
    for env_id in native.ids():
        one, two = speed.stepping(env_id), speed.stepping(env_id, num_threads=2)
        rows.append(make(f"stepping {env_id}, 1 thread", one, None, "steps/s", f"{speed.ROWS:,} rows"))
        rows.append(make(f"stepping {env_id}, 2 threads", two, one, "steps/s", "beside 1 thread"))
    return rows


PARTS: dict[str, dict[str, Callable[[Callable[..., Row]], list[Row]]]] = {
    "speed": {
        "peak": limits.peak_rows,
        "stepping": stepping_rows,
        "acting": limits.acting_rows,
        "learning": limits.learning_rows,
        "whole": limits.whole_rows,
    },
    "peers": {
        "pufferlib-stepping": beside_peers.stepping_rows,
        "serial": beside_peers.serial_rows,
        "sb3-8": beside_peers.sb3_small_rows,
        "sb3-best": beside_peers.sb3_best_rows,
        "lstm": beside_peers.lstm_rows,
        "solve": beside_peers.solve_rows,
        "alone": beside_peers.alone_rows,
    },
}


def kept(file: Path, info: dict[str, Any]) -> list[Row]:
    """The rows of a results file, into which those of single parts go; it must be of this machine."""
    if not file.exists():
        return []
    old = json.loads(file.read_text())
    if any(old["machine"].get(key) != info["machine"][key] for key in SAME) or old["versions"] != info["versions"]:
        sys.exit(f"{file} is of another machine or of other versions: remove it, or name another folder with --out")
    return old["rows"]


def merge(old: list[Row], new: list[Row]) -> list[Row]:
    """The old rows, with the new ones where the first of the same claims stood, or at the end."""
    claims = {line["claim"] for line in new}
    at = next((i for i, line in enumerate(old) if line["claim"] in claims), len(old))
    return [*old[:at], *new, *(line for line in old[at:] if line["claim"] not in claims)]


def write(
    name: str, rows: list[Row], info: dict[str, Any], *, out: Path = RESULTS, old: list[Row] | None = None
) -> None:
    """Writes a results file, the old rows around the new, and prints the table of the new."""
    result: dict[str, Any] = {"name": name, "date": time.strftime("%Y-%m-%d"), **info, "rows": merge(old or [], rows)}
    file = out / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n")
    table = Table(title=f"{name} ({result['machine']['cpu']})")
    for heading in ("what", "shoal", "beside", "ratio", "bar", "note"):
        table.add_column(heading, justify="right" if heading in ("shoal", "beside", "ratio", "bar") else "left")
    for line in rows:
        figures = [f"{line[k]:,.0f}" if line[k] else "-" for k in ("ours", "theirs")]
        ratios = [f"{line[k]:.2f}" if line[k] else "" for k in ("ratio", "bar")]
        table.add_row(f"{line['claim']} [{line['unit']}]", *figures, *ratios, line["note"])
    Console(width=160).print(table)


def main() -> None:
    """Measures and writes."""
    names = [part for parts in PARTS.values() for part in parts]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", action="store_true", help="also run the competition (make it with setup_peers.py)")
    parser.add_argument("--only-peers", action="store_true", help="skip shoal against the machine's limit")
    parser.add_argument("--only", action="append", default=[], choices=names, help="a single part; may be given again")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results files")
    options = parser.parse_args()
    info = {"machine": machine.describe(), "versions": machine.versions()}
    for name, parts in PARTS.items():
        wanted = options.peers or options.only_peers if name == "peers" else not options.only_peers
        chosen = options.only or (list(parts) if wanted else [])
        chosen = [part for part in parts if part in chosen]
        if not chosen:
            continue
        old = kept(options.out / f"{name}.json", info) if options.only else []
        rows = [line for part in chosen for line in parts[part](row)]
        write(name, rows, info, out=options.out, old=old)


if __name__ == "__main__":
    main()
