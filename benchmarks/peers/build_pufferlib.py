"""Build PufferLib 3.0 from its source package without a network beyond the package index.

The source package downloads archives while it is configured, and probes for CUDA. With `--no-clean`
and a temporary folder of our own, pip leaves the source unpacked whether that succeeds or not;
there empty folders stand in for the downloads, and the build starts again.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from setup_peers import VENVS, SetupError, build_environment, run_step, venv_python

EMPTY_FOLDERS = (
    "raylib-5.5_webassembly",
    "box2d-web",
    "box2d-linux-amd64/include",
    "box2d-linux-amd64/src",
)
NEEDS_BOX2D = Path("pufferlib/ocean/impulse_wars/binding.c")


def build(name: str, requirement: str) -> None:
    """Compile and install `requirement` (PufferLib 3.0.0) into the peer's environment."""
    python = str(venv_python(name))
    with tempfile.TemporaryDirectory(dir=VENVS, prefix="build-") as scratch:
        source = unpack(python, requirement, Path(scratch))
        prepare(source)
        options = ["--no-build-isolation", "--no-deps", "--no-cache-dir"]
        run_step([python, "-m", "pip", "install", *options, str(source)], cwd=source, environ=activated(python))


def activated(python: str) -> dict[str, str]:
    """Return the build's environment with the peer's own programs (ninja) first on the path."""
    environ = build_environment()
    environ["PATH"] = f"{Path(python).parent}:{environ['PATH']}"
    return environ


def unpack(python: str, requirement: str, scratch: Path) -> Path:
    """Return the folder of the unpacked source, which pip leaves behind even where it cannot configure it."""
    environ = activated(python) | {"TMPDIR": str(scratch)}
    command = [python, "-m", "pip", "download", "--no-clean", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    command += ["--no-binary", ":all:", "--dest", str(scratch), requirement]
    done = subprocess.run(command, cwd=scratch, env=environ, capture_output=True, text=True, timeout=600, check=False)
    found = list(scratch.glob("pip-*/pufferlib*/setup.py"))
    if len(found) != 1:
        raise SetupError(f"pip left {len(found)} unpacked sources of {requirement}:\n{done.stderr[-2000:]}")
    return found[0].parent


def prepare(source: Path) -> None:
    """Stand empty folders in for the downloads and set aside the environment that needs Box2D."""
    for folder in EMPTY_FOLDERS:
        (source / folder).mkdir(parents=True, exist_ok=True)
    binding = source / NEEDS_BOX2D
    if binding.exists():
        binding.rename(binding.with_suffix(".c.aside"))
