"""Checkpoints of processes that are killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """A short run of `benchmarks.kill_checkpoints`: old or new, whole, and the next process goes on from it."""
    result = tmp_path / "result.jsonl"
    site = ["-S"] if sys.flags.no_site else []
    command = [sys.executable, *site, "-m", "benchmarks.kill_checkpoints", "--rounds", "8", "--result", str(result)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(result.read_text())["counts"]
    assert (counts["copied"], counts["forked"]) == (4, 4)
    assert counts["checkpoints"] > 0
