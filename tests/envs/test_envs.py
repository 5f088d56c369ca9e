"""What the `serial` backend refuses, and in which words; declared infos; what a resume cannot save."""

import re
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from shoal.envs.registry import make
from shoal.envs.serial import SerialEnv
from shoal.envs.vec_env import VecEnv
from shoal.types import EnvError
from tests.contract.toys import Corridor, make_pointer

ALL = slice(None)
ZEROS = np.zeros(4, np.float32)


class Scripted(gym.Env[Any, Any]):
    """Returns good steps, but at step `at` of an episode what `change` makes of one."""

    def __init__(self, change: Callable[[list[Any]], Any] = lambda made: made, at: int = 3) -> None:
        self.observation_space: Any = spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.change, self.at, self.count = change, at, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return (self.change([ZEROS, 0.0, False, False, {}])[0] if self.at == 0 else ZEROS), {}

    def step(self, action: int) -> Any:
        self.count += 1
        made: list[Any] = [ZEROS, 1.0, False, False, {"score": 1}]
        return tuple(self.change(made)) if self.count == self.at else tuple(made)


def put(place: int, value: Any) -> Callable[[list[Any]], list[Any]]:
    """A step whose entry `place` is `value`."""
    return lambda made: [*made[:place], value, *made[place + 1 :]]


def rows_with(bad: Callable[[], gym.Env[Any, Any]], good: Callable[[], gym.Env[Any, Any]] = Scripted) -> SerialEnv:
    """Three rows, the middle one made by `bad`, after the first recv."""
    env = make(in_turn(good, bad, good), 3)
    assert isinstance(env, SerialEnv)
    env.reset(0)
    env.recv()
    return env


def in_turn(*makers: Callable[[], gym.Env[Any, Any]]) -> Callable[[], gym.Env[Any, Any]]:
    """A callable that makes one environment of each kind, in order."""
    waiting = iter(makers)

    def mixed() -> gym.Env[Any, Any]:
        return next(waiting)()

    return mixed


def step(env: VecEnv, count: int = 1) -> Any:
    ready: Any = None
    for _ in range(count):
        env.send(ALL, np.zeros(env.num_rows, np.int64))
        ready = env.recv()
    return ready


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, np.zeros(1, np.float32), r"observation of shape \(1,\) and type float32 that is not in its own Box"),
        (0, np.zeros(5, np.float32), r"shape \(5,\)"),
        (0, np.zeros((4, 1), np.float32), r"shape \(4, 1\)"),
        (0, np.float32(0), r"shape \(\)"),
        (
            0,
            np.zeros(4, np.float64),
            r"type float64, but its own Box\(.* holds float32; return it with .astype\(np.float32\)",
        ),
        (0, np.zeros(4, np.bool_), r"type bool, but its own Box\(.* holds float32"),
        (0, np.zeros(4, np.int64), "type int64"),
        (0, None, r"None of shape \(\) and type NoneType"),
        (0, "four", "'four' of shape"),
        (0, {"a": 1}, "type dict"),
        (0, [0.0, 0.0, 0.0], "type list"),
        (0, np.array([0, np.nan, 0, 0], np.float32), "returned the observation .*nan"),
        (0, np.array([0, 0, np.inf, 0], np.float32), "returned the observation .*inf"),
        (1, float("nan"), "returned the reward nan; fix the environment"),
        (1, -np.inf, "returned the reward -inf"),
        (1, None, "returned the reward None; return a float"),
        (1, "1.0", "returned the reward '1.0'; return a float"),
        (1, np.zeros(1), r"returned the reward array\(\[0.\]\); return a float"),
        (1, 1 + 1j, r"returned the reward \(1\+1j\); return a float"),
        (2, None, "returned the flags None and False; terminated and truncated are bools"),
        (3, "no", "returned the flags False and 'no'"),
        (3, np.array([True]), "returned the flags False and array"),
    ],
)
def test_a_step_outside_its_own_space(place: int, value: Any, message: str) -> None:
    env = rows_with(lambda: Scripted(put(place, value)))
    step(env, 2)
    with pytest.raises(EnvError, match=rf"row 1 at step 3 of its episode (?s:.*){message}"):
        step(env)
    with pytest.raises(RuntimeError, match=r"a step failed halfway; call reset\(seed\) or restore\(state\)"):
        step(env)
    env.reset(0)
    assert env.recv().obs.shape == (3, 4)
    env.close()


