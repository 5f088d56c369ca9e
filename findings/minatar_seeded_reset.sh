#!/bin/sh
# MinAtar's `reset(seed=...)` does not begin the same episode each time: the first steps may still repeat the last
# action of the episode before.
#
# MinAtar's actions are sticky: with a probability of 0.1 the action before is played again. That action outlives a
# reset. So where the seed makes the first step (or the first few) sticky, about one seed in ten, the episode depends on
# what was played before the reset, and with one seed there are as many episodes as actions. Freeway alone does not
# show it in the observations below. A new environment with the same seed begins with action 0 in that place: replays,
# tests of determinism and evaluations on fixed seeds agree nine times in ten.
#
# Run by hand: sh findings/minatar_seeded_reset.sh. It fails where the behavior has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check 'MinAtar==1.0.15' 'gymnasium==1.4.0' 'numpy==2.4.6' \
  2>/dev/null
cat > seeds.py <<'PY'
"""For each game and seed: the same episode after each action that may have been played before the reset."""

from importlib.metadata import version

import gymnasium
import minatar.gym

for package in ("MinAtar", "gymnasium", "numpy"):
    print(package, version(package))
minatar.gym.register_envs()
SEEDS = 100


def episode(env, before, seed):
    env.reset(seed=1000)
    env.step(before)
    seen = [env.reset(seed=seed)[0].tobytes()]
    for _ in range(20):
        obs, _, terminated, _, _ = env.step(0)
        seen.append(obs.tobytes())
        if terminated:
            break
    return tuple(seen)


found = {}
for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"):
    env = gymnasium.make(f"MinAtar/{game}-v1", disable_env_checker=True)
    actions = range(env.action_space.n)
    found[game] = sum(len({episode(env, before, seed) for before in actions}) > 1 for seed in range(SEEDS))
    print(f"{game}: {found[game]} of {SEEDS} seeds give another episode after another action")
if not all(5 <= found[game] <= 15 for game in found if game != "Freeway"):
    raise SystemExit("the behavior has changed")
print("as described")
PY
venv/bin/python seeds.py 2>/dev/null
