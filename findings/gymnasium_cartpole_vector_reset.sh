#!/bin/sh
# Gymnasium's two vector environments of CartPole-v1, made by the same `make_vec` call, reset differently.
#
# `vectorization_mode="sync"` takes a list with a seed for each environment, and with the option "reset_mask" it resets
# only the chosen ones. `vectorization_mode="vector_entry_point"`, the class that is CartPole written on arrays, wants
# one integer (a list is an error) and ignores "reset_mask": every environment begins anew, also those in the middle of
# an episode. With the same integer the two begin from different states. Both say AutoresetMode.NEXT_STEP in their
# metadata. So neither per-environment seeds nor a partial reset can be assumed of a VectorEnv.
#
# Run by hand: sh findings/gymnasium_cartpole_vector_reset.sh. It fails where the behavior has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check 'gymnasium==1.4.0' 'numpy==2.4.6' 2>/dev/null
cat > resets.py <<'PY'
"""A list of seeds, a partial reset, and one seed, on both."""

import gymnasium
import numpy as np

print("gymnasium", gymnasium.__version__, "numpy", np.__version__)
FIRST = np.array([True, False, False])


def seeds(env):
    try:
        env.reset(seed=[1, 2, 3])
    except gymnasium.error.Error as error:
        return f"refused: {error}"
    return "taken"


def rows_that_begin_anew(env):
    before = env.reset(seed=1)[0].copy()
    after = env.reset(options={"reset_mask": FIRST.copy()})[0]
    return (before != after).any(axis=1).tolist()


found = {}
for mode in ("sync", "vector_entry_point"):
    env = gymnasium.make_vec("CartPole-v1", 3, vectorization_mode=mode)
    found[mode] = (seeds(env), rows_that_begin_anew(env), env.reset(seed=1)[0])
    print(f"{mode}: a list of seeds is {found[mode][0]}; after a reset of the first row alone, new: {found[mode][1]}")
same = bool((found["sync"][2] == found["vector_entry_point"][2]).all())
print("the same first observations from seed 1:", same)
expected = (
    found["sync"][:2] == ("taken", [True, False, False])
    and found["vector_entry_point"][0].startswith("refused")
    and found["vector_entry_point"][1] == [True, True, True]
    and not same
)
if not expected:
    raise SystemExit("the behavior has changed")
print("as described")
PY
venv/bin/python resets.py
