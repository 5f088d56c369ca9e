#!/bin/sh
# Minari's DataCollector stores what `step` returned by reference: an environment that writes its observations into one
# array of its own, and a policy that writes its actions into one, get their last values in every row of the dataset.
#
# Such an environment is valid, and every loop that uses an observation before the next step sees the right ones. In
# the dataset all observations of an episode are its last one and all actions are the last one, beside rewards that are
# right: nothing refuses it, and what is learned from such a dataset is wrong.
#
# Run by hand: sh findings/minari_collector_keeps_references.sh. It fails where the behavior has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check 'minari[hdf5,create]==0.5.4' 'gymnasium==1.4.0' \
  'numpy==2.4.6' 'h5py==3.16.0' 'pillow==12.3.0' 'jax==0.10.2' 2>/dev/null
cat > collect.py <<'PY'
"""An environment that counts to 4 in one array, and one that returns a new array each time, collected alike."""

import warnings
from importlib.metadata import version

import gymnasium
import minari
import numpy as np

warnings.simplefilter("ignore")
print("minari", version("minari"), "gymnasium", gymnasium.__version__, "numpy", np.__version__)


class Counting(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 4, (1,), np.float32)
    action_space = gymnasium.spaces.Box(0, 4, (1,), np.float32)
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
        return self.seen(), float(self.count[0]), False, bool(self.count[0] == 4), {}


class Fresh(Counting):
    new_array = True


def collect(kind):
    collector = minari.DataCollector(kind())
    collector.reset(seed=0)
    action = np.zeros(1, np.float32)
    for step in range(4):
        action[:] = step
        collector.step(action.copy() if kind.new_array else action)
    episode = collector.create_dataset(dataset_id=f"counting/{kind.__name__.lower()}-v0")[0]
    return [column.ravel().tolist() for column in (episode.observations, episode.actions, episode.rewards)]


found = {kind.__name__: collect(kind) for kind in (Fresh, Counting)}
for name, title in (("Fresh", "a new array each time"), ("Counting", "one array for all")):
    observations, actions, rewards = found[name]
    print(f"{title}: observations {observations}, actions {actions}, rewards {rewards}")
rewards = [1.0, 2.0, 3.0, 4.0]
if found != {
    "Fresh": [[0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.0, 3.0], rewards],
    "Counting": [[4.0] * 5, [3.0] * 4, rewards],
}:
    raise SystemExit("the behavior has changed")
print("as described")
PY
MINARI_DATASETS_PATH="$folder/datasets" venv/bin/python collect.py 2>/dev/null
