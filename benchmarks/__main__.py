"""`make bench` and `make bench-peers`: one table, and a results file for each part.

python -m benchmarks            shoal against the machine's own limit
python -m benchmarks --peers    and beside the competition, in the same run
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine, speed
from benchmarks.beside_peers import peer_rows
from shoal.envs import native

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


def row(claim: str, ours: float | None, theirs: float | None, unit: str, note: str, *, bar: float | None = None) -> Row:
    """One line of the table; the ratio is ours over theirs."""
    ratio = ours / theirs if ours and theirs else None
    return {"claim": claim, "ours": ours, "theirs": theirs, "ratio": ratio, "bar": bar, "unit": unit, "note": note}


def own_rows() -> list[Row]:
    """Every speed of shoal beside the machine's limit in this run."""
    peak = machine.fma_gflops()
    rows = [row("multiply-adds, one core", peak, None, "GFLOP/s", "the machine's limit: median of 5")]
    for env_id in native.ids():
        one, two = speed.stepping(env_id), speed.stepping(env_id, num_threads=2)
        rows.append(row(f"stepping {env_id}, 1 thread", one, None, "steps/s", f"{speed.ROWS:,} rows"))
        rows.append(row(f"stepping {env_id}, 2 threads", two, one, "steps/s", "beside 1 thread"))
    forward = speed.forward_flops()
    limit_act, limit_learn = peak * 1e9 / forward, peak * 1e9 / (3 * forward)
    note = "beside the multiply-adds it needs at the peak of the cores used"
    rows += [
        row("acting, 64x64, 1,024 rows, 1 thread", speed.acting(), limit_act, "actions/s", note),
        row("acting, 64x64, 8 rows, 1 thread", speed.acting(num_envs=8), limit_act, "actions/s", note),
        row("learning, minibatch 256, 1 thread", speed.learning(), limit_learn, "samples/s", note),
        row("learning, minibatch 256, 2 threads", speed.learning(num_threads=2), 2 * limit_learn, "samples/s", note),
        row(
            "learning, minibatch 8,192, 2 threads",
            speed.learning(minibatch=8192, num_threads=2),
            2 * limit_learn,
            "samples/s",
            note,
        ),
    ]
    whole = speed.ppo(num_envs=1024, num_steps=128, num_minibatches=16, num_threads=2, steps=4_000_000)
    limit = 2 * peak * 1e9 / (13 * forward)
    text = "1,024 rows x 128 steps, minibatch 8,192, 4 epochs; " + note
    return [*rows, row("PPO on CartPole, the whole, 2 threads", whole["sps"], limit, "steps/s", text)]


def write(name: str, rows: list[Row], info: dict[str, Any]) -> None:
    """Writes a results file and prints its table."""
    result: dict[str, Any] = {"name": name, "date": time.strftime("%Y-%m-%d"), **info, "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", action="store_true", help="also run the competition (make it with setup_peers.py)")
    parser.add_argument("--only-peers", action="store_true", help="skip shoal against the machine's limit")
    options = parser.parse_args()
    info = {"machine": machine.describe(), "versions": machine.versions()}
    if not options.only_peers:
        write("speed", own_rows(), info)
    if options.peers or options.only_peers:
        write("peers", peer_rows(row), info)


if __name__ == "__main__":
    main()
