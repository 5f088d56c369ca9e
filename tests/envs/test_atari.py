"""Atari rows beside ALE's own vector environment; lives, scores, saved games, and a policy that learns from them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import shoal
from shoal import cli
from shoal.envs.registry import make
from shoal.experiment import training
from shoal.types import ConfigError

pytest.importorskip("ale_py")
BOTH = slice(0, 2)
FIRE = 1


def library(game: str, num_envs: int, **kwargs: Any) -> Any:
    from ale_py.vector_env import AtariVectorEnv
    from gymnasium.vector import AutoresetMode

    mode = AutoresetMode.SAME_STEP
    return AtariVectorEnv(game, num_envs, autoreset_mode=mode, reward_clipping=False, num_threads=1, **kwargs)


@pytest.mark.slow
def test_rows_equal_ale_over_games_and_go_on_exactly() -> None:
    """Breakout at random: observations, last ones included, true returns, lives as ends; then a saved state goes on."""
    env, ale = make("ALE/Breakout-v5", 2, num_threads=2), library("breakout", 2)
    env.reset(5)
    obs, info = ale.reset(seed=np.array([5, 6]))
    assert env.recv().obs.tobytes() == obs.tobytes()
    rng, lives, returns, lengths = np.random.default_rng(0), info["lives"], np.zeros(2), np.zeros(2)
    games = lost = 0
    life = np.zeros(2, np.bool_)
    for _ in range(420):
        actions = rng.integers(0, 4, 2)
        env.send(BOTH, actions)
        ready = env.recv()
        actions[life] = FIRE
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


def steps_of_lives(**kwargs: Any) -> list[int]:
    """After how many steps without an action each of Breakout's 5 lives is lost; a saved state goes on in between."""
    env, found = make("ALE/Breakout-v5", 1, env_kwargs=kwargs), list[int]()
    env.reset(3)
    env.recv()
    still = np.zeros((1, *env.spec.action.single.shape), env.spec.action.single.dtype)
    for count in range(1, 160):
        env.send(slice(0, 1), still)
        ready = env.recv()
        if ready.terminated[0]:
            found.append(count)
            if len(found) == 2:
                state = env.state()
                assert env.restore(state) == []
                env.recv()
        if ready.episode_length[0]:
            return found
    return found


def test_fire_is_pressed_after_a_lost_life() -> None:
    """A ball is served again each time, so that even nobody's game ends; FIRE takes the place of one action."""
    lost = steps_of_lives()
    assert len(lost) == 5
    assert lost == steps_of_lives(full_action_space=True)
    assert np.diff(lost).tolist() == [25] * 4
    assert len(steps_of_lives(continuous=True)) >= 4


