"""Drift: a feature that moved is named, and nothing else; references that are damaged are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from gymnasium import spaces

from shoal.deploy.stages.criteria import Drifts
from shoal.deploy.stages.drift import Reference, Seen, numbers_of, watched
from shoal.envs.registry import make
from shoal.types import ConfigError, Spec

if TYPE_CHECKING:
    from pathlib import Path
from typing import Any

NAMES = ("position", "speed", "angle")


def reference() -> Reference:
    rng = np.random.default_rng(0)
    return Reference.of(NAMES, rng.normal((0, 5, -1), (1, 2, 0.1), (5000, 3)))


def test_the_shifted_feature_is_named() -> None:
    rng = np.random.default_rng(1)
    seen = Seen(reference())
    for _ in range(10):
        seen.add(rng.normal((0, 5, -0.8), (1, 2, 0.1), (200, 3)))
    first, *others = seen.drifts(Drifts())
    assert first.feature == "angle"
    assert first.alarmed
    assert first.shift == pytest.approx(2, abs=0.1)
    assert first.psi > 1
    assert not any(one.alarmed for one in others)
    assert all(one.psi < 0.05 for one in others)
    assert "angle has drifted: mean +1.9" in str(first)


def test_a_wider_feature_is_named_by_the_index() -> None:
    """Its mean stays where it was."""
    rng = np.random.default_rng(1)
    seen = Seen(reference())
    seen.add(rng.normal((0, 5, -1), (1, 8, 0.1), (2000, 3)))
    alarmed = [one for one in seen.drifts(Drifts()) if one.alarmed]
    assert [one.feature for one in alarmed] == ["speed"]
    assert abs(alarmed[0].shift) < 0.5


def test_few_episodes_whose_observations_are_alike_are_no_drift() -> None:
    """Ten episodes have other shares than twenty by chance alone; another level is drift."""

    def level(rng: np.random.Generator, middle: float = 0.0) -> np.ndarray[Any, Any]:
        return 0.7 * (rng.normal() + rng.normal(size=(40, 1))) + middle

    alarms = {0.0: 0, 1.5: 0, np.inf: 0}
    for trial in range(40):
        rng = np.random.default_rng(trial)
        made = Reference.of(("level",), np.concatenate([level(rng) for _ in range(20)]))
        for middle in alarms:
            seen, logged = Seen(made), Seen(made)
            for _ in range(10):
                one = Seen(made)
                one.add(np.zeros((40, 1)) if middle == np.inf else level(rng, middle))
                seen.merge(one)
                logged.merge(Seen.of(made, one.state()))
            assert seen.drifts(Drifts()) == logged.drifts(Drifts())
            alarms[middle] += seen.drifts(Drifts())[0].alarmed
    assert alarms[0.0] <= 3
    assert alarms[1.5] >= 34
    assert alarms[np.inf] == 40  # a sensor that is stuck


def test_no_alarm_of_the_same_and_of_too_little() -> None:
    rng = np.random.default_rng(2)
    for trial in range(50):
        seen = Seen(reference())
        seen.add(rng.normal((0, 5, -1), (1, 2, 0.1), (300, 3)))
        assert not any(one.alarmed for one in seen.drifts(Drifts())), trial
    seen = Seen(reference())
    seen.add(np.full((199, 3), 100.0))
    assert seen.drifts(Drifts()) == []


def test_parts_add_up() -> None:
    x = np.random.default_rng(3).normal(size=(1000, 3))
    whole, parts = Seen(reference()), Seen(reference())
    whole.add(x)
    for part in np.split(x, (10, 300)):
        one = Seen(reference())
        one.add(part)
        parts.merge(Seen.of(parts.reference, one.state()))
    assert np.allclose(whole.mean, parts.mean)
    assert np.allclose(whole.m2, parts.m2)
    assert (whole.bins == parts.bins).all()


def test_constants_and_choices_do_not_divide_by_zero() -> None:
    seen = Seen(Reference.of(("flag", "constant"), np.tile([[0.0, 3.0], [1.0, 3.0]], (500, 1))))
    seen.add(np.tile([[1.0, 3.0]], (500, 1)))
    found = {one.feature: one for one in seen.drifts(Drifts())}
    assert found["flag"].alarmed
    assert not found["constant"].alarmed


def test_moments_of_training_come_first() -> None:
    made = Reference.of(NAMES, np.zeros((10, 3)), (np.ones(3), np.full(3, 2.0)))
    assert made.source == "all observations of training"
    assert made.mean.tolist() == [1.0] * 3


def test_round_trip_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    assert Reference.read(path) is None
    reference().write(path)
    read = Reference.read(path)
    assert read is not None
    assert np.array_equal(read.edges, reference().edges)
    text = path.read_text(encoding="utf-8")
    for damage in ("{", "[]", text.replace('"names": ["position", ', '"names": ['), text.replace("speed", "\\u001b")):
        path.write_text(damage, encoding="utf-8")
        with pytest.raises(ConfigError, match="damaged"):
            Reference.read(path)


def test_which_numbers_are_watched() -> None:
    spec = make("CartPole-v1", 1).spec
    assert watched(spec) == ("cart position", "cart velocity", "pole angle", "pole velocity")
    assert numbers_of(spec, [np.ones((2, 4), np.float32)]).shape == (2, 4)
    images = Spec.of("images", spaces.Box(0, 255, (9, 9, 4), np.uint8), spaces.Discrete(2))
    assert watched(images) == ()
