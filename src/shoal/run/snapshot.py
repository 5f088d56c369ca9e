"""A state at one moment: taken while training waits, stored in files while it goes on."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shoal.memory import forked
from shoal.run.drafts import draft_of, open_draft
from shoal.run.tensors import buffers_of, sha256_of, sha256_of_file
from shoal.run.trees import Arrays, encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

COPY_BYTES = 32 << 20
"""Up to so many bytes of arrays are copied; more are written by a forked child."""
CHILD_S = 600.0
"""Seconds that the child may take."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of tensors in the folder; its name holds its sha256."""

    file: str
    bytes: int
    sha256: str

    def stands_in(self, folder: Path) -> bool:
        """Whether a file of this name and size is there."""
        path = folder / self.file
        return path.exists() and path.stat().st_size == self.bytes


Known = dict[tuple[str, str], Stored]
"""The stored pieces by where their `Pieces` stands in the tree and by their name."""


@dataclass(slots=True)
class Content:
    """The tensors of one file to be: arrays of our own, or a draft that a child writes."""

    stem: str
    arrays: dict[str, NDArray[Any]]
    own: set[str]
    draft: Path | None = None
    size: int = 0

    def borrowed(self) -> Iterator[str]:
        """The names of the arrays that somebody else may change."""
        return (name for name in self.arrays if name not in self.own)

    def copy(self, name: str) -> None:
        """Takes a copy of an array."""
        self.arrays[name] = self.arrays[name].copy()
        self.own.add(name)

    def store(self, folder: Path) -> Stored:
        """Makes the file, or finds that it is there; its name is not yet durable.

        Raises:
            OSError: the disk is full, or worse.
        """
        if self.draft is None:
            return self._store_arrays(folder)
        size = self.draft.stat().st_size
        if size != self.size:
            raise OSError(f"{size} of {self.size} bytes of {self.stem} were written")
        stored = self._stored(sha256_of_file(self.draft), size)
        if _is_whole(folder / stored.file, stored):
            self.draft.unlink()
            return stored
        with self.draft.open("rb") as file:
            os.fsync(file.fileno())
        self.draft.replace(folder / stored.file)
        return stored

    def _store_arrays(self, folder: Path) -> Stored:
        buffers = buffers_of(self.arrays)
        stored = self._stored(sha256_of(buffers), sum(map(len, buffers)))
        path = folder / stored.file
        if not _is_whole(path, stored):
            draft = draft_of(folder / self.stem)
            with open_draft(draft) as file:
                for buffer in buffers:
                    forked.write_whole(file, buffer)
                os.fsync(file.fileno())
            draft.replace(path)
        self.arrays = {}
        return stored

    def _stored(self, sha256: str, size: int) -> Stored:
        return Stored(f"{self.stem}-{sha256}.safetensors", size, sha256)


@dataclass(slots=True)
class Part:
    """One part of a state: its tree as JSON, its tensors, its pieces or where they are."""

    tree: Any
    content: Content | None
    pieces: dict[str, dict[str, Content | Stored]]

    def contents(self) -> Iterator[Content]:
        """All that is to be stored."""
        if self.content is not None:
            yield self.content
        for pieces in self.pieces.values():
            yield from (
                piece for piece in pieces.values() if isinstance(piece, Content)
            )


@dataclass(slots=True)
class Snapshot:
    """A state by parts, which nothing changes any more."""

    parts: dict[str, Part]
    child: forked.Child | None = None
    drafts: list[Path] = field(default_factory=list)

    def finish(self) -> None:
        """Waits until the child has written the drafts.

        Raises:
            OSError: it could not, or took too long.
        """
        if self.child is not None:
            self.child.wait(CHILD_S)

    def discard(self) -> None:
        """Ends the child and deletes its drafts."""
        if self.child is not None:
            self.child.kill()
        for draft in self.drafts:
            draft.unlink(missing_ok=True)


def take(folder: Path, parts: Mapping[str, object], *, known: Known) -> Snapshot:
    """The state as it is now; the caller may change it when this returns.

    Args:
        folder: where a child writes drafts.
        parts: for each name a tree that `encode` takes. The name begins a file's:
            letters, digits, "_" and "-".
        known: pieces that are stored already.

    Raises:
        TypeError: a tree holds what a checkpoint cannot.
        OSError: the disk is full, or worse.
    """
    known = {at: stored for at, stored in known.items() if stored.stands_in(folder)}
    snapshot = Snapshot(
        {name: _part(name, tree, known) for name, tree in parts.items()}
    )
    contents = [one for part in snapshot.parts.values() for one in part.contents()]
    borrowed = sum(
        one.arrays[name].nbytes for one in contents for name in one.borrowed()
    )
    if borrowed > COPY_BYTES:
        _fork(folder, snapshot, contents)
    else:
        for content in contents:
            for name in list(content.borrowed()):
                content.copy(name)
    return snapshot


def _part(name: str, tree: object, known: Known) -> Part:
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(
            f"a part's name is made of letters, digits, '_' and '-', got {name!r}"
        )
    arrays = Arrays()
    encoded = encode(tree, name, arrays)
    pieces: dict[str, dict[str, Content | Stored]] = {}
    for at, named in arrays.pieces.items():
        pieces[at] = {}
        for key, array in named.items():
            stored = known.get((at, key))
            pieces[at][key] = stored or Content(name, {"piece": array}, set())
    content = Content(name, arrays.held, arrays.own) if arrays.held else None
    return Part(encoded, content, pieces)


def _fork(folder: Path, snapshot: Snapshot, contents: list[Content]) -> None:
    shared = forked.SharedMemory()
    for content in contents:
        for name in list(content.borrowed()):
            if shared.holds(content.arrays[name]):
                content.copy(name)
    files = {}
    for number, content in enumerate(contents):
        buffers = buffers_of(content.arrays)
        content.size = sum(map(len, buffers))
        content.draft = draft_of(folder / f"{content.stem}.{number}")
        files[content.draft] = buffers
    snapshot.drafts = list(files)
    try:
        snapshot.child = forked.start(files)
    except BaseException:
        snapshot.discard()
        raise
    for content in contents:
        content.arrays = {}


def _is_whole(path: Path, stored: Stored) -> bool:
    """Whether the file is there with every byte; a damaged one is written anew."""
    return stored.stands_in(path.parent) and sha256_of_file(path) == stored.sha256
