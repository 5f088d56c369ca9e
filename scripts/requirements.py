"""Prints what `make setup` installs: the pinned tools of the build, the dependencies and the developer's tools.

With an extra's name (`docs`): what that extra adds.
"""

import sys
import tomllib
from pathlib import Path
from typing import Any


def list_requirements(pyproject: dict[str, Any]) -> list[str]:
    """Requirements in the order of the file, each once."""
    project = pyproject["project"]
    listed = pyproject["build-system"]["requires"] + project["dependencies"] + project["optional-dependencies"]["dev"]
    return list(dict.fromkeys(listed))


def list_extra(pyproject: dict[str, Any], extra: str) -> list[str]:
    """Requirements of one extra, without the package's own."""
    return pyproject["project"]["optional-dependencies"][extra]


if __name__ == "__main__":
    read = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    print(*(list_extra(read, sys.argv[1]) if len(sys.argv) > 1 else list_requirements(read)), sep="\n")
