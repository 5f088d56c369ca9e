"""What an environment calls its numbers: read from it, carried through what changes observations, else places."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FilterObservation, FlattenObservation, TimeAwareObservation, TimeLimit

from shoal.deploy.description import Provenance, document
from shoal.envs.names import action_names, declared_names, feature_names, names_by_leaf
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.memory.given import check_observations
from shoal.remote.description import differences, read_spec, write_spec
from shoal.types import ConfigError


class Tank(gym.Env[Any, Any]):
    """Three numbers and two actions with names."""

    metadata = {"feature_names": ["level", "inflow", "heat"], "action_names": ("pump", "cooling")}  # noqa: RUF012
    observation_space: Any = spaces.Box(-9, 9, (3,), np.float32)
    action_space: Any = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 0.0, True, False, {}


class Arm(Tank):
    """A Dict, some of whose numbers have names."""

    metadata = {}  # noqa: RUF012
    feature_names = {"joints": ["shoulder", "elbow"], "speed": "speed"}  # noqa: RUF012
    action_names = ("hold", "move")
    observation_space = spaces.Dict(
        {
            "joints": spaces.Box(-1, 1, (2,), np.float32),
            "kind": spaces.Discrete(3),
            "load": spaces.Box(-1, 1, (1, 2), np.float32),
            "speed": spaces.Box(-1, 1, (), np.float32),
        }
    )
    action_space = spaces.Discrete(2)


ARM = ("shoulder", "elbow", "load[0,0]", "load[0,1]", "speed")


def test_own_names() -> None:
    spec = make(Tank, 1).spec
    assert feature_names(spec) == ("level", "inflow", "heat")
    assert action_names(spec) == ("pump", "cooling")
    spec = make(Arm, 1).spec
    assert feature_names(spec) == ARM
    assert action_names(spec) == ("hold", "move")


def test_wrappers() -> None:
    """What wrappers leave as it was keeps its names, by key or in its order; the outermost names win."""
    kept = make(lambda: FilterObservation(Arm(), ["speed", "kind", "joints"]), 1).spec
    assert set(feature_names(kept)) == {"shoulder", "elbow", "speed"}
    flat = make(lambda: FlattenObservation(FilterObservation(Arm(), ["speed", "joints"])), 1).spec
    assert feature_names(flat) == tuple(f"observation[{at}]" for at in range(3))  # the owner has more numbers
    assert feature_names(make(lambda: TimeAwareObservation(TimeLimit(Tank(), 5)), 1).spec)[3] == "observation[3]"

    def renamed() -> Any:
        env: Any = TimeAwareObservation(TimeLimit(Tank(), 5), normalize_time=False)
        env.feature_names = ["level", "inflow", "heat", "time"]
        return env

    assert feature_names(make(renamed, 1).spec) == ("level", "inflow", "heat", "time")


def test_frames_and_keys() -> None:
    stacked = feature_names(make(Tank, 1, preprocessing=Preprocessing(frame_stack=3)).spec)
    assert stacked[:4] == ("level 2 steps ago", "inflow 2 steps ago", "heat 2 steps ago", "level 1 step ago")
    assert stacked[6:] == ("level", "inflow", "heat")
    kept = make(Arm, 1, preprocessing=Preprocessing(keep_keys=("speed", "joints"), frame_stack=2)).spec
    assert set(feature_names(kept)) == {
        f"{x}{ago}" for x in ("speed", "shoulder", "elbow") for ago in ("", " 1 step ago")
    }
    known = make("CartPole-v1", 1, preprocessing=Preprocessing(frame_stack=2)).spec
    assert feature_names(known)[2::4] == ("pole angle 1 step ago", "pole angle")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["level", "inflow"], "2 names for 3 numbers that are observed; give a name for each"),
        (["level", "heat", "heat"], "two of the numbers that are observed 'heat'"),
        (["level", "in\nflow", "heat"], "printable characters"),
        (["level", "", "heat"], "1 to 60"),
        ([1, 2, 3], "must be a list of texts"),
        ({"x": ["level"]}, "names 'x', which is no part of Box"),
    ],
)
def test_names_that_do_not_fit_are_left_out(given: Any, said: str) -> None:
    env = Tank()
    env.metadata = {"feature_names": given}
    with pytest.warns(UserWarning, match=said):
        assert declared_names(env, "Tank") == {}


def test_places_where_nothing_is_said() -> None:
    spec = make("Blackjack-v1", 1).spec  # a tuple of choices
    assert feature_names(spec) == ()
    assert action_names(spec) == ("action 0", "action 1")
    env = Tank()
    env.metadata = {}
    spec = make(lambda: env, 1).spec
    assert feature_names(spec) == ("observation[0]", "observation[1]", "observation[2]")
    assert action_names(spec) == ("action[0]", "action[1]")


def test_an_export_says_them() -> None:
    def said(spec: Any) -> dict[str, Any]:
        made: dict[str, Any] = {"kind": "c", "version": "1", "provenance": Provenance(), "calls": {}, "files": {}}
        return json.loads(document(spec, **made))

    spec = make(Tank, 1).spec
    plain = replace(spec, feature_names=(), action_names=())
    assert said(spec)["feature_names"] == ["level", "inflow", "heat"]
    assert said(spec)["action_names"] == ["pump", "cooling"]
    assert "feature_names" not in said(plain)
    assert said(spec)["spec_sha256"] == said(plain)["spec_sha256"]


def test_numbers_out_of_bounds_are_named() -> None:
    names = names_by_leaf(make(Arm, 1).spec)
    assert names == [("shoulder", "elbow"), (), ("load[0,0]", "load[0,1]"), ("speed",)]
    part: Any = Arm.observation_space["joints"]
    with pytest.raises(ConfigError, match=r"log: joints \(elbow\) of step 1 is 7, outside Box"):
        check_observations("log", "joints", part, np.array([[0.0, 0.0], [0.0, 7.0]]), names=names[0])
    plain = replace(make(Tank, 1).spec, feature_names=())
    assert names_by_leaf(plain) == [()]


def test_names_travel() -> None:
    spec = make(Tank, 1).spec
    said = write_spec(spec)
    assert read_spec(said) == spec
    older = read_spec(said.replace("_names", "_nicknames"))
    assert older.feature_names == ()
    assert differences(spec, older) == []
