"""`shoal new-env NAME --package`: a C++ environment as a package of its own, built against the installed headers."""

from __future__ import annotations

import keyword
import sys
from pathlib import Path

from shoal.envs.headers import get_include
from shoal.envs.scaffold import FACTS, HEADER, TEST, check_free, names_of, write_files
from shoal.types import ConfigError

PROJECT = """\
[build-system]
requires = ["scikit-build-core>=1.0", "nanobind>=3.0", "shoal-rl"]
build-backend = "scikit_build_core.build"

[project]
name = "@stem@"
version = "0.1.0"
description = "An environment for shoal: walk along a line to a goal"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["shoal-rl"]

# Where shoal finds what is named @stem@/NAME-v0.
[project.entry-points."shoal.environments"]
@stem@ = "@stem@._native:environments"

[tool.scikit-build]
cmake.build-type = "Release"
wheel.packages = ["src/@stem@"]

[tool.pytest.ini_options]
testpaths = ["tests"]
"""

CMAKE = """\
cmake_minimum_required(VERSION 3.25)
project(@stem@ LANGUAGES CXX)

find_package(Python 3.11 REQUIRED COMPONENTS Interpreter Development.Module)
foreach(package nanobind shoal)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "import ${package}; print(${package}.cmake_dir())"
    OUTPUT_STRIP_TRAILING_WHITESPACE OUTPUT_VARIABLE ${package}_ROOT COMMAND_ERROR_IS_FATAL ANY)
  find_package(${package} CONFIG REQUIRED)
endforeach()

# One header is one environment: fruit_catch.hpp defines shoal::FruitCatch. Name further ones here.
shoal_add_environments(native/@stem@.hpp)
install(TARGETS _native LIBRARY DESTINATION @stem@)
"""

MODULE = '''\
"""@id@, a C++ environment for shoal, which finds it by the entry point in pyproject.toml."""
'''

README = f"""\
# @Name@

Walk along a line to a goal: a C++ environment for shoal (the package `shoal-rl`).

{FACTS}
It needs a C++20 compiler. In the virtual environment that shoal is installed in:

```
pip install scikit-build-core nanobind cmake ninja pytest
pip install --no-build-isolation .
python -m pytest
shoal train @id@
```

`native/@stem@.hpp` is the environment: what a struct must have stands at the top of `core/env.hpp` in
`python -c "import shoal; print(shoal.get_include())"`. After another version of shoal is installed, build it again:
shoal says so.
"""

FILES = {
    "pyproject.toml": PROJECT,
    "CMakeLists.txt": CMAKE,
    "README.md": README,
    "native/@stem@.hpp": HEADER,
    "src/@stem@/__init__.py": MODULE,
    "tests/test_@stem@.py": TEST,
}


def new_package(name: str, folder: Path) -> list[Path]:
    """Writes a project in a folder of its own, `folder`/NAME; pip builds and installs it, with nothing else edited.

    Args:
        name: as in `new_env`; the package's name too.
        folder: where the project's folder is made.

    Raises:
        ConfigError: the folder is there already, or the name cannot be used; nothing is written then.
    """
    stem, struct = names_of(name)
    if keyword.iskeyword(stem) or stem in ("shoal", "test", *sys.stdlib_module_names):
        raise ConfigError(
            f"{stem!r} is a name of Python's or shoal's own; choose another one"
        )
    check_free(Path(get_include()), stem, struct)
    root = folder.resolve() / stem
    if root.exists():
        raise ConfigError(f"{root} is there already; choose another name")
    words = {"@stem@": stem, "@Name@": struct, "@id@": f"{stem}/{struct}-v0"}
    return write_files(root, FILES, words)
