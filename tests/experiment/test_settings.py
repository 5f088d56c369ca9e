"""Settings: what wins over what, what is refused and with which words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from shoal.algos.ppo import PPO
from shoal.experiment import settings
from shoal.experiment.experiment import Experiment
from shoal.experiment.options import Options
from shoal.experiment.settings import build, convert, layers_of_file, resolve, without_none
from shoal.nets.policy import Network
from shoal.types import ConfigError


@dataclass(frozen=True)
class Inner:
    a: int = 1
    b: int = 2


@dataclass(frozen=True)
class Run:
    env: str
    steps: int = 10
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True)
class Own:
    rate: float = 0.1
    net: Inner = field(default_factory=Inner)


def test_each_layer_wins_over_those_before() -> None:
    """Defaults < preset < file < given; of nested settings those that are named; either dataclass at any layer."""
    layers: list[dict[str, Any]] = [
        {"env": "E", "steps": 20},
        {"steps": 30, "rate": 0.2, "net": {"a": 5, "b": 6}},
        {"rate": 0.3, "net": {"a": 7}, "inner": {"b": 9}},
        {"steps": 40},
    ]
    assert resolve(Run, Own, *layers) == (Run("E", 40, Inner(1, 9)), Own(0.3, Inner(7, 6)))
    assert resolve(Run, Own, *layers[:2]) == (Run("E", 30), Own(0.2, Inner(5, 6)))
    assert resolve(Run, Own, layers[0]) == (Run("E", 20), Own())


def test_nested_settings_over_an_object() -> None:
    """A nested object is replaced by an object, and changed in single fields by a mapping."""
    layers: list[dict[str, Any]] = [{"env": "E", "net": Inner(5, 6)}, {"net": {"b": 7}}]
    assert resolve(Run, Own, *layers)[1].net == Inner(5, 7)
    assert resolve(Run, Own, *layers, {"net": Inner(b=3)})[1].net == Inner(1, 3)
    config = PPO(network=Network(hidden=(8,), activation="relu"))
    own = Experiment.new("CartPole-v1", config=config, settings={"network": {"hidden": [4]}}).config
    assert (own.network.hidden, own.network.activation) == ((4,), "relu")


def test_the_order_of_an_experiment() -> None:
    """The algorithm's default for the run < the environment's preset < what was given."""
    assert Options("X").num_envs == 16
    given: dict[str, Any] = {"num_envs": 3}
    counts = [
        Experiment.new(env, algo=algo, settings=chosen).options.num_envs
        for env, algo, chosen in (
            ("Blackjack-v1", "ppo", {}),
            ("Blackjack-v1", "a2c", {}),
            ("LunarLander-v3", "ppo", {}),
            ("MountainCar-v0", "ppo", {}),
            ("Blackjack-v1", "ppo", {"preset": "MountainCar-v0"}),
            ("MountainCar-v0", "ppo", given),
        )
    ]
    assert counts == [16, 32, 16, 256, 256, 3]


def test_a_file_lies_over_the_preset_that_it_names() -> None:
    """A file that names no preset starts from the defaults, not from the environment's preset."""
    saved: dict[str, Any] = {"env": "MountainCar-v0", "num_envs": 5}
    assert Experiment.of_file(saved).config.num_steps == 128
    named = Experiment.of_file(saved | {"preset": "MountainCar-v0", "algorithm": {"gamma": 0.5}})
    assert (named.options.num_envs, named.config.num_steps, named.config.gamma) == (5, 64, 0.5)
    assert Experiment.of_file(saved, given={"num_envs": 6}).options.num_envs == 6


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        ({"algorithm": {"num_envs": 8}}, r"num_envs is a setting of the run now: .* \[algorithm\], to the top"),
        ({"algorithm": {"self_play": {"every": 3}}}, "self_play is a setting of the run now"),
        ({"num_env": 8}, "unknown keys .*num_env.*did you mean .*num_envs"),
        ({"old_name": 8}, "old_name is called new_name now"),
        ({"algorithm": {"network": {"old_name": True}}}, "old_name is called new_name now"),
    ],
    ids=["moved", "moved-table", "misspelt", "renamed", "renamed-nested"],
)
def test_files_of_older_versions(saved: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that stands elsewhere or is called otherwise now is refused with its place or name."""
    monkeypatch.setitem(settings.OUTDATED, "old_name", "new_name")
    with pytest.raises(ConfigError, match=told):
        layers_of_file({"env": "CartPole-v1"} | saved, Options)


def test_keywords_of_an_environment_are_its_own() -> None:
    """No name of env_kwargs is outdated or unknown: the environment has its own."""
    saved = {"env": "E", "env_kwargs": {"num_envs": 1, "old_name": 2}}
    assert layers_of_file(saved, Options) == ({"env": "E"}, {}, saved["env_kwargs"])


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (np.int64(3), int, 3),
        (2, float, 2.0),
        (np.bool_(True), bool, True),
        (Path("a/b"), str, "a/b"),
        (None, float | None, None),
        (1, float | None, 1.0),
        ("x", int | str, "x"),
        (5, None | int | str, 5),
        ([1, 2], tuple[float, ...], (1.0, 2.0)),
        ("a", Literal["a", "b"], "a"),
        (Inner(3), Inner, Inner(3)),
        ({"free": 1}, Any, {"free": 1}),
    ],
    ids=str,
)
def test_values_are_converted(value: Any, hint: Any, expected: Any) -> None:
    converted = convert("name", value, hint)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "told"),
    [
        (True, int, "name must be a whole number, got True"),
        (False, float, "name must be a number, got False"),
        (1, bool, "name must be true or false, got 1"),
        (3, str, "name must be a string, got 3"),
        (1.5, int, "name must be a whole number, got 1.5"),
        (float("nan"), float, "name must be a number, got nan"),
        (None, int, "name must be a whole number, got None"),
        ("x", float | None, "name must be a number, got 'x'"),
        ("c", Literal["a", "b"], "name must be one of a, b, got 'c'"),
        (3, tuple[int, ...], "name must be a list, got 3"),
        ([1, "x"], tuple[int, ...], "name must be a whole number, got 'x'"),
        (3, Inner, "name must be Inner, got 3"),
    ],
    ids=str,
)
def test_values_of_another_type(value: Any, hint: Any, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        convert("name", value, hint)
    assert str(refused.value) == told


def test_a_misspelt_setting_of_either_kind() -> None:
    """The nearest names may be the run's, though the algorithm's were looked through."""
    for name, meant in (("stps", "steps"), ("rat", "rate")):
        with pytest.raises(ConfigError, match=f"no setting '{name}'; did you mean .*{meant}"):
            resolve(Run, Own, {"env": "E", name: 1})
    with pytest.raises(ConfigError, match="no setting 'bb'; did you mean b"):
        build(Own, {"net": {"bb": 1}})


def test_as_toml_holds_them() -> None:
    """No nulls, lists for tuples, however nested."""
    nested = {"a": None, "b": (1, 2), "c": {"d": None, "e": "x", "f": {}}}
    assert without_none(nested) == {"b": [1, 2], "c": {"e": "x", "f": {}}}
