#!/bin/sh
# Gymnasium's Box of integers takes an infinite upper bound as one number, but not in an array of bounds.
#
# `Box(0, np.inf, (2,), np.int64)` is unbounded above, as its documentation says. The same bounds written as arrays,
# which is how a space with a different bound for each number is made, raise: the infinity is turned into the smallest
# integer on the way, and the error tells of a bound that nobody wrote.
#
# Run by hand: sh findings/gymnasium_integer_box_infinite_bound.sh. It fails where the behavior has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check 'gymnasium==1.4.0' 'numpy==2.4.6' 2>/dev/null
cat > bounds.py <<'PY'
"""The same space by numbers and by arrays."""

import warnings

import gymnasium
import numpy as np
from gymnasium.spaces import Box

warnings.simplefilter("ignore")
print("gymnasium", gymnasium.__version__, "numpy", np.__version__)
whole = Box(0, np.inf, (2,), np.int64)
print("by numbers: bounded above:", whole.bounded_above.tolist())
try:
    Box(np.array([0.0, 0.0]), np.array([1.0, np.inf]), dtype=np.int64)
    said = ""
except Exception as error:
    said = f"{type(error).__name__}: {error}"
print("by arrays:", said or "taken")
if whole.bounded_above.any() or "-9223372036854775808" not in said:
    raise SystemExit("the behavior has changed")
print("as described")
PY
venv/bin/python bounds.py
