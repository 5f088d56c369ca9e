#!/bin/sh
# PettingZoo's classic games of turns: what `observe` puts into "action_mask" for a player who is not to move.
#
# In tictactoe, connect_four, chess, go and hanabi that player's mask is all zeros. In the games made from RLCard
# (leduc_holdem, texas_holdem) it is the mover's own mask, option for option: both players seem to have a choice, and in
# games of hidden information the waiting player is told what the other one may do. Code that reads "who may act" out of
# the masks is right in the first games and wrong in the second; `agent_selection` is right in all of them.
#
# Run by hand: sh findings/pettingzoo_mask_of_waiting_player.sh. It fails where the behavior has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check 'pettingzoo[classic]==1.27.0' 'gymnasium==1.4.0' \
  'rlcard==1.2.0' 'numpy==2.4.6' 2>/dev/null
cat > masks.py <<'PY'
"""For each game, before each of three moves: options of the mover, options shown to the one who waits."""

import importlib
import importlib.metadata
import warnings

import numpy as np

warnings.simplefilter("ignore")
EMPTY = ["tictactoe_v3", "connect_four_v3", "go_v5", "chess_v6", "hanabi_v5"]
MOVERS = ["leduc_holdem_v4", "texas_holdem_v4"]


def look(name):
    env = importlib.import_module("pettingzoo.classic." + name).env()
    env.reset(seed=1)
    seen = []
    for _ in range(3):
        mover = env.agent_selection
        waiting = next(agent for agent in env.agents if agent != mover)
        theirs = np.asarray(env.observe(mover)["action_mask"])
        other = np.asarray(env.observe(waiting)["action_mask"])
        seen.append((int(theirs.sum()), int(other.sum()), bool((theirs == other).all())))
        env.step(int(np.flatnonzero(theirs)[0]))
    return seen


for package in ("pettingzoo", "rlcard", "gymnasium", "numpy"):
    print(package, importlib.metadata.version(package))
changed = False
for name in EMPTY + MOVERS:
    seen = look(name)
    same = all(equal for _, _, equal in seen)
    nothing = all(other == 0 for _, other, _ in seen)
    counts = ", ".join(f"{theirs} and {other}" for theirs, other, _ in seen)
    print(f"{name}: options of the mover and of the one who waits: {counts}" + ("; the same mask" if same else ""))
    changed |= not (same if name in MOVERS else nothing)
if changed:
    raise SystemExit("the behavior has changed")
print("as described: RLCard's games show the mover's mask to the player who waits, the others show none")
PY
venv/bin/python masks.py 2>/dev/null
