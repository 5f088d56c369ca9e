"""`agent.predict`, as programs that were written for Stable-Baselines3 call it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

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


def test_a_limit_of_change_holds_in_each_stream_by_itself(tmp_path: Path) -> None:
    """Two streams that take turns hand back what they did; an agent that is not told refuses."""
    guard = {"max_change": (0.125,)}
    path = shoal.train("Pendulum-v1", run_dir=tmp_path, action_guard=guard, backend="serial", **TINY).path
    agent, alone = shoal.load(path), shoal.load(path)
    seen = np.random.default_rng(1).normal(size=(2, 8, 2, 3)).astype(np.float32)
    seen[1] *= -1
    states: list[Any] = [None, None]
    done: list[list[Any]] = [[], []]
    for step in range(8):
        for number in (0, 1):
            start = np.ones(2, bool) if not step else None
            action, states[number] = agent.predict(seen[number, step], states[number], start, deterministic=False)
            assert np.array_equal(states[number]["last_action"], action)
            done[number].append(action)
    for stream in done:
        assert np.abs(np.diff(stream, axis=0)).max() <= 0.125
    assert np.abs(done[0][0] - done[1][0]).max() > 0.125  # one does not hold the other
    with pytest.raises(ValueError, match="hand back the state of the last call, or say episode_start=True"):
        agent.predict(seen[0, 0])
    with pytest.raises(ValueError, match="hand back the state"):
        agent.predict(seen[0, 0], None, [True, False])
    for wrong in (np.zeros((2, 1)), {"last_action": np.zeros((3, 1))}, {"last_action": np.full((2, 1), np.nan)}, {}):
        with pytest.raises(ValueError, match="is not what the last call of predict returned"):
            agent.predict(seen[0, 0], wrong)
    again, _ = agent.predict(seen[0, 0], {"last_action": np.full((2, 1), 5.0)}, episode_start=True)
    alone.reset()
    assert np.array_equal(again, alone.act(seen[0, 0]))
    assert alone.predict(seen[0, 0, 0], None, True)[1]["last_action"].shape == (1, 1)


class Shown(gym.Env[Any, Any]):
    """Shows a choice and numbers."""

    def __init__(self) -> None:
        self.observation_space = spaces.Dict({"at": spaces.Discrete(3, start=5), "near": spaces.Box(-1, 1, (2,))})
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return {"at": 5, "near": np.zeros(2, np.float32)}, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return {"at": 6, "near": np.zeros(2, np.float32)}, 0.0, True, False, {}


def test_what_no_environment_shows_is_refused_in_words(tmp_path: Path) -> None:
    """Tuples of reset() and step(), choices outside their space, and what makes no array: not the policy's fault."""
    one, _ = agents(tmp_path, {"hidden": [8]})
    obs = np.zeros(4, np.float32)
    path = shoal.train(Shown, run_dir=tmp_path, backend="serial", **TINY).path
    other = shoal.load(path, factory=Shown)
    near = np.zeros(2)
    cases: list[tuple[Any, Any, str]] = [
        (one, (obs, {}), r"an environment's reset\(\) returns, a tuple of 2; the observation is its first item"),
        (one, (obs, 1.0, False, False, {}), r"an environment's step\(\) returns, a tuple of 5"),
        (one, [(obs, {})], "got a list that makes no array"),
        (other, ({"at": 5, "near": near}, {}), r"reset\(\) returns"),
        (other, {"at": 8, "near": near}, r"observation\['at'\] holds 8, which is outside Discrete\(3, start=5\)"),
        (other, {"at": [5, 4], "near": [near, near]}, "holds 4, which is outside"),
        (other, {"at": 5, "near": [0, np.nan]}, r"\['near'\] holds numbers that are not finite"),
        (other, {"at": 5.5, "near": near}, r"\['at'\] holds numbers that int64 cannot hold"),
    ]
    for agent, shown, said in cases:
        for ask in (agent.predict, agent.act):
            with pytest.raises(ValueError, match=said):
                ask(shown)
