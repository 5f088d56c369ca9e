"""Preprocessing: every number by hand, Gymnasium's wrappers as oracle, and C++ against NumPy bit for bit."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import shoal
from shoal import _native
from shoal.envs import native
from shoal.envs.outputs import take
from shoal.envs.preprocessed import PreprocessedEnv
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.envs.workers.settings import Workers
from shoal.experiment.experiment import Experiment
from shoal.learn.acting import Acting
from shoal.nets.policy import Network, make_policy
from shoal.run.log import read
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # worker processes need not import torch

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("warm_workers")

ALL = slice(None)
LANDER = ["LunarLander-v3"] if "LunarLander-v3" in native.ids() else []
EVERYTHING = Preprocessing(
    frame_stack=3, sticky_actions=0.3, reward_scale=0.5, reward_clip=(-2.0, 0.25), max_episode_steps=40
)


class Counter(gym.Env[Any, Any]):
    """Observes the turn and the action that was done; the reward is three times that action."""

    observation_space = spaces.Box(-100, 100, (2,), np.float32)
    action_space = spaces.Discrete(4, start=-1)
    ends_after = 3

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.turn, self.action = 0, 0
        return self.seen(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.turn, self.action = self.turn + 1, int(action)
        return self.seen(), 3.0 * self.action, self.turn == self.ends_after, False, {}

    def seen(self) -> Any:
        return np.array([self.turn, self.action], np.float32)


def actions_of(spec: Any, count: int, rng: np.random.Generator) -> Any:
    space = spec.action_space
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.start, space.start + space.n, count)
    return rng.uniform(space.low, space.high, (count, *space.shape)).astype(np.float32)


def test_a_stack_by_hand() -> None:
    """Two frames of (turn, action): the first is repeated, and the ended episode keeps its own."""
    rows = make(Counter, 1, preprocessing=Preprocessing(frame_stack=2))
    assert rows.spec.observation_space == spaces.Box(-100, 100, (2, 2), np.float32)
    rows.reset(0)
    assert rows.recv().obs.tolist() == [[[0, 0], [0, 0]]]
    seen: list[Any] = []
    for action in (1, 2, -1, 0):
        rows.send(ALL, np.array([action]))
        ready = rows.recv()
        seen.append(ready.obs[0].tolist())
        if ready.terminated[0]:
            assert ready.final_obs.tolist() == [[[2, 2], [3, -1]]]
            assert (ready.episode_return.tolist(), ready.episode_length.tolist()) == ([6.0], [3])
    assert seen == [[[0, 0], [1, 1]], [[1, 1], [2, 2]], [[0, 0], [0, 0]], [[0, 0], [1, 0]]]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_stack_on_a_library_by_hand(mode: AutoresetMode) -> None:
    """However a library resets, no frame of one episode is seen in the next, and the last stack is whole."""
    rows = make(in_mode(mode), 1, backend="vector", preprocessing=Preprocessing(frame_stack=2))
    rows.reset(0)
    rows.recv()
    seen: list[Any] = []
    for action in (1, 2, -1, 2, 1):
        rows.send(ALL, np.array([action]))
        ready = rows.recv()
        if ready.terminated[0]:
            assert ready.final_obs.tolist() == [[[2, 2], [3, -1]]]
        else:
            seen.append(ready.obs[0].tolist())
    second = [[[0, 0], [1, 2]], [[1, 2], [2, 1]]]
    if mode is AutoresetMode.NEXT_STEP:  # the action after the end is not done
        second = [[[0, 0], [0, 0]], [[0, 0], [1, 1]]]
    assert seen == [[[0, 0], [1, 1]], [[1, 1], [2, 2]], *second]


def test_the_first_action_after_a_step_that_only_resets_never_sticks() -> None:
    """What was sent to a row in the step that began its episode was not done, so nothing repeats it."""
    rows = make(in_mode(AutoresetMode.NEXT_STEP), 64, backend="vector", preprocessing=Preprocessing(sticky_actions=0.9))
    rows.reset(0)
    rows.recv()
    for action in (1, 1, 1, 2):
        rows.send(ALL, np.full(64, action))
        assert rows.recv().valid.all() == (action == 1)
    rows.send(ALL, np.zeros(64, np.int64))
    assert (rows.recv().reward == 0).all()


def in_mode(mode: AutoresetMode) -> Any:
    return lambda num_envs: SyncVectorEnv([Counter] * num_envs, autoreset_mode=mode)


@pytest.mark.parametrize(
    ("preprocessing", "expected"),
    [
        (Preprocessing(reward_scale=0.5), [1.5, 3.0, -1.5, 0.0]),
        (Preprocessing(reward_scale=0.5, reward_clip=(-1.0, 2.0)), [1.5, 2.0, -1.0, 0.0]),
        (Preprocessing(reward_sign=True), [1.0, 1.0, -1.0, 0.0]),
    ],
)
def test_rewards_by_hand(preprocessing: Preprocessing, expected: list[float]) -> None:
    """Rewards 3, 6, -3 and 0; the episode's return stays 6."""
    rows = make(Counter, 2, preprocessing=preprocessing)
    rows.reset(0)
    rows.recv()
    got: list[float] = []
    for action in (1, 2, -1, 0):
        rows.send(ALL, np.array([action, 0]))
        ready = rows.recv()
        got.append(float(ready.reward[0]))
        if ready.terminated[0]:
            assert ready.episode_return.tolist() == [6.0, 0.0]
    assert got == expected


