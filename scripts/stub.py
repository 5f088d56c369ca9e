"""Writes src/shoal/_native.pyi from the built module; with --check, says whether the committed one equals it."""

import argparse
import difflib
import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path("src/shoal/_native.pyi")


def generate() -> str:
    """The stub that nanobind reads off the module as it is built now."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "_native.pyi"
        command = [sys.executable, "-m", "nanobind.stubgen", "-q", "-m", "shoal._native", "-o", str(target)]
        subprocess.run(command, check=True)
        return target.read_text(encoding="utf-8")


def check(text: str) -> int:
    """Prints the difference, if any, and returns the exit status."""
    committed = STUB.read_text(encoding="utf-8") if STUB.exists() else ""
    difference = list(difflib.unified_diff(committed.splitlines(), text.splitlines(), str(STUB), "built", lineterm=""))
    if difference:
        print(*difference, sep="\n")
        print(f"{STUB} is not the built module's: run `make format` and commit it.")
    return int(bool(difference))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if out of date")
    arguments = parser.parse_args()
    generated = generate()
    if arguments.check:
        sys.exit(check(generated))
    STUB.write_text(generated, encoding="utf-8")
