#!/bin/sh
# reasoning-gym's items are not functions of seed and index alone, for six of its 105 tasks.
#
# Five walk through sets of strings while they make an item (isomorphic_strings, knight_swap, polynomial_multiplication,
# ransom_note, word_ladder): with the same seed, another process gets other items unless PYTHONHASHSEED is fixed.
# list_functions draws some of its examples from Python's global generator: an item is another one when it is asked for
# again. A run that is resumed by the number of its prompt trains on other prompts than it did, without a sign.
#
# Run by hand: sh findings/reasoning_gym_items_differ.sh. It fails where the behavior has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q --disable-pip-version-check 'reasoning-gym==0.1.25' 2>/dev/null
cat > items.py <<'PY'
"""Prints a digest of the first three items of some tasks, and whether an item is the same when asked for again."""

import hashlib
import warnings

warnings.simplefilter("ignore")
from reasoning_gym.factory import create_dataset  # noqa: E402

for name in ("chain_sum", "isomorphic_strings", "ransom_note", "word_ladder", "polynomial_multiplication"):
    data = create_dataset(name, seed=3, size=500)
    items = str([(data[i]["question"], data[i]["answer"]) for i in range(3)])
    print(name, hashlib.sha256(items.encode()).hexdigest()[:12])
data = create_dataset("list_functions", seed=1, size=500)
again = [i for i in range(16) if data[i]["question"] != data[i]["question"]]
print("list_functions: items", again, "differ from themselves")
PY
PYTHONHASHSEED=1 venv/bin/python items.py > one
PYTHONHASHSEED=2 venv/bin/python items.py > two
paste one two
differing=$(diff one two | grep -c '^<' || true)
grep -q 'items \[[0-9]' one || { echo "list_functions has changed"; exit 1; }
grep -h chain_sum one two | uniq | wc -l | grep -qx 1 || { echo "chain_sum differs too"; exit 1; }
[ "$differing" -ge 4 ] || { echo "only $differing differ: the behavior has changed"; exit 1; }
echo "$differing tasks of 5 have other items in another process"