def test_sticky_actions_are_the_previous_ones_done() -> None:
    """Of (seed of the row, its step) alone; the first action of an episode never sticks."""
    rows = make(Counter, 2, preprocessing=Preprocessing(sticky_actions=0.5))
    rows.reset([11, 12])
    rows.recv()
    rng = np.random.default_rng(0)
    done, repeats, free = np.zeros(2, np.int64), 0, 0
    for step in range(300):
        given = actions_of(rows.spec, 2, rng)
        words = [_native.philox_uniform(seed, 2, np.zeros(1, np.int64), np.array([step]), 1)[0, 0] for seed in (11, 12)]
        sticks = (np.array(words) < 0.5) & (step % 3 > 0)
        done = np.where(sticks, done, given)
        repeats, free = repeats + int(sticks.sum()), free + 2 * (step % 3 > 0)
        rows.send(ALL, given)
        assert rows.recv().reward.tolist() == (3.0 * done).tolist()
    assert 0.4 < repeats / free < 0.6


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0", *LANDER])
@pytest.mark.parametrize(
    "preprocessing",
    [EVERYTHING, replace(EVERYTHING, frame_stack=1, reward_scale=1, reward_clip=None, reward_sign=True)],
)
def test_native_equals_numpy(env_id: str, preprocessing: Preprocessing) -> None:
    """C++ and NumPy give the same bits, in halves and through a saved state."""
    one_side = make(env_id, 6, backend="native", num_threads=2, preprocessing=preprocessing)
    python = make(env_id, 6, backend="serial", preprocessing=preprocessing)
    assert one_side.spec.observation_space == python.spec.observation_space
    rng, ends = np.random.default_rng(1), 0
    for env in (one_side, python):
        env.reset(5)
        env.recv()
    for step in range(200):
        actions = actions_of(one_side.spec, 6, rng)
        for rows in (slice(0, 4), slice(4, 6)):
            for env in (one_side, python):
                env.send(rows, take(actions, rows))
            one, other = one_side.recv(), python.recv()
            ended = one.terminated | one.truncated
            ends += int(ended.sum())
            for name in ("obs", "reward", "terminated", "truncated"):
                assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
            for name in ("final_obs", "episode_return", "episode_length"):
                assert getattr(one, name)[ended].tobytes() == getattr(other, name)[ended].tobytes(), name
        if step == 100:
            one_side, python = (
                restored(one_side, env_id, "native", preprocessing),
                restored(python, env_id, "serial", preprocessing),
            )
    assert ends >= 24


def restored(env: Any, env_id: str, backend: str, preprocessing: Preprocessing) -> Any:
    fresh = make(env_id, 6, backend=backend, preprocessing=preprocessing)
    assert fresh.restore(env.state()) == []
    fresh.recv()
    return fresh


@pytest.mark.parametrize("env_id", LANDER)
def test_a_preprocessed_row_that_is_cut_ends_with_its_stack(env_id: str) -> None:
    """Row 1 was saved with another return than it comes to: it is cut, and its stack begins anew."""
    preprocessing = Preprocessing(frame_stack=3, sticky_actions=0.2)
    rows, again = (
        make(env_id, 3, preprocessing=preprocessing, env_kwargs={"gravity": "uniform:-11,-5"}) for _ in range(2)
    )
    rows.reset(0)
    for step in range(20):
        rows.recv()
        rows.send(ALL, np.full(3, step % 4))
    obs = rows.recv().obs.copy()
    state = rows.state()
    sticking, action, stack, drawn, generator = 24, 8, 3 * 8 * 4, state["rows"].shape[1], 32
    head = 32 + 8 + 8 + 8 * 4 + 20 * 8
    drawn -= sticking + action + stack + head
    state["rows"][1, sticking + action + stack + drawn + generator] ^= 1
    (sentence,) = again.restore(state)
    assert "row 1" in sentence
    ready = again.recv()
    assert ready.truncated.tolist() == [False, True, False]
    assert ready.final_obs[1].tobytes() == obs[1].tobytes()
    assert (ready.obs[1] == ready.obs[1, 0]).all()
    assert ready.obs[[0, 2]].tobytes() == obs[[0, 2]].tobytes()


