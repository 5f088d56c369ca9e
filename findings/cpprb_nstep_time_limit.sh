#!/bin/sh
# cpprb's n-step transitions at the end of an episode that a time limit ended: the next observation is all ones.
#
# `on_episode_end` is for that case: its documentation says that an episode may be ended at some length without a flag
# `done`. The last n - 1 transitions get their shorter sums of rewards, but their next observation is not the one after
# the last step: it is filled with ones, and `done` stays 0. A target that bootstraps where `done` is 0 takes the value
# of an observation that never was, and nothing says how many steps a row spans, so its discount is not known either.
# Where the episode terminates, `done` is 1 and the same ones do no harm.
#
# Run by hand: sh findings/cpprb_nstep_time_limit.sh. It fails where the behavior has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check 'cpprb==11.0.0' 'numpy==2.4.6' 2>/dev/null
cat > limit.py <<'PY'
"""An episode of four steps that counts from 0 to 4, cut off by its limit, in transitions of three steps."""

from importlib.metadata import version

from cpprb import ReplayBuffer

print("cpprb", version("cpprb"), "numpy", version("numpy"))
fields = {"obs": {}, "rew": {}, "next_obs": {}, "done": {}}
buffer = ReplayBuffer(16, fields, Nstep={"size": 3, "gamma": 0.5, "rew": "rew", "next": "next_obs"})
for step in range(4):
    buffer.add(obs=step, rew=1.0, next_obs=step + 1, done=0.0)
buffer.on_episode_end()
stored = {name: column.ravel().tolist() for name, column in buffer.get_all_transitions().items()}
for name, column in stored.items():
    print(f"{name}: {column}")
print("right would be next_obs: [3.0, 4.0, 4.0, 4.0]")
expected = {
    "obs": [0.0, 1.0, 2.0, 3.0],
    "rew": [1.75, 1.75, 1.5, 1.0],
    "next_obs": [3.0, 4.0, 1.0, 1.0],
    "done": [0.0, 0.0, 0.0, 0.0],
}
if stored != expected:
    raise SystemExit("the behavior has changed")
print("as described")
PY
venv/bin/python limit.py
