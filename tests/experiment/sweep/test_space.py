"""Search spaces: what a file's ranges mean, what is inferred, and what is refused before anything runs."""

import pytest

from shoal.experiment.experiment import Experiment
from shoal.experiment.sweep.inferred import infer
from shoal.experiment.sweep.plan import read_plan
from shoal.experiment.sweep.space import Parameter, Range, as_tables, changed, read_space
from shoal.types import ConfigError

SWEEP = {"trials": 4}


def make_base(**settings: object) -> Experiment:
    return Experiment.new("CartPole-v1", settings={"preset": "CartPole-v1", **settings})


def test_what_is_drawn_becomes_a_value_in_few_digits() -> None:
    rate = Parameter("learning_rate", Range(low=1e-4, high=1e-2, log=True), whole=False)
    assert rate.value_of(0.00123456) == 0.001235
    steps = Parameter("num_steps", Range(low=32, high=300, factor=2), whole=True)
    assert steps.values == [32, 64, 128, 256]
    assert steps.value_of(3) == 256
    assert steps.drawn_for(64) == 1
    gamma = Parameter("gamma", Range(low=0.9, high=0.999, log1m=True), whole=False)
    assert gamma.key == "1 - gamma"
    assert gamma.value_of(0.005) == 0.995
    assert gamma.drawn_for(0.99) == 0.01
    hidden = Parameter("network.hidden", Range(choices=([64, 64], [128])), whole=False)
    assert hidden.value_of("[128]") == [128]
    assert hidden.drawn_for([64, 64]) == "[64, 64]"
    assert hidden.drawn_for([32]) is None


def test_a_space_changes_settings_of_the_run_and_of_the_algorithm_and_nested_ones() -> None:
    base = make_base()
    tables = {
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "num_envs": {"low": 8, "high": 32, "factor": 2},
        "network": {"hidden": {"choices": [[32], [64, 64]]}},
    }
    space = read_space(base, tables, {})
    assert [one.name for one in space] == ["learning_rate", "num_envs", "network.hidden"]
    assert as_tables(space) == tables
    made = changed(base, {"learning_rate": 0.002, "num_envs": 8, "network.hidden": [32]})
    assert (made.config.learning_rate, made.options.num_envs, made.config.network.hidden) == (0.002, 8, (32,))
    assert made.config.network.activation == base.config.network.activation


def test_ranges_are_inferred_from_type_value_and_what_a_setting_takes() -> None:
    base = make_base(network={"log_std_init": 0.0})
    names = ["learning_rate", "gamma", "num_steps", "update_epochs", "ent_coef", "clip_vloss", "network.activation"]
    found = infer(base, names)
    assert found["learning_rate"] == Range(low=0.0006, high=0.015, log=True)
    assert found["gamma"] == Range(low=0.95, high=0.998, log1m=True)
    assert found["num_steps"] == Range(low=16, high=256, factor=2)
    assert found["update_epochs"] == Range(low=1, high=20, log=True)
    assert found["ent_coef"] == Range(low=1e-4, high=0.1, log=True)
    assert found["clip_vloss"].choices == (False, True)
    assert {"tanh", "relu"} <= set(found["network.activation"].choices)
    assert found == infer(base, names)


def refuse(said: str, *, sweep: dict[str, object] | None = None, **file: object) -> None:
    whole = {"env": "CartPole-v1", "sweep": {**SWEEP, **(sweep or {})}, **file}
    with pytest.raises(ConfigError, match=said):
        read_plan(whole)


def test_a_range_that_cannot_work_is_refused_in_words() -> None:
    refuse("no setting 'learning_rat'; did you mean learning_rate", space={"learning_rat": {"low": 1, "high": 2}})
    refuse("high: gamma must be between 0 and 1, got 1.5", space={"gamma": {"low": 0.9, "high": 1.5}})
    refuse("low must be above 0 on a logarithmic", space={"ent_coef": {"low": 0, "high": 0.1, "log": True}})
    refuse("low must be below high", space={"gamma": {"low": 0.99, "high": 0.9}})
    refuse("choices: learning_rate must be a number, got 'fast'", space={"learning_rate": {"choices": [1e-3, "fast"]}})
    refuse("at least two different values", space={"learning_rate": {"choices": [1e-3]}})
    refuse("needs low and high, or choices", space={"learning_rate": {"low": 1e-3}})
    refuse("num_steps is a whole number, and low is 12.5", space={"num_steps": {"low": 12.5, "high": 64}})
    refuse("network.activation is no number; give choices", space={"network": {"activation": {"low": 1, "high": 2}}})
    refuse("give one of log, log1m, step", space={"gamma": {"low": 0.9, "high": 0.99, "log": True, "log1m": True}})
    refuse("no setting 'lo'; did you mean low", space={"gamma": {"lo": 0.9, "high": 0.99}})
    refuse("seed is the same for all trials", space={"seed": {"low": 1, "high": 9}})
    refuse("keywords decide the task", space={"env_kwargs": {"gravity": {"low": 1, "high": 9}}})
    refuse("must be a table", space={"gamma": 0.9})
    refuse("leave one of them out", sweep={"search": ["gamma"]}, space={"gamma": {"low": 0.9, "high": 0.99}})


def test_what_cannot_be_inferred_is_refused_in_words() -> None:
    refuse("no setting 'gama'; did you mean gamma", sweep={"search": ["gama"]})
    refuse("from which no range can be inferred", sweep={"search": ["network.hidden"]})
    refuse("from which no range can be inferred", sweep={"search": ["target_kl"]})
    refuse("from which no scale can be seen", sweep={"search": ["network.log_std_init"]})
    refuse("stands there twice", sweep={"search": ["gamma", "gamma"]})
