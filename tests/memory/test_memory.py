"""The slab of a rollout: one memory for NumPy and torch, final observations kept compactly."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from shoal import _native
from shoal.envs.registry import make as make_env
from shoal.envs.workers.block import Block
from shoal.envs.workers.rows import WorkersEnv
from shoal.envs.workers.settings import Workers
from shoal.memory.slab import BOOLS, FLOATS, Slab, keep_final
from shoal.types import ALIGNMENT, ConfigError, Spec, Steps

CPU = torch.device("cpu")
NESTED = spaces.Dict({"place": spaces.Box(-1, 1, (2,), np.float32), "key": spaces.Discrete(5)})


def make(observation: spaces.Space[Any], action: spaces.Space[Any], num_steps: int = 4, num_rows: int = 3) -> Slab:
    """A slab of a nameless environment."""
    slab = Slab(Spec.of("Test-v0", observation, action), num_steps, num_rows)
    slab.clear()
    return slab


def seen(slab: Slab) -> Steps:
    """The slab as tensors on the CPU."""
    return slab.steps(state=None, device=CPU)


def test_arrays_have_the_shapes_and_dtypes_of_the_spec() -> None:
    """Observations and actions as the spaces say (actions float32 or int64); flags bool; the rest float32."""
    slab = make(spaces.Box(0, 255, (2, 2), np.uint8), spaces.Box(-1, 1, (3,), np.float64))
    assert (slab.obs.shape, slab.obs.dtype) == ((4, 3, 2, 2), np.uint8)
    assert (slab.action.shape, slab.action.dtype) == ((4, 3, 3), np.float32)
    assert make(NESTED, spaces.Discrete(2)).action.dtype == np.int64
    assert make(NESTED, spaces.MultiDiscrete([2, 3])).action.shape == (4, 3, 2)
    for name in BOOLS:
        assert (getattr(slab, name).shape, getattr(slab, name).dtype) == ((4, 3), np.bool_)
    for name in FLOATS:
        assert (getattr(slab, name).shape, getattr(slab, name).dtype) == ((4, 3), np.float32)
    assert slab.valid.all()
    assert (slab.final_index == -1).all()
    assert (slab.episode_return.dtype, slab.episode_length.dtype) == (np.float64, np.int64)


def test_numpy_and_torch_see_one_memory() -> None:
    """What is written to an array is in the tensor, and the other way round; every array starts aligned."""
    slab = make(NESTED, spaces.Discrete(2))
    steps = seen(slab)
    names = (*BOOLS, *FLOATS, "action", "final_index", "version")
    pairs = {name: (getattr(slab, name), getattr(steps, name)) for name in names}
    pairs |= {key: (slab.obs[key], steps.obs[key]) for key in ("place", "key")}
    for name, (array, tensor) in pairs.items():
        assert array.ctypes.data == tensor.data_ptr(), name
        assert array.ctypes.data % ALIGNMENT == 0, name
        array[1, 2] = 1
        assert bool((tensor[1, 2] == 1).all()), name
        tensor[3, 0] = 1
        assert array[3, 0].all(), name


def test_every_array_is_apart() -> None:
    """Filling one array changes no other."""
    slab = make(spaces.Box(-1, 1, (5,), np.float32), spaces.Discrete(2), num_steps=3, num_rows=1)
    names = ("obs", "action", "final_index", *BOOLS, *FLOATS)
    for name in names:
        getattr(slab, name)[...] = 0
    for number, name in enumerate(names):
        getattr(slab, name)[...] = 1
        assert [getattr(slab, other).any() for other in names] == [k <= number for k in range(len(names))]


def test_final_observations_are_compact() -> None:
    """Rows 0 and 2 end at step 1, row 1 at step 3: three final observations, and -1 everywhere else."""
    slab = make(NESTED, spaces.Discrete(2))
    final = {"place": np.arange(6, dtype=np.float32).reshape(3, 2), "key": np.array([7, 8, 9])}
    keep_final(slab, 1, np.array([0, 2]), final, first=0)
    keep_final(slab, 3, np.array([1]), final, first=0)
    steps = seen(slab)
    assert steps.final_index.tolist() == [[-1, -1, -1], [0, -1, 1], [-1, -1, -1], [-1, 2, -1]]
    assert steps.final_obs["place"][:3].tolist() == [[0, 1], [4, 5], [2, 3]]
    assert steps.final_obs["key"][:3].tolist() == [7, 9, 8]
    assert steps.final_obs["key"].data_ptr() == slab.final_obs["key"].ctypes.data
    slab.clear()
    assert (slab.final_index == -1).all()
    keep_final(slab, 0, np.array([1]), final, first=0)
    assert slab.final_index[0].tolist() == [-1, 0, -1]


def test_final_observations_of_a_part_of_the_rows() -> None:
    """Row 1 of a group that begins at row 2 is row 3 of the slab."""
    slab = make(spaces.Discrete(9), spaces.Discrete(2), num_rows=4)
    keep_final(slab, 0, np.array([1]), np.array([5, 6]), first=2)
    steps = seen(slab)
    assert steps.final_index[0].tolist() == [-1, -1, -1, 0]
    assert steps.final_obs[0].tolist() == 6


def test_there_is_room_for_an_end_in_every_step() -> None:
    """T * B final observations fit."""
    slab = make(spaces.Discrete(99), spaces.Discrete(2))
    for t in range(4):
        keep_final(slab, t, np.arange(3), np.array([10 * t, 10 * t + 1, 10 * t + 2]), first=0)
    steps = seen(slab)
    assert steps.final_index.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert steps.final_obs[steps.final_index.long()].tolist() == [[0, 1, 2], [10, 11, 12], [20, 21, 22], [30, 31, 32]]


ROOM = """
from pathlib import Path
import numpy as np
from gymnasium import spaces
from shoal.memory.slab import Slab, keep_final
from shoal.types import Spec

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

