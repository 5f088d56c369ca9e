"""Fetches the sources of Box2D 2.3 that LunarLander is built on: run by `make setup`; without them it is not built in.

They come in the source package of box2d-py, whose checksum pip compares before it opens it.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "box2d-py-2.3.8"
REQUIREMENT = "box2d-py==2.3.8 --hash=sha256:bdacfbbc56079bb317548efe49d3d5a86646885cc27f4a2ee97e4b2960921ab7"
PIP = ("-m", "pip", "--disable-pip-version-check", "-qq", "download", "--retries", "2", "--timeout", "30")
SOURCE_ONLY = ("--no-deps", "--no-binary", ":all:", "--no-build-isolation")
LACK = "LunarLander is not built in, Gymnasium's own runs instead; to try again: rm .venv/.box2d && make"


def download(folder: Path) -> Path:
    """The source package in `folder`; CalledProcessError with pip's output where it cannot be had or is another."""
    wanted = folder / "requirements.txt"
    wanted.write_text(REQUIREMENT + "\n", encoding="utf-8")
    command = [sys.executable, *PIP, *SOURCE_ONLY, "--require-hashes", "-r", str(wanted), "-d", str(folder)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder / f"{PACKAGE}.tar.gz"


def unpack(package: Path, target: Path) -> None:
    """Writes Box2D's headers, sources and licence into `target`."""
    with tarfile.open(package) as archive:
        for member in archive.getmembers():
            path = Path(member.name).relative_to(PACKAGE)
            wanted = path.name == "LICENSE" or (path.parts[:1] == ("Box2D",) and path.suffix in (".h", ".cpp"))
            content = archive.extractfile(member) if wanted else None
            if content is not None:
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                (target / path).write_bytes(content.read())


def fetch(target: Path) -> str:
    """Fills `target` unless it is filled; returns what went wrong, or nothing."""
    if (target / "LICENSE").exists():
        return ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            unpack(download(Path(folder)), target)
        except subprocess.CalledProcessError as error:
            return f"the source package of Box2D could not be fetched: {error.stderr.strip()[-300:]}"
        except (OSError, tarfile.TarError, ValueError) as error:
            return f"the source package of Box2D could not be unpacked: {error}"
    return ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the package's folder is made")
    problem = fetch(parser.parse_args().folder / PACKAGE)
    if problem:
        print(f"{problem}\n{LACK}")
