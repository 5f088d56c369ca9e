#!/bin/sh
# Minari's text of a space with infinite bounds, which it keeps in a data set's metadata as JSON, is not JSON.
#
# CartPole's observations have no bound on two of their four numbers. `serialize_space` gives them as bare -Infinity and
# Infinity, which Python's json module writes and reads by default and RFC 8259 does not know: a strict parser refuses
# the whole text, so that the spaces of a data set of CartPole or of a MuJoCo task cannot be read
# outside Python (JavaScript's JSON.parse stops at the first of them, here at a minus sign without digits). Nothing
# warns when the text is made, and Minari itself reads it back.
#
# Run by hand: sh findings/minari_space_not_json.sh. It needs Node.js for the second half, and fails where the behavior
# has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check 'minari==0.5.4' 'gymnasium==1.3.0' 'h5py==3.16.0' 2>/dev/null
cat > space.py <<'PY'
"""CartPole's observation space as text, read by Python as it is and strictly."""

import json
from importlib.metadata import version
from pathlib import Path

import gymnasium as gym
from minari.serialization import deserialize_space, serialize_space

print("minari", version("minari"), "gymnasium", version("gymnasium"))
space = gym.make("CartPole-v1").observation_space
text = serialize_space(space)
Path("space.json").write_text(text)
print("text:", text)
print("Minari reads it back:", deserialize_space(text) == space)


def refuse(name):
    raise ValueError(f"{name} is no JSON")


try:
    json.loads(text, parse_constant=refuse)
except ValueError as error:
    print("a strict reader:", error)
else:
    raise SystemExit("the behavior has changed")
if "Infinity" not in text or deserialize_space(text) != space:
    raise SystemExit("the behavior has changed")
PY
venv/bin/python space.py
if command -v node > /dev/null; then
  node -p '"node " + process.version'
  if node -e 'JSON.parse(require("fs").readFileSync("space.json", "utf8"))' 2> error.txt; then
    echo "the behavior has changed"
    exit 1
  fi
  grep SyntaxError error.txt
fi
echo "as described"
