"""Checkpoints: safetensors with a JSON manifest that holds their sha256; the old one or the new one, never half."""

from __future__ import annotations

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

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint: its tree of numbers, arrays and tensors, and what was said while looking for it."""

    updates: int
    tree: dict[str, Any]
    warnings: list[str]


def save(folder: Path, tree: dict[str, Any], *, updates: int, kind: dict[str, str], tag: str = "") -> Path:
    """Writes the checkpoint of `updates`; the manifest comes last. OSError leaves the older ones untouched.

    Args:
        folder: the run's checkpoint folder.
        tree: nested dicts and lists of numbers, strings, None, NumPy arrays and tensors.
        updates: how many updates came before.
        kind: what the checkpoint belongs to (env, algo, ...); `load` compares it.
        tag: "" for one of the rolling ones, "best" for the best so far.
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
    sealed = json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "manifest": manifest})
    try:
        write_atomic(folder / f"{stem}-{sha256[:8]}.safetensors", data)
        write_atomic(folder / f"{stem}.json", sealed.encode())
    except OSError as error:
        raise OSError(
            error.errno, f"the checkpoint of update {updates} was not written ({error}); older ones are safe"
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


def load(folder: Path, *, kind: dict[str, str] | None = None, tag: str = "") -> Checkpoint | None:
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
        except (ValueError, KeyError, OSError) as error:
            warnings.append(f"checkpoint {path.name} is damaged ({error}); using the one before")
            continue
        for name, expected in (kind or {}).items():
            if manifest["kind"].get(name) != expected:
                raise ConfigError(
                    f"the checkpoint {path} belongs to {name} {manifest['kind'].get(name)!r}, not {expected!r}"
                )
        return Checkpoint(manifest["updates"], _decode(manifest["tree"], load_tensors(data)), warnings)
    if warnings:
        raise ConfigError(f"every checkpoint in {folder} is damaged: {'; '.join(warnings)}")
    return None


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    sealed = json.loads(path.read_text())
    manifest = sealed["manifest"]
    if hashlib.sha256(json.dumps(manifest).encode()).hexdigest() != sealed["sha256"]:
        raise ValueError("the manifest's sha256 differs")
    if manifest["format"] != FORMAT:
        raise ValueError(f"format {manifest['format']}, expected {FORMAT}")
    data = path.with_name(f"{path.stem}-{manifest['sha256'][:8]}.safetensors").read_bytes()
    if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
        raise ValueError("the tensors' sha256 differs")
    return manifest, data


def _sweep(folder: Path) -> None:
    """Deletes tensors whose manifest is gone or names others."""
    wanted: set[str] = set()
    for path in folder.glob("*.json"):
        text = path.read_text(errors="replace")
        wanted.update(p.name for p in folder.glob(f"{path.stem}-*.safetensors") if p.stem.rpartition("-")[2] in text)
    for path in folder.glob("*.safetensors"):
        if path.name not in wanted:
            path.unlink()


def _encode(value: Any, at: str, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    match value:
        case torch.Tensor() | np.ndarray():
            torchs = isinstance(value, torch.Tensor)
            array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
            arrays[at] = np.ascontiguousarray(array).reshape(array.shape)
            return {"__array__": at, "torch": torchs}
        case dict():
            if all(isinstance(key, str) for key in value):
                return {key: _encode(part, f"{at}.{key}" if at else key, arrays) for key, part in value.items()}
            return {"__pairs__": [[key, _encode(part, f"{at}.{key}", arrays)] for key, part in value.items()]}
        case list() | tuple():
            parts = [_encode(part, f"{at}.{i}", arrays) for i, part in enumerate(value)]
            return {"__tuple__": parts} if isinstance(value, tuple) else parts
        case np.generic():
            return value.item()
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise TypeError(f"a checkpoint cannot hold {type(value).__name__} at {at!r}")


def _decode(value: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    match value:
        case {"__array__": at}:
            return torch.from_numpy(arrays[at].copy()) if value["torch"] else arrays[at].copy()
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