def test_fire_is_left_out_where_it_is_not_wanted() -> None:
    """Without it no ball is served; where lives end nothing, ALE serves the first one alone."""
    assert steps_of_lives(use_fire_reset=False) == []
    assert steps_of_lives(terminal_on_life_loss=False) == []


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
        ("ALE/Pong-v5", {"frameskip": 0}, "ALE/Pong-v5: frameskip must be a whole number from 1 to 100000, got 0"),
        ("ALE/Pong-v5", {"max_num_frames_per_episode": 1.5}, "max_num_frames_per_episode must be a whole number"),
        ("ALE/Pong-v5", {"max_num_frames_per_episode": None}, "must be a whole number .*, got None"),
        ("ALE/Pong-v5", {"noop_max": -1}, "noop_max must be a whole number from 0"),
        ("ALE/Pong-v5", {"noop_max": 10**12}, "noop_max must be a whole number from 0"),
        ("ALE/Pong-v5", {"stack_num": -1}, "stack_num must be a whole number from 1"),
        ("ALE/Pong-v5", {"img_height": 10**9}, "img_height must be a whole number from 1"),
        ("ALE/Pong-v5", {"repeat_action_probability": 2}, "must lie between 0 and 1, got 2"),
        ("ALE/Pong-v5", {"repeat_action_probability": np.nan}, "must be a finite number, got nan"),
        ("ALE/Pong-v5", {"terminal_on_life_loss": "no"}, "terminal_on_life_loss must be true or false, got 'no'"),
        ("ALE/Pong-v5", {"clip_reward": "x"}, "clip_reward must be true or false"),
    ],
)
def test_bad_settings(env_id: str, kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(env_id, 1, env_kwargs=kwargs)


def test_the_last_step_of_a_game_may_be_shorter_and_0_frames_mean_no_limit() -> None:
    """101 frames by fours are 26 steps; without a limit a game goes on, and is saved, for longer than was reserved."""
    for frames, most in ((101, 26), (100, 25), (0, None)):
        settings = {"max_num_frames_per_episode": frames, "noop_max": 0, "use_fire_reset": False}
        env = make("ALE/Breakout-v5", 1, env_kwargs=settings)
        assert env.spec.max_episode_steps == most
        env.reset(0)
        if most is None:
            rows: Any = env
            rows.library._room, rows.library._played = 8, rows.library._played[:, :8].copy()
        lasted, ready = 0, env.recv()
        while lasted < 30:
            lasted += 1
            env.send(slice(0, 1), np.array([0]))
            ready = env.recv()
            if ready.truncated[0]:
                break
        assert lasted == (most or 30)
        if most is None:
            obs = ready.obs.copy()
            assert env.restore(env.state()) == []
            assert env.recv().obs.tobytes() == obs.tobytes()
    with pytest.raises(ConfigError, match="max_num_frames_per_episode must be a whole number from 0"):
        make("ALE/Breakout-v5", 1, env_kwargs={"max_num_frames_per_episode": -1})


def test_every_backend_has_the_games_own_rewards() -> None:
    """ALE's own vector environment clips rewards unless it is told not to."""
    rng, paid = np.random.default_rng(0), [0.0]
    for settings in ({}, {"reward_clipping": True}):
        rows = make("ALE/MsPacman-v5", 1, backend="vector", env_kwargs=settings)
        rows.reset(0)
        rows.recv()
        paid.append(0.0)
        for _ in range(100):
            rows.send(slice(0, 1), rng.integers(0, 9, 1))
            paid[-1] = max(paid[-1], float(rows.recv().reward[0]))
        rows.close()
    assert paid[1:] == [10.0, 1.0]


def test_make_vec_has_whole_games_that_others_count() -> None:
    """Gymnasium's own statistics: one episode a game, with the game's own rewards."""
    env = RecordEpisodeStatistics(shoal.make_vec("ALE/Breakout-v5", 2, noop_max=1))
    env.reset(seed=1)
    rng, games = np.random.default_rng(1), 0
    for _ in range(260):
        _, _, terminated, _, infos = env.step(rng.integers(0, 4, 2))
        if terminated.any():
            whole = infos["_game"]
            assert whole.tolist() == terminated.tolist() == infos["_episode"].tolist()
            for key in ("r", "l"):
                assert infos["game"][key][whole].tolist() == infos["episode"][key][whole].tolist()
            games += int(whole.sum())
    assert games
    env.close()
    with pytest.raises(ConfigError, match="noop_max: given as a keyword and in env_kwargs"):
        shoal.make_vec("ALE/Breakout-v5", 2, noop_max=1, env_kwargs={"noop_max": 2})


def test_make_vec_tells_of_whole_games() -> None:
    env = shoal.make_vec("ALE/Breakout-v5", 2, terminal_on_life_loss=True, clip_reward=True)
    assert env.observation_space.shape == (2, 4, 84, 84)
    env.reset(seed=1)
    rng, found = np.random.default_rng(1), 0
    for _ in range(260):
        _, reward, terminated, _, infos = env.step(rng.integers(0, 4, 2))
        assert set(reward) <= {0.0, 1.0}
        assert ("final_obs" in infos) == terminated.any()
        if "game" in infos:
            whole = infos["_game"]
            assert terminated[whole].all()
            assert (infos["game"]["l"][whole] > 20).all()
            found += 1
    assert found
    env.close()
    with pytest.raises(ConfigError, match="autoreset='same_step'"):
        shoal.make_vec("ALE/Pong-v5", 1, autoreset="next_step")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the layers for images compute in bfloat16")
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
