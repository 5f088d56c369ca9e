"""Shoal's own worlds: small cases worked by hand, the best scores, pictures, several agents."""

from typing import Any

import numpy as np
import pytest

import shoal
from shoal.envs.native import NativeEnv
from shoal.envs.registry import make
from shoal.types import ConfigError, Ready
from tests.players import BEST
from tests.slow_worlds import SlowPong


@pytest.mark.parametrize("env_id", BEST)
def test_a_perfect_player_reaches_the_best_score(env_id: str) -> None:
    """Every episode of it, and nobody can do better: each brick, bite, target, cue or prey is counted once."""
    best, player = BEST[env_id]
    env = make(env_id, 12)
    players = [player() for _ in range(env.num_rows)]
    returns: dict[int, float] = {}
    env.reset(0)
    ready = env.recv()
    for _ in range(env.spec.max_episode_steps or 100):
        actions = np.array([act(obs) for act, obs in zip(players, ready.obs, strict=True)])
        env.send(slice(0, env.num_rows), actions)
        ready = env.recv()
        for row in np.flatnonzero(ready.terminated | ready.truncated).tolist():
            returns.setdefault(row, float(ready.episode_return[row]))
        if len(returns) == env.num_rows:
            break
    assert returns == dict.fromkeys(returns, best)
    assert len(returns) == env.num_rows
    assert env.spec.reward_threshold == pytest.approx(0.9 * best)


def put(env: NativeEnv, numbers: dict[str, float | int]) -> None:
    """Rewrites the start of row 0's struct: `numbers` in the order of its fields, doubles and 64-bit masks."""
    state = env.state()
    words = state["rows"][0, : 8 * len(numbers)].view(np.uint64)
    for at, value in enumerate(numbers.values()):
        words[at] = np.float64(value).view(np.uint64) if isinstance(value, float) else np.uint64(value)
    env.restore(state)
    env.recv()


def world(env_id: str, **params: float) -> NativeEnv:
    env = make(env_id, 1, env_kwargs=dict(params))
    assert isinstance(env, NativeEnv)
    env.reset(0)
    env.recv()
    return env


def play(env: NativeEnv, action: int) -> Ready:
    env.send(slice(0, 1), np.array([action]))
    return env.recv()


WALL = 2**40 - 1


def breakout(
    *, x: float, y: float, dx: float, dy: float, bricks: int = WALL, paddle: float = 0.5, lives: float = 3
) -> NativeEnv:
    env = world("shoal/Breakout-v0", lives=lives)
    put(env, {"x": x, "y": y, "dx": dx, "dy": dy, "paddle": paddle, "bricks": bricks})
    return env


def test_the_paddle_turns_the_ball() -> None:
    """From below 0 by as much above it; half way to the edge, 0.85 * 0.04 / 2 of its speed goes to the side."""
    straight = play(breakout(x=0.5, y=0.02, dx=0.0, dy=-0.04), 0)
    assert straight.obs[0, :6].tolist() == pytest.approx([0, 2 * 0.02 - 1, 0, 20 * 0.04, 0, 0])
    aside = play(breakout(x=0.5, y=0.02, dx=0.0, dy=-0.04, paddle=0.46), 0)
    assert aside.obs[0, 2:4].tolist() == pytest.approx([20 * 0.017, 20 * (0.04**2 - 0.017**2) ** 0.5])
    assert not aside.terminated[0]


def test_walls_turn_the_ball() -> None:
    side = play(breakout(x=0.01, y=0.3, dx=-0.03, dy=0.02), 0)
    assert side.obs[0, :4].tolist() == pytest.approx([2 * 0.02 - 1, 2 * 0.32 - 1, 0.6, 0.4])
    top = play(breakout(x=0.5, y=0.99, dx=0.0, dy=0.04), 0)
    assert top.obs[0, 1:4].tolist() == pytest.approx([2 * 0.97 - 1, 0, -0.8])


def test_a_ball_from_below_breaks_a_brick() -> None:
    """X = 0.3 is in column 2 of 8, y = 0.58 in the lowest row."""
    ready = play(breakout(x=0.3, y=0.54, dx=0.0, dy=0.04), 0)
    assert ready.reward[0] == 1
    assert np.flatnonzero(ready.obs[0, 7:] == 0).tolist() == [2]
    assert ready.obs[0, 3] == pytest.approx(-0.8)


