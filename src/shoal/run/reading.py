"""Guarded reading: a run directory may be damaged or a stranger's, so its files are bounded before they are believed.

Every reader of a run directory goes through here: regular files only, none through a link, of capped size and depth.
What does not fit is refused in a sentence that names the file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from shoal.types import ConfigError
from shoal.types.files import KINDS as KINDS
from shoal.types.files import DamagedError as DamagedError
from shoal.types.files import check_depth, read_bytes
from shoal.types.files import open_regular as open_regular
from shoal.types.files import parse_json as parse_json
from shoal.types.files import read_json as read_json
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG_BYTES, STATUS_BYTES, MANIFEST_BYTES = 256 << 10, 1 << 20, 32 << 20
"""What config.toml, run.json and a checkpoint's manifest may take; shoal's own take some thousand bytes."""
TEXT = 4096
"""Characters of a setting."""
INT64 = 2**63
DEEP_KEY = re.compile(
    r"""(?:^|[\[{,])[ \t]*+(?:(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){32}""",
    re.MULTILINE,
)
"""A key of more than 32 parts, on which a TOML reader would spend minutes."""


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


def sentence(error: BaseException) -> str:
    """What an error says, in one line."""
    return printable(f"{error}" or type(error).__name__)
