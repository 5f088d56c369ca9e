"""A user's code that raises StopIteration or SystemExit: an error that names it, and a run that says how it ended."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from torch import nn

import shoal
from shoal.envs.action_guard.settings import ActionGuard
from shoal.run.directory import RunDirectory
from shoal.stream.actors.messages import Op
from shoal.stream.actors.serving import Serving
from shoal.types import refuse_end

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SMALL: Any = {
    "algo": "a2c",
    "num_envs": 2,
    "num_steps": 8,
    "total_timesteps": 160,
    "num_threads": 1,
    "final_episodes": 0,
    "panel": "none",
}


def stops() -> Any:
    raise StopIteration("no more")


def leaves() -> Any:
    sys.exit("no more")


class Still(gym.Env[Any, Any]):
    """It stands still for ten steps; after `good` steps it does something else."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, good: int = 10**6, then: Callable[[], Any] = stops) -> None:
        self.good, self.then, self.steps = good, then, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps > self.good:
            self.then()
        return np.zeros(2, np.float32), 1.0, False, self.steps % 10 == 0, {}


class Net(nn.Module):
    """A policy of a user's own, which acts and learns for `good` calls."""

    def __init__(self, then: Callable[[], Any], good: int = 30) -> None:
        super().__init__()
        self.policy, self.value, self.then, self.calls = nn.Linear(2, 2), nn.Linear(2, 1), then, good

    def forward(self, obs: Any) -> Any:
        self.calls -= 1
        if self.calls < 0:
            self.then()
        return self.policy(obs), self.value(obs)


def after(good: int, then: Callable[[], Any], answer: Callable[..., Any] = lambda *_: None) -> Callable[..., Any]:
    """A function that answers so many times."""
    calls = 0

    def function(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        return answer(*given) if calls <= good else then()

    return function


def line(obs: Any) -> Any:
    return np.ones((len(obs), 1, 1)), np.ones((len(obs), 1))


@pytest.mark.parametrize("then", [stops, leaves])
def test_the_error_names_whose_code_it_was(tmp_path: Path, then: Callable[[], Any]) -> None:
    """And run.json says the same: nothing ends in silence, neither the loop nor the process."""
    cases: dict[str, dict[str, Any]] = {
        r"row 0 at step 3 of its episode": {"env": lambda: Still(42, then)},
        r"action_guard.constraint, called for rows 0..1,": {
            "action_guard": ActionGuard(constraint=after(20, then, lambda obs, action: action))
        },
        r"action_guard.inequalities, called for rows 0..1,": {
            "action_guard": ActionGuard(inequalities=after(20, then, line))
        },
        r"the callback \S*function": {"callbacks": [after(2, then)]},
        r"the guard's rule function": {"rules": [after(0, then)], "total_timesteps": 4096},
        r"learning_rate_schedule, at progress 0\.\d+,": {"learning_rate_schedule": after(4, then, lambda _: 1.0)},
        r"the policy Net, given obs float32 \[2, 2\],": {
            "env": "tests.experiment.test_leaving:chooses",
            "policy": Net(then),
        },
    }
    for number, (whose, given) in enumerate(cases.items()):
        settings: Any = {"env": Still, "name": str(number), "run_dir": tmp_path, **SMALL, **given}
        said = rf"{whose} raised {'StopIteration' if then is stops else 'SystemExit'} \(no more\) in \w+ \(test_leaving"
        with pytest.raises((shoal.EnvError, shoal.ConfigError), match=said):
            shoal.train(**settings)
        (status,) = tmp_path.rglob(f"{number}/run.json")
        record = RunDirectory(status.parent).read_status()
        assert record["state"] == "failed"
        assert re.search(said, record["reason"])


def chooses() -> gym.Env[Any, Any]:
    made = Still()
    made.action_space = spaces.Discrete(2)
    return made


def test_what_comes_out_of_a_generator_and_what_goes_on() -> None:
    """A run that ended so fails in words; Ctrl-C, and every other error, is what it was."""

    def generates() -> Any:
        yield stops()

    with pytest.raises(RuntimeError) as raised:
        next(generates())
    said = refuse_end(raised.value)
    assert isinstance(said, shoal.ConfigError)
    assert re.match(r"code that the run called raised StopIteration \(no more\) in stops \(test_leaving.py", str(said))
    for error in (KeyboardInterrupt(), RuntimeError("as it was"), shoal.EnvError("an environment's")):
        error.__cause__ = None
        assert refuse_end(error) is error
    named = shoal.EnvError("row 0 raised StopIteration")
    named.__cause__ = StopIteration()
    assert refuse_end(named) is named


class Asked:
    """What an actor answers."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bool, Any]] = []

    def poll(self) -> bool:
        return False

    def receive(self) -> Any:
        raise AssertionError

    def send(self, answer: tuple[int, bool, Any]) -> None:
        self.answers.append(answer)


class Broken:
    """An actor whose first rollout ends in its middle; rows have no state then before they are restored."""

    sound = True

    def take(self, _: Any) -> None:
        return

    def collect(self, *_: Any) -> None:
        self.sound = False
        stops()

    def answer(self, op: Op, _: Any) -> str:
        self.sound |= op is Op.RESTORE
        if op is Op.STATE and not self.sound:
            raise RuntimeError("state before reset: a step failed halfway")
        return op.name

    def keeping_due(self, _: float) -> bool:
        return False


def test_the_error_of_an_actors_environment_is_not_lost() -> None:
    """A checkpoint that is due asks the actor for its state: what it lacks that for is said, as long as it does."""
    asked = Asked()
    actor: Any = Broken()
    serving = Serving(actor, asked, 0, repr)
    serving._respond(Op.COLLECT, 0, None)
    for task, op in enumerate((Op.STATE, Op.SAMPLE, Op.STATE, Op.RESTORE, Op.STATE)):
        serving._respond(op, 1 + task, None)
    stopped = "StopIteration('no more')"
    assert asked.answers == [
        (0, False, stopped),
        (1, False, stopped),
        (2, True, "SAMPLE"),
        (3, False, stopped),
        (4, True, "RESTORE"),
        (5, True, "STATE"),
    ]
