"""Settings: what wins over what, what is refused and with which words."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pytest
import tomli_w

from shoal.algos import pqn, sac
from shoal.algos.ppo import PPO
from shoal.experiment import settings
from shoal.experiment.experiment import Experiment
from shoal.experiment.options import Options
from shoal.experiment.settings import build, convert, layers_of_file, resolve, without_none
from shoal.nets.policy import Network
from shoal.types import ConfigError

if TYPE_CHECKING:
    from shoal.algos import Algorithm


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


def test_nested_settings_over_an_algorithms_own_defaults() -> None:
    """SAC draws 256 for every step, which is not what a replay memory has by itself; PQN's layers are normalized."""
    replay = resolve(Options, sac.Config, {"env": "E"}, {"replay": {"learning_starts": 77}})[1].replay
    assert (replay.learning_starts, replay.samples_per_insert, replay.buffer_size) == (77, 256, 1_000_000)
    network = resolve(Options, pqn.Config, {"env": "E"}, {"network": {"hidden": [7]}})[1].network
    assert (network.hidden, network.layer_norm) == ((7,), True)


def test_a_part_of_nested_settings_leaves_the_others_as_they_are() -> None:
    """A dataclass may give its nested settings other defaults than their own class has, also two levels below."""
    given: dict[str, Any] = {"preset": "none", "replay": {"buffer_size": 2_000}}
    own: Any = Experiment.new("Pendulum-v1", algo="sac", settings=given).config
    assert (own.replay.buffer_size, own.replay.samples_per_insert) == (2_000, 256)
    own = Experiment.new("Pendulum-v1", algo="ppo_sac", settings={"explorers": {"network": {"hidden": [4]}}}).config
    assert (own.explorers.network.hidden, own.explorers.network.squash) == ((4,), True)


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
        ({"seeds": 3}, "unknown keys .*seeds.*; a run has one seed; .*--seeds 3"),
        ({"num_env": 8}, "unknown keys .*num_env.*did you mean .*num_envs"),
        ({"learning_rate": 0.1}, r"unknown keys .*learning_rate.*\. The .* in the table \[algorithm\]"),
        ({"algorithm": 3}, r"algorithm must be a table, \[algorithm\] with .*, got 3"),
        ({"env_kwargs": [1]}, r"env_kwargs must be a table, \[env_kwargs\] with .*, got \[1\]"),
        ({"old_name": 8}, "old_name is called new_name now"),
        ({"algorithm": {"network": {"old_name": True}}}, "old_name is called new_name now"),
    ],
    ids=["moved", "moved-table", "seeds", "misspelt", "own", "no-table", "no-keywords", "renamed", "renamed-nested"],
)
def test_files_that_name_what_is_not_there(saved: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that stands elsewhere or is called otherwise, now or before: its place or name is said."""
    monkeypatch.setitem(settings.OUTDATED, "old_name", "new_name")
    with pytest.raises(ConfigError, match=told):
        Experiment.of_file({"env": "CartPole-v1"} | saved)


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


def test_a_function_in_the_place_of_a_number_that_has_a_schedule() -> None:
    """As Stable-Baselines3 takes it: in a keyword and in a Config alike; elsewhere no schedule is promised."""
    told = "learning_rate must be a number, got .*; a function is given as learning_rate_schedule: it takes the share"
    falling = cast("Any", lambda left: 3e-4 * left)
    for give in (lambda: build(PPO, {"learning_rate": falling}), lambda: PPO(learning_rate=falling)):
        with pytest.raises(ConfigError, match=told):
            give()
    for give in (lambda: build(PPO, {"gamma": falling}), lambda: PPO(gamma=falling)):
        with pytest.raises(ConfigError, match=r"gamma must be a number, got <function [^;]*$"):
            give()


@pytest.mark.parametrize(
    ("name", "told"), [("ent_coef", "'auto' is here: autotune=True"), ("target_entropy", "'auto' is here: the default")]
)
def test_words_that_stand_for_numbers_elsewhere(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"Stable-Baselines3's {name}={told}"):
        build(sac.Config, {name: "auto"})


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


@dataclass(frozen=True)
class Clip:
    low: float | None = -1.0
    high: float | None = None


@dataclass(frozen=True)
class Nullable:
    need: str | None
    clip: float | None = 0.2
    sizes: tuple[int, ...] | None = (1, 2)
    plain: int | None = None
    net: Clip = field(default_factory=Clip)
    free: Any = None


def nullable() -> Algorithm:
    """An algorithm whose settings may be None, with defaults for the run that are not."""
    module: Any = ModuleType("own_nullable")
    module.Config = Nullable
    module.train = lambda cfg, env, run: None
    module.DEFAULTS = {"stop_at": 5.0, "preprocessing": {"reward_clip": (-1.0, 1.0)}}
    return cast("Algorithm", module)


def reread(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], Experiment]:
    """The experiment's configuration as TOML has it, and the experiment that is read from it."""
    monkeypatch.setitem(sys.modules, "own_nullable", cast("ModuleType", nullable()))
    saved = tomllib.loads(tomli_w.dumps(experiment.to_file()))
    return saved, Experiment.of_file(saved, named=["env", "algo"])


def test_none_comes_back_where_the_default_is_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the run, of the algorithm, nested, under the algorithm's DEFAULTS, and in the environment's keywords."""
    given: dict[str, Any] = {
        "stop_at": None,
        "preprocessing": {"reward_clip": None},
        "need": None,
        "clip": None,
        "sizes": None,
        "net": {"low": None},
        "free": {"x": None, "y": 1},
    }
    started = Experiment.new("a:b", algo=nullable(), env_kwargs={"p": None, "q": {"r": None}}, settings=given)
    saved, read = reread(started, monkeypatch)
    run = ["stop_at", "preprocessing.reward_clip"]
    own = ["algorithm.need", "algorithm.clip", "algorithm.sizes", "algorithm.net.low", "algorithm.free.x"]
    assert saved["unset"] == sorted([*run, *own, "env_kwargs.p", "env_kwargs.q.r"])
    assert (read.options, read.config) == (started.options, started.config)
    assert read.env_kwargs == {"p": None, "q": {"r": None}}
    assert read.to_file() == started.to_file()
    assert Experiment.of_file(saved, given={"clip": 0.5}, named=["env", "algo"]).config.clip == 0.5


def test_nothing_is_unset_where_none_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list is written only where it is needed."""
    started = Experiment.new("a:b", algo=nullable(), settings={"need": "x"})
    saved, read = reread(started, monkeypatch)
    assert "unset" not in saved
    assert (read.options, read.config) == (started.options, started.config)
    assert "unset" not in Experiment.new("CartPole-v1", settings={}).to_file()


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        ({"unset": "clip"}, "unset must be a list of names, got 'clip'"),
        ({"unset": [3]}, "unset must hold names, got 3"),
        ({"unset": ["env.x"]}, "unset has 'env.x', but env is no table"),
        ({"unset": ["stop_at"], "stop_at": 3.0}, "stop_at has a value and is in the list unset as well"),
        ({"unset": ["stop_att"]}, "unknown keys .*stop_att.*did you mean"),
        ({"unset": ["algorithm.gama"]}, "no setting 'gama'; did you mean gamma"),
        ({"unset": ["num_envs"]}, "num_envs must be a whole number, got None"),
    ],
    ids=["no-list", "no-name", "no-table", "twice", "unknown", "unknown-own", "not-nullable"],
)
def test_what_a_file_may_leave_unset(saved: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Experiment.of_file({"env": "CartPole-v1"} | saved)


def test_none_under_a_key_with_a_dot() -> None:
    """The list could not name it."""
    for env_kwargs in ({"a": {"b.c": None}}, {"a.b": {"c": None}}):
        started = Experiment.new("a:b", env_kwargs=env_kwargs, settings={})
        with pytest.raises(ConfigError, match="None under a key with a dot"):
            started.to_file()