@pytest.mark.parametrize("value", [np.zeros(1, np.float32), np.zeros(4), None, np.full(4, np.nan, np.float32)])
def test_a_reset_outside_its_own_space(value: Any) -> None:
    env = make(in_turn(Scripted, lambda: Scripted(put(0, value), at=0)), 2)
    with pytest.raises(EnvError, match=r"row 1 at its reset returned (an|the) observation"):
        env.reset(0)
    with pytest.raises(RuntimeError, match="recv before reset"):
        env.recv()
    env.close()


@pytest.mark.parametrize(
    ("space", "good", "bad"),
    [
        (spaces.Discrete(3, start=1), 1, 4),
        (spaces.Discrete(3), 2, -1),
        (spaces.Discrete(3), np.int64(0), 0.5),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 2]), np.array([1, 3])),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 2], np.int32), np.array([0.0, 0.0])),
        (spaces.MultiBinary(2), np.array([1, 0], np.int8), np.array([2, 0], np.int8)),
        (spaces.Box(0, 255, (2, 2), np.uint8), np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.int8)),
        (spaces.Box(0, 255, (2, 2), np.uint8), np.zeros((2, 2), np.uint8), np.zeros((1, 2), np.uint8)),
    ],
)
def test_other_spaces_are_checked(space: Any, good: Any, bad: Any) -> None:
    class Other(Scripted):
        def __init__(self, value: Any) -> None:
            super().__init__(put(0, value), at=2)
            self.observation_space = space

        def reset(self, **keywords: Any) -> Any:
            return good, super().reset(**keywords)[1]

        def step(self, action: int) -> Any:
            made = super().step(action)
            return made if self.count == self.at else (good, *made[1:])

    env = rows_with(lambda: Other(bad), lambda: Other(good))
    assert np.array_equal(step(env).obs, np.stack([good] * 3))
    with pytest.raises(EnvError, match="row 1 at step 2 of its episode"):
        step(env)
    env.close()


@pytest.mark.parametrize("made", [(ZEROS, 1.0, False, {}), None, 3])
def test_a_step_of_another_form(made: Any) -> None:
    class Old(Scripted):
        def step(self, action: int) -> Any:
            return made

    with pytest.raises(EnvError, match=r"row 1 at step 1 .*returns \(observation, reward, terminated, truncated, info"):
        step(rows_with(Old))


def test_a_reset_of_another_form() -> None:
    class Old(Scripted):
        def reset(self, **keywords: Any) -> Any:
            return super().reset(**keywords)[0]

    with pytest.raises(EnvError, match=r"row 0 at its reset .*reset\(\) returns \(observation, info\)"):
        make(Old, 2).reset(0)


