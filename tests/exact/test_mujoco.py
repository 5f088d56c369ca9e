"""The backend `mujoco` equals Gymnasium's own environments bit for bit: observations, rewards, ends, resets."""

from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from shoal.envs.mujoco.tasks import READERS
from shoal.envs.registry import make
from shoal.envs.vec_env import VecEnv

pytest.importorskip("mujoco")

ROWS, STEPS = 3, 700
KEYWORDS: list[tuple[str, dict[str, Any]]] = [
    *((env_id, {}) for env_id in READERS),
    (
        "HalfCheetah-v5",
        {
            "forward_reward_weight": 2,
            "ctrl_cost_weight": 0.3,
            "exclude_current_positions_from_observation": False,
            "frame_skip": 3,
            "reset_noise_scale": 0.5,
        },
    ),
    ("Hopper-v5", {"healthy_state_range": (-3.0, 2), "healthy_angle_range": (-0.5, 0.5), "healthy_reward": -0.5}),
    ("Hopper-v5", {"terminate_when_unhealthy": False, "healthy_z_range": (1.0, 1.3), "frame_skip": 2}),
    ("Walker2d-v5", {"healthy_z_range": [1.1, 1.3], "healthy_angle_range": (-0.3, 0.1), "ctrl_cost_weight": 1}),
    ("Ant-v5", {"include_cfrc_ext_in_observation": False, "exclude_current_positions_from_observation": False}),
    ("Ant-v5", {"healthy_z_range": (0.45, 0.8), "ctrl_cost_weight": 0, "healthy_reward": 3}),
    ("Ant-v5", {"main_body": "aux_1", "contact_force_range": (-0.5, 2), "contact_cost_weight": 1}),
    ("Ant-v5", {"terminate_when_unhealthy": False, "main_body": 4}),
    (
        "Humanoid-v5",
        {
            "include_cinert_in_observation": False,
            "include_qfrc_actuator_in_observation": False,
            "contact_cost_weight": 1e-3,
            "contact_cost_range": (0.1, 0.5),
            "healthy_z_range": (0.9, 1.5),
        },
    ),
    ("Humanoid-v5", {"include_cvel_in_observation": False, "include_cfrc_ext_in_observation": False}),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes its warnings into a file in the current folder."""
    monkeypatch.chdir(tmp_path)


def same(left: Any, right: NDArray[Any]) -> bool:
    """Equal bytes: a zero of the other sign is a difference."""
    left = np.asarray(left)
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


def draw(space: Any, rng: np.random.Generator, step: int) -> NDArray[np.float32]:
    """At random; for a while nothing is done, and then always the most."""
    action = rng.uniform(space.low, space.high, (ROWS, *space.shape)).astype(np.float32)
    if step % 200 > 150:
        action = np.sign(action) * space.high * (step % 200 > 175)
    return action


def compare(rows: VecEnv, envs: list[gym.Env[Any, Any]], seed: int, parts: tuple[slice, ...]) -> Counter[str]:
    """Mismatches by name, and how episodes ended; the rows are sent in parts."""
    rows.reset(seed)
    ready, counts = rows.recv(), Counter[str]()
    for row, env in enumerate(envs):
        counts["reset"] += not same(env.reset(seed=seed + row)[0], ready.obs[row])
    rng, lengths = np.random.default_rng(seed), np.zeros(ROWS, np.int64)
    for step in range(STEPS):
        actions = draw(rows.spec.action_space, rng, step)
        for part in parts:
            rows.send(part, actions[part])
        for part in parts:
            ready = rows.recv()
            for at, row in enumerate(range(part.start, part.stop)):
                obs, reward, terminated, truncated, _ = envs[row].step(actions[row])
                counts["reward"] += not same(np.float64(reward), ready.reward[at])
                counts["terminated"] += terminated != ready.terminated[at]
                counts["truncated"] += truncated != ready.truncated[at]
                lengths[row] += 1
                if terminated or truncated:
                    counts["final_obs"] += not same(obs, ready.final_obs[at])
                    counts["length"] += lengths[row] != ready.episode_length[at]
                    counts["ends by time" if truncated else "ends by itself"] += 1
                    obs, lengths[row] = envs[row].reset()[0], 0
                counts["obs"] += not same(obs, ready.obs[at])
    return counts


@pytest.mark.parametrize(
    ("env_id", "keywords"), KEYWORDS, ids=lambda part: part if isinstance(part, str) else "-".join(part)
)
def test_equals_gymnasium(env_id: str, keywords: dict[str, Any]) -> None:
    keywords = keywords | {"max_episode_steps": 130}
    envs = [gym.make(env_id, **keywords) for _ in range(ROWS)]
    rows = make(env_id, ROWS, backend="mujoco", num_threads=2, env_kwargs=keywords)
    counts = compare(rows, envs, 7, (slice(0, 1), slice(1, ROWS)))
    assert counts["ends by time"] + counts["ends by itself"] >= 6
    assert not {name: count for name, count in counts.items() if count and not name.startswith("ends")}
    assert rows.spec.observation_space == envs[0].observation_space
    rows.close()


@pytest.mark.parametrize("env_id", ["Ant-v5", "HalfCheetah-v5"])
def test_a_state_gone_bad_is_reset_by_mujoco_as_in_gymnasium(env_id: str) -> None:
    """MuJoCo begins a simulation anew whose numbers are not finite, in the middle of a step, and warns."""
    rows: Any = make(env_id, 1, backend="mujoco")
    single: Any = gym.make(env_id).unwrapped
    rows.reset(3)
    rows.recv()
    single.reset(seed=3)
    action = np.zeros((1, *single.action_space.shape), np.float32)
    for bad in (None, np.nan, None, 1e12, None):
        for env in (rows.envs[0], single):
            if bad is not None:
                env.data.qvel[2] = bad
        obs, reward, terminated, _, _ = single.step(action[0])
        rows.send(slice(0, 1), action)
        ready = rows.recv()
        assert not terminated
        assert same(obs, ready.obs[0])
        assert same(np.float64(reward), ready.reward[0])
    assert single.data.warning.number.sum() == rows.envs[0].data.warning.number.sum() > 0
