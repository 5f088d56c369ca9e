"""Guarded reading: a run directory may be damaged or a stranger's, so its files are bounded before they are believed.

Every reader of a run directory goes through here: regular files only, none through a link, of capped size and depth.
What does not fit is refused in a sentence that names the file.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

CONFIG_BYTES, STATUS_BYTES, MANIFEST_BYTES = 256 << 10, 1 << 20, 32 << 20
"""What config.toml, run.json and a checkpoint's manifest may take; shoal's own take some thousand bytes."""
MOST_PARTS = 2_000_000
"""Lists, tables and commas of a JSON file: each takes a hundred times its byte in memory."""
MOST_DEPTH = 64
TEXT = 4096
"""Characters of a setting."""
INT64 = 2**63
DEEP_KEY = re.compile(
    r"""(?:^|[\[{,])[ \t]*+(?:(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){32}""",
    re.MULTILINE,
)
"""A key of more than 32 parts, on which a TOML reader would spend minutes."""
KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


class DamagedError(ConfigError):
    """A file of a run that cannot be read, or is not what shoal writes."""


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


def check_folder(folder: Path) -> None:
    """ConfigError where a folder of a run is no folder, or a link: what is written there would be somebody else's."""
    if folder.is_symlink():
        raise ConfigError(
            f"{folder} is a link; a run keeps its files in its own folder: put the folder there"
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            f"{folder} is no folder, where a run keeps files in one: move it away"
        )


def read_toml(path: Path, *, links: bool = True) -> dict[str, Any]:
    """A configuration as TOML; ConfigError when it is missing, malformed, too deep or holds what is no setting."""
    try:
        data = read_bytes(path, at_most=CONFIG_BYTES, links=links)
    except FileNotFoundError as error:
        raise ConfigError(f"no file {path}") from error
    try:
        text = data.decode()
        if DEEP_KEY.search(text):
            raise ValueError("a key has more than 32 parts")
        saved = tomllib.loads(text)
        check_depth(saved)
    except RecursionError as error:
        raise ConfigError(f"{path} is not TOML: it is nested too deep") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    _check_settings(path, saved)
    return saved


def _check_settings(path: Path, saved: dict[str, Any]) -> None:
    """ConfigError for what no setting can be, or what would steer a terminal; keywords may hold several lines."""
    for name, value in leaves(saved):
        if not name.isprintable():
            raise ConfigError(f"{path}: a name holds control characters: {name!a}")
        keyword = name.startswith("env_kwargs.")
        if isinstance(value, int) and not keyword and not -INT64 <= value < INT64:
            raise ConfigError(f"{path}: {name} is a number of more than 64 bits")
        if not isinstance(value, str):
            continue
        shown = value
        if keyword:
            shown = value.replace("\n", "").replace("\t", "")
        elif len(value) > TEXT:
            raise ConfigError(f"{path}: {name} has more than {TEXT:,} characters")
        if not shown.isprintable():
            raise ConfigError(f"{path}: {name} holds control characters")


def leaves(table: Mapping[str, object], at: str = "") -> Iterator[tuple[str, object]]:
    """What a table holds by dotted names; the elements of a list come under the list's name."""
    for key, value in table.items():
        name = f"{at}{key}"
        if isinstance(value, Mapping):
            yield name, None
            yield from leaves(cast("Mapping[str, object]", value), f"{name}.")
            continue
        for part in cast("list[object]", value) if isinstance(value, list) else [value]:
            if isinstance(part, Mapping | list):
                yield from leaves({"": part}, f"{name}.")
            else:
                yield name, part


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


def sentence(error: BaseException) -> str:
    """What an error says, in one line."""
    return printable(f"{error}" or type(error).__name__)
