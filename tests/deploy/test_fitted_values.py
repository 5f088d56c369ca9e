"""Fitted values of actions that are numbers: right where the log tried them, refused in words where it did not."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from shoal.deploy.fitted_values import FittedValues
from shoal.deploy.likelihood import Choices
from shoal.deploy.progress import Progress
from shoal.deploy.support import support_of
from shoal.memory.data import CheckedEpisode
from shoal.memory.data_file import Episode
from shoal.types import Spec

GAMMA, STEPS = 0.9, 15
SPEC = Spec.of("Line-v0", spaces.Box(-np.inf, np.inf, (1,), np.float32), spaces.Box(-1, 1, (1,), np.float32))


def start_of(rng: np.random.Generator, count: int) -> np.ndarray[Any, Any]:
    return rng.uniform(-1, 1, count)


def played(rng: np.random.Generator, count: int, gain: float, noise: float) -> Any:
    """States [count, STEPS + 1], actions and rewards of x' = 0.9 x + 0.3 a + noise, reward 1 - x^2, a = -gain x."""
    state = [start_of(rng, count)]
    action, reward = [], []
    for _ in range(STEPS):
        action.append(np.clip(-gain * state[-1] + noise * rng.normal(size=count), -1, 1))
        reward.append(1 - state[-1] ** 2)
        state.append(0.9 * state[-1] + 0.3 * action[-1] + 0.05 * rng.normal(size=count))
    return tuple(np.array(part).T for part in (state, action, reward))


def fitted(noise: float, *, gain: float = 0.8, count: int = 40) -> FittedValues:
    """Of a policy a = -gain x, by a log of the controller a = -0.2 x with noise."""
    rng = np.random.default_rng(0)
    states, actions, rewards = played(rng, count, 0.2, noise)
    ends = np.arange(1, STEPS + 1) == STEPS
    episodes, acts = [], []
    for seen, done, got in zip(states, actions, rewards, strict=True):
        one = Episode(seen[:, None].astype(np.float32), done[:, None].astype(np.float32), got, ends & False, ends)
        episodes.append(CheckedEpisode("episode", one, SPEC))
        wanted = np.clip(-gain * seen, -1, 1)
        acts.append(Choices(None, wanted[:, None, None], np.ones((STEPS + 1, 1))))
    return FittedValues(SPEC, episodes, acts, rng, gamma=GAMMA)


def test_values_are_right_where_the_log_tried_the_actions() -> None:
    """The interval covers the return of 20,000 episodes of the policy itself, and not that of the controller."""
    rng = np.random.default_rng(1)
    true, other = (float((played(rng, 20_000, gain, 0)[2] @ GAMMA ** np.arange(STEPS)).mean()) for gain in (0.8, -0.6))
    found = fitted(0.4).estimate(0.95, Progress("test"))
    assert found.low <= true <= found.high
    assert found.high - found.low < 1.0
    assert other < found.low


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_log_that_did_not_try_them_is_refused(noise: float) -> None:
    """Its own noise, and the one that would do: |0.6 x| / 2 at the ninth decile of x."""
    with pytest.raises(ValueError, match=r"% of the policy's actions lie outside what the log tried") as told:
        fitted(noise)
    said = str(told.value)
    asked = float(said.split("of about ")[1].split()[0])
    assert asked == pytest.approx(1.1 * 0.6 * 0.55 / 2, rel=0.35)
    scatter = float(said.split("explains with a standard deviation of ")[1].split(",")[0])
    assert scatter == pytest.approx(noise, abs=0.015)


@pytest.mark.parametrize(("noise", "asked"), [(0.05, r"about 0.5 \(heater\)"), (0.6, "leave little of the controller")])
def test_what_a_log_lacks_is_said_by_names_and_fits_into_the_range(noise: float, asked: str) -> None:
    """The heater differs by 0.9 from a controller in the middle; the valve by 1.5 of 2, which cuts noise off."""
    rng = np.random.default_rng(0)
    spec = replace(SPEC, action_space=spaces.Box(-1, 1, (2,), np.float32), action_names=("valve", "heater"))
    states = [rng.normal(size=(41, 2)) for _ in range(20)]
    usual = np.array([0.0 if noise < 0.1 else 0.6, 0.0])
    taken = np.clip(usual + noise * rng.normal(size=(800, 2)), -1, 1)
    wanted = np.array([0.0 if noise < 0.1 else -0.9, 0.9])
    acts = [Choices(None, np.tile(wanted, (41, 1, 1)), np.ones((41, 1))) for _ in states]
    support = support_of(spec, states, taken, acts, rng)
    assert support is not None
    assert not support.enough
    assert re.search(asked, str(support)), support
    assert ("(valve)" in str(support)) == (noise > 0.1)


def test_the_controller_itself_is_within_what_it_tried() -> None:
    fitted(0.02, gain=0.2)


def test_an_estimate_stays_within_what_rewards_can_add_up_to() -> None:
    """Rewards of at most 1 for 15 steps at gamma 0.9: 10 (1 - 0.9^15) = 7.94. What lies beyond moves the other end."""
    values = fitted(0.4)
    attainable = values._attainable
    most = 10 * (1 - 0.9**15)
    low, mean, high = attainable(6.0, 7.0, most + 1)
    assert (low, mean, high) == pytest.approx((5.0, 7.0, most), abs=0.01)
    assert attainable(5.0, 6.0, 7.0) == (5.0, 6.0, 7.0)
    with pytest.raises(ValueError, match=r"fitted values arrive at 500, and the log's rewards can add up to"):
        attainable(400.0, 500.0, 600.0)


def test_what_takes_long_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(perf_counter=iter([0.0, 1.0, 2.0, 6.0, 6.0, 7.0]).__next__)
    monkeypatch.setattr("shoal.deploy.progress.time", clock)
    progress = Progress("off-policy evaluation")
    progress.at("1 of 3 resamples")
    progress.done("one")
    progress.at("2 of 3 resamples")
    progress.at("3 of 3 resamples")
    assert capsys.readouterr().err == "off-policy evaluation: 2 of 3 resamples, 6 s\n"
