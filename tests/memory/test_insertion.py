"""Steps from outside: what a run's memory makes of arrays, and what no step can be, by the first wrong step."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.memory import replay_state
from shoal.memory.data import Data
from shoal.memory.inserted_steps import GivenSteps, steps_in_order
from shoal.memory.insertion import Insertion, check_insertable
from shoal.memory.outside import Outside
from shoal.memory.reader import Reader
from shoal.types import ConfigError, Spec, map_tree

SPEC = Spec.of("World-v0", spaces.Box(-9, 9, (1,)), spaces.Discrete(3, start=1))
NESTED = Spec.of(
    "World-v1",
    spaces.Dict({"at": spaces.Discrete(4), "image": spaces.Box(0, 255, (2, 2), np.uint8)}),
    spaces.Box(-2, 2, (2,)),
)


def taken(action: Any) -> Any:
    """Actions are counted from 0 by the policy."""
    return map_tree(lambda x: x - 1, action)


def opened(spec: Spec = SPEC, *, size: int = 100, scale: float = 1.0) -> tuple[Insertion, Outside]:
    outside, memory = Outside(spec, size=size, least=8), Insertion()
    memory.open(outside, taken, reward_scale=scale)
    return memory, outside


def steps(**changes: Any) -> dict[str, Any]:
    """Two episodes: 0 -> 1 -> 2, which terminates, and 5 -> 6, which goes on elsewhere."""
    arrays: dict[str, Any] = {
        "obs": [[0.0], [1.0], [5.0]],
        "action": [1, 2, 3],
        "reward": [10, 20, 30],
        "next_obs": [[1.0], [2.0], [6.0]],
        "terminated": [False, True, False],
        "truncated": [False, False, False],
    }
    return arrays | changes


def transitions(outside: Outside, **settings: Any) -> set[tuple[float, ...]]:
    """Observation, action, reward, discount, next observation of each that can be drawn."""
    batch = Reader(outside.memory, batch_size=400, gamma=0.5, **settings).sample()
    columns = (batch.obs[:, 0], batch.action, batch.reward, batch.discount, batch.next_obs[:, 0])
    return {tuple(row) for row in torch.stack([x.double() for x in columns], 1).tolist()}


def test_transitions_by_hand() -> None:
    memory, outside = opened(scale=0.5)
    assert memory.insert(**steps()) == memory.num_inserted == 3
    assert transitions(outside) == {(0, 0, 5, 0.5, 1), (1, 1, 10, 0, 2), (5, 2, 15, 0.5, 6)}
    memory.insert(**steps(obs=[[7.0], [1.0], [5.0]], reward=[2, 2, 2]))
    assert memory.numbers == {"replay/inserted": 6}
    # Of two steps: 5 + 0.5 * 10; nothing goes on into what was inserted later.
    two = {
        (0, 0, 10, 0, 2),
        (1, 1, 10, 0, 2),
        (5, 2, 15, 0.5, 6),
        (7, 0, 1.5, 0, 2),
        (1, 1, 1, 0, 2),
        (5, 2, 1, 0.5, 6),
    }
    assert transitions(outside, n_step=2) == two


def test_a_step_by_itself() -> None:
    """What comes step by step is inserted so, from tensors of any precision too."""
    memory, outside = opened()
    for number in range(3):
        one = {name: values[number : number + 1] for name, values in steps().items()}
        assert memory.insert(**one | {"obs": torch.tensor(one["obs"], dtype=torch.bfloat16)}) == 1
    assert transitions(outside) == {(0, 0, 10, 0.5, 1), (1, 1, 20, 0, 2), (5, 2, 30, 0.5, 6)}


def test_rows_of_steps() -> None:
    """[T, B]: each row by itself, and each of them is cut where it ends."""
    memory, outside = opened()
    arrays: dict[str, Any] = {
        "obs": [[[0.0], [5.0]], [[1.0], [6.0]]],
        "action": torch.tensor([[1, 3], [2, 3]]),
        "reward": [[1, 3], [2, 4]],
        "next_obs": [[[1.0], [6.0]], [[2.0], [7.0]]],
        "terminated": np.zeros((2, 2), np.int8),
        "truncated": np.zeros((2, 2), np.bool_),
    }
    assert memory.insert(**arrays) == 4
    found = {(0, 0, 1, 0.5, 1), (1, 1, 2, 0.5, 2), (5, 2, 3, 0.5, 6), (6, 2, 4, 0.5, 7)}
    assert transitions(outside) == found
    arrays["next_obs"][0][1] = [8.0]
    with pytest.raises(ConfigError, match=r"next_obs of step 0 of row 1 is not obs of the step behind it"):
        memory.insert(**arrays)


def test_trees() -> None:
    memory, outside = opened(NESTED)
    obs = {"at": [0, 3], "image": np.full((2, 2, 2), 7, np.uint8)}
    came_to = {"at": [3, 1], "image": np.full((2, 2, 2), 7.0)}
    given = steps(obs=obs, action=[[0.5, 1], [2, -1]], reward=[1, 1], next_obs=came_to)
    flags = {"terminated": [False, True], "truncated": [False, False]}
    assert memory.insert(**given | flags) == 2
    batch: Any = Reader(outside.memory, batch_size=50).sample()
    assert set(zip(batch.obs["at"].tolist(), batch.next_obs["at"].tolist(), strict=True)) == {(0, 3), (3, 1)}
    with pytest.raises(ConfigError, match=r"there is no obs\['image'\], which the space has"):
        memory.insert(**given | flags | {"obs": {"at": [0, 3]}})
    listed = [{"at": at, "image": np.zeros((2, 2))} for at in (0, 3)]
    with pytest.raises(
        ConfigError, match=r"obs must be a dict of arrays, .*; got a list of 2, the first of them a dict"
    ):
        memory.insert(**given | flags | {"obs": listed})
    obs["at"] = [0, 4]
    with pytest.raises(ConfigError, match=r"obs\['at'\] of step 1 is 4, outside Discrete\(4\)"):
        memory.insert(**given | flags)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reward": [10, np.nan, 20]}, "the numbers of reward are not finite in step 1"),
        ({"reward": []}, r"reward must be an array \[T\] of T steps, .* with at least one step, got \[0\]"),
        ({"reward": 1.0}, r"reward must be an array \[T\]"),
        ({"reward": [1, 2]}, r"terminated must be an array \[2\], as reward has the axes \[2\], got \[3\]"),
        ({"reward": [1, 1e39, 1]}, "float32 does not hold all numbers of reward, the first in step 1"),
        ({"obs": [0.0, 1.0, 5.0]}, r"obs must be an array \[3, 1\], as reward has the axes \[3\], got \[3\]"),
        ({"obs": [[0.0], [1.0], [50.0]]}, "obs of step 2 is 50, outside Box.*; is it in other units"),
        ({"next_obs": [[1.0], [np.inf], [6.0]]}, "the numbers of next_obs are not finite in step 1"),
        ({"next_obs": [[1.5], [2.0], [6.0]]}, "next_obs of step 0 is not obs of the step behind it"),
        ({"terminated": [False, False, True]}, "next_obs of step 1 is not obs of the step behind it"),
        ({"terminated": [0, 0.5, 0]}, "bool does not hold all numbers of terminated, the first in step 1"),
        ({"action": [1, 4, 0]}, r"the action 4 of step 1 is outside Discrete\(3, start=1\)"),
        ({"action": [1, 1.5, 2]}, "int64 does not hold all numbers of action, the first in step 1"),
        ({"action": ["left", "up", "up"]}, "expected numbers as action, got an array of the type <U4"),
        ({"obs": [[0.0], [1.0], [5.0, 6.0]]}, "obs is no array"),
        ({"reward": torch.ones(3).to_sparse()}, "reward is no array"),
        ({"reward": np.ma.array([1, 2, 3], mask=[False, True, False])}, "reward is an array with values masked out"),
    ],
)
def test_what_no_step_can_be(changes: dict[str, Any], said: str) -> None:
    memory, outside = opened()
    with pytest.raises(ConfigError, match=f"^memory.insert: {said}"):
        memory.insert(**steps(**changes))
    assert outside.empty


def test_what_is_inserted_first_is_overwritten_first() -> None:
    """5 records for each insert, of which 12 slots hold two and what is whole of a third."""
    memory, outside = opened(size=12)
    for number in range(3):
        memory.insert(**steps(reward=[number] * 3))
    assert {int(found[2]) for found in transitions(outside)} == {0, 1, 2}
    memory.insert(**steps(reward=[3] * 3))
    assert {int(found[2]) for found in transitions(outside)} == {1, 2, 3}
    with pytest.raises(ConfigError, match="12 steps, 12 of them ends, need 24 records, and there is room for 12"):
        memory.insert(**{name: [values[2]] * 12 for name, values in steps(truncated=[True] * 3).items()})
    assert memory.num_inserted == 12


@pytest.mark.parametrize("beside", [False, True])
def test_a_saved_memory_goes_on(monkeypatch: pytest.MonkeyPatch, *, beside: bool) -> None:
    """In chunks of 16 records and what is behind them; a data set's ring is not saved."""
    monkeypatch.setattr(replay_state, "MOST", 16)
    given = steps_in_order(GivenSteps(**steps(reward=[8, 8, 8])), SPEC, taken)
    data = Data(Path("set"), "abc", 2, given) if beside else None
    outside, other = (Outside(SPEC, data=data, size=100) for _ in range(2))
    memory = Insertion()
    for number in range(8):
        memory.open(outside, taken, reward_scale=1.0)
        memory.insert(**steps(reward=[number] * 3))
    memory.open(other, taken, reward_scale=1.0)
    memory.insert(**steps(reward=[9, 9, 9]))
    state = outside.state()
    assert len(state["chunks"].arrays) == 8 * 5 // 16
    other.restore(state)
    assert transitions(other) == transitions(outside)
    assert {found[2] for found in transitions(other)} == set(range(8 + beside))
    assert memory.num_inserted == 8 * 3
    with pytest.raises(ConfigError, match="its settings must be the same"):
        Outside(SPEC, data=data, size=50).restore(state)


