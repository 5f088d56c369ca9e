"""Sequences of a replay memory with the recurrent state before each step: known steps, by hand and by a slow oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from shoal.memory.reader import Prioritized, Reader
from shoal.memory.replay import ReplayMemory
from shoal.memory.replay_steps import StepArrays
from shoal.memory.sequences import SequenceReader
from shoal.memory.slab import Slab
from shoal.memory.states import state_layout
from shoal.types import ActedStep, ConfigError, Layout, Leaf, Sequences, Spec

STATE = Layout((Leaf((0,), np.dtype(np.float32), (3,)), Leaf((1,), np.dtype(np.float32), ())))
"""A tuple of three numbers and one."""


def spec_of(*, masked: bool = False, frames: int = 1) -> Spec:
    shape = (frames,) if frames > 1 else ()
    observation = spaces.Dict({"a": spaces.Box(-1e6, 1e6, shape, np.float32), "b": spaces.Box(0, 255, (3,), np.uint8)})
    if frames > 1:
        observation = spaces.Box(0, 255, (frames, 2, 2), np.uint8)
    made = Spec.of("Test-v0", observation, spaces.Discrete(4), masked=masked)
    return made if frames == 1 else Spec.of("Test-v0", observation, spaces.Discrete(4), frame_stack=frames)


def steps_of(
    count: int, *, first: int = 0, rows: int = 1, terminated: Any = (), truncated: Any = (), invalid: Any = ()
) -> StepArrays:
    """Step t of row b saw n = first + t + 1,000 b, did n % 4 for the reward n / 8, with a state of n + 0.25 before.

    What it saw after an end is n + 0.5. Ends are pairs (t, b) or numbers of row 0.
    """
    number = np.arange(first, first + count)[:, None] + 1_000 * np.arange(rows)
    flags = np.zeros((3, count, rows), np.bool_)
    for own, places in zip(flags, (terminated, truncated, invalid), strict=True):
        for place in places:
            own[place if isinstance(place, tuple) else (place, 0)] = True
    ended = (flags[0] | flags[1]) & ~flags[2]
    start = np.zeros((count, rows), np.bool_)
    start[1:] = (flags[0] | flags[1] | flags[2])[:-1]
    start[0] = first == 0
    state = (np.repeat(number[..., None], 3, -1) + 0.25, number + 0.75)
    return StepArrays(
        obs=seen(number),
        action=number % 4,
        reward=number.astype(np.float32) / 8,
        terminated=flags[0],
        truncated=flags[1],
        final_obs=seen(number[ended] + 0.5),
        valid=~flags[2],
        start=start,
        version=np.full((count, rows), first, np.int32),
        state=tuple(part.astype(np.float32) for part in state),
    )


def seen(number: Any) -> dict[str, Any]:
    """An observation that a number is in."""
    whole = np.asarray(number)
    return {
        "a": whole.astype(np.float32),
        "b": np.stack([whole % 256, whole // 256, whole * 0 + 7], -1).astype(np.uint8),
    }


def memory_of(*blocks: StepArrays, capacity: int = 64, rows: int = 1) -> ReplayMemory:
    memory = ReplayMemory(spec_of(), rows, capacity=capacity, state=STATE)
    for block in blocks:
        memory.insert_steps(block)
    return memory


def column(batch: Sequences, b: int) -> dict[str, list[Any]]:
    """What sequence b says, in words that a hand writes."""
    names = ("action", "reward", "discount", "start", "valid")
    told = {name: getattr(batch, name)[:, b].tolist() for name in names}
    return told | {"saw": batch.obs["a"][:, b].tolist(), "state": [part[b].tolist() for part in batch.state]}


def by_first(memory: ReplayMemory, length: int, *, gamma: float = 0.5, batches: int = 20) -> dict[float, Any]:
    """All sequences that are ever drawn, by what the first step saw."""
    reader = SequenceReader(memory, batch_size=32, length=length, gamma=gamma)
    found: dict[float, Any] = {}
    for _ in range(batches):
        batch = reader.sample()
        assert batch.obs["b"].shape == (length, 32, 3)
        assert torch.equal(batch.obs["b"][..., 0], (batch.obs["a"] % 256).to(torch.uint8))
        for b in range(32):
            told = column(batch, b)
            key = int(batch.key[b])
            assert found.setdefault(told["saw"][0], (key, told)) == (key, told)
    return {first: told for first, (_, told) in found.items()}


def test_sequences_over_each_kind_of_end() -> None:
    """Records: 0, 1 (terminated), 1.5, 2, 3 (truncated), 3.5, 4, 5. Last observations take a place and begin none."""
    memory = memory_of(steps_of(6, terminated=(1,), truncated=(3,)))
    found = by_first(memory, 4)
    assert set(found) == {0, 1, 2, 3}
    assert found[0] == {
        "saw": [0, 1, 1.5, 2],
        "action": [0, 1, found[0]["action"][2], 2],
        "reward": [0, 0.125, 0, 0],
        "discount": [0.5, 0, 0.5, 0.5],
        "start": [True, False, False, True],
        "valid": [True, True, False, False],  # the last record's own successor is not there
        "state": [[0.25] * 3, 0.75],
    }
    assert found[2]["saw"] == [2, 3, 3.5, 4]
    assert found[2]["discount"] == [0.5, 0.5, 0.5, 0.5]
    assert found[2]["valid"] == [True, True, False, False]
    assert found[2]["start"] == [True, False, False, True]
    assert found[3] == {
        "saw": [3, 3.5, 4, 5],
        "action": [3, found[3]["action"][1], 0, 1],
        "reward": [0.375, 0, 0.5, 0],
        "discount": [0.5, 0.5, 0.5, 0.5],
        "start": [False, False, True, False],
        "valid": [True, False, True, False],
        "state": [[3.25] * 3, 3.75],
    }


def test_a_step_that_was_cut_off_leads_nowhere() -> None:
    """Step 2 only reset its row: step 1 has no successor, and step 3 begins anew, with its own state."""
    found = by_first(memory_of(steps_of(6, invalid=(2,))), 3)
    assert found[0]["saw"] == [0, 1, 3]
    assert found[0]["valid"] == [True, False, False]
    assert found[0]["start"] == [True, False, True]
    assert found[3]["state"] == [[3.25] * 3, 3.75]


def test_every_start_is_as_likely_around_the_ring() -> None:
    """Of two rows of 16 records, whole sequences of 5 of what they hold now begin with each step as often."""
    memory = memory_of(capacity=32, rows=2)
    oracle: list[list[tuple[float, int]]] = [[], []]
    for first in range(0, 60, 4):
        ends = ((3, 0),) if first % 3 == 0 else ()
        cuts = ((1, 1),) if first % 5 == 0 else ()
        memory.insert_steps(steps_of(4, first=first, rows=2, terminated=ends, truncated=cuts))
        for t in range(4):
            for b in range(2):
                oracle[b].append((first + t + 1_000 * b, len(oracle[b])))
                if (t, b) in (*ends, *cuts):
                    oracle[b].append((first + t + 1_000 * b + 0.5, len(oracle[b])))
    reader = SequenceReader(memory, batch_size=50, length=5, seed=3)
    expected = {told[0]: told for told in windows(oracle, slots=16, length=5)}
    counts = dict.fromkeys(expected, 0)
    for _ in range(40):
        batch = reader.sample()
        for b, saw in enumerate(batch.obs["a"].T.tolist()):
            assert tuple(saw) == expected[saw[0]]
            assert batch.state[1][b] == saw[0] + 0.75
            row, number = divmod(saw[0], 1_000)
            index = dict(oracle[int(row)])[saw[0]]
            assert batch.key[b] == row + 2 * index
            assert batch.version[0, b] == number - number % 4
            counts[saw[0]] += 1
    mean = 2_000 / len(counts)
    assert max(abs(count - mean) for count in counts.values()) < 5 * mean**0.5
    assert reader.overwritten == 0


def windows(oracle: list[list[tuple[float, int]]], *, slots: int, length: int) -> list[tuple[float, ...]]:
    """What each sequence saw that begins with a step."""
    found: list[tuple[float, ...]] = []
    for row in oracle:
        held = [saw for saw, _ in row[-slots:]]
        starts = [at for at in range(len(held) - length + 1) if held[at] == int(held[at])]
        found.extend(tuple(held[at : at + length]) for at in starts)
    return found


def test_rows_of_an_agent_alone() -> None:
    memory = memory_of(steps_of(12, rows=3), capacity=60, rows=3)
    batch = SequenceReader(memory, batch_size=64, length=4, rows=slice(1, 2)).sample()
    assert set(batch.key % 3) == {1}
    assert 1_000 <= batch.obs["a"].min() <= batch.obs["a"].max() < 2_000


def test_masks_are_open_at_an_episodes_last_observation() -> None:
    memory = ReplayMemory(spec_of(masked=True), 1, capacity=32, state=STATE)
    block = steps_of(6, truncated=(2,))
    mask = np.zeros((6, 1, 4), np.bool_)
    mask[np.arange(6), 0, np.arange(6) % 4] = True
    memory.insert_steps(replace(block, action_mask=mask))
    batch = SequenceReader(memory, batch_size=64, length=5).sample()
    b = int(np.flatnonzero(batch.key == 0)[0])
    assert batch.action_mask is not None
    assert batch.action_mask[:, b].int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1] * 4, [0, 0, 0, 1]]


def test_records_that_a_writer_is_at_are_not_handed_out() -> None:
    """Record 6 is unfinished: every sequence with it is drawn again; where all are, that is an error."""
    memory = memory_of(steps_of(12), capacity=16)
    memory.ring[0, 6, 0] -= 1
    reader = SequenceReader(memory, batch_size=64, length=3)
    firsts = {int(key) for _ in range(10) for key in reader.sample().key}
    assert firsts == {0, 1, 2, 3, 7, 8, 9}
    assert reader.overwritten > 0
    memory.ring[0, :, 0] -= 1
    with pytest.raises(RuntimeError, match="writers overwrite all records"):
        reader.sample()


def test_a_reader_continues_exactly() -> None:
    """Memory and reader of a checkpoint give the next batches, states included."""
    memory = memory_of(steps_of(30, truncated=(7, 19)), capacity=24)
    reader = SequenceReader(memory, batch_size=8, length=6, seed=5)
    reader.sample()
    saved, held = reader.state(), memory.state()
    other = memory_of(capacity=24)
    other.restore(held)
    again = SequenceReader(other, batch_size=8, length=6, seed=9)
    again.restore(saved)
    for _ in range(3):
        one, two = reader.sample(), again.sample()
        for name in ("reward", "discount", "start", "valid", "version"):
            assert torch.equal(getattr(one, name), getattr(two, name))
        assert torch.equal(one.obs["b"], two.obs["b"])
        assert all(map(torch.equal, one.state, two.state))
        assert one.key.tolist() == two.key.tolist()
    with pytest.raises(ConfigError, match="state of a reader of sequences"):
        again.restore({"random": {"state": 1}})
    with pytest.raises(ConfigError, match="its settings must be the same"):
        ReplayMemory(spec_of(), 1, capacity=24).restore(held)


def test_sequences_by_priority() -> None:
    """Of 12 records the sequences of 4 that begin with every second: 0, 2, 4, 6, 8; all as likely at first.

    With the errors 3 and 1 of those at 2 and 4, and the greatest so far, 1, of the others, P = 3/7 and 1/7 each.
    """
    memory = memory_of(steps_of(12))
    how = Prioritized(alpha=1.0, beta=1.0, epsilon=1e-9)
    reader = SequenceReader(memory, batch_size=500, length=4, stride=2, prioritized=how, seed=1)
    batch = reader.sample()
    assert np.unique(batch.key).tolist() == [0, 2, 4, 6, 8]
    assert torch.equal(batch.weight, torch.ones(500))
    assert batch.error.tolist() == [0.0] * 500
    reader.prioritize(np.array([2, 4]), torch.tensor([3.0, 1.0]))
    batch = reader.sample()
    drawn = np.bincount(batch.key, minlength=9) / 500
    assert drawn[[0, 2, 4, 6, 8]] == pytest.approx([1 / 7, 3 / 7, 1 / 7, 1 / 7, 1 / 7], abs=0.07)
    assert batch.weight[torch.from_numpy(batch.key == 2)].unique().tolist() == pytest.approx([1 / 3])
    assert batch.weight[torch.from_numpy(batch.key != 2)].unique().tolist() == [1.0]
    assert torch.equal(reader.sample(beta=0.0).weight, torch.ones(500))


def test_priorities_around_the_ring() -> None:
    """Sequences that are new have the greatest priority so far; those that were overwritten are gone."""
    memory = memory_of(steps_of(16), capacity=16)
    how = Prioritized(alpha=1.0, epsilon=1e-9)
    reader = SequenceReader(memory, batch_size=300, length=4, stride=4, prioritized=how)
    assert np.unique(reader.sample().key).tolist() == [0, 4, 8, 12]
    reader.prioritize(np.array([0, 4, 8, 12]), np.array([0, 0, 0, 5], np.float32))
    assert np.unique(reader.sample().key).tolist() == [12]
    memory.insert_steps(steps_of(6, first=16))  # records 6 to 21 are held now; 16 to 19 are a sequence
    assert np.unique(reader.sample().key).tolist() == [12, 16]
    reader.prioritize(np.array([4, 16]), np.array([9, 0], np.float32))
    assert reader.stale_keys == 1
    assert np.unique(reader.sample().key).tolist() == [12]
    memory.insert_steps(steps_of(30, first=22))  # all are new: 36 to 51
    assert np.unique(reader.sample().key).tolist() == [36, 40, 44, 48]
    with pytest.raises(ValueError, match="finite and not negative"):
        reader.prioritize(np.array([36]), np.array([np.nan], np.float32))


def test_priorities_of_what_begins_with_a_last_observation() -> None:
    """Record 4 is one: it is drawn once at most, and never handed out."""
    memory = memory_of(steps_of(11, truncated=(3,)))
    reader = SequenceReader(memory, batch_size=200, length=4, stride=4, prioritized=Prioritized(alpha=1.0))
    for _ in range(3):
        assert np.unique(reader.sample().key).tolist() == [0, 8]
    reader.prioritize(np.array([0, 8]), np.array([1, 1], np.float32))
    assert reader.sample(beta=1.0).weight.unique().tolist() == [1.0]
    uniform = SequenceReader(memory, batch_size=2, length=4)
    with pytest.raises(ConfigError, match="draws uniformly"):
        uniform.prioritize(np.array([0]), np.array([1], np.float32))


def test_priorities_continue_exactly() -> None:
    rng = np.random.default_rng(3)
    memory = memory_of(steps_of(30, truncated=(7, 19)), capacity=24)

    def make_reader(of: ReplayMemory, seed: int) -> SequenceReader:
        return SequenceReader(of, batch_size=8, length=6, stride=2, prioritized=Prioritized(), seed=seed)

    reader = make_reader(memory, 5)
    for _ in range(3):
        reader.prioritize(reader.sample().key, rng.random(8).astype(np.float32))
    saved = reader.state()
    other = memory_of(capacity=24)
    other.restore(memory.state())
    again = make_reader(other, 9)
    again.restore(saved)
    for _ in range(4):
        one, two = reader.sample(), again.sample()
        assert one.key.tolist() == two.key.tolist()
        assert torch.equal(one.weight, two.weight)
        errors = rng.random(8).astype(np.float32)
        for own in (reader, again):
            own.prioritize(one.key, errors)
    smaller = SequenceReader(other, batch_size=8, length=6, stride=3, prioritized=Prioritized())
    with pytest.raises(ConfigError, match="do not fit this memory"):
        smaller.restore(saved)


def test_transitions_are_read_from_records_with_states_too() -> None:
    memory = memory_of(steps_of(9))
    batch = Reader(memory, batch_size=16).sample()
    assert torch.equal(batch.next_obs["a"], batch.obs["a"] + 1)
    assert torch.equal(batch.action, batch.obs["a"].long() % 4)


def test_a_slab_hands_states_over() -> None:
    """As the collector fills it: the state before each step, of the rows that acted."""
    spec = Spec.of("Test-v0", spaces.Box(-9, 9, (1,), np.float32), spaces.Discrete(2))
    slab = Slab(spec, 3, 2, state=STATE)
    slab.clear()
    for t in range(3):
        number = np.array([t, t + 10], np.float32)
        step = ActedStep(
            obs=number[:, None],
            start=np.array([t == 0] * 2),
            action=np.zeros(2, np.int64),
            log_prob=None,
            value=None,
            action_mask=None,
            version=1,
            state=(np.stack([number] * 3, 1), -number),
        )
        slab.write_acted(t, slice(0, 2), step)
        assert slab.acted(t, np.array([1])).obs.tolist() == [[t + 10]]
        assert step.at(np.array([1])).state[1].tolist() == [-(t + 10)]
    memory = ReplayMemory(spec, 2, capacity=16, state=STATE)
    assert memory.insert(slab) == 6
    batch = SequenceReader(memory, batch_size=8, length=2).sample()
    assert torch.equal(batch.state[0], batch.obs[0].expand(8, 3))
    assert torch.equal(batch.state[1], -batch.obs[0, :, 0])


class Doubles(nn.Module):
    def initial_state(self, num_rows: int) -> Any:
        return {"h": torch.zeros(num_rows, 2, dtype=torch.float64)}


def test_layouts_of_states() -> None:
    class Nested(nn.Module):
        def initial_state(self, num_rows: int) -> Any:
            return {"h": torch.zeros(num_rows, 2), "c": (torch.zeros(num_rows), torch.zeros(num_rows, 1, 3))}

    found = [(leaf.path, leaf.shape) for leaf in state_layout(Nested()).leaves]
    assert found == [(("h",), (2,)), (("c", 0), ()), (("c", 1), (1, 3))]
    with pytest.raises(ConfigError, match=r"holds torch\.float64, and a replay memory keeps float32"):
        state_layout(Doubles())


def test_what_cannot_be_read() -> None:
    memory = memory_of(steps_of(3), capacity=16)
    with pytest.raises(RuntimeError, match="hold up to 3 records each, and a sequence has 4; collect more"):
        SequenceReader(memory, batch_size=2, length=4).sample()
    with pytest.raises(ConfigError, match=r"at least 18, or draw shorter ones"):
        SequenceReader(memory, batch_size=2, length=9)
    with pytest.raises(ConfigError, match="this memory keeps none"):
        SequenceReader(ReplayMemory(spec_of(), 1, capacity=64), batch_size=2, length=4)
    stacked = ReplayMemory(spec_of(frames=4), 1, capacity=64, state=STATE)
    with pytest.raises(ConfigError, match=r"stacks of frames \(here of 4\).*set preprocessing.frame_stack to 1"):
        SequenceReader(stacked, batch_size=2, length=4)
    block = steps_of(3)
    without = replace(block, state=None)
    with pytest.raises(ValueError, match="keeps the recurrent state before each step"):
        memory.insert_steps(without)