def test_a_ball_from_the_side_breaks_a_brick() -> None:
    """From column 2 to column 3 (from 0.375) of row 1; the last brick ends the episode."""
    ready = play(breakout(x=0.36, y=0.62, dx=0.03, dy=0.001, bricks=1 << 11), 0)
    assert (ready.reward[0], ready.terminated[0]) == (1, True)
    assert ready.final_obs[0, 2:4].tolist() == pytest.approx([-0.6, 0.02])


def test_a_missed_ball_costs_a_life() -> None:
    again = play(breakout(x=0.1, y=0.02, dx=0.0, dy=-0.04, paddle=0.9), 0)
    assert (again.terminated[0], again.reward[0]) == (False, 0)
    assert again.obs[0, 6] == pytest.approx(0.2)
    assert again.obs[0, 1] == 0
    assert play(breakout(x=0.1, y=0.02, dx=0.0, dy=-0.04, paddle=0.9, lives=1), 0).terminated[0]


def snake(cells: list[int], food: int, *, size: int = 6) -> NativeEnv:
    """A snake in these cells (6 * row + column), the tail first."""
    env = world("shoal/Snake-v0", size=size)
    state = env.state()
    row = state["rows"][0]
    row[8:16] = np.array([sum(1 << cell for cell in cells)], np.uint64).view(np.uint8)
    row[16 : 16 + len(cells)] = cells
    row[52:56] = 0, len(cells), cells[-1], food
    env.restore(state)
    env.recv()
    return env


UP, RIGHT, DOWN, LEFT = range(4)


