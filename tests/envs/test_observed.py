"""What is kept of observations: chosen keys, and texts as integers, the same wherever they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import shoal
from shoal import Preprocessing
from shoal.check.check_env import check_env
from shoal.envs.observed import FLAGS, character_codes, word_codes
from shoal.envs.registry import make
from shoal.envs.workers.settings import Workers
from shoal.types import ConfigError, EnvError
from tests.envs.test_envs import step

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("warm_workers")


class Mission(spaces.Space[str]):
    """A space of strings that is no Text, such as MiniGrid's."""

    def __init__(self) -> None:
        super().__init__(dtype=str)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        return "go"

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mission)

    def __hash__(self) -> int:
        return 1


class Errand(gym.Env[Any, Any]):
    """Goes to the door whose number the mission says; what it observes is nested."""

    action_space = spaces.Discrete(3)
    observation_space = spaces.Dict(
        agent=spaces.Dict(place=spaces.Box(0, 9, (2,), np.float32), mission=Mission()),
        heard=spaces.Tuple([spaces.Text(20), spaces.Discrete(4)]),
        graph=spaces.Graph(spaces.Discrete(2), None),
    )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.turn, self.door = 0, int(self.np_random.integers(3))
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        return self.seen(), float(action == self.door), self.turn == 5, False, {}

    def seen(self) -> Any:
        place = np.array([self.turn, 0], np.float32)
        agent = {"place": place, "mission": f"Go to the door {self.door}"}
        return {"agent": agent, "heard": ("2!" * self.turn, self.turn % 4), "graph": None}


KEPT = Preprocessing(keep_keys=("agent", "heard"), text="words", text_length=5)
GO = [10, 247, 214, 242]  # 1 + crc32(word) % 255 of go, to, the, door
DOORS = [210, 9, 188]
TINY: Any = {"num_envs": 4, "num_steps": 8, "num_minibatches": 1, "update_epochs": 1, "total_timesteps": 64}


def test_codes_of_texts() -> None:
    """By hand: other characters are 1, a space 2, a to z 3 to 28, the digits 29 to 38."""
    assert character_codes("Go 2!", 8).tolist() == [9, 17, 2, 31, 1, 0, 0, 0]
    assert character_codes("abcdef", 3).tolist() == [3, 4, 5]
    assert word_codes("Go  to the DOOR!", 6).tolist() == [*GO, 0, 0]
    assert word_codes("go to the door", 2).tolist() == GO[:2]
    assert not word_codes("", 2).any()


@pytest.mark.parametrize("backend", ["serial", "workers"])
def test_rows_see_the_chosen_keys_and_numbers(backend: str) -> None:
    workers = Workers(num_workers=1) if backend == "workers" else None
    env = make(Errand, 2, backend=backend, workers=workers, preprocessing=KEPT)
    try:
        space: Any = env.spec.observation_space
        assert list(space) == ["agent", "heard"]
        assert space["agent"]["mission"] == spaces.MultiDiscrete([256] * 5)
        env.reset(3)
        first = env.recv().obs
        doors = [int(np.random.default_rng(3 + row).integers(3)) for row in range(2)]
        assert first["agent"]["mission"].tolist() == [[*GO, DOORS[door]] for door in doors]
        assert step(env, 2).obs["heard"][0].tolist() == [[DOORS[2]] * 2 + [0] * 3] * 2
        saved, then = env.state(), step(env, 2)
        assert then.obs["heard"][0].tolist() == [[DOORS[2]] * 4 + [0]] * 2
        assert env.restore(saved) == []
        env.recv()
        ready = step(env, 3)
        assert ready.terminated.all()
        assert ready.final_obs["heard"][0].tolist() == [[DOORS[2]] * 5] * 2
    finally:
        env.close()


def test_a_time_limit_and_a_stack_around_it() -> None:
    kept = Preprocessing(keep_keys=("agent",), text="characters", frame_stack=2, max_episode_steps=2)
    env = make(Errand, 1, preprocessing=kept)
    assert env.spec.max_episode_steps == 2
    space: Any = env.spec.observation_space
    assert space["agent"]["mission"].shape == (2, 64)
    env.reset(0)
    env.recv()
    assert step(env, 2).truncated.tolist() == [True]
    env.close()


