"""Names of the numbers that are observed and done: an environment's own, known ones, or made of their places."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, cast

from gymnasium import Wrapper, spaces

from shoal.envs.known_names import ACTIONS, FEATURES
from shoal.envs.told import is_told
from shoal.types import ConfigError, leaf_spaces

if TYPE_CHECKING:
    from gymnasium import Space

    from shoal.types import Spec

FEATURE_NAMES, ACTION_NAMES = "feature_names", "action_names"
"""Attributes of an environment, or keys of its metadata."""
LETTERS = 60
"""Of a name."""


def feature_names(spec: Spec) -> tuple[str, ...]:
    """A name for each number of an observation's Boxes, in order: declared, known, or its place such as `at[0]`.

    Of stacked observations the newest have the names, and the others say how many steps ago they were.
    """
    names = spec.feature_names or FEATURES.get(spec.env_id, ())
    if spec.frame_stack > 1:
        names = _stacked(spec, names)
    places = feature_places(spec.observation_space)
    return names if len(names) == len(places) else places


def names_by_leaf(spec: Spec) -> list[tuple[str, ...]]:
    """The names of the numbers of each leaf of an observation, in order; none that are only places, or of no Box."""
    names = feature_names(spec)
    if names == feature_places(spec.observation_space):
        names = ()
    found: list[tuple[str, ...]] = []
    at = 0
    for _, part in leaf_spaces(spec.observation_space):
        size = prod(part.shape) if isinstance(part, spaces.Box) else 0
        found.append(names[at : at + size])
        at += size
    return found


def feature_places(space: Space[Any]) -> tuple[str, ...]:
    """A name for each number of the Boxes in a space of observations, made of its place."""
    found: list[str] = []
    for path, part in leaf_spaces(space):
        if isinstance(part, spaces.Box):
            found += _places(leaf_name(path, "observation"), part.shape)
    return tuple(found)


def action_names(spec: Spec) -> tuple[str, ...]:
    """What the options of a Discrete action are called; of any other action a name for each of its numbers."""
    places = action_places(spec.action_space)
    names = spec.action_names or ACTIONS.get(spec.env_id, ())
    return names if len(names) == len(places) else places


def action_places(space: Space[Any]) -> tuple[str, ...]:
    """As `action_names` makes them where an environment has none."""
    if isinstance(space, spaces.Discrete):
        first = int(space.start)
        return tuple(f"action {number + first}" for number in range(int(space.n)))
    found: list[str] = []
    for path, part in leaf_spaces(space):
        found += _places(leaf_name(path, "action"), tuple(part.shape or ()))
    return tuple(found)


def leaf_name(path: tuple[str | int, ...], plain: str) -> str:
    """What a leaf of a tree is called: the keys to it, or `plain` where it is no tree."""
    return " ".join(str(key) for key in path) or plain


def check_names(names: Sequence[str], count: int, what: str, of: str) -> None:
    """ConfigError unless these are `count` different names; `what` and `of` say whose, as in "Tank: feature_names"."""
    if len(names) != count:
        raise ConfigError(
            f"{what} has {len(names)} names for {count} {of}; give a name for each, in their order"
        )
    for name in names:
        plain = name.strip() and name.isprintable() and len(name) <= LETTERS
        if not plain:
            raise ConfigError(
                f"{what}: a name has 1 to {LETTERS} printable characters, got {name[:LETTERS]!r}"
            )
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigError(f"{what} names two of the {of} {doubled[0]!r}; they differ")


def declared_names(env: Any, name: str) -> dict[str, tuple[str, ...]]:
    """The names that a Gymnasium environment gives its numbers, as fields of a Spec.

    It has them as attributes `feature_names` and `action_names`, or in its `metadata`: a list, or of a Dict a mapping
    of its keys. Wrappers that change what is observed keep the names of the parts that they leave as they were. Names
    that do not fit are left out, with a warning.

    Args:
        env: within any number of wrappers.
        name: of it, in messages.
    """
    found: dict[str, tuple[str, ...]] = {}
    for what, space in (
        (FEATURE_NAMES, "observation_space"),
        (ACTION_NAMES, "action_space"),
    ):
        owner, given = _declared(env, what)
        if owner is None:
            continue
        own, here = getattr(owner, space), getattr(env, space)
        try:
            names = _read(given, own, what, f"{name}: {what}")
        except ConfigError as error:
            if not is_told():
                warnings.warn(
                    f"{error}; until then places stand for names", stacklevel=2
                )
            continue
        found[what] = names
        if what == FEATURE_NAMES and own != here:
            found[what] = _carried(names, own, here)
    return found


def _declared(env: Any, what: str) -> tuple[Any, Any]:
    """The outermost layer that has the names as an attribute, else the innermost whose metadata have them, and them."""
    layers = [env]
    while isinstance(layers[-1], Wrapper):
        layers.append(cast("Any", layers[-1]).env)
    for layer in layers:
        given = getattr(layer, what, None)
        if isinstance(given, Mapping | list | tuple):
            return layer, given
    for layer in reversed(layers):
        metadata = getattr(layer, "metadata", None)
        if isinstance(metadata, Mapping) and what in metadata:
            return layer, cast("Any", metadata)[what]
    return None, None


def _read(given: Any, space: Space[Any], what: str, said: str) -> tuple[str, ...]:
    """A list of names, or a mapping of the keys of a Dict to them, for the numbers of a space."""
    features = what == FEATURE_NAMES
    places = feature_places(space) if features else action_places(space)
    of = "numbers that are observed" if features else "actions"
    names = given
    if isinstance(given, Mapping):
        plain = "observation" if features else "action"
        names = _of_keys(cast("Any", given), space, plain, said, boxes=features)
    if not isinstance(names, list | tuple) or not all(
        isinstance(name, str) for name in cast("Any", names)
    ):
        raise ConfigError(f"{said} must be a list of texts, got {given!r:.80}")
    texts = tuple(cast("Sequence[str]", names))
    check_names(texts, len(places), said, of)
    return texts


def _of_keys(
    given: Mapping[Any, Any], space: Space[Any], plain: str, said: str, *, boxes: bool
) -> list[Any]:
    """The names of each leaf as `given` has them under its keys; places where it has none."""
    found: list[Any] = []
    used: set[Any] = set()
    for path, part in leaf_spaces(space):
        if boxes and not isinstance(part, spaces.Box):
            continue
        names: Any = given
        for key in path:
            names = names.get(key) if isinstance(names, Mapping) else None
        used.update(path[:1])
        if isinstance(names, Mapping):
            names = None
        if isinstance(names, str):
            names = [names]
        places = _places(leaf_name(path, plain), tuple(part.shape or ()))
        if names is not None and len(names) != len(places):
            raise ConfigError(
                f"{said} has {len(names)} names under {leaf_name(path, plain)!r} for {len(places)} numbers"
            )
        found += places if names is None else list(names)
    unknown = sorted(str(key) for key in set(given) - used)
    if unknown:
        raise ConfigError(f"{said} names {unknown[0]!r}, which is no part of {space}")
    return found


def _carried(
    names: tuple[str, ...], own: Space[Any], here: Space[Any]
) -> tuple[str, ...]:
    """The names of the numbers in `own` as wrappers hand them on in `here`: by their keys, else in their order."""
    known = {path: names[at] for path, at, _ in _boxes(own)}
    shapes = {path: shape for path, _, shape in _boxes(own)}
    parts = _boxes(here)
    kept = [path for path, _, shape in parts if shapes.get(path) == shape]
    count = sum(prod(shape) for _, _, shape in parts)
    if len(kept) < len(parts) and count == len(names):
        return names
    if not kept:
        return ()
    found: list[str] = []
    for path, _, shape in parts:
        same = path in kept
        found += known[path] if same else _places(leaf_name(path, "observation"), shape)
    return tuple(found)


def _boxes(space: Space[Any]) -> list[tuple[Any, slice, tuple[int, ...]]]:
    """Of each Box in a space its path, which of the numbers are its own, and its shape."""
    found: list[tuple[Any, slice, tuple[int, ...]]] = []
    at = 0
    for path, part in leaf_spaces(space):
        if isinstance(part, spaces.Box):
            size = prod(part.shape)
            found.append((path, slice(at, at + size), part.shape))
            at += size
    return found


def _stacked(spec: Spec, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of stacked observations, each of whose leaves has a first axis of frames, the newest last."""
    found: list[str] = []
    at = 0
    for _, _, (frames, *rest) in _boxes(spec.observation_space):
        own = names[at : at + prod(rest)]
        at += prod(rest)
        for frame in range(frames):
            found += [_ago(name, frames - 1 - frame) for name in own]
    return tuple(found) if at == len(names) else ()


def _ago(name: str, steps: int) -> str:
    if not steps:
        return name
    return f"{name} {steps} step{'s' if steps > 1 else ''} ago"


def _places(name: str, shape: tuple[int, ...]) -> list[str]:
    """A name for each number of an array."""
    if not shape:
        return [name]
    return [f"{name}[{','.join(map(str, at))}]" for at in _indices(shape)]


def _indices(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = [()]
    for size in shape:
        found = [(*at, number) for at in found for number in range(size)]
    return found
