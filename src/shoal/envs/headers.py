"""Where shoal's native headers are installed: what packages of C++ environments are built with."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def get_include() -> str:
    """The folder of the headers, for a compiler's include path.

    Raises:
        RuntimeError: they are not there: shoal was put there by something else than pip.
    """
    return _installed("include")


def cmake_dir() -> str:
    """The folder that `find_package(shoal)` of CMake is given, as shoal_ROOT; RuntimeError as in `get_include`."""
    return _installed("cmake")


def _installed(name: str) -> str:
    core = find_spec("shoal._native")
    folder = Path((core and core.origin) or __file__).with_name(name)
    if not folder.is_dir():
        raise RuntimeError(
            f"shoal's native headers are not at {folder}; install shoal with pip (a wheel, or a checkout)"
        )
    return str(folder)
