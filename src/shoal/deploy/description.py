"""Descriptions: what an exported policy reads and gives, and what its caller must do, as spec.json says it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.envs.action_guard.limits import limits_of
from shoal.envs.action_guard.settings import ActionGuard
from shoal.envs.masks import masks_beside
from shoal.envs.names import (
    action_names,
    action_places,
    feature_names,
    feature_places,
)
from shoal.envs.preprocessing import Preprocessing
from shoal.types import ConfigError, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gymnasium import Space

    from shoal.envs.action_guard.limits import Limits
    from shoal.types import Leaf, Spec

FORMAT = "shoal-policy-1"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a policy comes from, and what its run did with observations and actions."""

    run: str = ""
    """The run's id."""
    algo: str = ""
    tag: str = ""
    """Which checkpoint: "" for the newest, "best" for the one with the best mean return."""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    action_guard: ActionGuard = field(default_factory=ActionGuard)
    folder: Path | None = None
    """The run's directory, whose stages it climbs; no export names it."""


def described(spec: Spec) -> dict[str, Any]:
    """What is observed and done: of each array its path, type, shape, and bounds or choices."""
    return {
        "observation": _leaves(spec.observation.leaves, spec.observation_space),
        "action": _leaves(spec.action.leaves, spec.action_space),
    }


def sha256_of(spec: Spec) -> str:
    """A number that two specifications share where their observations and actions are the same."""
    text = json.dumps(described(spec), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def document(
    spec: Spec,
    *,
    kind: str,
    version: str,
    provenance: Provenance,
    calls: Mapping[str, object],
    files: Mapping[str, str],
) -> str:
    """The text of spec.json.

    Args:
        spec: of the environment.
        kind: of the export.
        version: of this library.
        provenance: of the policy.
        calls: how the policy is called.
        files: the sha256 of each file by its name.
    """
    said = {
        "format": FORMAT,
        "kind": kind,
        "shoal": version,
        "env": spec.env_id,
        "run": provenance.run,
        "algo": provenance.algo,
        "checkpoint": provenance.tag or "newest",
        "spec_sha256": sha256_of(spec),
        **described(spec),
        **_names(spec),
        "calls": dict(calls),
        "caller": duties(spec, provenance.preprocessing),
        "action_guard": guard_said(spec, provenance.action_guard),
        "files": dict(files),
    }
    return json.dumps(said, indent=2, allow_nan=False) + "\n"


def _names(spec: Spec) -> dict[str, list[str]]:
    """What the numbers that are observed and done are called, where that is more than their places."""
    found: dict[str, list[str]] = {}
    features, actions = feature_names(spec), action_names(spec)
    if features != feature_places(spec.observation_space):
        found["feature_names"] = list(features)
    if actions != action_places(spec.action_space):
        found["action_names"] = list(actions)
    return found


def duties(spec: Spec, preprocessing: Preprocessing) -> list[str]:
    """What whoever calls the policy must do himself, in sentences."""
    said = [
        "Hand over observations as the environment gives them: the policy normalizes them itself where it was "
        "trained so, with the statistics of the run."
    ]
    if preprocessing.frame_stack > 1:
        said.append(
            f"Stack the last {preprocessing.frame_stack} observations along a new first axis, the oldest first; an "
            "episode begins with its first observation repeated."
        )
    if preprocessing.keep_keys:
        keys = ", ".join(preprocessing.keep_keys)
        said.append(
            f"Of the environment's dict keep these keys only, in the order given here: {keys}."
        )
    if preprocessing.text != "none":
        said.append(
            f"Texts become {preprocessing.length_of_text} integers each, as preprocessing.text="
            f"{preprocessing.text!r} makes them."
        )
    if preprocessing.one_hot:
        options = ", ".join(map(str, preprocessing.one_hot))
        said.append(
            f"Whole numbers whose last axis has {len(preprocessing.one_hot)} become zeros and ones along it, side by "
            f"side, of {options} options each, as preprocessing.one_hot makes them."
        )
    if preprocessing.sticky_actions:
        said.append(
            f"The environment repeated the previous action with probability {preprocessing.sticky_actions} in "
            "training; that is no part of the policy."
        )
    if masks_beside(spec):
        said.append("Hand over an action mask with every observation.")
    return said


def guard_said(spec: Spec, guard: ActionGuard) -> dict[str, Any] | None:
    """The run's action guard as plain numbers and names; None where there is none."""
    if guard.idle:
        return None
    limits = limits_of(guard, spec)
    functions = {
        "constraint": guard.constraint,
        "inequalities": guard.inequalities,
    }
    return {
        "limits": None if limits is None else limits.description(),
        "safe_action": list(guard.safe_action),
        **{name: _name_of(given) for name, given in functions.items()},
    }


def limits_inside(spec: Spec, guard: ActionGuard) -> Limits | None:
    """The limits that an export holds actions to; None where the run had no action guard.

    Raises:
        ConfigError: the guard has a function of its own, which no file of an export can hold.
    """
    if guard.idle:
        return None
    if guard.constraint is not None or guard.inequalities is not None:
        given = guard.constraint if guard.inequalities is None else guard.inequalities
        raise ConfigError(
            f"{spec.env_id}: the run's action guard has the last word by a function ({_name_of(given)}), which an "
            "export cannot hold: `shoal serve-policy` serves the policy with it; or export with the guard's limits "
            "alone, load(RUN, action_guard=ActionGuard(...)).export(...), and have the caller apply the function"
        )
    return limits_of(guard, spec)


def _name_of(given: str | Callable[..., object] | None) -> str | None:
    if given is None or isinstance(given, str):
        return given
    return f"{given.__module__}:{given.__qualname__}"


def _leaves(leaves: tuple[Leaf, ...], space: Space[Any]) -> list[dict[str, Any]]:
    parts = zip(leaves, leaf_spaces(space), strict=True)
    return [_leaf(leaf, part) for leaf, (_, part) in parts]


def _leaf(leaf: Leaf, space: Space[Any]) -> dict[str, Any]:
    said: dict[str, Any] = {
        "path": list(leaf.path),
        "dtype": str(leaf.dtype),
        "shape": list(leaf.shape),
        "space": type(space).__name__,
    }
    match space:
        case spaces.Box():
            said |= {"low": _bounds(space.low), "high": _bounds(space.high)}
        case spaces.Discrete():
            said |= {"options": int(space.n), "first": int(space.start)}
        case spaces.MultiDiscrete():
            said |= {"options": space.nvec.tolist(), "first": space.start.tolist()}
        case _:  # a MultiBinary has nothing more to say
            pass
    return said


def _bounds(bounds: np.ndarray[Any, Any]) -> object:
    """One number where all are equal, else a list of them in order; None stands for no bound."""
    flat = bounds.ravel().tolist()
    numbers = [float(x) if np.isfinite(x) else None for x in flat]
    same = numbers and all(x == numbers[0] for x in numbers)
    return numbers[0] if same else numbers
