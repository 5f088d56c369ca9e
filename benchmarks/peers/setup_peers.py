"""Make one virtual environment per peer, with the versions that `peers.toml` pins.

    python benchmarks/peers/setup_peers.py [names] [--torch-index URL] [--force]

A finished environment carries a stamp of what it was made from; making it again is a no-op
until the pins change. Torch goes in first, alone, so that no other package chooses its build.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
VENVS = HERE / ".venvs"
STAMP = "peer.json"


class SetupError(RuntimeError):
    """A step of a peer's installation failed; the message ends with the step's output."""


def load_peers() -> dict[str, dict[str, Any]]:
    """Return the peers of `peers.toml` by name."""
    return tomllib.loads((HERE / "peers.toml").read_text(encoding="utf-8"))


def venv_python(name: str) -> Path:
    """Return the interpreter of a peer's environment, whether or not it exists yet."""
    return VENVS / name / "bin" / "python"


def is_ready(name: str, peer: dict[str, Any]) -> bool:
    """Say whether the environment is complete and was made from the present pins."""
    stamp = VENVS / name / STAMP
    if not stamp.is_file() or not venv_python(name).exists():
        return False
    return json.loads(stamp.read_text(encoding="utf-8"))["install"] == peer["install"]


def build_environment() -> dict[str, str]:
    """Return this process's environment without CUDA and without a foreign Python path."""
    environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")}
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    environ["PATH"] = os.pathsep.join(f for f in folders if not (Path(f) / "nvcc").exists())
    environ["CUDA_VISIBLE_DEVICES"] = ""
    return environ


def run_step(command: list[str], *, cwd: Path, environ: dict[str, str], timeout_s: float = 1800.0) -> str:
    """Run one installation step and return its output; raise `SetupError` with its tail on failure."""
    done = subprocess.run(
        command, cwd=cwd, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=timeout_s, check=False,
    )  # fmt: skip
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise SetupError(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")
    return done.stdout


def pip_install(name: str, requirements: list[str], *options: str) -> None:
    """Install requirements into a peer's environment in one resolution."""
    if requirements:
        python = str(venv_python(name))
        run_step([python, "-m", "pip", "install", *options, *requirements], cwd=VENVS, environ=build_environment())


def setup_peer(name: str, peer: dict[str, Any], *, torch_index: str | None = None, force: bool = False) -> bool:
    """Make a peer's environment; return False where it was already complete."""
    if is_ready(name, peer) and not force:
        return False
    folder = VENVS / name
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    install = peer["install"]
    torch_options = ("--index-url", torch_index) if torch_index else ()
    pip_install(name, install.get("torch", []), *torch_options)
    pip_install(name, install["requirements"])
    pip_install(name, install.get("without_dependencies", []), "--no-deps")
    if "source_build" in install:
        from build_pufferlib import build

        build(name, install["source_build"])
        pip_install(name, install.get("runtime", []))
    freeze = [str(venv_python(name)), "-m", "pip", "freeze"]
    frozen = run_step(freeze, cwd=VENVS, environ=build_environment()).split()
    stamp = {"install": install, "freeze": frozen}
    (folder / STAMP).write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    return True


def main(argv: list[str] | None = None) -> int:
    """Set up the named peers, or all; the exit status is the number that failed."""
    peers = load_peers()
    parser = argparse.ArgumentParser(description="Make one virtual environment per peer.")
    parser.add_argument("names", nargs="*", help=f"any of: {', '.join(peers)}")
    parser.add_argument("--torch-index", default=None, help="package index to take torch from")
    parser.add_argument("--force", action="store_true", help="make complete environments again")
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.names) - set(peers)):
        parser.error(f"unknown peers {unknown}; known are {sorted(peers)}")
    VENVS.mkdir(exist_ok=True)
    failures = 0
    for name in args.names or peers:
        try:
            made = setup_peer(name, peers[name], torch_index=args.torch_index, force=args.force)
        except (SetupError, OSError, subprocess.SubprocessError) as error:
            failures += 1
            print(f"{name}: FAILED: {error}", file=sys.stderr, flush=True)
        else:
            print(f"{name}: {'made' if made else 'already complete'}", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(main())
