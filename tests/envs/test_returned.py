"""What a VectorEnv's calls return has every part of Gymnasium's contract, or an error names the one that it lacks."""

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from shoal.envs.registry import make
from shoal.types import EnvError
from tests.envs.test_batched import Clock, started, stepped


def four(made: list[Any]) -> list[Any]:
    return [*made[:3], made[4]]


def no_infos(made: list[Any]) -> list[Any]:
    return [*made[:4], None]


def listed_infos(made: list[Any]) -> list[Any]:
    return [*made[:4], [{"action_mask": [1, 0]}, {"action_mask": [1, 0]}]]


class Alone(Clock):
    """Resets as `what` says."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int, what: Any = None) -> None:
        super().__init__(num_envs)
        self.what = what

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        obs, infos = super().reset(seed=seed, options=options)
        if isinstance(self.what, str):
            return {"obs": obs, "none": None, "infos": (obs, None), "list": (obs, [infos])}[self.what]
        return obs, infos

    def step(self, actions: Any) -> Any:
        obs, reward, terminated, truncated, _ = super().step(actions)
        return obs, reward, terminated, truncated, {"final_obs": self.what}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (four, r"step\(\) returned 4 values; return \(observations, rewards, terminations, truncations, infos\)"),
        (no_infos, r"step\(\) returned None as infos; return one dict for all rows"),
        (listed_infos, r"step\(\) returned a list as infos; return one dict for all rows"),
    ],
)
def test_parts_that_a_step_lacks_are_named(spoil: Any, words: str) -> None:
    env = started(make(Clock, 2, backend="vector", env_kwargs={"spoil": spoil}))
    with pytest.raises(EnvError, match=words):
        stepped(env, [0, 1])


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("obs", r"reset\(\) returned a ndarray; return \(observations, infos\)"),
        ("none", r"reset\(\) returned None; return \(observations, infos\)"),
        ("infos", r"reset\(\) returned None as infos; return one dict"),
        ("list", r"reset\(\) returned a list as infos; return one dict"),
    ],
)
def test_parts_that_a_reset_lacks_are_named(what: str, words: str) -> None:
    env = make(Alone, 2, backend="vector", env_kwargs={"what": what})
    with pytest.raises(EnvError, match=words):
        env.reset(0)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (
            [np.zeros(2, np.float32)],
            r'row 1 ended, but infos\["final_obs"\]\[1\] is none of its observations .IndexError',
        ),
        (
            [None, None],
            r"row 1 ended.* it has the shape \(\) and type object there, but the space says \(2,\) and float32",
        ),
        (np.zeros((2, 3), np.float32), r"row 1 ended.* it has the shape \(3,\)"),
        ({"x": 1}, r"row 1 ended.* .KeyError"),
    ],
)
def test_last_observations_that_are_none_are_named(what: Any, words: str) -> None:
    env = started(make(Alone, 2, backend="vector", env_kwargs={"what": what}))
    stepped(env, [0, 0])
    with pytest.raises(EnvError, match=words):
        stepped(env, [0, 0])
