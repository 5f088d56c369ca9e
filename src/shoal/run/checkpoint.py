"""Checkpoints by parts: files of tensors under a JSON manifest; the old one or the new one, never half."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from shoal.run.directory import rolling as rolling
from shoal.run.directory import versions
from shoal.run.drafts import sync_folder, write_atomic
from shoal.run.origin import Identity
from shoal.run.reading import (
    INT64,
    MANIFEST_BYTES,
    DamagedError,
    check_folder,
    read_json,
    sentence,
)
from shoal.run.snapshot import Known, Stored
from shoal.run.tensors import read
from shoal.run.trees import decode
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from shoal.run.snapshot import Part, Snapshot

FORMAT = 3
"""3: a file for each part. 2: layers after convolutions take inputs as H, W, C."""
TENSORS = re.compile(r'"([\w-]+-[0-9a-f]{64}\.safetensors)"')
"""The name of a file of tensors in a manifest. It begins at a quote: without one the search would begin at every letter
of the text anew."""


BROKEN = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    RuntimeError,
    OverflowError,
    MemoryError,
    OSError,
)
"""What reading a damaged or doctored checkpoint may raise."""
TRIED = 50
"""Damaged checkpoints after which no older one is looked at."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint: its trees by part, and what was said while looking for it."""

    updates: int
    tree: dict[str, Any]
    warnings: list[str]
    pieces: Known = field(default_factory=Known)
    """Where its append-only pieces are stored."""
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    """What it was written with; empty in checkpoints of earlier versions."""


def write(
    folder: Path,
    snapshot: Snapshot,
    *,
    updates: int,
    kind: Mapping[str, str],
    identity: Identity | None = None,
    tags: Sequence[str] = ("",),
) -> Known:
    """Stores the checkpoint of `updates`; the manifests come last, in the order of `tags`.

    A part whose bytes are those of a file in the folder is that file, whichever
    checkpoint it was written for. Files that no manifest names any more are deleted.

    Args:
        folder: the run's checkpoint folder.
        snapshot: what it holds; it is used up.
        updates: how many updates came before.
        kind: what the checkpoint belongs to (env, algo, ...); `load` compares it.
        identity: the run and its settings; `load` compares them.
        tags: "" for a rolling one, "best" for the best so far; all are the same files.

    Returns:
        where its append-only pieces are stored.

    Raises:
        OSError: the disk is full, or worse; the older checkpoints are as they were.
    """
    known: Known = {}
    try:
        snapshot.finish()
        parts = {
            name: _store(folder, part, known) for name, part in snapshot.parts.items()
        }
        sync_folder(folder)
        manifest = {
            "format": FORMAT,
            "updates": updates,
            "kind": dict(kind),
            "versions": versions(),
            "parts": parts,
        }
        if identity is not None and identity.run:
            settings = dict(identity.settings)
            manifest |= {"run": identity.run, "settings": settings}
        sealed = _sealed(manifest)
        for tag in tags:
            write_atomic(_manifest(folder, tag, updates), sealed)
    except OSError as error:
        snapshot.discard()
        with contextlib.suppress(OSError):
            _sweep(folder)
        said = f"the checkpoint of update {updates} was not written ({error})"
        raise OSError(error.errno, f"{said}; {what_is_left(folder)}") from error
    _sweep(folder)
    return known


def what_is_left(folder: Path) -> str:
    """What became of the checkpoints before one that was not written."""
    if not folder.is_dir():
        return f"{folder} is gone, and older ones with it"
    return "older ones are safe" if rolling(folder) else "there is no older one"


def write_best(folder: Path, snapshot: Snapshot) -> bool:
    """Makes the newest whole rolling checkpoint with other parts the one that is called `best`.

    Parts that `snapshot` does not hold are those of that checkpoint; the rolling ones stay as they are.

    Returns:
        Whether there is a whole one.

    Raises:
        OSError: the disk is full, or worse; all checkpoints are as they were.
    """
    snapshot.finish()
    for path in rolling(folder)[::-1]:
        try:
            manifest = _read_manifest(path)
        except BROKEN:
            continue
        for name, part in snapshot.parts.items():
            manifest["parts"][name] = _store(folder, part, {})
        sync_folder(folder)
        write_atomic(_manifest(folder, "best", 0), _sealed(manifest))
        _sweep(folder)
        return True
    snapshot.discard()
    return False


def _sealed(manifest: dict[str, Any]) -> bytes:
    """A manifest as its file holds it, under its sha256."""
    body = json.dumps(manifest)
    sha256 = hashlib.sha256(body.encode()).hexdigest()
    return f'{{"sha256": "{sha256}", "manifest": {body}}}'.encode()


def _manifest(folder: Path, tag: str, updates: int) -> Path:
    return folder / f"{tag or f'{updates:010d}'}.json"


def _store(folder: Path, part: Part, known: Known) -> dict[str, Any]:
    """Stores a part; what the manifest says of it. Adds its pieces to `known`."""
    pieces: dict[str, dict[str, Any]] = {}
    for at, named in part.pieces.items():
        for key, piece in named.items():
            stored = piece if isinstance(piece, Stored) else piece.store(folder)
            known[at, key] = stored
        pieces[at] = {key: asdict(known[at, key]) for key in named}
    tensors = asdict(part.content.store(folder)) if part.content is not None else None
    return {"tree": part.tree, "tensors": tensors, "pieces": pieces}


