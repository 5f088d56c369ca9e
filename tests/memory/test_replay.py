"""The replay memory: what is kept of each row, and transitions of n steps with numbers worked by hand."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.envs.registry import make as make_env
from shoal.memory.reader import Reader
from shoal.memory.replay import ReplayMemory
from shoal.memory.replay_steps import StepArrays
from shoal.memory.slab import Slab
from shoal.types import ConfigError, Spec, Transitions

NESTED = spaces.Dict({"place": spaces.Box(-9, 9, (3,), np.float32), "key": spaces.Box(0, 255, (5,), np.uint8)})


def spec_of(observation: spaces.Space[Any] | None = None, *, masked: bool = False) -> Spec:
    observation = observation or spaces.Box(-1e6, 1e6, (1,), np.float32)
    return Spec.of("Test-v0", observation, spaces.Discrete(3), masked=masked)


def steps_of(
    reward: list[float],
    *,
    first: float = 0,
    terminated: tuple[int, ...] = (),
    truncated: tuple[int, ...] = (),
    invalid: tuple[int, ...] = (),
) -> StepArrays:
    """One row: step t sees first + t; after an end, the final observation is 100 more than what the step saw."""
    count = len(reward)
    flags = np.zeros((3, count, 1), np.bool_)
    for row, places in zip(flags, (terminated, truncated, invalid), strict=True):
        row[list(places)] = True
    obs = (first + np.arange(count, dtype=np.float32)).reshape(count, 1, 1)
    ended = (flags[0] | flags[1])[:, 0] & ~flags[2][:, 0]
    return StepArrays(
        obs=obs,
        action=np.arange(count).reshape(count, 1) % 3,
        reward=np.asarray(reward, np.float32).reshape(count, 1),
        terminated=flags[0],
        truncated=flags[1],
        final_obs=obs[ended, 0] + 100,
        valid=~flags[2],
        version=7,
    )


def memory_of(*blocks: StepArrays, capacity: int = 64) -> ReplayMemory:
    memory = ReplayMemory(spec_of(), 1, capacity=capacity)
    for block in blocks:
        memory.insert_steps(block)
    return memory


def seen(
    memory: ReplayMemory, n_step: int = 1, gamma: float = 0.5, batches: int = 40
) -> dict[float, tuple[float, ...]]:
    """By what a transition saw first: reward, discount, what it saw at last, and its steps."""
    reader = Reader(memory, batch_size=32, n_step=n_step, gamma=gamma)
    found: dict[float, tuple[float, ...]] = {}
    for _ in range(batches):
        batch = reader.sample()
        columns = (batch.obs, batch.reward, batch.discount, batch.next_obs, batch.steps)
        for at, *rest in zip(*(column.reshape(-1).tolist() for column in columns), strict=True):
            assert found.setdefault(at, tuple(rest)) == tuple(rest)
    return found


def test_one_step_transitions_over_each_kind_of_end() -> None:
    """Termination has the discount 0, truncation gamma; both lead to the final observation. The newest step waits."""
    memory = memory_of(steps_of([1, 2, 4, 8, 16], terminated=(1,), truncated=(3,)))
    assert seen(memory) == {
        0: (1, 0.5, 1, 1),
        1: (2, 0, 101, 1),
        2: (4, 0.5, 3, 1),
        3: (8, 0.5, 103, 1),
    }
    assert memory.num_inserted == 5
    assert len(memory) == 7
    memory.insert_steps(steps_of([32], first=5))
    assert seen(memory)[4] == (16, 0.5, 5, 1)


def test_three_steps_by_hand() -> None:
    """Gamma = 1/2, n = 3: an end shortens a transition, and its discount is gamma^k of the steps that there are."""
    memory = memory_of(steps_of([1, 2, 4, 8, 16, 32, 64, 128], terminated=(2,), truncated=(5,)))
    assert seen(memory, 3) == {
        0: (1 + 2 / 2 + 4 / 4, 0, 102, 3),
        1: (2 + 4 / 2, 0, 102, 2),
        2: (4, 0, 102, 1),
        3: (8 + 16 / 2 + 32 / 4, 1 / 8, 105, 3),
        4: (16 + 32 / 2, 1 / 4, 105, 2),
        5: (32, 1 / 2, 105, 1),
        6: (64, 1 / 2, 7, 1),  # the tail: one step is known after it
    }


def test_tails_grow_as_steps_follow() -> None:
    """What the newest record cuts off is there once more was inserted."""
    memory = memory_of(steps_of([1, 2, 4, 8]))
    assert seen(memory, 3) == {0: (3, 1 / 8, 3, 3), 1: (4, 1 / 4, 3, 2), 2: (4, 1 / 2, 3, 1)}
    memory.insert_steps(steps_of([16], first=4))
    assert seen(memory, 3)[1] == (2 + 4 / 2 + 8 / 4, 1 / 8, 4, 3)
    assert seen(memory, 3)[2] == (4 + 8 / 2, 1 / 4, 4, 2)


def test_steps_that_only_reset_are_not_stored_and_break_the_chain() -> None:
    """No transition reaches over a step that is not valid, within an insert or across two."""
    memory = memory_of(steps_of([1, 2, 0, 4, 8], invalid=(2,)))
    assert seen(memory, 2) == {0: (1, 0.5, 1, 1), 3: (4, 0.5, 4, 1)}
    memory.insert_steps(steps_of([0, 16, 32], first=10, invalid=(0,)))
    assert seen(memory, 2) == {0: (1, 0.5, 1, 1), 3: (4, 0.5, 4, 1), 11: (16, 0.5, 12, 1)}
    assert memory.num_inserted == 6


def test_a_step_that_begins_an_episode_breaks_the_chain() -> None:
    """Rows that were reset between two inserts, without a word but `start`."""
    memory = memory_of(steps_of([1, 2]))
    block = steps_of([4, 8], first=10)
    start = np.array([[True], [False]])
    memory.insert_steps(
        StepArrays(block.obs, block.action, block.reward, block.terminated, block.truncated, start=start)
    )
    assert seen(memory, 3) == {0: (1, 0.5, 1, 1), 10: (4, 0.5, 11, 1)}


def test_in_games_of_turns_the_steps_of_others_break_nothing() -> None:
    block = steps_of([1, 0, 2, 0, 4], invalid=(1, 3))
    memory = ReplayMemory(spec_of(), 1, capacity=64)
    arrays = (block.obs, block.action, block.reward, block.terminated, block.truncated)
    memory.insert_steps(StepArrays(*arrays, valid=block.valid, in_turns=True))
    assert seen(memory, 2) == {0: (1 + 2 / 2, 1 / 4, 4, 2), 2: (2, 1 / 2, 4, 1)}


def test_what_is_overwritten_is_never_sampled() -> None:
    """A ring of 8 records keeps the last 8, ends and all, wherever its edge lies."""
    memory = ReplayMemory(spec_of(), 1, capacity=8)
    for first in range(0, 35, 5):
        memory.insert_steps(steps_of([1, 2, 4, 8, 16], first=first, terminated=(2,)))
        assert len(memory) == min(8, 6 * (first // 5 + 1))
        found = seen(memory, 2, batches=10)
        oldest = 0 if first == 0 else first - 2
        assert set(found) == set(range(oldest, first + 4))
        assert found[first] == (1 + 2 / 2, 1 / 4, first + 2, 2)
        assert found[first + 1] == (2 + 4 / 2, 0, first + 102, 2)
        assert found[first + 3] == (8, 1 / 2, first + 4, 1)
    assert memory.num_inserted == 35


def test_every_step_of_every_row_is_as_likely() -> None:
    """Rows that hold 40, 5 and no steps: the 43 that have a successor are drawn alike (chi-square, 42 degrees)."""
    memory = ReplayMemory(spec_of(), 3, capacity=3 * 64)
    memory.insert_steps(steps_of([0] * 40))
    memory.insert_steps(steps_of([0] * 5, first=1000), first_row=1)
    for reader in (Reader(memory, batch_size=430, seed=3), Reader(memory, batch_size=430, seed=2**64 - 1)):
        drawn = torch.cat([reader.sample().obs.reshape(-1).clone() for _ in range(100)]).numpy()
        values, counts = np.unique(drawn, return_counts=True)
        assert set(values) == {*range(39), *range(1000, 1004)}
        assert ((counts - 1000) ** 2 / 1000).sum() < 42 + 4 * np.sqrt(2 * 42)


def test_many_rows_of_which_few_hold_anything() -> None:
    """The same where drawing a row first would hardly ever meet one with steps."""
    memory = ReplayMemory(spec_of(), 50, capacity=50 * 64)
    memory.insert_steps(steps_of([0] * 40), first_row=20)
    memory.insert_steps(steps_of([0] * 5, first=1000), first_row=49)
    reader = Reader(memory, batch_size=430)
    drawn = torch.cat([reader.sample().obs.reshape(-1).clone() for _ in range(100)]).numpy()
    values, counts = np.unique(drawn, return_counts=True)
    assert set(values) == {*range(39), *range(1000, 1004)}
    assert ((counts - 1000) ** 2 / 1000).sum() < 42 + 4 * np.sqrt(2 * 42)


def test_keys_and_versions() -> None:
    """A key is row + rows * index; the version is the first step's."""
    memory = ReplayMemory(spec_of(), 2, capacity=16)
    memory.insert_steps(steps_of([1] * 20, first=100), first_row=1)
    reader = Reader(memory, batch_size=64)
    batch = reader.sample()
    np.testing.assert_array_equal(batch.key % 2, 1)
    np.testing.assert_array_equal(batch.key // 2, batch.obs.numpy()[:, 0] - 100)
    assert (batch.version == 7).all()
    assert batch.key.min() // 2 >= 12
    assert (batch.weight == 1).all()
    batch.error[:] = 5
    assert (reader.sample().error == 0).all()


def test_nested_observations_and_masks() -> None:
    """Leaves of any size come back; at a final observation every action is free."""
    memory = ReplayMemory(spec_of(NESTED, masked=True), 2, capacity=200)
    rng = np.random.default_rng(0)
    steps = 30
    place = rng.normal(size=(steps, 2, 3)).astype(np.float32)
    key = rng.integers(0, 256, (steps, 2, 5), np.uint8)
    mask = rng.random((steps, 2, 3)) < 0.5
    terminated = np.zeros((steps, 2), np.bool_)
    terminated[9, 1] = True
    memory.insert_steps(
        StepArrays(
            obs={"place": place, "key": key},
            action=rng.integers(0, 3, (steps, 2)),
            reward=np.zeros((steps, 2)),
            terminated=terminated,
            truncated=np.zeros((steps, 2), np.bool_),
            final_obs={"place": np.full((1, 3), 3, np.float32), "key": np.full((1, 5), 200, np.uint8)},
            action_mask=mask,
        )
    )
    reader = Reader(memory, batch_size=500)
    batch = reader.sample()
    assert batch.action_mask is not None
    assert batch.next_action_mask is not None
    rows, index = batch.key % 2, batch.key // 2
    t = index - ((rows == 1) & (index > 10))
    ended = (rows == 1) & (t == 9)
    assert ended.any()
    np.testing.assert_array_equal(batch.obs["place"].numpy(), place[t, rows])
    np.testing.assert_array_equal(batch.obs["key"].numpy(), key[t, rows])
    np.testing.assert_array_equal(batch.action_mask.numpy(), mask[t, rows])
    going = ~ended
    np.testing.assert_array_equal(batch.next_obs["key"].numpy()[going], key[t + 1, rows][going])
    np.testing.assert_array_equal(batch.next_action_mask.numpy()[going], mask[t + 1, rows][going])
    assert (batch.next_obs["key"].numpy()[ended] == 200).all()
    assert (batch.next_obs["place"].numpy()[ended] == 3).all()
    assert batch.next_action_mask.numpy()[ended].all()


def collect(slab: Slab) -> None:
    """CartPole in a slab of its own form, by random actions."""
    env = make_env("CartPole-v1", num_envs=slab.num_rows, backend="serial")
    rng = np.random.default_rng(0)
    env.reset(0)
    ready = env.recv()
    slab.clear()
    rows = slice(0, slab.num_rows)
    start = np.ones(slab.num_rows, np.bool_)
    for t in range(slab.num_steps):
        slab.obs[t], slab.start[t] = ready.obs, start
        slab.action[t] = rng.integers(0, 2, slab.num_rows)
        slab.version[t] = t
        env.send(rows, slab.action[t])
        ready = env.recv()
        slab.write_step(t, rows, ready, rows)
        start = ready.terminated | ready.truncated
    env.close()


def test_a_slab_of_real_episodes_against_a_slow_oracle() -> None:
    """Every transition of 5 steps out of 4 rows of CartPole equals what a walk over the slab gives."""
    env = make_env("CartPole-v1", num_envs=4, backend="serial")
    slab = Slab(env.spec, 120, 4)
    env.close()
    collect(slab)
    memory = ReplayMemory(env.spec, 4, capacity=4000)
    assert memory.insert(slab) == 480
    reader = Reader(memory, batch_size=1000, n_step=5, gamma=0.9)
    batch = reader.sample()
    checked = 0
    for b in range(1000):
        t, row = int(batch.version[b]), int(batch.key[b] % 4)
        reward, k, over = 0.0, 0, False
        while k < 5 and not over and (t + k < 119 or slab.final_index[t + k, row] >= 0):
            reward += 0.9**k * slab.reward[t + k, row]
            over = bool(slab.final_index[t + k, row] >= 0)
            k += 1
        last = slab.final_obs[slab.final_index[t + k - 1, row]] if over else slab.obs[t + k, row]
        terminated = over and slab.terminated[t + k - 1, row]
        assert int(batch.steps[b]) == k
        assert float(batch.reward[b]) == pytest.approx(reward, rel=1e-6)
        assert float(batch.discount[b]) == pytest.approx(0 if terminated else 0.9**k, rel=1e-6)
        np.testing.assert_array_equal(batch.next_obs[b].numpy(), last)
        np.testing.assert_array_equal(batch.obs[b].numpy(), slab.obs[t, row])
        assert int(batch.action[b]) == slab.action[t, row]
        checked += over
    assert checked > 50


def test_the_same_seed_draws_the_same() -> None:
    memory = memory_of(steps_of([1] * 50))
    first, second, other = (Reader(memory, batch_size=64, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.sample().key, second.sample().key)
    assert not np.array_equal(first.sample().key, other.sample().key)


def test_nothing_can_be_sampled_yet() -> None:
    """Before two records follow each other, and where no record has its successor."""
    memory = ReplayMemory(spec_of(), 2, capacity=64)
    reader = Reader(memory, batch_size=4)
    with pytest.raises(RuntimeError, match="nothing can be sampled yet: the memory holds 0 records of 2 rows"):
        reader.sample()
    memory.insert_steps(steps_of([1]))
    with pytest.raises(RuntimeError, match="nothing can be sampled yet"):
        reader.sample()
    for _ in range(9):
        memory.insert_steps(steps_of([0, 1], invalid=(0,)))
    with pytest.raises(RuntimeError, match="no step that the memory holds has the step after it"):
        reader.sample()
    memory.insert_steps(steps_of([3]))
    assert reader.sample().reward.tolist() == [1] * 4


def test_bad_steps_are_refused_and_nothing_is_stored() -> None:
    memory = memory_of()
    good = steps_of([1, 2, 3], terminated=(1,))

    def refused(match: str, **changed: Any) -> None:
        fields = {name: getattr(good, name) for name in StepArrays.__slots__} | changed
        with pytest.raises(ValueError, match=match):
            memory.insert_steps(StepArrays(**fields))

    refused("reward is not finite at \\[1, 0\\]", reward=np.array([[1], [np.nan], [3]]))
    refused("obs is not finite", obs=np.full((3, 1, 1), np.inf, np.float32))
    refused("final_obs must hold 1 observations", final_obs=None)
    refused(r"final_obs must be an array \[1, 1\]", final_obs=np.zeros((2, 1), np.float32))
    refused(r"obs must be an array \[3, 1, 1\] of float32", obs=np.zeros((3, 1, 1)))
    refused("action must be an array", action=np.zeros((2, 1), np.int64))
    refused("have no masks", action_mask=np.ones((3, 1, 0), np.bool_))
    slab = Slab(spec_of(), 2, 1)
    slab.clear()
    slab.obs[:], slab.start[:], slab.reward[:] = 0, False, 0
    slab.terminated[:], slab.truncated[:], slab.version[:] = [[False], [True]], False, 0
    with pytest.raises(ValueError, match="step 1 of row 0 ended its episode, but final_index names no final"):
        memory.insert(slab)
    slab.terminated[:], slab.reward[1] = False, np.inf
    with pytest.raises(ValueError, match="the reward of step 1 of row 0 is not finite"):
        memory.insert(slab)
    with pytest.raises(ValueError, match="rows 1 to 2 are not among the memory's 1"):
        memory.insert_steps(good, first_row=1)
    assert len(memory) == 0


def test_settings_that_cannot_work() -> None:
    spec = spec_of()
    with pytest.raises(ConfigError, match="either capacity"):
        ReplayMemory(spec, 1)
    with pytest.raises(ConfigError, match="capacity must be at least 1"):
        ReplayMemory(spec, 1, capacity=0)
    with pytest.raises(ConfigError, match=r"a replay memory of 60,000,000,000 records need .* set capacity to less"):
        ReplayMemory(spec, 1, capacity=6 * 10**10)
    with pytest.raises(ConfigError, match="num_rows"):
        ReplayMemory(spec, 0, capacity=9)
    assert ReplayMemory(spec, 2, capacity_bytes=64 * 3 + 2 * 40 * 100).slots == 100
    memory = ReplayMemory(spec, 2, capacity=20)
    with pytest.raises(ConfigError, match="n_step=5 needs 12 records of each row, and the memory has room for 10"):
        Reader(memory, batch_size=4, n_step=5)
    with pytest.raises(ConfigError, match="gamma must be at most 1"):
        Reader(memory, batch_size=4, gamma=1.5)
    with pytest.raises(ConfigError, match="batch_size"):
        Reader(memory, batch_size=0)


def test_a_memory_of_several_processes() -> None:
    """What a child process inserts is sampled here; a descriptor of another memory is refused."""
    fd = os.memfd_create("shoal-replay")
    memory = ReplayMemory(spec_of(), 1, capacity=64, fd=fd)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            theirs = ReplayMemory(spec_of(), 1, capacity=64, fd=fd)
            theirs.insert_steps(steps_of([1, 2, 4], terminated=(1,)))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert seen(memory) == {0: (1, 0.5, 1, 1), 1: (2, 0, 101, 1)}
    with pytest.raises(ConfigError, match=r"the shared memory has .* it is of other settings, or was cut off"):
        ReplayMemory(spec_of(), 1, capacity=65, fd=fd)
    with pytest.raises(ConfigError, match="this replay memory is of other observations or actions"):
        ReplayMemory(spec_of(spaces.Box(-1e6, 1e6, (2,), np.float32)), 1, capacity=64, fd=fd)
    os.close(fd)


def test_a_memory_in_a_file(tmp_path: Path) -> None:
    """It is there again after it was closed; a file that was cut, damaged or is something else is refused."""
    file = tmp_path / "replay"
    memory = ReplayMemory(spec_of(), 1, capacity=64, file=file)
    memory.insert_steps(steps_of([1, 2, 4], terminated=(1,)))
    del memory
    assert seen(ReplayMemory(spec_of(), 1, capacity=64, file=file)) == {0: (1, 0.5, 1, 1), 1: (2, 0, 101, 1)}
    whole = file.read_bytes()
    for offset, match in ((0, "no replay memory"), (8, "format"), (16, "first bytes are damaged"), (64, "is damaged")):
        file.write_bytes(whole[:offset] + bytes([255]) + whole[offset + 1 :])
        with pytest.raises(ConfigError, match=match):
            ReplayMemory(spec_of(), 1, capacity=64, file=file)
    file.write_bytes(whole[:-8])
    with pytest.raises(ConfigError, match="was cut off"):
        ReplayMemory(spec_of(), 1, capacity=64, file=file)


def test_no_torn_record_while_others_write() -> None:
    """Two threads write, one reads: every transition is of one step and its successor."""
    memory = ReplayMemory(spec_of(spaces.Box(-1e9, 1e9, (16,), np.float32)), 2, capacity=64)
    done = threading.Event()

    def write(row: int) -> None:
        at = 0
        while not done.is_set():
            values = np.arange(at, at + 20, dtype=np.float32).reshape(20, 1, 1)
            zeros = np.zeros((20, 1), np.bool_)
            obs = np.repeat(values, 16, axis=2)
            memory.insert_steps(
                StepArrays(obs, np.zeros((20, 1), np.int64), values[..., 0], zeros, zeros), first_row=row
            )
            at = (at + 20) % 2**20

    writers = [threading.Thread(target=write, args=(row,)) for row in range(2)]
    for writer in writers:
        writer.start()
    reader = Reader(memory, batch_size=256)
    sampled: list[Transitions] = []
    while len(sampled) < 150:
        try:
            batch = reader.sample()
        except RuntimeError:
            continue
        sampled.append(batch)
        assert (batch.obs == batch.obs[:, :1]).all()
        assert (batch.next_obs == batch.next_obs[:, :1]).all()
        assert ((batch.next_obs[:, 0] - batch.obs[:, 0] - 1) % 2**20 == 0).all()
        assert (batch.reward == batch.obs[:, 0]).all()
    done.set()
    for writer in writers:
        writer.join()
