"""Prints what `make setup` installs: the pinned tools of the build, the dependencies and the developer's tools.

With `build`: only what the native core is built with. With an extra's name (`docs`): what that extra adds.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

OF_THE_BUILD = {"cmake", "ninja"}
"""Of the developer's tools, those that the build calls; it would else have installed them itself."""


def list_build(pyproject: dict[str, Any]) -> list[str]:
    """Requirements of the native core's build alone."""
    tools = pyproject["project"]["optional-dependencies"]["dev"]
    called = [tool for tool in tools if re.split(r"[^\w-]", tool)[0] in OF_THE_BUILD]
    return pyproject["build-system"]["requires"] + called


def list_requirements(pyproject: dict[str, Any]) -> list[str]:
    """Requirements in the order of the file, each once."""
    project = pyproject["project"]
    listed = pyproject["build-system"]["requires"] + project["dependencies"] + project["optional-dependencies"]["dev"]
    return list(dict.fromkeys(listed))


def list_extra(pyproject: dict[str, Any], extra: str) -> list[str]:
    """Requirements of one extra, without the package's own."""
    return pyproject["project"]["optional-dependencies"][extra]


def main() -> None:
    """Prints them, one a line."""
    pyproject = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    if not wanted:
        listed = list_requirements(pyproject)
    elif wanted == "build":
        listed = list_build(pyproject)
    else:
        listed = list_extra(pyproject, wanted)
    print(*listed, sep="\n")


if __name__ == "__main__":
    main()
