"""Kills a process that saves all the time at random moments: what is found is the old checkpoint or the new, whole.

    python -m benchmarks.kill_checkpoints [--rounds N] [--seed S] [--result FILE]

A child goes on from the newest checkpoint, changes its state and saves, again and again: half of the rounds with
snapshots that are copied, half with a forked child of its own. It says which checkpoint is safe; SIGKILL comes at a
random moment. Then the newest that loads must be that one or one begun after it, hold exactly the state that an
uninterrupted process has there, and no damaged one may be met on the way. The next child goes on from it. Appends a
line to benchmarks/results/kill_checkpoints.jsonl; exits 1 where a round broke the promise.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import machine
from shoal.memory.pieces import Pieces
from shoal.run import snapshot
from shoal.run.checkpoint import Checkpoint, load
from shoal.run.writer import Writer

RESULT = Path(__file__).parent / "results" / "kill_checkpoints.jsonl"
KIND = {"env": "none", "algo": "none"}
SIZE, PIECE = 200_000, 25
MEAN_S = 0.3
"""Mean seconds from the first save of a child until it is killed."""


@dataclass
class State:
    """A state of which every step depends on all the steps before."""

    updates: int
    weights: np.ndarray[Any, np.dtype[np.uint64]]
    moments: torch.Tensor
    rows: list[int]

    def step(self) -> None:
        """The next state; integers wrap around."""
        self.updates += 1
        self.weights *= np.uint64(6364136223846793005)
        self.weights += np.uint64(self.updates)
        self.moments.mul_(31).add_(self.updates)
        self.rows.append(int(self.weights[-1] % np.uint64(1000)))

    def parts(self) -> dict[str, object]:
        """The parts that a checkpoint holds: one that changes, one that never does, an append-only one."""
        full = len(self.rows) // PIECE * PIECE
        pieces = {str(i): np.array(self.rows[i : i + PIECE]) for i in range(0, full, PIECE)}
        return {
            "learner": {"weights": self.weights, "moments": self.moments},
            "frozen": np.arange(SIZE),
            "memory": {"rows": Pieces(pieces), "last": self.rows[full:]},
            "run": {"updates": self.updates},
        }

    def equals(self, found: Checkpoint) -> bool:
        """Whether a checkpoint holds exactly this state."""
        other = restored(found)
        same = self.updates == other.updates == found.updates and self.rows == other.rows
        same = same and np.array_equal(found.tree["frozen"], np.arange(SIZE))
        return same and np.array_equal(self.weights, other.weights) and torch.equal(self.moments, other.moments)


def first() -> State:
    """Where every process begins."""
    return State(0, np.arange(SIZE, dtype=np.uint64), torch.arange(SIZE), [])


def restored(found: Checkpoint) -> State:
    """The state that a checkpoint holds."""
    learner, memory = found.tree["learner"], found.tree["memory"]
    rows = [int(row) for piece in memory["rows"].arrays.values() for row in piece]
    return State(found.tree["run"]["updates"], learner["weights"], learner["moments"], rows + memory["last"])


def save_forever(folder: Path, pipe: int, *, forked: bool) -> None:
    """Goes on from the newest checkpoint; writes the number of each one that is safe to the pipe."""
    snapshot.COPY_BYTES = 0 if forked else 1 << 30
    saves = Writer(folder, kind=KIND, keep_last=3)
    found = saves.load()
    state = first() if found is None else restored(found)
    while True:
        safe = state.updates
        state.step()
        saves.save(state.parts(), updates=state.updates, best=state.updates % 3 == 0)
        os.write(pipe, safe.to_bytes(8, "little"))


def kill_one(folder: Path, wait_s: float, *, forked: bool) -> int:
    """Starts a child, kills it `wait_s` after its first save; the last checkpoint that it called safe."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            save_forever(folder, writer, forked=forked)
        except BaseException as error:
            print(f"the child failed: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)
    os.close(writer)
    said = os.read(reader, 8)
    time.sleep(wait_s)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    while more := os.read(reader, 1 << 16):
        said += more
    os.close(reader)
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        raise AssertionError("the child ended before it was killed")
    return int.from_bytes(said[-8:], "little")


def kill_all(folder: Path, rounds: int, seed: int) -> Counter[str]:
    """Kills `rounds` children; counts of what was found. AssertionError where the promise is broken."""
    rng, counts = np.random.default_rng(seed), Counter[str]()
    expected = first()
    for number in range(rounds):
        forked = bool(number % 2)
        safe = kill_one(folder, rng.exponential(MEAN_S), forked=forked)
        counts["forked" if forked else "copied"] += 1
        counts["drafts left"] += any(folder.glob(".*"))
        found = load(folder, kind=KIND)
        if found is None:
            assert safe == 0, f"round {number}: checkpoint {safe} was safe, and there is none"
            continue
        # One more may be whole before the child could say that the one under way is safe.
        assert safe <= found.updates <= safe + 2, f"round {number}: {safe} was safe, found {found.updates}"
        assert not found.warnings, f"round {number}: {found.warnings}"
        while expected.updates < found.updates:
            expected.step()
        assert expected.equals(found), f"round {number}: checkpoint {found.updates} holds another state"
        counts["the old one" if found.updates == safe else "the new one"] += 1
        best = load(folder, kind=KIND, tag="best")
        assert best is None or (best.updates % 3 == 0 and not best.warnings), f"round {number}: best"
    counts["checkpoints"] = expected.updates
    return counts


def main() -> None:
    """Runs and writes the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)  # a forked child has none of torch's threads
    begun, mistake, counts = time.monotonic(), "", Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        try:
            counts = kill_all(Path(folder), args.rounds, args.seed)
        except AssertionError as error:
            mistake = str(error)
    line: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "seed": args.seed, "rounds": args.rounds}
    line |= {"counts": dict(sorted(counts.items())), "seconds": round(time.monotonic() - begun, 1)}
    line |= {"mistake": mistake, "machine": machine.describe(), "versions": machine.versions()}
    with args.result.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line))
    sys.exit(bool(mistake))


if __name__ == "__main__":
    main()
