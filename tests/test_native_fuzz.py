"""A short part of the fuzz of the native bindings, in a process of its own; `make sanitize` runs the long one."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_no_call_of_a_binding_aborts_or_hangs() -> None:
    command = [sys.executable, "-m", "tests.native_fuzz", "--calls", "8000", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("8,000 calls of 6"), done.stdout
