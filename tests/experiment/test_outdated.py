"""Names that settings had before: a configuration file that still has them is told the new ones."""

import pytest

from shoal.experiment.options import Options
from shoal.experiment.settings import layers_of_file
from shoal.types import ConfigError


def test_an_outdated_setting_is_refused_with_its_new_name() -> None:
    saved = {"env": "CartPole-v1", "algorithm": {"network": {"normalise_obs": True}}}
    with pytest.raises(ConfigError, match="normalise_obs is called normalize_obs now"):
        layers_of_file(saved, Options)


def test_keywords_of_an_environment_may_have_any_name() -> None:
    saved = {"env": "CartPole-v1", "env_kwargs": {"normalise_obs": True}}
    _, _, env_kwargs = layers_of_file(saved, Options)
    assert env_kwargs == {"normalise_obs": True}
