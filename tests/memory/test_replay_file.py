"""A replay memory in a file of its own, which checkpoints refer to: what is there again, and what is refused."""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from gymnasium import spaces

from shoal.memory.reader import Prioritized, Reader
from shoal.memory.replay import ReplayMemory
from shoal.memory.replay_steps import StepArrays
from shoal.types import ConfigError, Spec

if TYPE_CHECKING:
    from pathlib import Path

SPEC = Spec.of("Test-v0", spaces.Box(-1e6, 1e6, (1,), np.float32), spaces.Discrete(3))
STACKS = replace(Spec.of("Test-v0", spaces.Box(-1e6, 1e6, (3, 1), np.float32), spaces.Discrete(3)), frame_stack=3)


def steps(first: int, count: int, frames: int = 1) -> StepArrays:
    """Steps of one endless episode; step t sees t (and what came before it)."""
    number = np.arange(first, first + count, dtype=np.float32).reshape(count, 1)
    flags = np.zeros((count, 1), np.bool_)
    obs = number[..., None]
    if frames > 1:
        obs = number[..., None, None] + np.arange(1 - frames, 1, dtype=np.float32)[:, None]
    return StepArrays(obs, number.astype(np.int64) % 3, number, flags, flags, version=number.astype(np.int32))


def drawn(reader: Reader, batches: int = 30) -> set[int]:
    """The numbers of the steps that are drawn; each goes to the next one."""
    found: set[int] = set()
    for _ in range(batches):
        batch = reader.sample()
        assert (batch.next_obs[:, -1] == batch.obs[:, -1] + 1).all()
        found |= set(batch.version.tolist())
    return found


@pytest.mark.parametrize("prioritized", [None, Prioritized()])
@pytest.mark.parametrize("frames", [1, 3])
def test_what_was_overwritten_since_the_checkpoint_is_gone(
    tmp_path: Path, frames: int, prioritized: Prioritized | None
) -> None:
    """A ring of 32: at the checkpoint it held records to 49, and 7 more came. Restoring twice is the same."""
    spec = SPEC if frames == 1 else STACKS
    memory = ReplayMemory(spec, 1, capacity=32, file=tmp_path / "replay")
    lead = frames - 1  # records of the frames before the first step's
    memory.insert_steps(steps(0, 50 - lead, frames))
    reader = Reader(memory, batch_size=64, prioritized=prioritized)
    assert drawn(reader) == set(range(18, 49 - lead))
    state = deepcopy({"memory": memory.state(), "reader": reader.state()})
    assert state["memory"]["chunks"].arrays == {}
    assert state["memory"]["loose"].size == 0
    memory.insert_steps(steps(50 - lead, 7, frames))
    for _ in range(2):
        memory = ReplayMemory(spec, 1, capacity=32, file=tmp_path / "replay")
        reader = Reader(memory, batch_size=64, prioritized=prioritized)
        memory.restore(state["memory"])
        assert memory.gone is not None
        assert memory.gone.sum() == 7
        reader.restore(state["reader"])
        assert drawn(reader) == set(range(18 + 7, 49 - lead))
    memory.insert_steps(steps(50 - lead, 40, frames))
    assert drawn(reader) == set(range(58, 89 - lead))


def test_what_was_not_overwritten_goes_on_exactly(tmp_path: Path) -> None:
    """Steps after the checkpoint are done again; the draws are those of the run that was not stopped."""
    files: list[Any] = [tmp_path / "replay", None]
    draws: list[Any] = []
    for file in files:
        memory = ReplayMemory(SPEC, 1, capacity=64, file=file)
        memory.insert_steps(steps(0, 30))
        reader = Reader(memory, batch_size=16, prioritized=Prioritized())
        reader.sample()
        if file is not None:
            state = deepcopy({"memory": memory.state(), "reader": reader.state()})
            memory.insert_steps(steps(900, 20))
            memory = ReplayMemory(SPEC, 1, capacity=64, file=file)
            reader = Reader(memory, batch_size=16, prioritized=Prioritized())
            memory.restore(state["memory"])
            reader.restore(state["reader"])
        memory.insert_steps(steps(30, 20))
        draws.append([reader.sample().key.tolist() for _ in range(20)])
        assert drawn(reader) == set(range(49))
    assert draws[0] == draws[1]


def test_other_and_damaged_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "replay"
    memory = ReplayMemory(SPEC, 1, capacity=32, file=file)
    memory.insert_steps(steps(0, 50))
    state = deepcopy(memory.state())
    with pytest.raises(ConfigError, match=r"is in the file replay; set replay.file to true"):
        ReplayMemory(SPEC, 1, capacity=32).restore(state)
    other = ReplayMemory(SPEC, 1, capacity=32, file=tmp_path / "other")
    with pytest.raises(ConfigError, match=r"is in the file replay, this run's in other"):
        other.restore(state)
    fewer = ReplayMemory(SPEC, 1, capacity=32, file=tmp_path / "fewer" / "replay")
    fewer.insert_steps(steps(0, 40))
    with pytest.raises(ConfigError, match=r"ends at record 40 of row 0, the checkpoint at 50"):
        fewer.restore(state)
    memory.ring[0, 45 % 32, 0] = 2 * 13 + 2
    with pytest.raises(ConfigError, match=r"is damaged: in the place of record 45 of row 0 is an older one"):
        memory.restore(state)


def test_a_checkpoint_without_a_file_is_copied_into_one(tmp_path: Path) -> None:
    memory = ReplayMemory(SPEC, 1, capacity=32)
    memory.insert_steps(steps(0, 50))
    into = ReplayMemory(SPEC, 1, capacity=32, file=tmp_path / "replay")
    into.restore(memory.state())
    assert drawn(Reader(into, batch_size=64)) == set(range(18, 49))


def test_a_cleared_memory_holds_nothing(tmp_path: Path) -> None:
    memory = ReplayMemory(SPEC, 1, capacity=32, file=tmp_path / "replay")
    memory.insert_steps(steps(0, 50))
    memory.clear()
    assert len(memory) == memory.num_inserted == 0
    memory.insert_steps(steps(7, 5))
    assert drawn(Reader(memory, batch_size=64)) == {7, 8, 9, 10}


@pytest.mark.parametrize("place", ["heap", "shared", "file"])
def test_what_does_not_fit_is_refused_before_it_is_made(tmp_path: Path, place: str) -> None:
    """2^35 records: more than any memory, and more than the disk has."""
    where: dict[str, Any] = {}
    if place == "shared":
        where = {"fd": os.memfd_create("shoal-replay")}
    if place == "file":
        where = {"file": tmp_path / "replay"}
    with pytest.raises(ConfigError, match=r"GiB.* set capacity to less"):
        ReplayMemory(SPEC, 1, capacity=2**35, **where)
    if place == "shared":
        assert os.fstat(where["fd"]).st_size == 0
        os.close(where["fd"])
    if place == "file":
        assert not where["file"].exists()
