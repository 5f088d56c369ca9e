"""Spaces as JSON texts, in the form of Minari's metadata, and what two of them differ in."""

from __future__ import annotations

import json
from typing import Any, cast

import numpy as np
from gymnasium import spaces

from shoal.types.errors import ConfigError
from shoal.types.files import parse_json


def write_space(space: spaces.Space[Any]) -> str:
    """The text of a space."""
    return json.dumps(_form(space))


def read_space(text: object) -> spaces.Space[Any]:
    """The space of a text.

    Raises:
        ConfigError: it is none, or of a kind that rows cannot have.
    """
    try:
        return _space(cast("dict[str, Any]", parse_json(str(text).encode())))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise ConfigError(f"{text!r:.80} is the text of no space") from error


def difference(
    ours: spaces.Space[Any], theirs: spaces.Space[Any], *, bounds: bool
) -> str:
    """In which part `theirs` differs from `ours`, in words; empty where all arrays fit.

    Floats may have another size. `bounds`: those of a Box count too.
    """
    match ours, theirs:
        case spaces.Dict(), spaces.Dict():
            if set(ours.spaces) != set(theirs.spaces):
                return f"the keys {sorted(theirs.spaces)} for {sorted(ours.spaces)}"
            pairs = [(part, theirs.spaces[key]) for key, part in ours.spaces.items()]
        case spaces.Tuple(), spaces.Tuple() if len(ours) == len(theirs):
            pairs = list(zip(ours.spaces, theirs.spaces, strict=True))
        case spaces.Box(), spaces.Box():
            kinds = {np.dtype(space.dtype).kind for space in (ours, theirs)}
            fits = ours.shape == theirs.shape and len(kinds) == 1
            fits = fits and (kinds == {"f"} or ours.dtype == theirs.dtype)
            if fits and bounds:
                fits = np.allclose(ours.low, theirs.low)
                fits = fits and np.allclose(ours.high, theirs.high)
            return "" if fits else f"{theirs} for {ours}"
        case _:
            same = type(ours) is type(theirs) and _form(ours) == _form(theirs)
            return "" if same else f"{theirs} for {ours}"
    found = (difference(own, other, bounds=bounds) for own, other in pairs)
    return next(filter(None, found), "")


def _form(space: spaces.Space[Any]) -> dict[str, Any]:
    match space:
        case spaces.Box():
            form: dict[str, Any] = {
                "dtype": str(space.dtype),
                "shape": list(space.shape),
                "low": space.low.tolist(),
                "high": space.high.tolist(),
            }
        case spaces.Discrete():
            form = {"dtype": "int64", "start": int(space.start), "n": int(space.n)}
        case spaces.MultiDiscrete():
            start = space.start.tolist()
            form = {
                "dtype": str(space.dtype),
                "nvec": space.nvec.tolist(),
                "start": start,
            }
        case spaces.MultiBinary():
            size = space.n
            form = {"n": size if isinstance(size, int) else np.asarray(size).tolist()}
        case spaces.Dict():
            parts = {key: _form(part) for key, part in space.spaces.items()}
            form = {"subspaces": parts}
        case spaces.Tuple():
            form = {"subspaces": [_form(part) for part in space.spaces]}
        case _:
            raise ConfigError(f"values of {space} have no text form")
    return {"type": type(space).__name__, **form}


def _space(form: dict[str, Any]) -> spaces.Space[Any]:
    match form["type"]:
        case "Box":
            kind = np.dtype(form["dtype"])
            low, high = np.array(form["low"], kind), np.array(form["high"], kind)
            shape: tuple[int, ...] = tuple(form["shape"])
            if (
                not low.shape == high.shape == shape
            ):  # one number for a shape of any size would be spread over it
                raise ValueError(f"bounds of {low.shape} for {shape}")
            return spaces.Box(low, high, shape, dtype=kind.type)
        case "Discrete":
            return spaces.Discrete(form["n"], start=form["start"])
        case "MultiDiscrete":
            nvec, kind = np.array(form["nvec"]), np.dtype(form["dtype"])
            return spaces.MultiDiscrete(
                nvec,
                dtype=kind.type,
                start=np.array(form.get("start", np.zeros_like(nvec))),
            )
        case "MultiBinary":
            return spaces.MultiBinary(form["n"])
        case "Dict":
            parts = form["subspaces"]
            return spaces.Dict({key: _space(part) for key, part in parts.items()})
        case "Tuple":
            return spaces.Tuple([_space(part) for part in form["subspaces"]])
        case other:
            raise ConfigError(f"a space {other} is not read")
