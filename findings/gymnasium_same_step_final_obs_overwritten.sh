#!/bin/sh
# Gymnasium's vector environments with AutoresetMode.SAME_STEP hand over the wrong last observation of an episode where
# the environment writes its observations into one array of its own.
#
# Such an environment is valid: in every other mode, and in a plain loop, what `step` returns is copied before the
# environment is called again (`copy=True` promises it for the batch). With SAME_STEP the environment is reset first,
# and only then is the last observation put into `infos["final_obs"]`: it shows the first observation of the next
# episode. What is learned at a truncation bootstraps from it, so the values are wrong without a word.
#
# Run by hand: sh findings/gymnasium_same_step_final_obs_overwritten.sh. It fails where the behavior has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check 'gymnasium==1.4.0' 'numpy==2.4.6' 2>/dev/null
cat > counting.py <<'PY'
"""An environment that counts to 3 in one array, and one that returns a new array each time."""

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv


class Counting(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 3, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    new_array = False

    def __init__(self):
        self.count = np.zeros(1, np.float32)

    def seen(self):
        return self.count.copy() if self.new_array else self.count

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count[:] = 0
        return self.seen(), {}

    def step(self, action):
        self.count += 1
        return self.seen(), 1.0, False, bool(self.count[0] == 3), {}


class Fresh(Counting):
    new_array = True


def last_observation(kind):
    rows = SyncVectorEnv([kind], autoreset_mode=AutoresetMode.SAME_STEP)
    rows.reset(seed=0)
    for _ in range(3):
        *_, infos = rows.step(np.zeros(1, np.int64))
    return float(infos["final_obs"][0][0])


print("gymnasium", gymnasium.__version__, "numpy", np.__version__)
found = {kind.__name__: last_observation(kind) for kind in (Fresh, Counting)}
print("the last observation is 3; final_obs with a new array each time:", found["Fresh"])
print("final_obs with one array for all:", found["Counting"])
if found != {"Fresh": 3.0, "Counting": 0.0}:
    raise SystemExit("the behavior has changed")
print("as described")
PY
venv/bin/python counting.py
