"""Prints what `make setup` installs: the pinned tools of the build, the dependencies and the developer's tools."""

import tomllib
from pathlib import Path
from typing import Any


def list_requirements(pyproject: dict[str, Any]) -> list[str]:
    """Requirements in the order of the file, each once."""
    project = pyproject["project"]
    listed = pyproject["build-system"]["requires"] + project["dependencies"] + project["optional-dependencies"]["dev"]
    return list(dict.fromkeys(listed))


if __name__ == "__main__":
    print(*list_requirements(tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))), sep="\n")