def test_a_snake_grows_by_a_bite() -> None:
    ready = play(snake([0, 1], food=2), RIGHT)
    assert ready.reward[0] == 1
    cells, head, food = ready.obs[0, :108].reshape(3, 36)
    assert cells[:4].tolist() == pytest.approx([1 / 36, 2 / 36, 3 / 36, 0])
    assert np.flatnonzero(head).tolist() == [2]
    assert food.sum() == 1
    column, row = (int(food.argmax()) % 6 - 2, int(food.argmax()) // 6)
    assert ready.obs[0, 121:].tolist() == pytest.approx([(5 + column) / 10, (5 + row) / 10])
    assert not food[:3].any()


def test_a_snake_leaves_its_tail() -> None:
    """Its head may enter the cell of its tail; of four cells around, and also when it is two long and turns back."""
    ready = play(snake([0, 1, 7, 6], food=20), UP)
    assert (ready.terminated[0], ready.reward[0]) == (False, 0)
    assert ready.obs[0, [0, 1, 6, 7]].tolist() == pytest.approx([4 / 36, 1 / 36, 3 / 36, 2 / 36])
    assert not play(snake([0, 1], food=20), LEFT).terminated[0]


def test_a_snake_dies_of_itself_and_of_walls() -> None:
    assert play(snake([0, 1, 2, 8, 7], food=20), UP).terminated[0]
    for cell, action in ((3, UP), (11, RIGHT), (33, DOWN), (12, LEFT)):
        assert play(snake([cell], food=20), action).terminated[0]
    assert play(snake([1], food=7, size=2), RIGHT).terminated[0]


def test_a_snake_starves() -> None:
    """It turns around in four cells, away from food, and endures 6 steps."""
    env = world("shoal/Snake-v0", patience=6)
    state = env.state()
    state["rows"][0, 8:16] = np.array([1], np.uint64).view(np.uint8)
    state["rows"][0, 16], state["rows"][0, 52:56] = 0, [0, 1, 0, 35]
    env.restore(state)
    env.recv()
    for step, action in enumerate((RIGHT, DOWN, LEFT, UP, RIGHT), start=1):
        ready = play(env, action)
        assert not ready.terminated[0]
        assert ready.obs[0, 120] == pytest.approx(step / 6)
    ready = play(env, DOWN)
    assert (ready.terminated[0], ready.final_obs[0, 120], ready.obs[0, 120]) == (True, 1, 0)


def test_a_snake_foresees_dead_ends() -> None:
    """The snake stands in column 1 from the bottom to the top, and its tail lies to the right of that.

    Up is a wall, down its own neck. A step to either side leaves 28 cells free: 5 in column 0, where the tail is out of
    reach, and all 28 on the right, less the 6 of column 0.
    """
    ready = play(snake([34, 33, 32, 31, 25, 19, 13, 7], food=35), UP)
    up, right, down, left = ready.obs[0, 108:120].reshape(4, 3).tolist()
    assert up == down == [1, 0, 0]
    assert right == pytest.approx([0, 22 / 28, 1])
    assert left == pytest.approx([0, 5 / 28, 0])


def test_a_snake_fills_the_board() -> None:
    ready = play(snake([0, 1, 7], food=6, size=2), LEFT)
    assert (ready.reward[0], ready.terminated[0]) == (1, True)
    assert ready.final_obs[0, :108].reshape(3, 36)[2].sum() == 0


def pong(x: float, y: float, rise: float, paddle: float, opponent: float, *, right: bool) -> NativeEnv:
    env = world("shoal/Pong-v0")
    put(env, {"x": x, "y": y, "dx": 0.04 if right else -0.04, "dy": rise, "paddle": paddle, "opponent": opponent})
    return env


def test_a_paddle_returns_the_ball() -> None:
    """At x = 1.02 and y = 0.54, half way to the edge of a paddle at 0.5: back to 0.98, rising 0.05 / 2."""
    ready = play(pong(0.98, 0.52, 0.02, 0.5, 0.3, right=True), 0)
    expected = [2 * 0.98 - 1, 2 * 0.54 - 1, -1, 0.5, 0, 2 * 0.32 - 1, 0, 0]
    assert ready.obs[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_table_has_sides() -> None:
    ready = play(pong(0.5, 0.01, -0.03, 0.5, 0.5, right=True), 0)
    assert ready.obs[0, :4].tolist() == pytest.approx([2 * 0.54 - 1, 2 * 0.02 - 1, 1, 0.6], abs=1e-6)


@pytest.mark.parametrize(("right", "reward", "score"), [(True, -1, [0, 1 / 11]), (False, 1, [1 / 11, 0])])
def test_a_missed_ball_is_a_point(right: bool, reward: float, score: list[float]) -> None:  # noqa: FBT001
    ready = play(pong(0.98 if right else 0.02, 0.9, 0.0, 0.3, 0.3, right=right), 0)
    assert ready.reward[0] == reward
    assert ready.obs[0, 6:].tolist() == pytest.approx(score)
    assert ready.obs[0, [0, 4, 5]].tolist() == [0, 0, 0]


def test_pong_equals_a_slow_version() -> None:
    env = make("shoal/Pong-v0", 4, env_kwargs={"max_episode_steps": 900})
    slow = [SlowPong(max_episode_steps=900) for _ in range(4)]
    env.reset(3)
    assert env.recv().obs.tolist() == [one.reset(seed=3 + row)[0].tolist() for row, one in enumerate(slow)]
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(1500):
        actions = rng.integers(0, 3, 4)
        env.send(slice(0, 4), actions)
        ready = env.recv()
        for row, one in enumerate(slow):
            obs, reward, terminated, truncated, _ = one.step(int(actions[row]))
            assert (ready.reward[row], ready.terminated[row], ready.truncated[row]) == (reward, terminated, truncated)
            seen = ready.obs
            if terminated or truncated:
                ends += 1
                assert ready.final_obs[row].tolist() == obs.tolist()
                obs, _ = one.reset()
            assert seen[row].tolist() == obs.tolist()
    assert ends >= 8


def test_squared_ends_with_its_last_target() -> None:
    env = world("shoal/Squared-v0", max_episode_steps=100)
    first = env.obs[0].copy()
    assert first[:2].tolist() == [0, 0]
    places = np.round(first[2:].reshape(4, 3)[:, :2] * 10).astype(int).tolist()
    assert [max(abs(x), abs(y)) for x, y in places] == [5, 5, 5, 5]
    assert [(y, x)[i % 2] for i, (x, y) in enumerate(places)] == [-5, -5, 5, 5]
    x = y = 0
    ready, rewards = play(env, 0), [0.0]
    for to_x, to_y in places:
        way = [2 if to_x > x else 4] * abs(to_x - x) + [3 if to_y > y else 1] * abs(to_y - y)
        x, y = to_x, to_y
        for action in way:
            ready = play(env, action)
            rewards.append(float(ready.reward[0]))
    assert sum(rewards) == 1
    assert ready.terminated[0]
    assert ready.episode_length[0] == len(rewards)


def test_squared_has_a_border() -> None:
    env = world("shoal/Squared-v0")
    for _ in range(8):
        play(env, 2)
    assert play(env, 2).obs[0, :2].tolist() == [1, 0]


def test_memory_shows_waits_and_asks() -> None:
    env = world("shoal/Memory-v0", delay=2)
    cue = env.obs[0, :4].tolist().index(1)
    assert env.obs[0].sum() == 1
    assert play(env, cue).obs[0].tolist() == [0, 0, 0, 0, 0]
    assert play(env, cue).obs[0].tolist() == [0, 0, 0, 0, 0]
    assert play(env, cue).obs[0].tolist() == [0, 0, 0, 0, 1]
    ready = play(env, cue)
    assert (ready.reward[0], ready.terminated[0], ready.episode_length[0]) == (1, True, 4)
    cue = env.obs[0, :4].tolist().index(1)
    for _ in range(3):
        play(env, (cue + 1) % 4)
    ready = play(env, (cue + 1) % 4)
    assert (ready.reward[0], ready.terminated[0]) == (0, True)


@pytest.mark.parametrize(
    ("env_id", "params", "message"),
    [
        ("shoal/Breakout-v0", {"lives": 0}, "lives must be a whole number between 1 and 10, not 0"),
        ("shoal/Breakout-v0", {"lives": 2.5}, "lives must be a whole number between 1 and 10, not 2.5"),
        ("shoal/Breakout-v0", {"speed": 0.1}, "speed must be a number between 0.005 and 0.049, not 0.1"),
        ("shoal/Snake-v0", {"size": 7}, "size must be a whole number between 2 and 6, not 7"),
    ],
)
def test_impossible_parameters_are_refused(env_id: str, params: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(env_id, 1, env_kwargs=params)


@pytest.mark.parametrize("env_id", BEST)
def test_observations_stay_in_their_space(env_id: str) -> None:
    env = make(env_id, 8)
    rng = np.random.default_rng(0)
    env.reset(0)
    env.recv()
    space: Any = env.spec.observation_space
    choices: Any = env.spec.action_space
    low, high = space.low, space.high
    for _ in range(700):
        env.send(slice(0, env.num_rows), rng.integers(0, choices.n, env.num_rows))
        ready = env.recv()
        assert (ready.obs >= low).all()
        assert (ready.obs <= high).all()
        assert (ready.final_obs >= low).all()
        assert (ready.final_obs <= high).all()


@pytest.mark.parametrize("env_id", BEST)
def test_a_picture_shows_the_row(env_id: str) -> None:
    """It has a size of its own, several colors, is the same for the same state, and changes with it."""
    env, twin = make(env_id, 2), make(env_id, 2)
    for each in (env, twin):
        each.reset(0)
        each.recv()
    assert isinstance(env, NativeEnv)
    assert isinstance(twin, NativeEnv)
    before = env.render(0)
    assert (before.dtype, before.ndim, before.shape[2]) == (np.uint8, 3, 3)
    assert max(before.shape) <= 128
    assert len(np.unique(before.reshape(-1, 3), axis=0)) >= 3
    assert before.tolist() == twin.render(0).tolist()
    for _ in range(9):
        env.send(slice(0, env.num_rows), np.ones(env.num_rows, np.int64))
        env.recv()
    assert before.tolist() != env.render(0).tolist()


def test_a_ball_is_drawn_where_it_is() -> None:
    """96 x 96 pixels, y upwards: the ball at (0.25, 0.25) is white around row 72, column 24; a brick above is not."""
    picture = breakout(x=0.25, y=0.25, dx=0.0, dy=0.04, paddle=0.75).render(0)
    chalk = [232, 234, 237]
    assert picture[72, 24].tolist() == chalk
    assert picture[95, 72].tolist() == chalk
    assert picture[72, 60].tolist() == [16, 20, 28]
    assert picture[96 - 55, 6].tolist() == [84, 146, 222]


def test_pictures_are_refused_where_there_are_none() -> None:
    env = world("CartPole-v1")
    with pytest.raises(ConfigError, match="the native CartPole-v1 cannot be rendered"):
        env.render(0)
    with pytest.raises(ConfigError, match="row 9 is out of range for a pool of 1"):
        world("shoal/Pong-v0").render(9)


def test_the_way_out_renders() -> None:
    envs = shoal.make_vec("shoal/Pong-v0", num_envs=2)
    envs.reset(seed=0)
    pictures: Any = envs.render()
    assert [picture.shape for picture in pictures] == [(96, 96, 3)] * 2
    envs.close()
