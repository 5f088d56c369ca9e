"""Guarded reading of files that others wrote: what they are is looked at before they are believed.

Regular files only, of capped size and depth; what does not fit is refused in a sentence that names the file.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import TYPE_CHECKING, Any, cast

from shoal.types.errors import ConfigError

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

MOST_PARTS = 2_000_000
"""Lists, tables and commas of a JSON file: each takes a hundred times its byte in memory."""
MOST_DEPTH = 64
KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


class DamagedError(ConfigError):
    """A file of a run, a data set or a model that cannot be read, or is not what it should be."""


def open_regular(
    path: Path, *, at_most: int | None, links: bool = False
) -> BufferedReader:
    """A regular file, open for reading; nothing here waits for another process.

    Args:
        path: the file.
        at_most: the bytes that it may have; None where the caller bounds them.
        links: whether it may be a link, as a file that the command line names may.

    Raises:
        FileNotFoundError: it is not there.
        DamagedError: it is a link, no file, too large, or cannot be read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        handle = os.open(path, flags if links else flags | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedError(_why_not(path, error)) from error
    try:
        _check(path, os.fstat(handle), at_most)
    except BaseException:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def read_bytes(path: Path, *, at_most: int, links: bool = False) -> bytes:
    """A whole file; errors as `open_regular`."""
    with open_regular(path, at_most=at_most, links=links) as file:
        try:
            return file.read(at_most)
        except OSError as error:
            raise DamagedError(_why_not(path, error)) from error


def _why_not(path: Path, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return f"{path} is a link; files of a run are read from its own folder only: put the file there"
    return f"{path} cannot be read: {error.strerror}"


def _check(path: Path, found: os.stat_result, at_most: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        kinds = [said for test, said in KINDS.items() if test(found.st_mode)]
        raise DamagedError(f"{path} is {kinds[0]}, not a file")
    if at_most is not None and found.st_size > at_most:
        raise DamagedError(
            f"{path} has {found.st_size:,} bytes, more than the {at_most:,} that are read"
        )


def parse_json(data: bytes) -> object:
    """What JSON says; ValueError where it is none, nested too deep, or of so many parts that memory would run out."""
    if sum(map(data.count, (b"[", b"{", b","))) > MOST_PARTS:
        raise ValueError("it has too many parts")
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    check_depth(value)
    return value


def check_depth(value: object) -> None:
    """ValueError where tables and lists are nested deeper than `MOST_DEPTH`."""
    level = [value]
    for _ in range(MOST_DEPTH):
        below: list[object] = []
        for part in level:
            if isinstance(part, dict):
                below += cast("dict[object, object]", part).values()
            elif isinstance(part, list):
                below += cast("list[object]", part)
        if not below:
            return
        level = below
    raise ValueError(f"it is nested deeper than {MOST_DEPTH}")


def read_json(path: Path, *, at_most: int) -> object:
    """A JSON file; errors as `open_regular`, and ValueError as `parse_json`."""
    return parse_json(read_bytes(path, at_most=at_most))


def read_object(path: Path, *, at_most: int) -> dict[str, Any]:
    """A table of a JSON file that the user named, which may be a link.

    Raises:
        ConfigError: it is not there, no regular file, too large, nested too deep, or holds no table.
    """
    try:
        said = parse_json(read_bytes(path, at_most=at_most, links=True))
    except FileNotFoundError as error:
        raise ConfigError(f"no file {path}") from error
    except ValueError as error:
        raise DamagedError(f"{path} is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise DamagedError(f"{path} must hold an object of JSON")
    return cast("dict[str, Any]", said)