def test_workers_equal_serial() -> None:
    found: list[bytes] = []
    for backend, workers in (("serial", None), ("workers", Workers(2))):
        preprocessing = Preprocessing(frame_stack=2, sticky_actions=0.4)
        env = make(Counter, 5, backend=backend, workers=workers, preprocessing=preprocessing)
        env.reset(3)
        env.recv()
        rng = np.random.default_rng(2)
        seen = b""
        for _ in range(20):
            env.send(ALL, actions_of(env.spec, 5, rng))
            ready = env.recv()
            seen += ready.obs.tobytes() + ready.reward.tobytes()
        env.close()
        found.append(seen)
    assert found[0] == found[1]


def test_nested_observations_are_stacked_leaf_by_leaf() -> None:
    class Nested(Counter):
        observation_space = spaces.Dict({"turn": spaces.Discrete(4), "pair": spaces.Tuple([spaces.MultiBinary(2)])})

        def seen(self) -> Any:
            return {"turn": np.int64(self.turn), "pair": (np.array([self.turn % 2, 1], np.int8),)}

    rows = make(Nested, 1, preprocessing=Preprocessing(frame_stack=2))
    rows.reset(0)
    rows.recv()
    rows.send(ALL, np.zeros(1, np.int64))
    obs = rows.recv().obs
    assert obs["turn"].tolist() == [[0, 1]]
    assert obs["pair"][0].tolist() == [[[0, 1], [1, 1]]]
    assert rows.spec.observation_space.contains({"turn": obs["turn"][0], "pair": (obs["pair"][0][0],)})


def test_a_fused_rollout_equals_steps_in_python() -> None:
    """The native rollout of preprocessed rows and of those that draw a parameter: the same experience and episodes."""
    kwargs = {"g": "uniform:5,15"}
    seen: list[Any] = []
    for backend in ("native", "serial"):
        env = make("Pendulum-v1", 4, backend=backend, preprocessing=EVERYTHING, env_kwargs=kwargs)
        policy = make_policy(env.spec, Network(), seed=0)
        stream = rollouts(env, policy, num_steps=100, acting=Acting(7))
        steps = next(stream)
        seen.append((steps.obs.clone(), steps.reward.clone(), steps.next_value.clone(), stream.episodes))
    (obs, reward, value, ends), (obs2, reward2, value2, ends2) = seen
    assert torch.equal(obs, obs2)
    assert torch.equal(reward, reward2)
    assert torch.equal(value, value2)
    assert ends.returns.tolist() == ends2.returns.tolist()
    assert ends.info["env/g"].tolist() == ends2.info["env/g"].tolist()
    assert len(ends.returns) == 8
    assert ((ends.info["env/g"] > 5) & (ends.info["env/g"] < 15)).all()


@pytest.mark.parametrize("backend", ["native", "serial"])
@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_make_vec_equals_gymnasiums_wrapper(backend: str, mode: str) -> None:
    preprocessing = Preprocessing(frame_stack=4, reward_scale=0.25, max_episode_steps=12)
    ours = shoal.make_vec("CartPole-v1", 3, backend=backend, autoreset=mode, preprocessing=preprocessing)

    def single() -> Any:
        env = gym.make("CartPole-v1", max_episode_steps=12)
        scaled = gym.wrappers.TransformReward(env, lambda reward: 0.25 * float(reward))
        return gym.wrappers.FrameStackObservation(scaled, 4)

    modes = {"same_step": gym.vector.AutoresetMode.SAME_STEP, "next_step": gym.vector.AutoresetMode.NEXT_STEP}
    theirs = gym.vector.SyncVectorEnv([single] * 3, autoreset_mode=modes[mode])
    assert ours.reset(seed=4)[0].tolist() == theirs.reset(seed=4)[0].tolist()
    rng = np.random.default_rng(3)
    for _ in range(60):
        actions = rng.integers(0, 2, 3)
        mine, other = ours.step(actions), theirs.step(actions)
        for ours_part, their_part in zip(mine[:4], other[:4], strict=True):
            assert ours_part.tolist() == their_part.tolist()
        if "final_obs" in other[4]:
            for row in np.flatnonzero(other[4]["_final_obs"]):
                assert mine[4]["final_obs"][row].tolist() == other[4]["final_obs"][row].tolist()
    ours.close()
    theirs.close()


