"""Costs of steps: six values or an info key, through every Python backend, summed, saved, and refused."""

import sys
from functools import partial
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from shoal.envs.costs.crossing import Crossing
from shoal.envs.costs.rows import CostedEnv, costed
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make, on_servers
from shoal.envs.vec_env import VecEnv
from shoal.envs.workers.settings import Workers
from shoal.types import ConfigError, EnvError

pytestmark = pytest.mark.usefixtures("warm_workers")

cloudpickle.register_pickle_by_value(sys.modules[__name__])
COST = Preprocessing(cost_key="cost")


class Toll(gym.Env[Any, Any]):
    """Step t of an episode of three costs t, whatever is done."""

    observation_space = spaces.Box(-9, 9, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, *, six: bool = True, cost: Any = None, key: str = "cost") -> None:
        self.six, self.cost, self.key, self.steps = six, cost, key, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        cost = float(self.steps) if self.cost is None else self.cost
        obs, over = np.full(1, self.steps, np.float32), self.steps == 3
        return (obs, 1.0, cost, over, False, {}) if self.six else (obs, 1.0, over, False, {self.key: cost})


def rows_of(num_envs: int = 2, *, preprocessing: Preprocessing = COST, backend: str = "serial", **about: Any) -> VecEnv:
    workers = Workers(num_envs) if backend == "workers" else None
    made = make(partial(Toll, **about), num_envs, backend=backend, preprocessing=preprocessing, workers=workers)
    return costed(made)


def step(rows: VecEnv) -> Any:
    rows.send(slice(0, rows.num_rows), np.zeros(rows.num_rows, np.int64))
    return rows.recv()


def step_cost(ready: Any) -> list[float]:
    return ready.cost.tolist()


@pytest.mark.parametrize("six", [True, False])
@pytest.mark.parametrize("backend", ["serial", pytest.param("workers", marks=pytest.mark.slow)])
def test_costs_of_steps_and_episodes_by_hand(backend: str, *, six: bool) -> None:
    rows = rows_of(six=six, backend=backend)
    assert rows.spec.costs
    assert rows.spec.info_keys == ("cost",)
    rows.reset(0)
    assert step_cost(rows.recv()) == [0, 0]
    for _ in range(2):
        for cost in (1, 2, 3):
            ready = step(rows)
            assert ready.cost.tolist() == [cost, cost]
        # 1 + 2 + 3; rewards and returns have nothing of it.
        assert ready.info["cost"].tolist() == [6, 6]
        assert ready.episode_return.tolist() == [3, 3]
    rows.close()


def test_a_time_limit_and_stacks_stand_around_costs() -> None:
    rows = rows_of(preprocessing=Preprocessing(cost_key="cost", max_episode_steps=2, frame_stack=2))
    rows.reset(0)
    rows.recv()
    step(rows)
    ready = step(rows)
    assert ready.truncated.all()
    assert ready.info["cost"].tolist() == [3, 3]
    assert ready.final_obs.tolist() == [[[1], [2]]] * 2
    rows.close()


def test_saved_rows_go_on_with_what_their_episode_has_cost() -> None:
    rows, other = rows_of(), rows_of()
    rows.reset(0)
    rows.recv()
    step(rows)
    step(rows)
    other.restore(rows.state())
    other.recv()
    assert step(other).info["cost"].tolist() == step(rows).info["cost"].tolist() == [6, 6]
    rows.close()
    other.close()


def test_rows_without_costs_are_themselves() -> None:
    rows = make("CartPole-v1", 1)
    assert costed(rows) is rows
    rows.close()


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"cost": np.nan}, "cost is nan; it must be a finite number"),
        ({"cost": "much"}, "cost is 'much'"),
        ({"cost": [1, 2]}, "it must be a finite number"),
        ({"six": False, "key": "price"}, "no cost under 'cost', only price"),
    ],
)
def test_what_is_no_cost(about: dict[str, Any], said: str) -> None:
    rows = rows_of(**about)
    rows.reset(0)
    rows.recv()
    with pytest.raises(EnvError, match=said) as caught:
        step(rows)
    assert "row 0" in caught.value.__notes__[0]
    rows.close()


def test_six_values_are_told_how_to_be_read() -> None:
    rows = make(Toll, 1)
    rows.reset(0)
    rows.recv()
    with pytest.raises(EnvError, match=r"third of six values is a cost, set preprocessing.cost_key='cost'"):
        step(rows)
    rows.close()


def test_who_hands_over_no_costs() -> None:
    with pytest.raises(ConfigError, match=r"cost_key='cost' is for Python environments"):
        make("CartPole-v1", 1, preprocessing=COST)
    with pytest.raises(ConfigError, match="several agents, whose costs are not read"):
        make("shoal.envs.agents.tictactoe:TicTacToe", 1, preprocessing=COST)
    with pytest.raises(ConfigError, match="cost_key is for whoever makes the environments"):
        on_servers("grpc://127.0.0.1:1", 1, None, (), COST)
    rows = make(partial(Toll, six=False), 1, preprocessing=COST, info_keys=("cost",))
    with pytest.raises(ConfigError, match="info_keys has 'cost'"):
        costed(rows)


def test_the_crossing_by_hand() -> None:
    env: Any = Crossing()
    env.reset(seed=3)
    env._place, env._speed, env._goal = (-0.5, 0.0), (0.0, 0.0), (0.75, 0.0)
    # A push of 0.05 to the right: at -0.45 the disc of radius 0.45 is only touched.
    obs, reward, cost, terminated, truncated, info = env.step(np.array([1, 0], np.float32))
    assert obs == pytest.approx(np.array([-0.45, 0, 0.05, 0, 1.2, 0]))
    assert (reward, cost, terminated, truncated, info) == (pytest.approx(0.05), 0.0, False, False, {})
    # 0.10 more: inside.
    _, reward, cost, *_ = env.step(np.array([1, 0], np.float32))
    assert (reward, cost) == (pytest.approx(0.10), 1.0)
    # At most 0.15 in a step; then the goal is reached and another one aimed at.
    env._place, env._speed = (0.5, 0.0), (0.5, 0.0)
    _, reward, cost, *_ = env.step(np.array([0, 0], np.float32))
    assert (reward, cost) == (pytest.approx(1.15), 0.0)
    assert env._goal[0] < 0.75
    rows = costed(make("shoal.envs.costs.crossing:Crossing", 2, preprocessing=COST))
    assert isinstance(rows, CostedEnv)
    rows.reset(0)
    ready = rows.recv()
    rng = np.random.default_rng(0)
    for _ in range(100):
        rows.send(slice(0, 2), rng.uniform(-1, 1, (2, 2)).astype(np.float32))
        ready = rows.recv()
    assert ready.truncated.all()
    assert (ready.info["cost"] >= 0).all()
    rows.close()
