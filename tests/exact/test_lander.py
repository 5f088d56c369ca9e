"""Native LunarLander equals Gymnasium's bit for bit: both modes, wind, time limits, half of the rows flown to land."""

import platform
from collections import Counter
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.box2d.lunar_lander import heuristic
from numpy.typing import NDArray

from shoal import _native
from tests.exact.test_gymnasium import Reference, same_bits
from tests.native_rows import native_rows

pytestmark = [
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the claim is for x86-64 with glibc"),
    pytest.mark.skipif("LunarLander-v3" not in _native.env_ids(), reason="built without Box2D: run `make setup`"),
]

IDS = ["LunarLander-v3", "LunarLanderContinuous-v3"]
STORM = {"enable_wind": True, "wind_power": 20.0, "turbulence_power": 2.0}
# Parameters, and the part of the steps that is flown under them.
SETTINGS: list[tuple[dict[str, Any], float]] = [
    ({}, 0.4),
    ({"enable_wind": True}, 0.3),
    (STORM | {"gravity": -7.5, "max_episode_steps": 150}, 0.2),
    ({"max_episode_steps": 60}, 0.1),
]


def choose(
    env_id: str, references: list[Reference], obs: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[Any]:
    """Even rows fly by Gymnasium's own heuristic; odd rows act at random."""
    size = len(references)
    continuous = env_id == "LunarLanderContinuous-v3"
    action = rng.uniform(-1, 1, (size, 2)).astype(np.float32) if continuous else rng.integers(0, 4, size)
    for row in range(0, size, 2):
        action[row] = heuristic(references[row].env, obs[row])
    return action


def count_mismatches(env_id: str, num_steps: int, params: dict[str, Any], num_rows: int) -> Counter[str]:
    """Mismatches by name over `num_steps` steps of all rows together, and how the episodes ended."""
    rows = native_rows(env_id, num_rows, num_threads=2, **params)
    seeds = [31 * row for row in range(num_rows)]
    rows.reset(seeds)
    references = [Reference(env_id, seed, params) for seed in seeds]
    counts: Counter[str] = Counter()
    for row, reference in enumerate(references):
        counts["reset"] += not same_bits(reference.obs, rows.obs[row])
    rng = np.random.default_rng(5)
    for _ in range(num_steps // num_rows):
        action = choose(env_id, references, rows.obs, rng)
        rows.step(action)
        for row, reference in enumerate(references):
            reference.compare(rows, row, action[row], counts)
        counts["ends by landing"] += int((rows.reward == 100).sum())
    return counts


def fly(env_id: str, num_steps: int, num_rows: int) -> Counter[str]:
    """All settings in their parts."""
    counts: Counter[str] = Counter()
    for params, part in SETTINGS:
        counts += count_mismatches(env_id, int(num_steps * part), params, num_rows)
    return counts


def mismatches(counts: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count and not name.startswith("ends")}


@pytest.mark.parametrize("env_id", IDS)
def test_equals_gymnasium(env_id: str) -> None:
    counts = fly(env_id, 10_000, num_rows=6)
    assert mismatches(counts) == {}
    assert counts["ends by landing"] >= 5
    assert counts["ends by terminating"] >= 40
    assert counts["ends by time"] >= 10


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("env_id", IDS)
def test_equals_gymnasium_in_200_000_steps(env_id: str) -> None:
    """100,000 steps of each mode."""
    counts = fly(env_id, 100_000, num_rows=20)
    assert mismatches(counts) == {}
    assert counts["ends by landing"] >= 100
    assert counts["ends by terminating"] >= 500
    assert counts["ends by time"] >= 100


def test_the_engines_sparks_change_nothing() -> None:
    """Gymnasium makes them where it renders: bodies in its world that the native version leaves out."""
    counts = count_mismatches("LunarLander-v3", 2_000, {"max_episode_steps": 200}, num_rows=4)
    assert mismatches(counts) == {}
    rows = native_rows("LunarLander-v3", 1)
    env: Any = gymnasium.make("LunarLander-v3", render_mode="rgb_array", disable_env_checker=True)
    obs, _ = env.reset(seed=0)
    rows.reset([0])
    most = 0
    for _ in range(2_000):
        action = heuristic(env, obs)
        obs, reward, terminated, truncated, _ = env.step(action)
        rows.step(np.array([action], np.int64))
        most = max(most, len(env.unwrapped.particles))
        assert (reward, terminated, truncated) == (rows.reward[0], rows.terminated[0], rows.truncated[0])
        if terminated or truncated:
            assert same_bits(obs, rows.final_obs[0])
            obs, _ = env.reset()
        assert same_bits(obs, rows.obs[0])
    assert most > 100
    env.close()


@pytest.mark.parametrize("env_id", IDS)
def test_resets_equal_gymnasium(env_id: str) -> None:
    seeds = list(range(1_000, 1_400))
    rows = native_rows(env_id, len(seeds), enable_wind=1)
    rows.reset(seeds)
    env: Any = gymnasium.make(env_id, enable_wind=True)
    assert sum(not same_bits(env.reset(seed=seed)[0], obs) for seed, obs in zip(seeds, rows.obs, strict=True)) == 0
