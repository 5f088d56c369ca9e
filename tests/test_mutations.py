"""Each of `tests/mutations.py` is put into a copy of shoal, and the test that is named with it must fail.

The test runs in a fork of an interpreter that has imported torch and pytest, but not shoal.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

import shoal
from shoal import _native
from tests import native_mutants
from tests.actor_mutations import ACTORS
from tests.fork_server import Interpreter
from tests.guard_mutations import GUARD
from tests.language_mutations import LANGUAGE
from tests.memory_mutations import MEMORY
from tests.mutations import NATIVE, PYTHON, Mutation
from tests.page_mutations import PAGE
from tests.sampler_mutations import SAMPLER
from tests.scan_mutations import SCANS
from tests.server_mutations import SERVERS
from tests.simulation_mutations import SIMULATIONS
from tests.task_mutations import TASKS

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = [*PYTHON, *SERVERS, *ACTORS, *LANGUAGE, *SAMPLER, *TASKS, *GUARD, *PAGE, *MEMORY, *SIMULATIONS]
HEADERS = [*NATIVE, *SCANS]
ROOT = Path(__file__).parents[1]
PACKAGE = Path(shoal.__file__).parent
NATIVE_FILE = Path(_native.__file__ or "")
PYTEST = """
import ctypes, os, sys
sys.dont_write_bytecode = True  # compiled files are links to those of the code as it is
native, mutation, folder, *tests = sys.argv[1:]
if mutation != "0":
    ctypes.c_int.in_dll(ctypes.CDLL(native), "shoal_mutation").value = int(mutation)
import pytest
options = ["-q", "-x", "--assert=plain", "-p", "pytest_timeout", "-p", "no:cacheprovider", "--basetemp", folder]
status = pytest.main([*options, *tests])
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)  # taking torch down takes as long as many of the tests
"""
pytestmark = [pytest.mark.mutation, pytest.mark.timeout(300)]
in_one_process = pytest.mark.xdist_group("native")
"""Tests that share the native module with all its mutations, which is built once."""


@pytest.fixture(scope="module")
def bare() -> Iterator[Interpreter]:
    """An interpreter without shoal. -S keeps the editable install out, which would be found before any copy."""
    with closing(
        Interpreter("numpy", "torch", "gymnasium", "pytest", "pytest_timeout", "psutil", site=False)
    ) as started:
        yield started


@pytest.fixture(scope="module")
def mutants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The native module with all its mutations."""
    return native_mutants.build(HEADERS, tmp_path_factory.mktemp("native"))


def copy_package(folder: Path, native: Path = NATIVE_FILE) -> Path:
    """A copy of the package made of links, with this native module; returns the folder that is to be on the path."""
    for path in PACKAGE.rglob("*"):
        linked = folder / "shoal" / path.relative_to(PACKAGE)
        if path.is_dir():
            linked.mkdir(parents=True, exist_ok=True)
        elif path.suffix in (".py", ".pyc", ".toml"):
            linked.parent.mkdir(parents=True, exist_ok=True)
            linked.symlink_to(path)
    (folder / "shoal" / NATIVE_FILE.name).symlink_to(native)
    return folder


def run_tests(
    bare: Interpreter, source: Path, tests: list[str], native: Path = NATIVE_FILE, mutation: int = 0
) -> tuple[int, str]:
    """Runs tests on the package in `source`: pytest's exit status, and what it printed."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(source), str(ROOT), *filter(None, sys.path)])}
    env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    program = f"import sys; sys.path[:0] = [{str(source)!r}, {str(ROOT)!r}]\n{PYTEST}"
    # A folder of its own, with a short name: pytest's numbered ones look for those of earlier runs, and delete them.
    with TemporaryDirectory(prefix="shoal-") as folder:
        given = [str(native), str(mutation), f"{folder}/t", *tests]
        done = bare.run(program, *given, folder=source, cwd=ROOT, env=env, timeout_s=280)
    return done.returncode, done.stdout + done.stderr


def test_there_are_enough() -> None:
    assert len(PYTHON) + len(NATIVE) >= 24


@in_one_process
def test_all_pass_on_the_code_as_it_is(bare: Interpreter, mutants: Path, tmp_path: Path) -> None:
    """Also with the native module in which every mutation is off."""
    native = sorted({mutation.test for mutation in HEADERS})
    python = sorted({mutation.test for mutation in PYTHON})
    status, printed = run_tests(bare, copy_package(tmp_path / "native", mutants), native)
    assert status == 0, printed
    status, printed = run_tests(bare, copy_package(tmp_path / "python"), python)
    assert status == 0, printed


@pytest.mark.parametrize("mutation", FILES, ids=[m.defect for m in FILES])
def test_a_mutation_is_noticed(mutation: Mutation, bare: Interpreter, tmp_path: Path) -> None:
    source = copy_package(tmp_path)
    target = source / "shoal" / mutation.file
    text = target.read_text(encoding="utf-8")
    assert text.count(f" {mutation.line}\n") == 1, f"{mutation.file} no longer has one line {mutation.line!r}"
    target.unlink()
    target.write_text(text.replace(f" {mutation.line}\n", f" {mutation.instead}\n"), encoding="utf-8")
    status, printed = run_tests(bare, source, [mutation.test])
    assert status == 1, printed


@in_one_process
@pytest.mark.parametrize("mutation", HEADERS, ids=[m.defect for m in HEADERS])
def test_a_native_mutation_is_noticed(mutation: Mutation, bare: Interpreter, mutants: Path, tmp_path: Path) -> None:
    number = HEADERS.index(mutation) + 1
    source = copy_package(tmp_path, mutants)
    status, printed = run_tests(bare, source, [mutation.test], source / "shoal" / NATIVE_FILE.name, number)
    assert status == 1, printed
