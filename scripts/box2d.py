"""Fetches the sources of Box2D 2.3 that LunarLander is built on: run by `make setup` and by CMakeLists.txt.

They come in the source package of box2d-py, whose checksum is compared before it is opened. Without them LunarLander
is not built in.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

PACKAGE = "box2d-py-2.3.8"
SHA256 = "bdacfbbc56079bb317548efe49d3d5a86646885cc27f4a2ee97e4b2960921ab7"
FILES = "https://files.pythonhosted.org/packages"
ADDRESS = f"{FILES}/98/c2/ab05b5329dc4416b5ee5530f0625a79c394a3e3c10abe0812b9345256451/{PACKAGE}.tar.gz"
REQUIREMENT = f"box2d-py==2.3.8 --hash=sha256:{SHA256}"
# Python's own -I: a build's isolated environment has no pip, the interpreter that it was made from has.
PIP = ("-I", "-m", "pip", "--disable-pip-version-check", "-qq", "download", "--retries", "2", "--timeout", "30")
SOURCE_ONLY = ("--no-deps", "--no-binary", ":all:", "--no-build-isolation")
# The first change: where the joints are a lander's, native/box2d/settle.cpp does the velocity iterations, bit for bit.
ISLAND = Path("Box2D/Dynamics/b2Island.cpp")
LOOP = "for (int32 i = 0; i < step.velocityIterations; ++i)"
SETTLED = "shoal::settle(m_joints, m_jointCount, contactSolver, solverData)"
NOTE = "/* Altered by shoal: the marked line starts its loop after the iterations that settle() has done. */\n"
# The second: what is counted for Box2D's statistics, which nobody reads, in numbers that all threads would write.
COUNTED = {Path("Box2D/Collision/b2Distance.cpp"): 3, Path("Box2D/Collision/b2TimeOfImpact.cpp"): 7}
COUNT = re.compile(r"^(\s*)((?:\+\+)?b2_(?:gjk|toi)\w+(?: \+?= .+)?;)$", re.MULTILINE)
COUNT_NOTE = "/* Altered by shoal: the marked lines, which counted calls and iterations, do nothing. */\n"
LACK = "LunarLander is not built in, Gymnasium's own runs instead; to try again: rm .venv/.box2d && make"


def download(folder: Path) -> Path:
    """The source package in `folder`: from where pip looks, else from PyPI's files, where there is no pip."""
    try:
        return download_by_pip(folder)
    except subprocess.CalledProcessError as error:
        target = folder / f"{PACKAGE}.tar.gz"
        try:
            with urllib.request.urlopen(ADDRESS, timeout=30) as answer:
                target.write_bytes(answer.read())
        except OSError as direct:
            raise OSError(f"{error.stderr.strip()[-300:]}; {direct}") from direct
        if hashlib.sha256(target.read_bytes()).hexdigest() != SHA256:
            raise ValueError("its sha256 is another") from error
        return target


def download_by_pip(folder: Path) -> Path:
    """The same with pip and its index; CalledProcessError with pip's output where it cannot be had or is another."""
    wanted = folder / "requirements.txt"
    wanted.write_text(REQUIREMENT + "\n", encoding="utf-8")
    command = [sys.executable, *PIP, *SOURCE_ONLY, "--require-hashes", "-r", str(wanted), "-d", str(folder)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder / f"{PACKAGE}.tar.gz"


def unpack(package: Path, target: Path) -> None:
    """Writes Box2D's headers, sources and license into `target`."""
    with tarfile.open(package) as archive:
        for member in archive.getmembers():
            path = Path(member.name).relative_to(PACKAGE)
            wanted = path.name == "LICENSE" or (path.parts[:1] == ("Box2D",) and path.suffix in (".h", ".cpp"))
            content = archive.extractfile(member) if wanted else None
            if content is not None:
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                (target / path).write_bytes(content.read())


def alter(source: str) -> str:
    """b2Island.cpp with the change, marked as its license asks."""
    if source.count(LOOP) != 1:
        raise ValueError(f"{ISLAND} has another form")
    line = LOOP.replace("i = 0", f"i = {SETTLED}") + " /* altered by shoal */"
    return NOTE + '#include "box2d/settle.hpp"\n' + source.replace(LOOP, line)


def alter_counts(source: str, path: Path) -> str:
    """A source that counts, with every count marked and left out."""
    altered, count = COUNT.subn(r"\1/* altered by shoal: \2 */", source)
    if count != COUNTED[path]:
        raise ValueError(f"{path} has another form")
    return COUNT_NOTE + altered


def fetch(target: Path) -> str:
    """Fills `target`; returns what went wrong, or nothing. What an earlier run fetched stays where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            unpack(download(Path(folder)), target)
            for path in COUNTED:
                counting = (target / path).read_text(encoding="utf-8")
                (target / path).write_text(alter_counts(counting, path), encoding="utf-8")
            (target / ISLAND).write_text(alter((target / ISLAND).read_text(encoding="utf-8")), encoding="utf-8")
        except (OSError, tarfile.TarError, ValueError) as error:
            return f"the source package of Box2D could not be had: {error}"
    return ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the package's folder is made")
    arguments = parser.parse_args()
    problem = fetch(arguments.folder / PACKAGE)
    if problem and not (arguments.folder / PACKAGE / ISLAND).exists():
        print(f"{problem}\n{LACK}")