slab = Slab(Spec.of("Test-v0", spaces.Box(0, 255, (2**20,), np.uint8), spaces.Discrete(2)), 16, 4)
slab.clear()
before = resident_bytes()
keep_final(slab, 9, np.array([2]), np.ones((4, 2**20), np.uint8), first=0)
print(resident_bytes() - before, slab.final_obs.nbytes)
slab.final_obs[...] = 1
print(resident_bytes() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_room_for_final_observations_costs_nothing_until_it_is_used() -> None:
    """64 MiB of observations take 64 MiB of room for the final ones, but one end touches only its own page.

    In a process of its own: elsewhere memory that was freed may be there already.
    """
    done = subprocess.run([sys.executable, "-c", ROOM], capture_output=True, text=True, check=True)
    touched, room, all_of_it = map(int, done.stdout.split())
    assert touched < 8 * 2**20
    assert room == 64 * 2**20
    assert all_of_it > 60 * 2**20


@pytest.mark.gpu
def test_a_pinned_slab_is_copied_to_the_device() -> None:
    """Page-locked memory; the tensors are on the GPU and equal the arrays."""
    spec = Spec.of("Test-v0", spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(2))
    slab = Slab(spec, 4, 3, pinned=True)
    slab.clear()
    slab.reward[2, 1] = 5
    steps = slab.steps(state=None, device=torch.device("cuda"))
    torch.cuda.synchronize()
    assert steps.reward.is_cuda
    assert steps.reward.cpu().tolist() == slab.reward.tolist()


def test_signals_wait_for_the_first_whole_group() -> None:
    """Two workers, three tasks in groups of two and one; each is answered by this same process."""
    block = np.zeros(_native.Signals.bytes(2) + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    signals = _native.Signals(block[start : start + _native.Signals.bytes(2)], 2)
    assert signals.post(1, [0, 1], [0, 0], [2, 2]) == [1, 1]
    assert signals.post(1, [1], [2], [4]) == [2]
    waiting: Any = ([0, 1, 1], [1, 1, 2], [2, 3], 0.0, 0.01)
    assert signals.wait(*waiting) == -1
    assert signals.take(1, 0, 0.0, 0.01) == (1, 0, 2)
    signals.answer(1, 1, failed=False)
    assert signals.take(1, 1, 0.0, 0.01) == (1, 2, 4)
    assert signals.wait(*waiting) == -1
    signals.answer(1, 2, failed=True)
    assert signals.wait(*waiting) == 1
    signals.answer(0, 1, failed=False)
    assert signals.wait(*waiting) == 0
    assert [signals.failed(1, task) for task in (1, 2)] == [False, True]
    assert signals.take(0, 1, 0.0, 0.01) == (0, 0, 0)
    assert [signals.post(1, [0], [0], [2]) for _ in range(2)] == [[2], [3]]
    with pytest.raises(RuntimeError, match="two tasks under way"):
        signals.post(1, [1, 0], [0, 0], [2, 2])
    assert signals.take(1, 2, 0.0, 0.01) == (0, 0, 0), "nobody is posted where one is refused"
    with pytest.raises(ValueError, match="groups that end with the last"):
        signals.wait([0], [1], [2], 0.0, 0.01)


class Late(Block):
    """A block whose first worker has done nearly 2^32 tasks already."""

    def __init__(self, fd: int, spec: Spec, *, num_rows: int, num_workers: int) -> None:
        super().__init__(fd, spec, num_rows=num_rows, num_workers=num_workers)
        for at in (128, 192):  # what was posted, and what was answered
            os.pwrite(fd, struct.pack("<Q", 2**32 - 3), at)
        assert self.signals.answered(0) == 2**32 - 3


def test_a_worker_goes_on_beyond_its_two_to_the_32nd_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.envs.workers.pool.Block", Late)
    env = make_env("CartPole-v1", 1, backend="workers", workers=Workers(1))
    env.reset(0)
    env.recv()
    for _ in range(6):
        env.send(slice(0, 1), np.zeros(1, np.int64))
        assert env.recv().valid.all()
    assert isinstance(env, WorkersEnv)
    assert env.pool.block.signals.answered(0) == 2**32 + 4
    env.close()


def test_signals_of_too_many_workers_or_over_too_little_memory_are_refused() -> None:
    """Once their bytes wrapped around: 2^58 workers fitted into a page."""
    for count in (2**20 + 1, 2**58, 2**63):
        with pytest.raises(ValueError, match="there may be at most 1048576 workers"):
            _native.Signals.bytes(count)
        with pytest.raises(ValueError, match="there may be at most 1048576 workers"):
            _native.Signals(np.zeros(4096, np.uint8), count)
    signals = _native.Signals(aligned(_native.Signals.bytes(2)), 2)
    with pytest.raises(ValueError, match="a worker one task at a time"):
        signals.post(1, [0, 0], [0, 0], [1, 1])
    with tempfile.TemporaryFile() as file:
        file.truncate(100)
        with pytest.raises(ValueError, match="between 1 and the 100 bytes behind the descriptor, not 101"):
            _native.map_shared(file.fileno(), 101)


def aligned(nbytes: int) -> NDArray[np.uint8]:
    """Zeroed bytes at a multiple of 64."""
    memory = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + nbytes]


def test_a_slab_that_needs_more_than_there_is_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rollouts of 1,000,000 steps of 1,000,000 rows need .* set num_steps"):
        make(spaces.Box(-1, 1, (5,), np.float32), spaces.Discrete(2), num_steps=10**6, num_rows=10**6)
