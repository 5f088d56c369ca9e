"""EnvPool as rows: equal to EnvPool itself, and guarded where it is not."""

import warnings
from typing import Any

import numpy as np
import pytest

from shoal.envs.registry import make
from shoal.types import ConfigError

envpool = pytest.importorskip("envpool")


def own(env_id: str, num_envs: int, **kwargs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = envpool.make(env_id, env_type="gymnasium", num_envs=num_envs, **kwargs)
        assert made.observation_space is not None  # it warns when it is first read
        assert made.action_space is not None
    return made


def test_rows_equal_envpool() -> None:
    env, library = make("CartPole-v1", 3, backend="envpool", num_threads=2), own("CartPole-v1", 3, seed=[5, 6, 7])
    env.reset(5)
    assert env.recv().obs.tolist() == library.reset()[0].tolist()
    rng, ends, waiting = np.random.default_rng(0), 0, np.zeros(3, np.bool_)
    for _ in range(120):
        actions = rng.integers(0, 2, 3)
        env.send(slice(0, 3), actions)
        ready = env.recv()
        obs, reward, terminated, truncated, info = library.step(actions.astype(np.int32))
        assert ready.obs.tolist() == obs.tolist()
        assert ready.reward.tolist() == reward.tolist()
        assert ready.terminated.tolist() == terminated.tolist()
        assert ready.truncated.tolist() == truncated.tolist()
        assert ready.valid.tolist() == (info["elapsed_step"] > 0).tolist() == (~waiting).tolist()
        waiting = terminated | truncated
        assert ready.episode_length[waiting].tolist() == info["elapsed_step"][waiting].tolist()
        ends += int(waiting.sum())
    assert ends > 8


def test_atari_games_are_whole() -> None:
    """Lives come from EnvPool's infos; returns are sums of the game's own rewards."""
    env = make("ALE/Breakout-v5", 2, backend="envpool", env_kwargs={"noop_max": 1})
    library = own("Breakout-v5", 2, seed=[3, 4], episodic_life=False, reward_clip=False, noop_max=1)
    env.reset(3)
    assert env.recv().obs.tobytes() == library.reset()[0].tobytes()
    rng, lives, games, returns = np.random.default_rng(0), np.full(2, 5), 0, np.zeros(2)
    life = np.zeros(2, np.bool_)
    for _ in range(350):
        actions = rng.integers(0, 4, 2)
        env.send(slice(0, 2), actions)
        ready = env.recv()
        actions[life] = 1  # FIRE
        obs, reward, terminated, _, info = library.step(actions.astype(np.int32))
        life = (info["lives"] < lives) & ~terminated
        returns += reward
        assert ready.obs.tobytes() == obs.tobytes()
        assert ready.terminated.tolist() == (terminated | ((info["lives"] < lives) & (info["lives"] > 0))).tolist()
        assert ready.reward.tolist() == np.sign(reward).tolist()
        lives = info["lives"]
        for row in np.flatnonzero(ready.terminated):
            assert ready.episode_return[row] == (returns[row] if terminated[row] else 0)
            assert (ready.episode_length[row] > 0) == terminated[row]
            returns[row] = 0 if terminated[row] else returns[row]
            games += int(terminated[row])
    assert games >= 2


@pytest.mark.parametrize("action", [[0, 2], [0, -1], [0.0, np.nan], [0], [0, 1, 0]])
def test_actions_that_envpool_would_take_or_die_of_are_refused(action: list[Any]) -> None:
    env = make("CartPole-v1", 2, backend="envpool")
    env.reset(0)
    env.recv()
    with pytest.raises(ValueError, match="CartPole-v1"):
        env.send(slice(0, 2), np.array(action))


@pytest.mark.parametrize(
    ("env_id", "kwargs", "words"),
    [
        ("CartPole-v7", {}, "EnvPool has no 'CartPole-v7'; did you mean CartPole-v"),
        ("Pong-v5", {"episodic_life": True}, "terminal_on_life_loss"),
        ("CartPole-v1", {"no_such": 1}, "EnvPool's CartPole-v1"),
    ],
)
def test_bad_settings(env_id: str, kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(env_id, 2, backend="envpool", env_kwargs=kwargs)
