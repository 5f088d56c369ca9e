"""Checkpoints: safetensors with a JSON manifest that holds their sha256; the old one or the new one, never half."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from shoal.run.directory import write_atomic
from shoal.types import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 2
"""2: the layer after convolutions takes its input in the order H, W, C."""
HELD = {
    "bool",
    "float16",
    "float32",
    "float64",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}
"""The NumPy types that safetensors hold."""
MARKS = ("__array__", "__pairs__", "__tuple__")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint: its tree of numbers, arrays and tensors, and what was said while looking for it."""

    updates: int
    tree: dict[str, Any]
    warnings: list[str]


def save(
    folder: Path,
    tree: dict[str, Any],
    *,
    updates: int,
    kind: dict[str, str],
    tag: str = "",
) -> Path:
    """Writes the checkpoint of `updates`; the manifest comes last.

    Args:
        folder: the run's checkpoint folder.
        tree: nested dicts, lists and tuples of numbers, strings, None, NumPy arrays and tensors.
        updates: how many updates came before.
        kind: what the checkpoint belongs to (env, algo, ...); `load` compares it.
        tag: "" for one of the rolling ones, "best" for the best so far.

    Raises:
        TypeError: the tree holds something else.
        OSError: the disk is full, or worse; the older checkpoints are as they were.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    encoded = _encode(tree, "", arrays)
    data = save_tensors(arrays)
    stem = tag or f"{updates:010d}"
    sha256 = hashlib.sha256(data).hexdigest()
    manifest = {
        "format": FORMAT,
        "updates": updates,
        "kind": kind,
        "bytes": len(data),
        "sha256": sha256,
        "tree": encoded,
    }
    body = json.dumps(manifest)
    sealed = json.dumps(
        {"sha256": hashlib.sha256(body.encode()).hexdigest(), "manifest": manifest}
    )
    try:
        write_atomic(folder / f"{stem}-{sha256[:8]}.safetensors", data)
        write_atomic(folder / f"{stem}.json", sealed.encode())
    except OSError as error:
        with contextlib.suppress(OSError):
            _sweep(folder)
        raise OSError(
            error.errno,
            f"the checkpoint of update {updates} was not written ({error}); older ones are safe",
        ) from error
    _sweep(folder)
    return folder / f"{stem}.json"


def prune(folder: Path, keep_last: int) -> None:
    """Deletes all rolling checkpoints but the newest `keep_last`."""
    for manifest in rolling(folder)[: -max(1, keep_last)]:
        manifest.unlink()
    _sweep(folder)


def rolling(folder: Path) -> list[Path]:
    """Manifests of the rolling checkpoints, oldest first."""
    return sorted(path for path in folder.glob("*.json") if path.stem.isdigit())


def load(
    folder: Path, *, kind: dict[str, str] | None = None, tag: str = ""
) -> Checkpoint | None:
    """The newest checkpoint that is whole; a damaged one is passed over and named in the warnings.

    Returns None when there is no checkpoint at all.

    Raises:
        ConfigError: the checkpoint belongs to something else than `kind`, or every one is damaged.
    """
    manifests = [folder / f"{tag}.json"] if tag else rolling(folder)[::-1]
    manifests = [path for path in manifests if path.exists()]
    warnings: list[str] = []
    for path in manifests:
        try:
            manifest, data = _read(path)
        except (ValueError, KeyError, TypeError, OSError) as error:
            warnings.append(
                f"checkpoint {path.name} is damaged ({error}); using the one before"
            )
            continue
        if manifest["format"] != FORMAT:
            raise ConfigError(
                f"the checkpoint {path} has the format {manifest['format']}, but this version of shoal reads {FORMAT}; "
                "train again, or use the version that wrote it"
            )
        for name, expected in (kind or {}).items():
            if manifest["kind"].get(name) != expected:
                raise ConfigError(
                    f"the checkpoint {path} belongs to {name} {manifest['kind'].get(name)!r}, not {expected!r}"
                )
        return Checkpoint(
            manifest["updates"], _decode(manifest["tree"], load_tensors(data)), warnings
        )
    if warnings:
        said = "; ".join(
            warning.removesuffix("; using the one before") for warning in warnings
        )
        raise ConfigError(
            f"no checkpoint in {folder} is whole: {said}; restore them from a copy, or train again"
        )
    return None


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    sealed = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(sealed, dict) or not {"manifest", "sha256"} <= set(sealed):
        raise ValueError("it is no manifest")
    manifest = sealed["manifest"]
    if hashlib.sha256(json.dumps(manifest).encode()).hexdigest() != sealed["sha256"]:
        raise ValueError("the manifest's sha256 differs")
    data = path.with_name(
        f"{path.stem}-{manifest['sha256'][:8]}.safetensors"
    ).read_bytes()
    if len(data) != manifest["bytes"]:
        raise ValueError(
            f"the tensors have {len(data)} bytes, expected {manifest['bytes']}"
        )
    if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
        raise ValueError("the tensors' sha256 differs")
    return manifest, data


def _sweep(folder: Path) -> None:
    """Deletes tensors whose manifest is gone or names others, and drafts of a process that was killed."""
    wanted: set[str] = set()
    for path in folder.glob("*.json"):
        text = path.read_text(errors="replace")
        wanted.update(
            p.name
            for p in folder.glob(f"{path.stem}-*.safetensors")
            if p.stem.rpartition("-")[2] in text
        )
    for path in folder.glob("*.safetensors"):
        if path.name not in wanted:
            path.unlink()
    for path in folder.glob(".*.*"):
        path.unlink()


def _encode(value: Any, at: str, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    match value:
        case torch.Tensor():
            tensor = value.detach().cpu()
            half = tensor.dtype is torch.bfloat16  # which NumPy lacks
            held = _hold(
                (tensor.view(torch.int16) if half else tensor).numpy(), at, arrays
            )
            return {"__array__": held, "torch": "bfloat16" if half else "as it is"}
        case np.ndarray():
            return {"__array__": _hold(value, at, arrays), "torch": None}
        case dict():
            if all(isinstance(key, str) and key not in MARKS for key in value):
                return {
                    key: _encode(part, f"{at}.{key}" if at else key, arrays)
                    for key, part in value.items()
                }
            for key in value:
                if not isinstance(key, None | bool | int | float | str):
                    raise TypeError(
                        f"a checkpoint cannot hold the key {key!r} at {at!r}"
                    )
            return {
                "__pairs__": [
                    [key, _encode(part, f"{at}.{key}", arrays)]
                    for key, part in value.items()
                ]
            }
        case list() | tuple():
            parts = [_encode(part, f"{at}.{i}", arrays) for i, part in enumerate(value)]
            return {"__tuple__": parts} if isinstance(value, tuple) else parts
        case np.bool_() | np.integer() | np.floating() if value.dtype.name in HELD:
            return value.item()
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise TypeError(
                f"a checkpoint cannot hold {type(value).__name__} at {at!r}"
            )


def _hold(
    array: np.ndarray[Any, Any], at: str, arrays: dict[str, np.ndarray[Any, Any]]
) -> str:
    """Adds the array under the name `at`, or a free one like it; returns the name."""
    if array.dtype.name not in HELD:
        raise TypeError(f"a checkpoint cannot hold an array of {array.dtype} at {at!r}")
    while (
        at in arrays or at == "__metadata__"
    ):  # "a.b" may be one key or two; the other name is the format's own
        at += "'"
    arrays[at] = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(
        array.shape
    )
    return at


def _decode(value: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    match value:
        case {"__array__": at}:
            array = arrays[at].copy()
            if value["torch"] is None:
                return array
            tensor = torch.from_numpy(array)
            return (
                tensor.view(torch.bfloat16) if value["torch"] == "bfloat16" else tensor
            )
        case {"__pairs__": pairs}:
            return {key: _decode(part, arrays) for key, part in pairs}
        case {"__tuple__": parts}:
            return tuple(_decode(part, arrays) for part in parts)
        case dict():
            return {key: _decode(part, arrays) for key, part in value.items()}
        case list():
            return [_decode(part, arrays) for part in value]
        case _:
            return value