def test_a_reset_that_takes_no_seed() -> None:
    """As Gym's did until 0.26; another TypeError stays the environment's own."""

    class Older(Scripted):
        def reset(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            return super().reset()

    with pytest.raises(EnvError, match=r"row 0 at its reset.*: reset\(\) cannot be called with seed .*options=None\)"):
        make(Older, 2).reset(0)

    class Wrong(Scripted):
        def reset(self, **keywords: Any) -> Any:
            raise TypeError("none of mine")

    with pytest.raises(TypeError, match="none of mine"):
        make(Wrong, 2).reset(0)


def test_the_environment_s_own_exception_arrives_with_a_note() -> None:
    def fail(_: list[Any]) -> Any:
        raise ZeroDivisionError("the physics broke")

    env = rows_with(lambda: Scripted(fail, at=2))
    step(env)
    with pytest.raises(ZeroDivisionError, match="the physics broke") as caught:
        step(env)
    assert caught.value.__notes__ == ["shoal: raised by mixed: row 1 at step 2 of its episode, after the action 0"]
    env.close()


def test_an_exception_in_reset_or_construction_has_a_note() -> None:
    class Broken(Scripted):
        def reset(self, **keywords: Any) -> Any:
            raise OSError("no display")

    with pytest.raises(OSError, match="no display") as caught:
        make(Broken, 2).reset(0)
    (note,) = caught.value.__notes__
    assert note.startswith("shoal: raised by Broken: row 0 at its reset, given the seed 0: any whole number")

    def construct() -> gym.Env[Any, Any]:
        raise OSError("no device")

    with pytest.raises(OSError, match="no device") as caught:
        make(construct, 2)
    assert caught.value.__notes__ == ["shoal: raised while row 0 of construct was made"]


def test_declared_infos_arrive_with_ended_rows() -> None:
    env = make(make_pointer, 4, info_keys=("is_success", "distance"))
    assert env.spec.info_keys == ("is_success", "distance")
    env.reset(0)
    assert np.isnan(env.recv().info["distance"]).all()
    rng = np.random.default_rng(0)
    terminated = truncated = 0
    for _ in range(200):
        env.send(ALL, rng.uniform(-1, 1, (4, 2)).astype(np.float32))
        ready = env.recv()
        for row in np.flatnonzero(ready.terminated | ready.truncated):
            assert ready.info["distance"][row] == 1.5
            assert ready.info["is_success"][row] == ready.terminated[row]
        terminated, truncated = terminated + ready.terminated.sum(), truncated + ready.truncated.sum()
    assert terminated
    assert truncated
    env.close()


@pytest.mark.parametrize(
    ("key", "info", "message"),
    [
        ("scores", {"score": 1}, "without the declared info key 'scores'; did you mean score"),
        ("reached", {"score": 1}, "'reached'; it holds score"),
        ("score", {}, "'score'; it holds nothing"),
        ("score", {"score": "high"}, "the declared info key 'score' 'high', which is not a number"),
        ("score", {"score": np.zeros(2)}, "which is not a number"),
        ("score", None, "returned the info None; return a dict"),
    ],
)
def test_declared_infos_that_do_not_come(key: str, info: Any, message: str) -> None:
    env = make(lambda: Scripted(lambda made: [*made[:2], True, False, info], at=2), 2, info_keys=(key,))
    env.reset(0)
    env.recv()
    step(env)
    with pytest.raises(EnvError, match=rf"row 0 at step 2 of its episode .*{message}"):
        step(env)
    env.close()


class Forgetful(Scripted):
    """Draws from a generator that no seed reaches."""

    draws = iter(range(10**6))

    def reset(self, **keywords: Any) -> Any:
        super().reset(**keywords)
        return np.full(4, next(self.draws), np.float32), {}

    def step(self, action: int) -> Any:
        return np.full(4, next(self.draws), np.float32), *super().step(action)[1:]


def test_an_environment_that_cannot_be_played_again_is_cut() -> None:
    env = rows_with(Forgetful)
    before = step(env, 5).obs.copy()
    state = env.state()
    restored = rows_with(Forgetful)
    (sentence,) = restored.restore(state)
    assert "row 1 did not come back to its saved observation and return after 5 actions" in sentence
    assert "its episode is cut as truncated" in sentence
    ready = restored.recv()
    assert ready.truncated.tolist() == [False, True, False]
    assert not ready.terminated.any()
    assert ready.final_obs[1].tolist() == before[1].tolist() != ready.obs[1].tolist()
    assert (ready.episode_return[1], ready.episode_length[1]) == (5.0, 5)
    assert np.array_equal(ready.obs[[0, 2]], before[[0, 2]])
    assert step(restored).truncated.tolist() == [False, False, False]
    env.close()
    restored.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put(1, 9.0), "did not come back to its saved observation and return after 4 actions"),
        (put(2, True), "ended its episode after 3 of the 4 saved actions"),
        (lambda made: 1 / 0, r"raised ZeroDivisionError \(division by zero\) when its 4 actions were played again"),
    ],
)
def test_a_replay_that_differs_is_cut(change: Any, reason: str) -> None:
    env = rows_with(Scripted)
    step(env, 4)
    restored = rows_with(lambda: Scripted(change))
    (sentence,) = restored.restore(env.state())
    assert re.match(rf"mixed: row 1 {reason}; its episode is cut as truncated", sentence)
    env.close()
    restored.close()


def test_close_closes_every_environment_once() -> None:
    closed: list[int] = []

    class Closing(Corridor):
        def close(self) -> None:
            closed.append(id(self))

    env = make(Closing, 3)
    env.close()
    env.close()
    assert len(closed) == len(set(closed)) == 3
