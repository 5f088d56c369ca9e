"""`make_vec` beside Gymnasium's SyncVectorEnv, step by step in both modes; wrappers, refusals, copies."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import NormalizeReward, RecordEpisodeStatistics

import shoal
from shoal.envs.registry import make
from shoal.envs.vec_env import VecEnv
from shoal.export.vector_env import MODES, make_vec
from shoal.types import ConfigError, EnvError
from tests.contract.backends import draw_actions
from tests.contract.toys import Corridor, Lamps, make_pointer

NUM_ENVS = 5
Factory = Callable[[], gym.Env[Any, Any]]
CASES: dict[str, tuple[str | Factory, str, dict[str, Any], int]] = {
    "native-CartPole": ("CartPole-v1", "native", {"max_episode_steps": 30}, 300),
    "native-Pendulum": ("Pendulum-v1", "native", {"max_episode_steps": 20}, 200),
    "native-LunarLander": ("LunarLander-v3", "auto", {"enable_wind": True, "max_episode_steps": 30}, 300),
    "serial-CartPole": ("CartPole-v1", "serial", {}, 300),
    "serial-LunarLander": ("LunarLander-v3", "serial", {}, 300),
    "serial-Corridor": (Corridor, "serial", {}, 300),
    "serial-Lamps": (Lamps, "serial", {}, 300),
    "serial-Pointer": (make_pointer, "serial", {}, 300),
}


def single(env: str | Factory, env_kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
    return gym.make(env, **env_kwargs) if isinstance(env, str) else env()


def pair(case: str, autoreset: str) -> tuple[Any, SyncVectorEnv]:
    env, backend, env_kwargs, _ = CASES[case]
    mine = make_vec(env, NUM_ENVS, backend=backend, autoreset=autoreset, env_kwargs=env_kwargs)
    factories = [lambda: single(env, env_kwargs) for _ in range(NUM_ENVS)]
    return mine, SyncVectorEnv(factories, autoreset_mode=MODES[autoreset])


def assert_equal(mine: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    for left, right in zip(mine, other, strict=True):
        assert data_equivalence(left, right, exact=True), f"{left}\n{right}"


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("case", CASES)
def test_equals_sync_vector_env(case: str, autoreset: str) -> None:
    mine, other = pair(case, autoreset)
    rng = np.random.default_rng(0)
    assert_equal(mine.reset(seed=3), other.reset(seed=3))
    ends = 0
    for _ in range(CASES[case][3]):
        actions = draw_actions(mine.single_action_space, NUM_ENVS, rng)
        stepped = mine.step(actions.copy())
        assert_equal(stepped, other.step(actions.copy()))
        ends += int((stepped[2] | stepped[3]).sum())
    assert ends > NUM_ENVS
    mine.close()
    other.close()


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("case", ["native-CartPole", "native-LunarLander", "serial-Corridor", "serial-Pointer"])
def test_resets_equal_sync_vector_env(case: str, autoreset: str) -> None:
    mine, other = pair(case, autoreset)
    rng = np.random.default_rng(1)
    seeds: list[Any] = [4, None, [9, None, 2, None, 0], None, None]
    assert_equal(mine.reset(seed=0), other.reset(seed=0))
    shown = False
    for trial in range(80):
        for _ in range(int(rng.integers(0, 20))):
            actions = draw_actions(mine.single_action_space, NUM_ENVS, rng)
            stepped = mine.step(actions.copy())
            assert_equal(stepped, other.step(actions.copy()))
            shown |= bool((stepped[2] | stepped[3]).any())
        seed, mask = seeds[trial % len(seeds)], rng.random(NUM_ENVS) < 0.5
        if trial % 2 and mask.any():
            mine_options, other_options = {"reset_mask": mask}, {"reset_mask": mask}
            assert_equal(mine.reset(seed=seed, options=mine_options), other.reset(seed=seed, options=other_options))
            assert mine_options.keys() == {"reset_mask"}
        else:
            assert_equal(mine.reset(seed=seed), other.reset(seed=seed))
    assert shown
    mine.close()
    other.close()


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_reset_options_equal_sync_vector_env(autoreset: str) -> None:
    mine, other = pair("serial-Corridor", autoreset)
    assert_equal(mine.reset(seed=0, options={"place": 5}), other.reset(seed=0, options={"place": 5}))
    for _ in range(100):
        actions = np.full(NUM_ENVS, 2)
        stepped = mine.step(actions)
        assert_equal(stepped, other.step(actions))
        if (stepped[2] | stepped[3]).any():
            assert_equal(mine.reset(options={"place": 5}), other.reset(options={"place": 5}))
    mine.close()
    other.close()


@pytest.mark.parametrize("case", ["native-CartPole", "serial-Lamps"])
@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("wrapper", [RecordEpisodeStatistics, NormalizeReward])
def test_wrappers(case: str, autoreset: str, wrapper: Any) -> None:
    mine, other = (wrapper(env) for env in pair(case, autoreset))
    rng = np.random.default_rng(2)
    mine.reset(seed=0)
    other.reset(seed=0)
    for _ in range(100):
        actions = draw_actions(mine.single_action_space, NUM_ENVS, rng)
        left, right = mine.step(actions.copy()), other.step(actions.copy())
        for infos in (left[-1], right[-1]):
            infos.get("episode", {}).pop("t", None)  # seconds
        assert_equal(left, right)
    mine.close()
    other.close()


@pytest.mark.parametrize("case", CASES)
def test_what_a_vector_env_says_of_itself(case: str) -> None:
    mine, other = pair(case, "same_step")
    assert shoal.make_vec is make_vec
    assert isinstance(mine, gym.vector.VectorEnv)
    assert mine.unwrapped is mine
    assert mine.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert (mine.num_envs, mine.render_mode) == (NUM_ENVS, None)
    for name in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(mine, name) == getattr(other, name), name
    mine.action_space.seed(0)
    obs, _ = mine.reset(seed=0)
    assert obs in mine.observation_space
    obs, reward, terminated, truncated, _ = mine.step(mine.action_space.sample())
    assert obs in mine.observation_space
    assert [x.dtype for x in (reward, terminated, truncated)] == [np.float64, np.bool_, np.bool_]
    assert case.split("-")[1] in repr(mine) or mine.spec is None
    assert not mine.closed
    mine.close()
    mine.close()
    assert mine.closed
    other.close()


def test_spec() -> None:
    native = make_vec("CartPole-v1", 2, env_kwargs={"sutton_barto_reward": True})
    serial = make_vec("CartPole-v1", 2, backend="serial", env_kwargs={"sutton_barto_reward": True})
    for env in (native, serial):
        assert env.spec is not None
        assert (env.spec.id, env.spec.kwargs["sutton_barto_reward"]) == ("CartPole-v1", True)
        env.close()
    assert gym.spec("CartPole-v1").kwargs.get("sutton_barto_reward") is None


def test_copies_and_views() -> None:
    copies, views = make_vec("CartPole-v1", 3), make_vec("CartPole-v1", 3, copy=False)
    kept = {}
    env: Any
    for name, env in (("copies", copies), ("views", views)):
        env.reset(seed=0)
        first = env.step(np.ones(3, np.int64))[0]
        before = first.copy()
        second = env.step(np.ones(3, np.int64))
        kept[name] = np.array_equal(first, before), np.shares_memory(second[0], env.rows.out.obs)
        env.close()
    assert kept == {"copies": (True, False), "views": (False, True)}


def test_final_obs_is_kept() -> None:
    env = make_vec("CartPole-v1", 2, env_kwargs={"max_episode_steps": 1}, copy=False)
    env.reset(seed=0)
    infos = env.step(np.zeros(2, np.int64))[-1]
    before = [obs.copy() for obs in infos["final_obs"]]
    env.step(np.ones(2, np.int64))
    assert np.array_equal(before, list(infos["final_obs"]))
    assert infos["_final_obs"].tolist() == infos["_final_info"].tolist() == [True, True]
    assert infos["final_info"] == {}
    env.close()


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_bad_actions_are_refused_whole(autoreset: str) -> None:
    env, twin = (make_vec("CartPole-v1", 3, autoreset=autoreset) for _ in range(2))
    env.reset(seed=0)
    twin.reset(seed=0)
    for wrong in ([0, 1, 2], [0, 1], [0.0, 1.0, 0.0]):
        with pytest.raises(ValueError, match=r"row 2|shape|float64"):
            env.step(wrong)
    assert_equal(env.step([1, 0, 1]), twin.step(np.array([1, 0, 1])))
    env.close()
    twin.close()


def test_only_python_environments_have_attributes() -> None:
    native, serial = make_vec("CartPole-v1", 2), make_vec("CartPole-v1", 2, backend="serial")
    serial.set_attr("gravity", [9.0, 10.0])
    assert serial.get_attr("gravity") == (9.0, 10.0)
    assert serial.call("has_wrapper_attr", "gravity") == (True, True)
    for refused in (native.render, lambda: native.get_attr("gravity"), lambda: native.set_attr("gravity", 1)):
        with pytest.raises(ConfigError, match="backend='serial'"):
            refused()
    with pytest.raises(ConfigError, match="take no options; backend='serial'"):
        native.reset(options={"low": -0.1})
    with pytest.raises(ConfigError, match="backend='serial'"):
        make_vec("CartPole-v1", 2, env_kwargs={"render_mode": "rgb_array"})
    native.close()
    serial.close()


def test_render() -> None:
    env = make_vec("CartPole-v1", 2, backend="serial", env_kwargs={"render_mode": "rgb_array"})
    env.reset(seed=0)
    assert env.render_mode == "rgb_array"
    assert [frame.shape for frame in env.render()] == [(400, 600, 3)] * 2
    env.close()


@pytest.mark.parametrize(
    ("mask", "message"),
    [([True, False], "array of bools"), (np.ones(2), "array of bools"), (np.ones(3, np.bool_), r"shape \(2,\)")],
)
def test_bad_reset_masks(mask: Any, message: str) -> None:
    env = make_vec("CartPole-v1", 2)
    env.reset(seed=0)
    with pytest.raises((TypeError, ValueError), match=message):
        env.reset(options={"reset_mask": mask})
    env.close()


def lengths_of(rows: VecEnv) -> list[list[int]]:
    """The lengths of each row's first three episodes under action 0."""
    lengths: list[list[int]] = [[], []]
    rows.reset(3)
    rows.recv()
    while min(map(len, lengths)) < 3:
        rows.send(slice(0, 2), np.zeros(2, np.int64))
        ready = rows.recv()
        for row in np.flatnonzero(ready.terminated & ready.valid):
            lengths[row].append(int(ready.episode_length[row]))
    return [of_row[:3] for of_row in lengths]


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
def test_as_rows_of_the_backend_vector(autoreset: str) -> None:
    """A function of `make_vec` is one of a vector environment as any other."""
    rows = make(partial(make_vec, "CartPole-v1", autoreset=autoreset), 2, backend="vector")
    assert rows.spec.max_episode_steps == 500
    assert lengths_of(rows) == lengths_of(make("CartPole-v1", 2))


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match="use same_step or next_step"):
        make_vec("CartPole-v1", 2, autoreset="disabled")
    with pytest.raises(ConfigError, match=r"num_threads=2 would change nothing: CartPole-v1 is stepped in Python"):
        make_vec("CartPole-v1", 2, backend="serial", num_threads=2)
    env = make_vec("CartPole-v1", 2)
    with pytest.raises(RuntimeError, match="every row must be reset once"):
        env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(ValueError, match="one seed for each of 2 environments"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(RuntimeError, match="send before reset"):
        env.step([0, 0])
    env.close()


def test_an_info_that_is_no_dict() -> None:
    class Wordy(Corridor):
        def step(self, action: int) -> Any:
            return (*super().step(action)[:4], "fine")

    env = make_vec(Wordy, 2)
    env.reset(seed=0)
    with pytest.raises(EnvError, match="row 0 returned the info 'fine'; return a dict"):
        env.step([1, 1])
    env.close()


def test_keywords_of_the_environment_are_taken_as_gymnasium_takes_them() -> None:
    """In either way, together, but not both for one."""
    ours: Any = shoal.make_vec("Pendulum-v1", 2, g=5.0, env_kwargs={"max_episode_steps": 7})
    theirs: Any = gym.make_vec("Pendulum-v1", 2, g=5.0)
    actions = np.ones((2, 1), np.float32)
    assert ours.reset(seed=0)[0].tolist() == theirs.reset(seed=0)[0].tolist()
    assert ours.step(actions)[0].tolist() == theirs.step(actions)[0].tolist()
    with pytest.raises(ConfigError, match="g: given as a keyword and in env_kwargs"):
        shoal.make_vec("Pendulum-v1", 2, g=5.0, env_kwargs={"g": 4.0})
    with pytest.raises(ConfigError, match="gg"):
        shoal.make_vec("Pendulum-v1", 2, gg=5.0)


@pytest.mark.parametrize(
    ("keyword", "told"),
    [
        ({"vectorization_mode": "sync"}, "make_vec has no vectorization_mode; backend='serial' steps in this process"),
        ({"wrappers": []}, "make_vec has no wrappers; give a function that makes the environment with its wrappers"),
        ({"vector_kwargs": {}}, "make_vec has no vector_kwargs; copy, autoreset, num_threads"),
    ],
)
def test_what_gymnasium_takes_beside_them_is_named(keyword: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        shoal.make_vec("CartPole-v1", 2, **keyword)
    wrapped = shoal.make_vec(lambda: gym.wrappers.TimeAwareObservation(gym.make("CartPole-v1")), 2)
    assert wrapped.single_observation_space.shape == (5,)