def prune(folder: Path, keep_last: int) -> None:
    """Deletes all rolling checkpoints but the newest `keep_last`."""
    old = rolling(folder)[: -max(1, keep_last)]
    for manifest in old:
        manifest.unlink()
    if old:
        _sweep(folder)


def files_of(manifest: Path) -> list[Path]:
    """The files of tensors that a manifest names, damaged or not, each once."""
    with manifest.open("rb") as file:
        text = file.read(MANIFEST_BYTES).decode(errors="replace")
    return [manifest.with_name(name) for name in dict.fromkeys(TENSORS.findall(text))]


def load(
    folder: Path,
    *,
    kind: Mapping[str, str] | None = None,
    identity: Identity | None = None,
    tag: str = "",
) -> Checkpoint | None:
    """The newest checkpoint that is whole; a damaged one is passed over and named in the warnings.

    Its arrays are read into memory of their own, once.

    Returns None when there is no checkpoint at all.

    Raises:
        ConfigError: the checkpoint belongs to something else than `kind` or `identity`, is of another version, or
            every one is damaged.
    """
    check_folder(folder)
    manifests = [folder / f"{tag}.json"] if tag else rolling(folder)[::-1]
    warnings: list[str] = []
    for path in [path for path in manifests if path.exists()][:TRIED]:
        try:
            manifest = _read_manifest(path)
            _refuse_others(path, manifest, kind or {})
            if identity is not None:
                identity.check(path, manifest)
            known: Known = {}
            tree = {
                name: _read_part(folder, part, known)
                for name, part in manifest["parts"].items()
            }
        except DamagedError as error:
            warnings.append(_damaged(path, error))
        except ConfigError:  # whole, but of something else: no older one may stand in
            raise
        except BROKEN as error:
            warnings.append(_damaged(path, error))
        else:
            found = Checkpoint(manifest["updates"], tree, warnings, known)
            return replace(found, versions=manifest.get("versions", {}))
    if warnings:
        said = "; ".join(
            warning.removesuffix("; using the one before") for warning in warnings
        )
        raise ConfigError(
            f"no checkpoint in {folder} is whole: {said}; restore them from a copy, or train again"
        )
    return None


def _damaged(path: Path, error: Exception) -> str:
    said = sentence(error)
    return f"checkpoint {path.name} is damaged ({said}); using the one before"


def _read_manifest(path: Path) -> dict[str, Any]:
    sealed = read_json(path, at_most=MANIFEST_BYTES)
    if not isinstance(sealed, dict) or not {"manifest", "sha256"} <= set(sealed):
        raise ValueError("it is no manifest")
    manifest = sealed["manifest"]
    body = json.dumps(manifest).encode()
    if hashlib.sha256(body).hexdigest() != sealed["sha256"]:
        raise ValueError("the manifest's sha256 differs")
    tables = ("kind", "parts", "settings", "versions")
    if not all(isinstance(manifest.get(name, {}), dict) for name in tables):
        raise ValueError("it is no manifest")
    if not 0 <= manifest["updates"] < INT64:
        raise ValueError("it counts no updates")
    return manifest


def _refuse_others(
    path: Path, manifest: dict[str, Any], kind: Mapping[str, str]
) -> None:
    if manifest["format"] != FORMAT:
        raise ConfigError(
            f"the checkpoint {path} has the format {manifest['format']}, but this version of shoal reads {FORMAT}; "
            "train again, or use the version that wrote it"
        )
    for name, expected in kind.items():
        found = manifest["kind"].get(name)
        if found != expected:
            raise ConfigError(
                f"the checkpoint {path} belongs to {name} {found!r}, not {expected!r}"
            )


def _read_part(folder: Path, part: dict[str, Any], known: Known) -> object:
    arrays = _read_stored(folder, Stored(**part["tensors"])) if part["tensors"] else {}
    pieces: dict[str, dict[str, NDArray[Any]]] = {}
    for at, named in part["pieces"].items():
        pieces[at] = {}
        for key, said in named.items():
            known[at, key] = Stored(**said)
            pieces[at][key] = _read_stored(folder, known[at, key])["piece"]
    return decode(part["tree"], arrays, pieces)


def _read_stored(folder: Path, stored: Stored) -> dict[str, NDArray[Any]]:
    if TENSORS.fullmatch(f'"{stored.file}"') is None:
        raise ValueError(f"it names {stored.file!r}")
    return read(folder / stored.file, size=stored.bytes, sha256=stored.sha256)


def _sweep(folder: Path) -> None:
    """Deletes tensors that no manifest names, and drafts of a process that was killed."""
    files = [path for path in folder.iterdir() if path.is_file()]
    manifests = [p for p in files if p.suffix == ".json" and not p.is_symlink()]
    wanted = {path for manifest in manifests for path in files_of(manifest)}
    for path in files:
        stray = path.suffix == ".safetensors" and path not in wanted
        if stray or (path.name.startswith(".") and "." in path.name[1:]):
            path.unlink()
