#!/bin/sh
# math-verify reads "x + 1" as 1, "1e5" as 1, and takes 10 % for 10.
#
# A text that is not marked as LaTeX is searched for its last number, so a right answer x + 1 that is given without
# dollars is the number 1: every answer that ends with a 1 is right then. A percentage is right for the number with the
# same digits. Wrapped in dollars, both are read as they are written, but 10 % still passes for 10.
#
# Run by hand: sh findings/math_verify_reads_a_number.sh. It fails where the behavior has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check 'math-verify[antlr4_13_2]==0.9.0' 2>/dev/null
cat > reads.py <<'PY'
"""What the library makes of expressions without and with dollars."""

import logging
from importlib.metadata import version

logging.disable(logging.CRITICAL)
from math_verify import parse, verify  # noqa: E402

print("math-verify", version("math-verify"))


def read(text):
    return parse(text, parsing_timeout=None)


def same(gold, answer):
    return verify(read(gold), read(answer), timeout_seconds=None)


found = {
    "x + 1 is 1": same("x + 1", "1"),
    "$x + 1$ is 1": same("$x + 1$", "1"),
    "sqrt(2) is read": bool(read("sqrt(2)")),
    "$sqrt(2)$ is read": bool(read("$sqrt(2)$")),
    "10 is 10 %": same("$10$", "$10\\%$"),
    "0.1 is 10 %": same("$0.1$", "$10\\%$"),
}
for what, said in found.items():
    print(f"{what}: {said}")
if list(found.values()) != [True, False, False, True, True, True]:
    raise SystemExit("the behavior has changed")
PY
venv/bin/python reads.py
