"""Tries a wheel as a user would: in a fresh virtual environment, first without a compiler, then with one.

`python scripts/try_wheel.py` builds the wheel of this checkout, `--wheel FILE` takes one that is there. Without a
compiler on PATH: three environments train in C++, the README's Python runs, `shoal new-env --package` writes a project,
and pyright finds the mistakes in a script. With one: pip builds the project, its test passes, and its environment
trains and resumes. Each line says what was seen; the exit status is 1 where something else was.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FEW = ("--total-timesteps", "4096", "--final-episodes", "2", "--plain")
"""Enough to see that it trains; the threshold is not met, so the exit status is 1."""
BUILD_TOOLS = ("scikit-build-core>=1.0", "nanobind>=3.0", "cmake>=3.26", "ninja>=1.11", "pytest>=9")
MISTAKEN = """\
import shoal

shoal.train("CartPole-v1", learning_rat=3)
shoal.train("CartPole-v1", total_timesteps=[1])
run = shoal.train("CartPole-v1", learning_rate=3e-4, total_timesteps=1e5)
print(run.greedy_retrun, run.path, run.greedy_return)
"""
MISTAKES = [3, 4, 6]
"""A setting that there is not, a wrong type, an attribute that the result has not."""


class UnlikeError(Exception):
    """Something else was seen than should be."""


@dataclass(frozen=True)
class Place:
    """A virtual environment and an empty folder to work in."""

    venv: Path
    work: Path

    def run(self, *command: str, compiler: bool = False, status: int | None = 0) -> str:
        """What a program of the virtual environment prints; UnlikeError where it ends with another status."""
        env = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX", "PYTHONPATH")}
        bin_folder = self.venv / "bin"
        env["PATH"] = f"{bin_folder}{os.pathsep}{os.environ['PATH']}" if compiler else str(bin_folder)
        begin = time.monotonic()
        done = subprocess.run(
            [str(bin_folder / command[0]), *command[1:]],
            cwd=self.work,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if status is not None and done.returncode != status:
            raise UnlikeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}")
        print(f"  {time.monotonic() - begin:6.1f} s  {' '.join(command)[:100]}", flush=True)
        return done.stdout


def build_wheel(folder: Path) -> Path:
    """This checkout's wheel, by pip in an isolated build."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return next(folder.glob("shoal_rl-*.whl"))


def install(place: Place, wheel: Path, *, borrow: bool, atari: bool) -> None:
    """Makes the virtual environment; `borrow` takes the dependencies from the one that runs this."""
    subprocess.run([sys.executable, "-m", "venv", str(place.venv)], check=True)
    extra = "[atari]" if atari else ""
    pip = ["python", "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    if borrow:
        lent = [path for path in sys.path if path.endswith("site-packages")]
        packages = next(place.venv.glob("lib/python*/site-packages"))
        (packages / "lent.pth").write_text("\n".join(lent) + "\n", encoding="utf-8")
        place.run(*pip, "--no-deps", str(wheel))
    else:
        place.run(*pip, "-c", str(ROOT / "constraints.txt"), f"{wheel}{extra}")


def expect(text: str, pattern: str, what: str) -> None:
    """Says what was found; UnlikeError where it was not."""
    found = re.search(pattern, text)
    if found is None:
        raise UnlikeError(f"{what}: nothing like {pattern!r} in:\n{text[-3000:]}")
    print(f"      ok  {what}: {found[0]}", flush=True)


def try_without_compiler(place: Place, *, atari: bool) -> None:
    """What an installed wheel does by itself."""
    where = place.run("python", "-c", "import shoal, shutil; print(shoal.__file__, shutil.which('c++'))")
    expect(where, rf"{re.escape(str(place.venv))}\S+ None", "the wheel's own shoal, and no compiler")
    expect(place.run("shoal", "envs"), "LunarLander-v3", "built in")
    trained = place.run("shoal", "train", "CartPole-v1", "--plain")
    expect(trained, r"greedy return [\d.]+ over \d+ episodes \(threshold 475 met\)", "CartPole-v1")
    ids = ["LunarLander-v3", "shoal/Pong-v0", *(["ALE/Pong-v5"] if atari else [])]
    for env_id in ids:
        backend = "ale" if env_id.startswith("ALE/") else "native"
        exact = ("--network.precision", "float32") if backend == "ale" else ()  # fast on any CPU
        trained = place.run("shoal", "train", env_id, "--backend", backend, *FEW, *exact, status=None)
        expect(trained, r"greedy return -?[\d.]+", f"{env_id} on the backend {backend}")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    for number, block in enumerate(blocks):
        (place.work / "readme.py").write_text(block, encoding="utf-8")
        expect(place.run("python", "readme.py"), r"\S+(?=\s*$)", f"the README's Python block {number + 1} ends with")
    expect(place.run("shoal", "new-env", "fruit_catch", "--package"), r"with a C\+\+20 compiler", "a package's files")


def try_types(place: Place) -> None:
    """The types that an installed shoal shows a type checker."""
    script = place.work / "mistaken.py"
    script.write_text(MISTAKEN, encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", str(place.venv / "bin/python")]
    done = subprocess.run([*command, str(script)], cwd=place.work, capture_output=True, text=True, check=False)
    found = [one for one in json.loads(done.stdout)["generalDiagnostics"] if one["severity"] == "error"]
    lines = [one["range"]["start"]["line"] + 1 for one in found]
    for line, one in zip(lines, found, strict=True):
        print(f"      ok  pyright, line {line}: {one['message'].splitlines()[0]}")
    if lines != MISTAKES:
        raise UnlikeError(f"pyright found mistakes in the lines {lines}, not in {MISTAKES}")


def try_package(place: Place, *, borrow: bool) -> None:
    """A C++ environment of a user's own: built by pip, tested, trained, resumed."""
    pip = ["python", "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    if not borrow:
        place.run(*pip, *BUILD_TOOLS)
    place.run(*pip, "--no-build-isolation", "--no-deps", "./fruit_catch", compiler=True)
    expect(place.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "fruit_catch"), "4 passed", "its test")
    expect(place.run("shoal", "envs"), "fruit_catch/FruitCatch-v0", "listed")
    train = ["shoal", "train", "fruit_catch/FruitCatch-v0", "--plain", "--name", "caught"]
    expect(place.run(*train, "--total-timesteps", "8192", status=None), r"greedy return -?[\d.]+", "trained")
    resumed = place.run("shoal", "resume", "caught", "--total-timesteps", "16384", "--plain", status=None)
    expect(resumed, r"greedy return -?[\d.]+", "resumed")


def main() -> None:
    """Builds, installs, tries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help="instead of one built from this checkout")
    parser.add_argument("--borrow", action="store_true", help="dependencies from the environment that runs this")
    parser.add_argument("--atari", action="store_true", help="ALE's Pong too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder) / "venv", Path(folder) / "work")
        place.work.mkdir()
        wheel = (given.wheel or build_wheel(Path(folder))).resolve()
        print(f"{wheel.name}, {wheel.stat().st_size / 2**20:.1f} MiB")
        try:
            install(place, wheel, borrow=given.borrow, atari=given.atari)
            try_without_compiler(place, atari=given.atari)
            try_types(place)
            try_package(place, borrow=given.borrow)
        except UnlikeError as error:
            sys.exit(f"UNLIKE: {error}")
    print("The wheel does what it should.")


if __name__ == "__main__":
    main()
