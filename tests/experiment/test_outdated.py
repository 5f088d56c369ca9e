"""Names that settings had before: a configuration file that still has them is told the new ones."""

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from shoal.experiment.experiment import Experiment
from shoal.experiment.options import Options
from shoal.experiment.settings import layers_of_file
from shoal.types import ConfigError


def test_an_outdated_setting_is_refused_with_its_new_name() -> None:
    saved = {"env": "CartPole-v1", "algorithm": {"network": {"normalise_obs": True}}}
    with pytest.raises(ConfigError, match="normalise_obs is called normalize_obs now"):
        Experiment.of_file(saved)


def test_a_name_that_an_algorithm_has_is_not_outdated(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a custom algorithm calls its own stays its own, although one of shoal's was called so once."""

    @dataclass(frozen=True)
    class Config:
        anneal: bool = False

    own: Any = ModuleType("anneals")
    own.Config, own.train = Config, lambda cfg, env, run: None
    monkeypatch.setitem(sys.modules, "anneals", own)
    saved = {"env": "CartPole-v1", "algo": "anneals", "algorithm": {"anneal": True}}
    assert Experiment.of_file(saved).config == Config(anneal=True)


def test_keywords_of_an_environment_may_have_any_name() -> None:
    saved = {"env": "CartPole-v1", "env_kwargs": {"normalise_obs": True}}
    _, _, env_kwargs = layers_of_file(saved, Options)
    assert env_kwargs == {"normalise_obs": True}