def test_a_run_is_resumed_and_loaded_with_the_same(run_dir: Path) -> None:
    """An agent takes what the environment itself gives: one observation, or a batch with a list of texts."""
    settings: Any = TINY | {"run_dir": run_dir, "panel": "none", "preprocessing": KEPT}
    run = shoal.train(Errand, **settings, final_episodes=2)
    steps = 2 * run.steps
    again = shoal.resume(run.path, factory=Errand, total_timesteps=steps, panel="none", final_episodes=2)
    assert (again.steps, again.greedy_return >= 0) == (steps, True)
    agent = shoal.load(run.path, factory=Errand)
    env = Errand()
    obs, _ = env.reset(seed=1)
    action = agent.act(obs)
    batch = {
        "agent": {"place": np.stack([obs["agent"]["place"]] * 2), "mission": [obs["agent"]["mission"]] * 2},
        "heard": (["", ""], np.zeros(2, np.int64)),
        "graph": None,
    }
    agent.reset()
    assert agent.act(batch).tolist() == [action, action]
    assert len(agent.evaluate(episodes=2).returns) == 2


def test_check_env_checks_what_training_sees() -> None:
    assert not check_env(Errand, steps=20).ok
    report = check_env(Errand, steps=20, preprocessing=KEPT)
    assert report.ok, report
    with pytest.raises(ConfigError, match="of preprocessing it takes keep_keys, text and one_hot alone"):
        check_env(Errand, preprocessing=Preprocessing(frame_stack=2))
    with pytest.raises(ConfigError, match="a vector environment hands over observations whole"):
        check_env(Errand, backend="vector", preprocessing=KEPT)


