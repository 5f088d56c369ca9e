"""`agent.predict`, as programs that were written for Stable-Baselines3 call it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import shoal
from shoal.types import map_tree

if TYPE_CHECKING:
    from pathlib import Path

TINY: dict[str, Any] = {
    "num_envs": 4,
    "num_steps": 8,
    "num_minibatches": 2,
    "total_timesteps": 64,
    "panel": "none",
    "final_episodes": 0,
}


def agents(tmp_path: Path, network: dict[str, Any], **settings: Any) -> tuple[Any, Any]:
    """One run's policy, loaded twice."""
    path = shoal.train("CartPole-v1", run_dir=tmp_path, network=network, **TINY, **settings).path
    return shoal.load(path), shoal.load(path)


@pytest.mark.parametrize("native", [True, False])
def test_memory_is_what_the_caller_hands_back(tmp_path: Path, *, native: bool) -> None:
    """Two episodes that take turns are as each by itself, and as `act` has them; a start empties the memory."""
    network = {"recurrent": "lstm", "recurrent_size": 4, "hidden": [8]}
    one, other = agents(tmp_path, network, native=native, seed=3)
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(2, 12, 3, 4)).astype(np.float32)
    alone = []
    for episode in seen:
        other.reset()
        alone.append([other.act(obs) for obs in episode])
    states: list[Any] = [None, None]
    for step in range(12):
        for number in (0, 1):
            action, states[number] = one.predict(seen[number, step], states[number])
            assert np.array_equal(action, alone[number][step])
    kept = states[0]
    again, _ = one.predict(seen[0, 0], kept, episode_start=np.ones(3, bool))
    assert np.array_equal(again, alone[0][0])
    assert all(np.array_equal(x, y) for x, y in zip(leaves(kept), leaves(states[0]), strict=True))
    single, state = one.predict(seen[0, 0, 0])
    assert single == alone[0][0][0]
    assert leaves(state)[0].shape[0] == 1
    with pytest.raises(ValueError, match=r"is not what the last call of predict returned .*state=None begins anew"):
        one.predict(seen[0, 0], state)
    with pytest.raises(ValueError, match="state=None begins anew"):
        one.predict(seen[0, 0], "nonsense")
    with pytest.raises(ValueError, match=r"begins anew .*not finite"):
        one.predict(seen[0, 0], map_tree(lambda part: np.full_like(part, np.nan), kept))
    starts: tuple[Any, ...] = ([True], "abc", [0, np.nan, 0], [None] * 3, np.ones((3, 1)))
    for start in starts:
        with pytest.raises(ValueError, match="begin an episode must be a bool, or 3 of them"):
            one.predict(seen[0, 0], kept, episode_start=start)
    drawn, _ = one.predict(seen[0, 0], map_tree(torch.tensor, kept), deterministic=np.bool_(False))
    assert drawn.shape == (3,)


def leaves(state: Any) -> list[Any]:
    return [x for part in state for x in leaves(part)] if isinstance(state, tuple) else [state]


def test_without_a_memory_there_is_no_state(tmp_path: Path) -> None:
    one, other = agents(tmp_path, {"hidden": [8]})
    obs = np.zeros((64, 4), np.float32)
    action, state = one.predict(obs, deterministic=True)
    assert state is None
    assert np.array_equal(action, other.act(obs))
    assert len(set(one.predict(obs, deterministic=False)[0].tolist())) == 2
    with pytest.raises(ValueError, match="no memory"):
        one.predict(obs, np.zeros(3))
