"""Schedules: what each gives over a run, by numbers worked by hand, and what is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import sqrt
from typing import Any

import pytest

from shoal.math.rates import Schedule, apply_schedules, check_schedules, find_functions
from shoal.types import ConfigError


@dataclass(frozen=True, slots=True)
class Config:
    """One setting that is scheduled beside the learning rate, and one that is not."""

    learning_rate: float = 0.1
    learning_rate_schedule: Schedule = "constant"
    noise: float = 8.0
    noise_schedule: Schedule = "constant"
    other: int = 3


class Steps:
    """Has a learning rate, and keeps what else is scheduled."""

    def __init__(self) -> None:
        self.learning_rate = 5.0
        self.scheduled: dict[str, float] = {}


def quarters(progress: float) -> float:
    """Falls in steps."""
    return 1 - int(4 * progress) / 4


NUMBER = 3


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [8, 8, 8, 8]),
        ("linear", [8, 6, 4, 2]),
        ("cosine", [8, 4 * (1 + 1 / sqrt(2)), 4, 4 * (1 - 1 / sqrt(2))]),
        (lambda progress: 10 * progress, [0, 20, 40, 60]),
        (f"{__name__}:quarters", [8, 6, 4, 2]),
    ],
    ids=["constant", "linear", "cosine", "function", "named"],
)
def test_values_over_a_run(schedule: Schedule, expected: list[float]) -> None:
    """At the beginning, after a quarter, a half and three quarters; nothing else changes."""
    config = Config(noise_schedule=schedule)
    check_schedules(config)
    found: list[float] = []
    for progress in (0.0, 0.25, 0.5, 0.75):
        learner = Steps()
        now = apply_schedules(config, progress, learner)
        assert (now.other, now.learning_rate, learner.learning_rate) == (3, 0.1, 0.1)
        assert learner.scheduled.get("noise", 8) == now.noise
        found.append(now.noise)
    assert found == pytest.approx(expected)
    assert config.noise == 8


def test_constant_settings_are_the_same_object() -> None:
    """Nothing is made anew, so that nothing is read anew for each update."""
    config = Config()
    assert apply_schedules(config, 0.5, Steps()) is config


def test_the_learner_follows_its_own_schedule_alone() -> None:
    """Linear to half; a name that is the algorithm's own leaves the learner as it is."""
    learner = Steps()
    assert apply_schedules(Config(learning_rate_schedule="linear"), 0.5, learner).learning_rate == 0.05
    assert learner.learning_rate == 0.05
    own = Config(learning_rate_schedule="kl")
    check_schedules(own, learning_rate_schedule="kl")
    assert apply_schedules(own, 0.5, learner) is own
    assert learner.learning_rate == 0.05


@pytest.mark.parametrize("given", ["step", "kl", "", ":f", "m:", 0.5, None])
def test_what_is_no_schedule_is_refused(given: Any) -> None:
    """With the setting's name, and what may be given."""
    with pytest.raises(ConfigError, match="noise_schedule must be one of constant, linear, cosine, a function"):
        check_schedules(Config(noise_schedule=given), learning_rate_schedule="kl")


@pytest.mark.parametrize("function", [lambda: 0.5, lambda progress, step: progress + step], ids=["none", "two"])
def test_a_function_of_something_else_is_refused(function: Any) -> None:
    """Before anything is trained; what has no signature, such as `math.cos`, is taken."""
    with pytest.raises(ConfigError, match="noise_schedule is called with the run's progress alone, but "):
        check_schedules(Config(noise_schedule=function))
    check_schedules(Config(noise_schedule=math.cos))


@pytest.mark.parametrize("factor", [-0.1, float("nan"), float("inf"), None, "1"])
def test_what_a_function_may_not_give(factor: Any) -> None:
    """A number of at least 0; the message says when and what."""
    with pytest.raises(ConfigError, match=r"noise_schedule gave .* at progress 0.25; it must give a finite number"):
        apply_schedules(Config(noise_schedule=lambda progress: factor), 0.25, Steps())


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("nowhere_at_all:f", r"noise_schedule: .* no module 'nowhere_at_all'; is it on PYTHONPATH\?$"),
        (
            f"{__name__}:<lambda>",
            r"noise_schedule is a function that .*:<lambda>$",
        ),
        (f"{__name__}:NUMBER", "noise_schedule: .*:NUMBER is no function, but 3"),
    ],
)
def test_names_that_are_no_functions(named: str, told: str) -> None:
    """A module that is not there, a function that has no name, a number."""
    with pytest.raises(ConfigError, match=told):
        apply_schedules(Config(noise_schedule=named), 0.0, Steps())
    with pytest.raises(ConfigError, match=f"{told.removesuffix('$')}; give it again: shoal.resume"):
        find_functions(Config(noise_schedule=named), resumed=True)


def test_a_function_that_fails_is_named() -> None:
    """Its own exception, with whose it is; StopIteration would end the loop that it is called in."""
    with pytest.raises(ZeroDivisionError) as raised:
        apply_schedules(Config(noise_schedule=lambda progress: 1 / 0), 0.25, Steps())
    assert raised.value.__notes__ == ["shoal: raised by noise_schedule, called with the progress 0.25"]
    with pytest.raises(ConfigError, match=r"noise_schedule, at progress 0\.25, raised StopIteration"):
        apply_schedules(Config(noise_schedule=lambda progress: next(iter(()))), 0.25, Steps())
