"""All native mutations in one build: the module with a switch, `shoal_mutation`, that turns one of them on.

Only what includes a mutated header is compiled again, without much optimization; the rest is taken from the build that
is there, and linked as that one was.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from shoal import _native

if TYPE_CHECKING:
    from tests.mutations import Mutation

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
SOURCES = ("net/kernels.cpp", "bind/math.cpp", "bind/replay.cpp")
"""What includes the mutated headers; of the kernels, those that this machine chooses."""
SWITCH = '__attribute__((visibility("default"), used)) inline int shoal_mutation = 0;\n'
DECLARATION = re.compile(r"(?P<start>(?:const )?\w+ \w+ = )(?P<value>.+);")


def build(mutations: list[Mutation], folder: Path) -> Path:
    """Compiles and links the module into a folder; mutation number i + 1 is `mutations[i]`."""
    native = folder / "native"
    shutil.copytree(ROOT / "native", native)
    for number, mutation in enumerate(mutations, 1):
        path = native / mutation.file
        text = path.read_text(encoding="utf-8")
        assert text.count(mutation.line) == 1, f"{mutation.file} no longer has one line {mutation.line!r}"
        path.write_text(text.replace(mutation.line, switched(mutation, number)), encoding="utf-8")
    (folder / "switch.hpp").write_text(SWITCH, encoding="utf-8")
    compiled = [entry for entry in json.loads((BUILD / "compile_commands.json").read_text()) if is_wanted(entry)]
    assert len(compiled) == len(SOURCES), f"{BUILD} is not the build of this checkout; run make"
    with ThreadPoolExecutor(2) as pool:
        objects = dict(pool.map(lambda entry: compile_one(entry, folder), compiled))
    return link(objects, folder)


def switched(mutation: Mutation, number: int) -> str:
    """The line, in a form that does either thing."""
    chosen = f"shoal_mutation == {number}"
    old, new = DECLARATION.fullmatch(mutation.line), DECLARATION.fullmatch(mutation.instead)
    if old is None or new is None:
        return f"if ({chosen}) {{ {mutation.instead} }} else {{ {mutation.line} }}"
    assert old["start"] == new["start"]
    return f"{old['start']}{chosen} ? ({new['value']}) : ({old['value']});"


def is_wanted(entry: dict[str, str]) -> bool:
    """Whether a compile command is of one of the sources, for this machine's instructions."""
    if not entry["file"].endswith(tuple(f"/native/{source}" for source in SOURCES)):
        return False
    return "-DSHOAL_ISA=" not in entry["command"] or f"-DSHOAL_ISA={_native.kernel_names()[0]} " in entry["command"]


def compile_one(entry: dict[str, str], folder: Path) -> tuple[str, str]:
    """Compiles one source of the copy: the object that it stands for, and its own."""
    command = shlex.split(entry["command"])
    original, _, source = entry["file"].partition("/native/")
    place = command.index("-o") + 1
    replaced, made = command[place], str(folder / f"{Path(source).stem}.o")
    command[place] = made
    command = [part.replace(f"{original}/native", f"{folder}/native") for part in command if part != "-O3"]
    run([*command, "-O1", "-include", str(folder / "switch.hpp")], Path(entry["directory"]))
    return replaced, made


def link(objects: dict[str, str], folder: Path) -> Path:
    """Links the module as the build did, with some objects replaced."""
    name = Path(_native.__file__ or "").name
    ninja = Path(sys.executable).with_name("ninja")
    listed = run([str(ninja), "-C", str(BUILD), "-t", "commands", name], BUILD)
    command = shlex.split(listed.splitlines()[-1])
    command = [part for part in command if part not in (":", "&&", "-Wl,-s")]
    module = folder / name
    command[command.index("-o") + 1] = str(module)
    run([objects.get(part, part) for part in command], BUILD)
    return module


def run(command: list[str], cwd: Path) -> str:
    """Runs a tool; what it printed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