@pytest.mark.parametrize(
    ("env", "kept", "told"),
    [
        (Errand, {}, r"the Mission at \['agent', 'mission'\] .*preprocessing.text='words' or 'characters' makes"),
        (
            Errand,
            {"text": "words"},
            r"the Graph at \['graph'\] .*--preprocessing.keep-keys agent heard keeps what has such",
        ),
        (Errand, {"keep_keys": ("agnt",)}, "Errand observes no 'agnt'; did you mean agent"),
        (Errand, {"keep_keys": ("x",)}, "observes no 'x'; it has agent, heard, graph"),
        ("Acrobot-v1", {"keep_keys": ("x",)}, "Acrobot-v1: keep_keys, text and one_hot are for Python environments"),
        ("Blackjack-v1", {"keep_keys": ("x",)}, "keys of a Dict, but Blackjack-v1 observes Tuple"),
        ("Blackjack-v1", {"text": "words"}, "observes no text, so text='words' changes nothing"),
        ("mpe2.simple_spread_v3:parallel_env", {"text": "words"}, "several agents, whose observations stay whole"),
    ],
)
def test_what_is_refused(env: Any, kept: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make(env, 1, preprocessing=Preprocessing(**kept))


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ({"text": "word"}, "text must be one of none, characters, words, got 'word'"),
        ({"text_length": 3}, "text_length is of texts, which text='none' refuses"),
        ({"text": "words", "text_length": -1}, "text_length must be at least 0"),
        ({"keep_keys": "image"}, "keep_keys is a list of keys, got 'image'"),
    ],
)
def test_settings_that_cannot_work(kept: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Preprocessing(**kept)


def test_masks_are_not_lost() -> None:
    class Masked(Errand):
        observation_space = spaces.Dict(place=spaces.Box(0, 9, (2,), np.float32), action_mask=spaces.MultiBinary(3))

    with pytest.raises(ConfigError, match=r"would drop the action_mask of Masked, .*; name it as well"):
        make(Masked, 1, preprocessing=Preprocessing(keep_keys=("place",)))


class Cells(gym.Env[Any, Any]):
    """A grid of cells, each a kind of 3 and a color of 2; the lower row is the turn, the mask is never coded."""

    action_space = spaces.Discrete(2)
    observation_space: Any = spaces.Dict(
        grid=spaces.Box(0, 255, (2, 1, 2), np.uint8), action_mask=spaces.Box(0, 1, (2,), np.int8)
    )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.turn = 0
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        return self.seen(), float(action), self.turn == 2, False, {}

    def seen(self) -> Any:
        return {"grid": np.array([[[2, 1]], [[self.turn, 0]]], np.uint8), "action_mask": np.ones(2, np.int8)}


HOT = Preprocessing(one_hot=(3, 2))
UPPER = [0, 0, 1, 0, 1]  # kind 2 of 3, color 1 of 2


@pytest.mark.parametrize("backend", ["serial", "workers"])
def test_whole_numbers_as_zeros_and_ones(backend: str) -> None:
    """By hand: along the last axis, three options and then two; the same in the last observation of an episode."""
    workers = Workers(num_workers=1) if backend == "workers" else None
    env = make(Cells, 2, backend=backend, workers=workers, preprocessing=HOT)
    try:
        space: Any = env.spec.observation_space
        assert space["grid"] == spaces.Box(0, 1, (2, 1, 5), FLAGS)
        assert space["action_mask"] == Cells.observation_space["action_mask"]
        env.reset(0)
        assert env.recv().obs["grid"].tolist() == [[[UPPER], [[1, 0, 0, 1, 0]]]] * 2
        assert step(env, 1).obs["grid"].tolist() == [[[UPPER], [[0, 1, 0, 1, 0]]]] * 2
        ready = step(env, 1)
        assert ready.terminated.all()
        assert ready.final_obs["grid"].tolist() == [[[UPPER], [[0, 0, 1, 1, 0]]]] * 2
    finally:
        env.close()


def test_zeros_and_ones_are_stacked_and_nested() -> None:
    class Nested(Cells):
        observation_space = spaces.Tuple([spaces.Box(0, 255, (2, 1, 2), np.uint64), spaces.Discrete(3)])

        def seen(self) -> Any:
            return super().seen()["grid"].astype(np.uint64), self.turn

    env = make(Nested, 1, preprocessing=Preprocessing(one_hot=(3, 2), frame_stack=2))
    env.reset(0)
    env.recv()
    grid, turn = step(env, 1).obs
    lower = [[1, 0, 0, 1, 0]], [[0, 1, 0, 1, 0]]
    assert grid.tolist() == [[[[UPPER], lower[0]], [[UPPER], lower[1]]]]
    assert turn.tolist() == [[0, 1]]
    env.close()


def test_a_run_on_zeros_and_ones_is_loaded_with_the_same(run_dir: Path) -> None:
    """An agent takes the environment's own integers, one observation or a batch; resumed rows see the same."""
    run = shoal.train(Cells, **TINY, run_dir=run_dir, panel="none", preprocessing=HOT, final_episodes=1)
    again = shoal.resume(run.path, factory=Cells, total_timesteps=2 * run.steps, panel="none", final_episodes=1)
    assert again.steps == 2 * run.steps
    agent = shoal.load(run.path, factory=Cells)
    obs, _ = Cells().reset(seed=1)
    action = agent.act(obs)
    agent.reset()
    assert agent.act({key: np.stack([part] * 2) for key, part in obs.items()}).tolist() == [action] * 2
    agent.reset()
    with pytest.raises(ConfigError, match=r"holds 3 at place 0 of its last axis, which has 3 options in one_hot"):
        agent.act(obs | {"grid": obs["grid"] + np.uint8(1)})


@pytest.mark.parametrize("backend", ["serial", "workers"])
def test_a_number_without_a_place_is_told(backend: str) -> None:
    workers = Workers(num_workers=1) if backend == "workers" else None
    env = make(Cells, 1, backend=backend, workers=workers, preprocessing=Preprocessing(one_hot=(2, 2)))
    with pytest.raises((ConfigError, EnvError), match=r"holds 2 at place 0 of its last axis, which has 2 options .*"):
        env.reset(0)
    env.close()


@pytest.mark.parametrize(
    ("env", "one_hot", "told"),
    [
        (Cells, (3,), r"one_hot=\(3,\): Cells observes no Box of whole numbers from 0 on whose last axis has 1, but"),
        ("Pendulum-v1", (3, 3, 3), "observes no Box of whole numbers"),
        ("shoal/Memory-v0", (2,), "keep_keys, text and one_hot are for Python environments"),
    ],
)
def test_zeros_and_ones_that_are_refused(env: Any, one_hot: tuple[int, ...], told: str) -> None:
    backend = "serial" if env == "Pendulum-v1" else "auto"
    with pytest.raises(ConfigError, match=told):
        make(env, 1, backend=backend, preprocessing=Preprocessing(one_hot=one_hot))
    with pytest.raises(ConfigError, match=r"each 2 to 4,096, got \(1,\)"):
        Preprocessing(one_hot=(1,))
