"""The wheel in a fresh virtual environment: what scripts/try_wheel.py tries, with this environment's dependencies."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_wheel_trains_and_a_package_is_built_against_it() -> None:
    command = [sys.executable, "scripts/try_wheel.py", "--borrow"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("The wheel does what it should.\n")
