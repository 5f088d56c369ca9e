#!/bin/sh
# Gymnasium's HalfCheetah-v5 on MuJoCo 4.0: every `make` prints a warning and appends it to a file in the folder that one
# works in.
#
# The model that Gymnasium ships for it, half_cheetah.xml, uses the compiler's attribute `settotalmass`, which MuJoCo 4.0
# calls deprecated. MuJoCo says so on standard error and in MUJOCO_LOG.TXT, which it makes in the current folder, once for
# each environment: a vector of 64 leaves 64 entries, and only a model of one's own (`xml_file`) avoids it. Of the eleven
# v5 tasks this is the only one; the models of the others leave no file. Nothing is wrong with what is simulated.
#
# Run by hand: sh findings/gymnasium_halfcheetah_writes_a_log.sh. It fails where the behavior has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check \
  'gymnasium[mujoco]==1.4.0' 'mujoco==4.0.0' 'numpy==2.4.6' 2>/dev/null
cat > log.py <<'PY'
"""Which tasks leave MUJOCO_LOG.TXT behind when they are made and closed twice, and how many entries it has."""

from importlib.metadata import version
from pathlib import Path

import gymnasium as gym

TASKS = (
    "Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum", "InvertedPendulum",
    "Pusher", "Reacher", "Swimmer", "Walker2d",
)  # fmt: skip
print("gymnasium", version("gymnasium"), "mujoco", version("mujoco"), "numpy", version("numpy"))
log, entries = Path("MUJOCO_LOG.TXT"), {}
for task in TASKS:
    log.unlink(missing_ok=True)
    for _ in range(2):
        gym.make(f"{task}-v5").close()
    entries[task] = log.read_text().count("settotalmass") if log.exists() else 0
    print(f"{task}-v5: {entries[task]} entries in MUJOCO_LOG.TXT")
if {task: count for task, count in entries.items() if count} != {"HalfCheetah": 2}:
    raise SystemExit("the behavior has changed")
print("as described")
PY
venv/bin/python log.py 2>/dev/null
