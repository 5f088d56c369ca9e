"""Environments as users hand them to training: made anew each time, and what is said of them once."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.vector import SyncVectorEnv

import shoal
from tests.experiment.test_users import TINY
from tests.games import Shift

pytestmark = pytest.mark.usefixtures("few_greedy_episodes")


@pytest.mark.parametrize("kind", ["serial", "agents", "vector"])
def test_evaluation_does_not_step_what_training_steps(kind: str, run_dir: Path) -> None:
    """A function that hands out one object: evaluation would reset it in the middle of training's episodes."""
    one: Any = Shift() if kind == "agents" else gym.make("CartPole-v1")
    many: dict[str, Any] = {
        "serial": lambda: one,
        "agents": lambda: one,
        "vector": lambda num_envs: SyncVectorEnv([lambda: one]),
    }
    settings: Any = TINY | {"num_envs": 1, "eval_every": 16, "eval_episodes": 1}
    settings |= {"backend": kind} if kind != "agents" else {}
    with pytest.raises(shoal.ConfigError, match="evaluation got an environment that training steps; the callable must"):
        shoal.train(many[kind], run_dir=run_dir, **settings)
    assert not list(run_dir.rglob("config.toml"))


class Fragile(CartPoleEnv):
    """Cannot be stepped once it is closed."""

    spent = False

    def close(self) -> None:
        self.spent = True

    def step(self, action: Any) -> Any:
        if self.spent:
            raise RuntimeError("out of order")
        return super().step(action)


@pytest.mark.parametrize("backend", ["serial", "vector"])
def test_an_environment_that_is_handed_out_again_after_its_end_is_named(backend: str, run_dir: Path) -> None:
    """A cached function: training closes what the greedy episodes would step."""

    @cache
    def cached(num_envs: int = 1) -> Any:
        made = gym.wrappers.TimeLimit(Fragile(), 9)
        return SyncVectorEnv([lambda: made]) if backend == "vector" else made

    settings: Any = TINY | {"num_envs": 1, "final_episodes": 1, "backend": backend, "run_dir": run_dir}
    told = "cached: the callable gave an environment that was closed before.*out of order.*make a new"
    with pytest.warns(UserWarning, match=told):
        path = shoal.train(cached, **settings).path
    with pytest.raises(shoal.EnvError, match=told):
        shoal.load(path, factory=cached).evaluate(episodes=1)


def test_the_note_of_a_reset_says_which_seed_it_was_given(run_dir: Path) -> None:
    """Environments of a few numbered scenarios; evaluation's seeds are far from training's."""

    class Scenarios(CartPoleEnv):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            if seed is not None and seed >= 10:
                raise LookupError(f"no scenario {seed}")
            return super().reset(seed=seed)

    settings: Any = TINY | {"seed": 0, "eval_every": 64, "preprocessing": {"max_episode_steps": 9}}
    said = (
        r"beside training failed \(LookupError: no scenario 1000000007; .*given the seed 1000000007: any whole number"
    )
    with pytest.warns(UserWarning, match=said):
        shoal.train(Scenarios, run_dir=run_dir, final_episodes=0, **settings)


def test_a_run_that_goes_on_in_another_environment_says_so(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the name of the function that is given again; one without a name says nothing of itself."""

    class Mine(CartPoleEnv):
        pass

    class Other(CartPoleEnv):
        pass

    def nameless() -> Any:
        return Mine()

    nameless.__name__ = "<lambda>"
    settings: Any = TINY | {"preprocessing": {"max_episode_steps": 9}, "final_episodes": 0}
    path = shoal.train(Mine, run_dir=run_dir, **settings).path
    more = 8 * 16 * 4
    for number, factory in enumerate([Mine, nameless, Other], 2):
        shoal.resume(path, factory=factory, panel="plain", total_timesteps=number * more)
        said = "was trained in Mine up to here and goes on in Other" in capsys.readouterr().err
        assert said == (factory is Other)


class Standing(CartPoleEnv):
    """Never falls."""

    def step(self, action: Any) -> Any:
        return np.zeros(4, np.float32), 1.0, False, False, {}


def test_a_class_without_its_time_limit_is_said(run_dir: Path) -> None:
    """CartPoleEnv itself never ends an episode of a good policy; the registered id does, and a function of it too."""
    with pytest.warns(UserWarning, match="CartPoleEnv itself has no time limit; 'CartPole-v"):
        shoal.train(CartPoleEnv, run_dir=run_dir, **TINY)


def normalized() -> Any:
    return gym.wrappers.NormalizeObservation(gym.make("CartPole-v1"))


def vectors(num_envs: int) -> Any:
    """The same wrapper twice: around all of them, and around each."""
    return gym.wrappers.vector.NormalizeObservation(SyncVectorEnv([normalized] * num_envs))


@pytest.mark.parametrize(
    ("env", "backend", "told"),
    [
        (normalized, "serial", ["NormalizeObservation keeps running"]),
        (vectors, "vector", ["NormalizeObservation keeps running"]),
        (Standing, "serial", ["itself has no time limit", "has not ended after 20 steps"]),
    ],
)
def test_what_is_said_of_an_environment_is_said_once(env: Any, backend: str, told: list[str], run_dir: Path) -> None:
    """Of training's rows, not of those of two evaluations beside it and one after it; nor of each evaluation."""
    settings: Any = TINY | {"total_timesteps": 8 * 16 * 2, "eval_every": 8 * 16, "eval_episodes": 2}
    settings |= {"eval_max_steps": 20, "final_episodes": 2} if env is Standing else {"final_episodes": 2}
    gym.register("Standing-v0", f"{__name__}:Standing", max_episode_steps=30)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            shoal.train(env, backend=backend, run_dir=run_dir, **settings)
    finally:
        del gym.registry["Standing-v0"]
    said = [str(warning.message) for warning in warned]
    assert [sum(part in text for text in said) for part in told] == [1] * len(told)
    assert len(said) == len(told)


@pytest.mark.parametrize("given", [gym.make("CartPole-v1"), 3], ids=["environment", "number"])
def test_what_makes_no_environment_is_refused_where_a_run_is_loaded(given: Any, run_dir: Path) -> None:
    run = shoal.train(lambda: gym.make("CartPole-v1"), run_dir=run_dir, **TINY)
    for call in (shoal.load, shoal.resume):
        with pytest.raises(shoal.ConfigError, match=r"pass a (function that makes a new one|callable that returns)"):
            call(run.path, factory=given)


@pytest.mark.parametrize(
    ("name", "shown", "folder"),
    [
        ("[red]\x1b[31mEvil", r"[red]\x1b[31mEvil", r"_red_x1b_31mEvil"),
        ("two\nlines", r"two\nlines", "two_nlines"),
        ("x" * 400, f"{'x' * 59}…", f"{'x' * 59}_"),
    ],
    ids=["escapes", "lines", "long"],
)
def test_a_class_of_any_name_is_trained_and_loaded(name: str, shown: str, folder: str, run_dir: Path) -> None:
    """Its run's own files could not be read, or its folder not be made."""

    class Cart(gym.Wrapper[Any, Any, Any, Any]):
        def __init__(self) -> None:
            super().__init__(gym.make("CartPole-v1"))

    Cart.__name__ = name
    run = shoal.train(Cart, run_dir=run_dir, **TINY)
    assert run.path.parent.parent.name == folder
    assert shoal.load(run.path, factory=Cart).experiment.options.env == shown