def test_training_with_preprocessing_is_kept_and_evaluated(tmp_path: Path) -> None:
    """The run's file holds the preprocessing; greedy returns count the environment's own rewards."""
    settings: dict[str, Any] = {"num_envs": 4, "num_steps": 16, "num_minibatches": 2, "total_timesteps": 256}
    preprocessing = Preprocessing(frame_stack=2, sticky_actions=0.25, reward_clip=(-0.5, 0.5), max_episode_steps=9)
    result = shoal.train("CartPole-v1", preprocessing=preprocessing, panel="none", run_dir=str(tmp_path), **settings)
    loaded = shoal.load(result.path)
    assert loaded.spec.observation_space.shape == (2, 4)
    assert loaded.evaluate(episodes=20).lengths.max() == 9
    assert loaded.evaluate(episodes=20).returns.tolist() == loaded.evaluate(episodes=20).lengths.tolist()
    lines = read(result.path / "metrics.jsonl")
    assert all(line["episode/return"] == line["episode/length"] for line in lines if "episode/return" in line)
    text = (result.path / "config.toml").read_text()
    assert "[preprocessing]" in text
    assert "sticky_actions = 0.25" in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"frame_stack": 0}, "frame_stack must be at least 1"),
        ({"sticky_actions": 1.0}, "probability below 1"),
        ({"reward_scale": 0.0}, "above 0"),
        ({"reward_clip": (1.0, -1.0)}, "a lower and an upper bound"),
        ({"reward_clip": (-1.0, 1.0), "reward_sign": True}, "exclude each other"),
        ({"max_episode_steps": -1}, "at least 0"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Preprocessing(**settings)


def test_a_state_of_another_stack_is_refused() -> None:
    env = make(Counter, 2, preprocessing=Preprocessing(frame_stack=2))
    env.reset(0)
    env.recv()
    with pytest.raises(ConfigError, match="another frame_stack"):
        make(Counter, 2, preprocessing=Preprocessing(frame_stack=3)).restore(env.state())


def test_a_mask_in_the_observation_is_not_stacked() -> None:
    class Masked(Counter):
        observation_space = spaces.Dict({"action_mask": spaces.MultiBinary(4)})

        def seen(self) -> Any:
            return {"action_mask": np.ones(4, np.int8)}

    with pytest.raises(ConfigError, match="give it in the info"):
        make(Masked, 1, preprocessing=Preprocessing(frame_stack=2))


def test_a_masked_action_is_not_repeated() -> None:
    """Where infos hold the masks that is known with the first reset."""

    class Told(Counter):
        def reset(self, **keywords: Any) -> Any:
            return super().reset(**keywords)[0], {"action_mask": np.ones(4, np.int8)}

    rows = make(Told, 1, preprocessing=Preprocessing(sticky_actions=0.1))
    with pytest.raises(ConfigError, match=r"Told masks actions, and sticky_actions would repeat one .* set sticky_act"):
        rows.reset(0)


def test_plain_preprocessing_adds_no_layer() -> None:
    assert not isinstance(make(Counter, 1, preprocessing=Preprocessing(max_episode_steps=2)), PreprocessedEnv)


def test_a_preprocessed_and_randomized_run_can_be_recorded(tmp_path: Path) -> None:
    """The video's first episodes are those of the evaluation, draws and sticky actions included."""
    settings: dict[str, Any] = {"num_envs": 4, "num_steps": 16, "num_minibatches": 2, "total_timesteps": 64}
    preprocessing = Preprocessing(frame_stack=2, sticky_actions=0.25, reward_sign=True, max_episode_steps=6)
    kwargs = {"g": "uniform:5,15 from 10 over 1e9"}
    result = shoal.train(
        "Pendulum-v1", env_kwargs=kwargs, preprocessing=preprocessing, panel="none", run_dir=str(tmp_path), **settings
    )
    loaded = shoal.load(result.path)
    video = loaded.record_video(tmp_path / "video.gif", rows=2, seed=3)
    assert video.returns.tolist() == loaded.evaluate(episodes=2, seed=3).returns.tolist()


def test_a_configuration_with_the_old_name_is_told_the_new_one() -> None:
    with pytest.raises(ConfigError, match="shaping is called preprocessing now"):
        Experiment.of_file({"env": "CartPole-v1", "shaping": {"frame_stack": 2}})
