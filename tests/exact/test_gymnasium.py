"""The five native environments equal Gymnasium's bit for bit, from seeds, over 100,000 steps each."""

import platform
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.native_rows import NativeRows, native_rows

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="the claim is for x86-64 with glibc and the pinned NumPy"
)

SEEDS = [*range(13), 2**32 - 1, 2**32, 2**40 + 3, 2**53, 2**63, 2**64 - 1, 77]
NUM_STEPS = 100_000

Actions: TypeAlias = NDArray[np.int64] | NDArray[np.float32]
Rule: TypeAlias = Callable[[NDArray[np.float32], np.random.Generator], Actions]


def act_cart_pole(obs: NDArray[np.float32], rng: np.random.Generator) -> Actions:
    """Even rows balance until the time limit; odd rows fall."""
    action = rng.integers(0, 2, len(obs))
    balance = obs @ np.array([0.05, 0.1, 1.0, 0.5], np.float32) > 0
    action[::2] = balance[::2]
    return action


def act_mountain_car(obs: NDArray[np.float32], rng: np.random.Generator) -> Actions:
    """Even rows push the way they roll and reach the flag; odd rows push at random."""
    action = rng.integers(0, 3, len(obs))
    action[::2] = np.where(obs[::2, 1] >= 0, 2, 0)
    return action


def act_mountain_car_continuous(obs: NDArray[np.float32], rng: np.random.Generator) -> Actions:
    """As above, some rows with all of the throttle and some with most of it."""
    action = rng.uniform(-1, 1, (len(obs), 1)).astype(np.float32)
    action[::2, 0] = np.where(obs[::2, 1] >= 0, 1, -1)
    action[::4, 0] *= rng.uniform(0.7, 1, len(obs[::4])).astype(np.float32)
    return action


def act_acrobot(obs: NDArray[np.float32], rng: np.random.Generator) -> Actions:
    """Even rows swing the second link against the first and go up; odd rows move at random."""
    action = rng.integers(0, 3, len(obs))
    action[::2] = np.where(obs[::2, 4] >= 0, 0, 2)
    return action


def act_pendulum(obs: NDArray[np.float32], rng: np.random.Generator) -> Actions:
    """Even rows spin up to the speed limit; odd rows push at random, sometimes with all their strength."""
    action = np.clip(rng.uniform(-2.2, 2.2, (len(obs), 1)), -2, 2).astype(np.float32)
    action[::2, 0] = np.where(obs[::2, 2] >= 0, 2, -2)
    return action


RULES: dict[str, Rule] = {
    "CartPole-v1": act_cart_pole,
    "MountainCar-v0": act_mountain_car,
    "MountainCarContinuous-v0": act_mountain_car_continuous,
    "Acrobot-v1": act_acrobot,
    "Pendulum-v1": act_pendulum,
}


class Reference:
    """One Gymnasium environment with the bookkeeping that the pool does itself."""

    def __init__(self, env_id: str, seed: int, params: dict[str, Any]) -> None:
        self.env: gymnasium.Env[Any, Any] = gymnasium.make(env_id, disable_env_checker=True, **params)
        self.obs: NDArray[np.float32] = self.env.reset(seed=seed)[0]
        self.total, self.length = 0.0, 0

    def compare(self, rows: NativeRows, row: int, action: np.int64 | NDArray[np.float32], counts: Counter[str]) -> None:
        """Steps and adds to `counts` what ended and what differs from the row."""
        obs, reward, terminated, truncated, _ = self.env.step(action)
        self.total, self.length = self.total + float(reward), self.length + 1
        counts["reward"] += bool(reward != rows.reward[row])
        counts["terminated"] += bool(terminated != rows.terminated[row])
        counts["truncated"] += bool(truncated != rows.truncated[row])
        if terminated or truncated:
            counts["final_obs"] += not same_bits(obs, rows.final_obs[row])
            counts["episode_return"] += bool(self.total != rows.episode_return[row])
            counts["episode_length"] += bool(self.length != rows.episode_length[row])
            counts["ends by terminating"] += bool(terminated)
            counts["ends by time"] += bool(truncated)
            obs, _ = self.env.reset()
            self.total, self.length = 0.0, 0
        counts["obs"] += not same_bits(obs, rows.obs[row])


def same_bits(left: NDArray[np.float32], right: NDArray[np.float32]) -> bool:
    """Equal bytes: a zero of the other sign is a difference."""
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


def count_mismatches(env_id: str, num_steps: int, params: dict[str, Any]) -> tuple[Counter[str], Counter[str]]:
    """Mismatches and episode ends over `num_steps` steps of all rows together."""
    rows = native_rows(env_id, len(SEEDS), num_threads=2, **params)
    rows.reset(SEEDS)
    references = [Reference(env_id, seed, params) for seed in SEEDS]
    counts: Counter[str] = Counter()
    for row, reference in enumerate(references):
        counts["reset"] += not same_bits(reference.obs, rows.obs[row])
    rng = np.random.default_rng(20)
    for _ in range(num_steps // len(SEEDS)):
        actions = RULES[env_id](rows.obs, rng)
        rows.step(actions)
        for row, reference in enumerate(references):
            reference.compare(rows, row, actions[row], counts)
    ends = Counter({name: count for name, count in counts.items() if name.startswith("ends")})
    return Counter({name: count for name, count in counts.items() if name not in ends and count}), ends


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("env_id", "terminates", "truncates"),
    [
        ("CartPole-v1", 1_000, 50),
        ("MountainCar-v0", 100, 100),
        ("MountainCarContinuous-v0", 100, 10),
        pytest.param("Acrobot-v1", 100, 50, marks=pytest.mark.slow),
        ("Pendulum-v1", 0, 500),
    ],
)
def test_equals_gymnasium(env_id: str, terminates: int, truncates: int) -> None:
    mismatches, ends = count_mismatches(env_id, NUM_STEPS, {})
    assert mismatches == {}
    assert ends["ends by terminating"] >= terminates
    assert ends["ends by time"] >= truncates


def test_some_steps_of_acrobot() -> None:
    """A fifth of what the slow test compares."""
    mismatches, ends = count_mismatches("Acrobot-v1", NUM_STEPS // 5, {})
    assert mismatches == {}
    assert ends["ends by time"] >= 5


@pytest.mark.parametrize(
    ("env_id", "params"),
    [
        ("CartPole-v1", {"sutton_barto_reward": True, "max_episode_steps": 12}),
        ("MountainCar-v0", {"goal_velocity": 0.02, "max_episode_steps": 150}),
        ("MountainCarContinuous-v0", {"goal_velocity": 0.04, "max_episode_steps": 150}),
        ("Acrobot-v1", {"max_episode_steps": 1}),
        ("Pendulum-v1", {"g": 9.81, "max_episode_steps": 3}),
    ],
)
def test_parameters_equal_gymnasium(env_id: str, params: dict[str, Any]) -> None:
    mismatches, ends = count_mismatches(env_id, 10_000, params)
    assert mismatches == {}
    assert ends["ends by time"] > 0


@pytest.mark.parametrize("env_id", list(RULES))
def test_resets_equal_gymnasium(env_id: str) -> None:
    seeds = list(range(1_000, 3_000))
    rows = native_rows(env_id, len(seeds))
    rows.reset(seeds)
    env: gymnasium.Env[Any, Any] = gymnasium.make(env_id)
    assert sum(not same_bits(env.reset(seed=seed)[0], obs) for seed, obs in zip(seeds, rows.obs, strict=True)) == 0
