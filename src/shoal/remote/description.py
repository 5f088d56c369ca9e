"""What a server says of its rows, as JSON: nothing is pickled."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from shoal.envs.names import ACTION_NAMES, FEATURE_NAMES
from shoal.envs.vec_env import Capabilities
from shoal.types import ConfigError, Layout, Leaf, Spec
from shoal.types.space_text import read_space, write_space

if TYPE_CHECKING:
    from shoal.envs.vec_env import VecEnv

PLAIN = (
    "env_id", "max_episode_steps", "reward_threshold", "num_agents", "info_keys", "masked", "agents", "in_turns",
    "groups", "frame_stack",
)  # fmt: skip
"""The fields of a Spec that JSON holds as they are."""
NAMED = (FEATURE_NAMES, ACTION_NAMES)
"""Of the numbers that are observed and done: they change nothing, and older servers do not say them."""
NAMES = ("-Infinity", "Infinity")


def write_description(env: VecEnv) -> str:
    """The JSON of a backend's rows: what a row observes and does, how its arrays are packed, what it can do."""
    said = _form(env.spec)
    said["can_save"] = env.capabilities.can_save
    said["always_valid"] = env.capabilities.always_valid
    said["frames_per_s"] = env.capabilities.frames_per_s
    return json.dumps(said, allow_nan=False)


def write_spec(spec: Spec) -> str:
    """The JSON of what a row observes and does, and how its arrays are packed."""
    return json.dumps(_form(spec), allow_nan=False)


def _form(spec: Spec) -> dict[str, Any]:
    said: dict[str, Any] = {name: getattr(spec, name) for name in (*PLAIN, *NAMED)}
    spaces = {
        "observation_space": spec.observation_space,
        "action_space": spec.action_space,
    }
    said |= {name: _named(json.loads(write_space(x))) for name, x in spaces.items()}
    said["observation"] = _leaves(spec.observation)
    said["action"] = _leaves(spec.action)
    return said


def read_description(text: str) -> tuple[Spec, Capabilities]:
    """What a server's JSON says.

    Raises:
        ConfigError: it is no such JSON, or its layouts are not those of its spaces here.
    """
    said, spec = _read(text)
    try:
        can = Capabilities(
            can_save=bool(said["can_save"]),
            always_valid=said.get("always_valid") is True,
            frames_per_s=float(said["frames_per_s"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(error) from error
    return spec, can


def read_spec(text: str) -> Spec:
    """The inverse of `write_spec`; ConfigError as of `read_description`."""
    return _read(text)[1]


def _read(text: str) -> tuple[dict[str, Any], Spec]:
    """The whole of a description, and the specification in it."""
    try:
        said = json.loads(text)
        limits = {name: said[name] for name in PLAIN if name != "env_id"}
        for name in ("info_keys", "agents"):
            limits[name] = tuple(limits[name])
        limits |= {name: _texts(said.get(name, [])) for name in NAMED}
        spaces = [
            read_space(json.dumps(_unnamed(said[name])))
            for name in ("observation_space", "action_space")
        ]
        spec = Spec.of(said["env_id"], *spaces, **limits)
        layouts = said["observation"], said["action"]
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(error) from error
    if layouts != (_leaves(spec.observation), _leaves(spec.action)):
        raise ConfigError(
            f"{spec.env_id}: the server packs its arrays otherwise than this version of shoal; use the same on both"
        )
    return said, spec


def _texts(given: Any) -> tuple[str, ...]:
    """A list of texts that can be printed; ValueError for anything else."""
    if not all(isinstance(text, str) and text.isprintable() for text in given):
        raise ValueError("a list of names holds what is none")
    return tuple(given)


def _unreadable(error: Exception) -> ConfigError:
    return ConfigError(
        f"the server's description of its environment cannot be read: {error!r}"
    )


def differences(ours: Spec, theirs: Spec) -> list[str]:
    """The fields in which two specifications differ, but names and what is known after the first reset."""
    apart = ("masked", *NAMED)
    names = [field.name for field in fields(Spec) if field.name not in apart]
    return [name for name in names if getattr(ours, name) != getattr(theirs, name)]


def _named(value: Any) -> Any:
    """JSON with infinite bounds by name: only Python's reads them as numbers."""
    match value:
        case float() if math.isinf(value):
            return NAMES[value > 0]
        case list():
            return [_named(part) for part in value]
        case dict():
            return {key: _named(part) for key, part in value.items()}
        case _:
            return value


def _unnamed(value: Any) -> Any:
    """The inverse; elsewhere in a space no text is called so."""
    match value:
        case str() if value in NAMES:
            return math.inf if value == NAMES[1] else -math.inf
        case list():
            return [_unnamed(part) for part in value]
        case dict():
            return {key: _unnamed(part) for key, part in value.items()}
        case _:
            return value


def _leaves(layout: Layout) -> list[dict[str, Any]]:
    return [_leaf(leaf) for leaf in layout.leaves]


def _leaf(leaf: Leaf) -> dict[str, Any]:
    said = asdict(leaf)
    said["path"], said["shape"] = list(leaf.path), list(leaf.shape)
    said["dtype"] = leaf.dtype.name
    return said