def test_where_nothing_can_be_inserted() -> None:
    memory = Insertion()
    with pytest.raises(ConfigError, match=r"memory.insert: this run has no replay memory so far"):
        memory.insert(**steps())
    memory.refuse()
    with pytest.raises(ConfigError, match=r"set replay.inserted_size to as many as are to be kept"):
        memory.insert(**steps())
    memory.open(opened()[1], taken, reward_scale=1.0)
    raised: list[ConfigError] = []

    def elsewhere() -> None:
        try:
            memory.insert(**steps())
        except ConfigError as error:
            raised.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "another thread than the run's" in str(raised[0])
    folders: list[tuple[Any, dict[str, Any], str]] = [
        (5, {}, "memory.insert_data: expected the folder of a data set as a path, got 5"),
        ("x", {"rate_hz": -1}, "rate_hz must be a number above 0, got -1"),
        ("x", {"rate_hz": "5"}, "rate_hz must be a number above 0"),
        ("x", {"units": "m"}, "units must be texts, one for each number of an observation, got 'm'"),
        ("x", {"units": 5}, "units must be texts"),
    ]
    for folder, wrong, said in folders:
        with pytest.raises(ConfigError, match=said):
            memory.insert_data(folder, **wrong)
    assert memory.insert(**steps()) == 3
    memory.close()
    for insert in (lambda: memory.insert(**steps()), lambda: memory.insert_data("x")):
        with pytest.raises(ConfigError, match=r"the run has ended, .*; insert while it goes on, in a callback"):
            insert()
    assert memory.num_inserted == 3
    masked = Spec.of("World-v2", spaces.Box(-9, 9, (1,)), spaces.Discrete(3), masked=True)
    with pytest.raises(ConfigError, match="World-v2 has action masks, which steps from outside do not hold"):
        check_insertable(masked)
