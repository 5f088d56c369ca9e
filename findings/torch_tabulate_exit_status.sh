#!/bin/sh
# A script that ends by Ctrl-C exits with 1, not by SIGINT, where torch's compiler was imported and tabulate is there.
#
# Python ends a program whose last exception is a KeyboardInterrupt by sending itself the signal, so that a shell's loop
# over programs ends too. torch._dynamo registers a function for the end of the program that imports tabulate, if it is
# installed; that import evaluates strings, and CPython 3.11 forgets meanwhile which exception ended the program. With
# tabulate imported before, or not installed, the status is the signal again.
#
# Run by hand: sh findings/torch_tabulate_exit_status.sh. It fails where the behavior has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check torch==2.13.0 numpy==2.4.6 tabulate==0.9.0 2>/dev/null
cat > ends.py <<'PY'
"""How programs that raise KeyboardInterrupt end, as their parent sees it."""

import platform
import subprocess
import sys
from importlib.metadata import version

print("Python", platform.python_version(), "torch", version("torch"), "tabulate", version("tabulate"))
programs = {
    "alone": "raise KeyboardInterrupt",
    "with torch": "import torch; raise KeyboardInterrupt",
    "with its compiler": "import torch._dynamo; raise KeyboardInterrupt",
    "with its compiler, tabulate before": "import tabulate, torch._dynamo; raise KeyboardInterrupt",
}
found = {}
for name, program in programs.items():
    found[name] = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode
    print(f"{name}: {found[name]}")
if list(found.values()) != [-2, -2, 1, -2]:
    raise SystemExit("the behavior has changed")
PY
venv/bin/python ends.py
