"""A replay memory of Atari stacks: bytes for each, and how fast they go in and come out.

    python -m benchmarks.replay_stacks [--capacity N] [--steps S] [--file FOLDER]

First S steps of Pong on 8 rows under random actions go into a memory of N records: how many records they take (a frame
each, and more where episodes begin and end). Then the same block is inserted until the memory is full, and what the
process has grown by is counted. A record of a stack of 4 x 84 x 84 bytes is 7,056 bytes of its newest frame, and 32 of
its sequence number, reward, version, flags and action: 1,000,000 are 6.60 GiB; stored whole, observation and next
observation, they would be 52.6 GiB. Adds a line to benchmarks/results/replay_stacks.jsonl.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from benchmarks import machine
from shoal.envs.registry import make
from shoal.memory.reader import Prioritized, Reader
from shoal.memory.replay import ReplayMemory
from shoal.memory.replay_steps import StepArrays, WholeSteps
from shoal.run.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULT = Path(__file__).parent / "results" / "replay_stacks.jsonl"
GAME, ACTIONS, ROWS, BLOCK, BATCH = "ALE/Pong-v5", 6, 8, 128, 256
BAR = 8 * 2**30
MILLION = 1_000_000


def blocks(env: Any, count: int) -> Iterator[StepArrays]:
    """So many blocks of steps of the game under random actions."""
    rng = np.random.default_rng(0)
    env.reset(0)
    ready = env.recv()
    for _ in range(count):
        obs, flags, finals = [], [], []
        action = rng.integers(0, ACTIONS, (BLOCK, ROWS))
        for t in range(BLOCK):
            obs.append(np.array(ready.obs))
            env.send(slice(0, ROWS), action[t])
            ready = env.recv()
            ended = ready.terminated | ready.truncated
            flags.append((ready.reward.copy(), ready.terminated.copy(), ready.truncated.copy()))
            finals.append(np.array(ready.final_obs)[ended])
        reward, terminated, truncated = (np.array(column) for column in zip(*flags, strict=True))
        yield StepArrays(np.array(obs), action, reward, terminated, truncated, np.concatenate(finals))


def saved(memory: ReplayMemory, folder: Path) -> dict[str, Any]:
    """What two checkpoints of a memory and its reader cost."""
    reader = Reader(memory, batch_size=BATCH, prioritized=Prioritized())
    reader.sample()
    writer = Writer(folder, kind={}, keep_last=1)
    waits: list[float] = []
    written: list[float] = []
    for updates in (1, 2):
        start = time.perf_counter()
        writer.save({"memory": memory.state(), "reader": reader.state()}, updates=updates)
        waits.append(round(time.perf_counter() - start, 4))
        writer.wait()
        written.append(round(time.perf_counter() - start, 4))
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"waits_s": waits, "written_s": written, "checkpoint_mib": round(size / 2**20, 2)}


def measure(capacity: int, steps: int, folder: Path | None) -> dict[str, Any]:
    """What the memory took, and how fast it was."""
    env = make(GAME, ROWS, num_threads=1)
    before = psutil.Process().memory_info().rss
    file = None if folder is None else folder / "replay.bin"
    memory = ReplayMemory(env.spec, ROWS, capacity=capacity, file=file)
    last: deque[WholeSteps] = deque(maxlen=4)
    for block in blocks(env, max(1, steps // (BLOCK * ROWS))):
        last.append(WholeSteps(memory.form, block))
        memory.insert(last[-1])
    env.close()
    inserted, records = memory.num_inserted, int(memory.heads[:, 0].sum())
    count, start = 0, time.perf_counter()
    while len(memory) < memory.num_rows * memory.slots:
        count += memory.insert(last[count // (BLOCK * ROWS) % len(last)])
    spent = time.perf_counter() - start
    last.clear()
    grown = psutil.Process().memory_info().rss - before
    reader = Reader(memory, batch_size=BATCH)
    batches, began = 0, time.perf_counter()
    while time.perf_counter() - began < 3:
        reader.sample()
        batches += 1
    seconds = time.perf_counter() - began
    costs: dict[str, Any] = {}
    if folder is not None:
        (folder / "checkpoints").mkdir()
        costs = saved(memory, folder / "checkpoints")
    slot = 8 * memory.ring.shape[2]
    per_step = slot * records / inserted
    return {
        "capacity": capacity,
        "steps_played": inserted,
        "records_per_step": round(records / inserted, 4),
        "bytes_per_record": slot,
        "bytes_per_step": round(per_step, 1),
        "gib_of_a_million": round(MILLION * per_step / 2**30, 3),
        "bar_gib": BAR / 2**30,
        "held": len(memory),
        "block_gib": round(memory.block.nbytes / 2**30, 3),
        "grown_gib": round(grown / 2**30, 3),
        "inserts_per_s": round(count / spent),
        "batches_per_s": round(batches / seconds),
        **costs,
    }


def main() -> None:
    """Measures, prints and appends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capacity", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--file", type=Path, help="keep the memory in a file in this folder; it is deleted at the end")
    given = parser.parse_args()
    line = {"date": time.strftime("%Y-%m-%d %H:%M"), "machine": machine.describe()}
    if given.file is None:
        line |= measure(given.capacity, given.steps, None)
    else:
        with tempfile.TemporaryDirectory(dir=given.file) as folder:
            line |= measure(given.capacity, given.steps, Path(folder))
    print(json.dumps(line, indent=1))
    with RESULT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
