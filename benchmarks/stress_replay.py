"""A replay memory under stress: processes write and read one small memory, and every record that is read is checked.

    python -m benchmarks.stress_replay [--minutes M] [--writers W] [--readers R] [--unchecked]

Capacity 1,024 records in shared memory, one row for each writing process. All numbers of a record follow from its row
and its number in the row: a transition that mixes two records, or joins a step to what did not follow it, is found.
Episodes end by termination and by a time limit at places that follow from the number as well. Half of the readers draw
by priorities. `--unchecked` turns off the sequence check of the readers: then it must fail within seconds. Adds a line
to benchmarks/results/stress_replay.jsonl; exits 1 where a record was torn.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from benchmarks import machine
from shoal.memory.reader import Prioritized, Reader
from shoal.memory.replay import ReplayMemory
from shoal.memory.replay_steps import StepArrays
from shoal.types import Spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Event

    from numpy.typing import NDArray

    Stop = Event | threading.Event
    Told = Queue["Counts"] | SimpleQueue["Counts"]

RESULT = Path(__file__).parent / "results" / "stress_replay.jsonl"
CAPACITY, NUMBERS, STEPS, BATCH, N_STEP, GAMMA = 1_024, 24, 20, 256, 3, 0.5
EPISODE = 13
"""Steps of an episode; every other one is cut off by a time limit."""
SPAN = 2**40
GRACE_S = 20.0


class UncheckedReader(Reader):
    """Takes records as they are, torn ones too."""

    checked = False


@dataclass(frozen=True, slots=True)
class Counts:
    """What a process did."""

    role: str
    count: int
    retries: int = 0
    torn: int = 0
    first_torn: str = ""


def spec() -> Spec:
    """Observations of one number in many places, and an action with the same."""
    observation = spaces.Box(-np.inf, np.inf, (NUMBERS,), np.float64)
    return Spec.of("Stress-v0", observation, spaces.Box(-np.inf, np.inf, (3,), np.float32))


def observation_of(row: int, step: NDArray[np.int64]) -> NDArray[np.float64]:
    """What a row sees at its step number so and so [..., NUMBERS]: other numbers in every place, all from the one."""
    base = (row * SPAN + step).astype(np.float64)
    return base[..., None] * 64 + np.arange(NUMBERS)


def write(memory: ReplayMemory, row: int, stop: Stop, counts: Told) -> None:
    """Inserts steps of one row, as fast as it can."""
    step = 0
    while not stop.is_set():
        numbers = np.arange(step, step + STEPS).reshape(STEPS, 1)
        last = numbers % EPISODE == EPISODE - 1
        cut = last & (numbers // EPISODE % 2 == 1)
        # The final observation is the next step's in all places but the first, which is less by a half.
        final = observation_of(row, numbers[last] + 1)
        final[:, 0] -= 0.5
        steps = StepArrays(
            obs=observation_of(row, numbers),
            action=np.repeat((numbers % 2**20).astype(np.float32)[..., None], 3, axis=-1),
            reward=(numbers % 2**12).astype(np.float32),
            terminated=last & ~cut,
            truncated=cut,
            final_obs=final,
            version=(numbers % 2**31).astype(np.int32),
        )
        memory.insert_steps(steps, first_row=row)
        step += STEPS
    counts.put(Counts("writer", step))


def read(memory: ReplayMemory, seed: int, stop: Stop, counts: Told, *, checked: bool) -> None:
    """Samples and checks transitions until it is stopped, or one is torn."""
    how = Prioritized() if seed % 2 else None
    kind = Reader if checked else UncheckedReader
    reader = kind(memory, batch_size=BATCH, n_step=N_STEP, gamma=GAMMA, seed=seed, prioritized=how)
    rng = np.random.default_rng(seed)
    count = waits = 0
    torn: list[str] = []
    while not stop.is_set() and not torn:
        try:
            batch = reader.sample()
        except RuntimeError:
            waits += 1
            continue
        torn = mistakes(batch)
        count += BATCH
        if how is not None:
            reader.prioritize(batch.key, rng.random(BATCH).astype(np.float32))
    role = "prioritized reader" if how else "uniform reader"
    counts.put(Counts(role, count, reader.overwritten + waits, len(torn), torn[0] if torn else ""))


def mistakes(batch: Any) -> list[str]:
    """A sentence for each transition of a batch that no row has made."""
    obs, after = batch.obs.numpy(), batch.next_obs.numpy()
    row, step = np.divmod(obs[:, 0] / 64, SPAN)
    steps, number = batch.steps.numpy(), step.astype(np.int64)
    end = (number // EPISODE + 1) * EPISODE
    ended = number + steps == end
    cut = number // EPISODE % 2 == 1
    rewards = [np.where(k < steps, (number + k) % 2**12 * GAMMA**k, 0) for k in range(N_STEP)]
    wanted = observation_of(0, number + steps) + (row * SPAN * 64)[:, None]
    wanted[ended, 0] -= 0.5
    good = (obs == observation_of(0, number) + (row * SPAN * 64)[:, None]).all(1)
    good &= (after == wanted).all(1) & (number + steps <= end) & (steps >= 1)
    good &= (batch.action.numpy() == (number % 2**20)[:, None]).all(1)
    good &= batch.version.numpy() == number % 2**31
    good &= batch.reward.numpy() == np.float32(sum(rewards))
    good &= batch.discount.numpy() == np.where(ended & ~cut, 0, GAMMA**steps)
    return [
        f"{obs[at].tolist()} then {after[at].tolist()}, {steps[at]} steps, reward {batch.reward[at]}, "
        f"discount {batch.discount[at]}, version {batch.version[at]}"
        for at in np.flatnonzero(~good)
    ]


def take_role(fd: int, num_rows: int, role: Callable[..., None], *args: Any, **options: Any) -> None:
    """What a process of its own does: it maps the memory and takes its role."""
    role(ReplayMemory(spec(), num_rows, capacity=CAPACITY, fd=fd), *args, **options)


def stress_threads(seconds: float, *, writers: int, readers: int, checked: bool) -> list[Counts]:
    """The same with threads of this process on one memory, where a sanitizer can see both sides."""
    memory = ReplayMemory(spec(), writers, capacity=CAPACITY)
    stop, counts = threading.Event(), SimpleQueue[Counts]()
    roles = [partial(write, memory, row, stop, counts) for row in range(writers)]
    roles += [partial(read, memory, seed, stop, counts, checked=checked) for seed in range(readers)]
    threads = [threading.Thread(target=role) for role in roles]
    for thread in threads:
        thread.start()
    try:
        found = [counts.get(timeout=seconds)]  # of a reader of a torn record
    except Empty:
        found = []
    stop.set()
    for thread in threads:
        thread.join()
    found += [counts.get_nowait() for _ in roles[len(found) :]]
    assert memory.num_inserted == sum(each.count for each in found if each.role == "writer")
    return found


def stress(seconds: float, *, writers: int, readers: int, checked: bool) -> list[Counts]:
    """Runs all processes for so long, or until a record is torn; what each did."""
    context = multiprocessing.get_context("fork")
    fd = os.memfd_create("shoal-stress")
    memory = ReplayMemory(spec(), writers, capacity=CAPACITY, fd=fd)
    stop, counts = context.Event(), context.Queue()
    roles = [partial(take_role, fd, writers, write, row, stop, counts) for row in range(writers)]
    roles += [partial(take_role, fd, writers, read, seed, stop, counts, checked=checked) for seed in range(readers)]
    processes = [context.Process(target=role) for role in roles]
    for process in processes:
        process.start()
    found: list[Counts] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and not found:  # who ends before is a reader of a torn record, or died
        if any(process.exitcode for process in processes):
            break
        try:
            found.append(counts.get(timeout=0.2))
        except Empty:
            continue
    stop.set()
    silent = 0
    while len(found) < len(processes) and silent < 2:
        try:
            found.append(counts.get(timeout=0.5))
        except Empty:
            silent += not any(process.is_alive() for process in processes)
    for process in processes:
        process.join(GRACE_S)
        process.kill()
    os.close(fd)
    if len(found) < len(processes):
        codes = [process.exitcode for process in processes]
        raise RuntimeError(f"of {len(processes)} processes {len(found)} told what they did; exit codes {codes}")
    assert memory.num_inserted == sum(each.count for each in found if each.role == "writer")
    return found


def main() -> None:
    """Runs, prints, appends; the exit code says whether it went as it must."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--unchecked", action="store_true", help="read without the sequence check")
    given = parser.parse_args()
    start = time.monotonic()
    found = stress(60 * given.minutes, writers=given.writers, readers=given.readers, checked=not given.unchecked)
    torn = sum(each.torn for each in found)
    line = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": machine.describe(),
        "seconds": round(time.monotonic() - start, 1),
        "capacity": CAPACITY,
        "checked": not given.unchecked,
        "inserted": sum(each.count for each in found if each.role == "writer"),
        "sampled": sum(each.count for each in found if each.role != "writer"),
        "retries": sum(each.retries for each in found),
        "torn": torn,
        "processes": [asdict(each) for each in found],
    }
    print(json.dumps(line, indent=1))
    with RESULT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    sys.exit(int(torn > 0))


if __name__ == "__main__":
    main()
