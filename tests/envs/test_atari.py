"""Atari rows beside ALE's own vector environment; lives, scores, saved games, and a policy that learns from them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shoal
from shoal import cli
from shoal.envs.registry import make
from shoal.experiment import training
from shoal.types import ConfigError

pytest.importorskip("ale_py")
BOTH = slice(0, 2)


def library(game: str, num_envs: int, **kwargs: Any) -> Any:
    from ale_py.vector_env import AtariVectorEnv
    from gymnasium.vector import AutoresetMode

    mode = AutoresetMode.SAME_STEP
    return AtariVectorEnv(game, num_envs, autoreset_mode=mode, reward_clipping=False, num_threads=1, **kwargs)


def test_rows_equal_ale_over_games_and_go_on_exactly() -> None:
    """Breakout at random: observations, last ones included, true returns, lives as ends; then a saved state goes on."""
    env, ale = make("ALE/Breakout-v5", 2, num_threads=2), library("breakout", 2)
    env.reset(5)
    obs, info = ale.reset(seed=np.array([5, 6]))
    assert env.recv().obs.tobytes() == obs.tobytes()
    rng, lives, returns, lengths = np.random.default_rng(0), info["lives"], np.zeros(2), np.zeros(2)
    games = lost = 0
    for _ in range(420):
        actions = rng.integers(0, 4, 2)
        env.send(BOTH, actions)
        ready = env.recv()
        obs, reward, terminated, truncated, info = ale.step(actions)
        returns, lengths = returns + reward, lengths + 1
        life = (info["lives"] < lives) & ~terminated
        assert ready.obs.tobytes() == obs.tobytes()
        assert ready.reward.tolist() == np.sign(reward).tolist()
        assert ready.terminated.tolist() == (terminated | life).tolist()
        assert not (ready.truncated | truncated).any()
        assert ready.episode_length[life].tolist() == [0] * int(life.sum())
        assert ready.final_obs[life].tobytes() == obs[life].tobytes()
        if terminated.any():
            assert ready.final_obs[terminated].tobytes() == info["final_obs"][terminated].tobytes()
            assert ready.episode_return[terminated].tolist() == returns[terminated].tolist()
            assert ready.episode_length[terminated].tolist() == lengths[terminated].tolist()
            returns[terminated] = lengths[terminated] = 0
        lives, games, lost = info["lives"], games + int(terminated.sum()), lost + int(life.sum())
    assert games >= 2
    assert lost >= 8
    state, restored = env.state(), make("ALE/Breakout-v5", 2)
    assert restored.restore(state) == []
    assert restored.recv().obs.tobytes() == obs.tobytes()
    for _ in range(250):
        actions = rng.integers(0, 4, 2)
        pair = []
        for rows in (env, restored):
            rows.send(BOTH, actions)
            ready = rows.recv()
            over = ready.terminated
            pair.append((ready.obs.tobytes(), over.tobytes(), ready.episode_return[over].tolist()))
        assert pair[0] == pair[1]


def test_the_preprocessing_and_its_keywords() -> None:
    settings: dict[str, Any] = {"terminal_on_life_loss": False, "clip_reward": False, "full_action_space": True}
    env = make("ALE/Breakout-v5", 1, env_kwargs={**settings, "stack_num": 2, "max_num_frames_per_episode": 400})
    assert env.spec.observation_space.shape == (2, 84, 84)
    assert env.spec.action_space.n == 18  # pyright: ignore[reportAttributeAccessIssue]
    assert env.spec.max_episode_steps == 100
    env.reset(0)
    env.recv()
    ends: list[tuple[bool, bool]] = []
    for _ in range(101):
        env.send(slice(0, 1), np.array([0]))  # without FIRE the ball stays, and the frames run out
        ready = env.recv()
        ends += [(bool(ready.terminated[0]), bool(ready.truncated[0]))] * bool(ready.episode_length[0])
        if ready.truncated[0]:
            assert 80 <= ready.episode_length[0] <= 100
            break
    else:
        pytest.fail("no game was cut by its frames")
    state = env.state()
    assert env.restore(state) == []
    with pytest.raises(ConfigError, match="the only render_mode"):
        make("ALE/Pong-v5", 1, env_kwargs={"render_mode": "human"})


@pytest.mark.parametrize(
    ("env_id", "kwargs", "words"),
    [
        ("ALE/Pongg-v5", {}, "no Atari game 'ALE/Pongg-v5'; did you mean ALE/Pong-v5"),
        ("ALE/Pong-v5", {"reward_clipping": True}, "reward_clipping cannot be set; terminal_on_life_loss"),
        ("ALE/Pong-v5", {"stack": 3}, "stack"),
    ],
)
def test_bad_settings(env_id: str, kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(env_id, 1, env_kwargs=kwargs)


def test_make_vec_tells_of_whole_games() -> None:
    env = shoal.make_vec("ALE/Breakout-v5", 2)
    assert env.observation_space.shape == (2, 4, 84, 84)
    env.reset(seed=1)
    rng, found = np.random.default_rng(1), 0
    for _ in range(260):
        _, reward, terminated, _, infos = env.step(rng.integers(0, 4, 2))
        assert set(reward) <= {0.0, 1.0}
        assert ("final_obs" in infos) == terminated.any()
        if "episode" in infos:
            whole = infos["_episode"]
            assert terminated[whole].all()
            assert (infos["episode"]["l"][whole] > 20).all()
            found += 1
    assert found
    env.close()
    with pytest.raises(ConfigError, match="autoreset='same_step'"):
        shoal.make_vec("ALE/Pong-v5", 1, autoreset="next_step")


@pytest.mark.slow
def test_a_run_learns_is_resumed_loaded_and_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "GREEDY_EPISODES", 2)
    settings: dict[str, Any] = {"num_envs": 2, "num_steps": 32, "panel": "none", "run_dir": str(tmp_path)}
    settings |= {"learning_rate_schedule": "constant", "env_kwargs": {"max_num_frames_per_episode": 600}}
    whole = shoal.train("ALE/Breakout-v5", total_timesteps=256, num_threads=2, name="whole", **settings)
    shoal.train("ALE/Breakout-v5", total_timesteps=128, num_threads=1, name="parts", **settings)
    parts = shoal.resume(tmp_path / "ALE_Breakout-v5" / "ppo" / "parts", total_timesteps=256, panel="none")
    for left, right in zip(whole.policy.parameters(), parts.policy.parameters(), strict=True):
        assert left.equal(right)
    obs = np.zeros((4, 84, 84), np.uint8)
    assert 0 <= shoal.load(whole.path).act(obs) < 4
    monkeypatch.setattr("sys.argv", ["shoal", "eval", str(whole.path), "--episodes", "2"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert "2 greedy episodes" in capsys.readouterr().out
    video = shoal.load(whole.path).record_video(tmp_path / "games.gif", rows=1, max_steps=60)
    assert video.frames > 10
