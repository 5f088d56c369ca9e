"""`shoal new-env`: what it writes, what it refuses, and that it builds and passes with nothing else edited."""

import datetime
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from shoal.envs import packages, scaffold_package
from shoal.envs.registry import make
from shoal.envs.scaffold import new_env
from shoal.envs.scaffold_package import new_package
from shoal.types import ConfigError
from tests.extensions import capsule

ROOT = Path(__file__).parents[2]
KEPT = ("src", "native", "tests", "docs", "CMakeLists.txt", "pyproject.toml", "mkdocs.yml", "README.md", "LICENSE")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what a build needs, without what was built."""
    for name in (*KEPT, ".clang-format"):
        whole, to = ROOT / name, tmp_path / "copy" / name
        to.parent.mkdir(exist_ok=True)
        if whole.is_dir():
            shutil.copytree(whole, to, ignore=shutil.ignore_patterns("__pycache__", "*.so", ".*"))
        else:
            shutil.copy(whole, to)
    return tmp_path / "copy"


@pytest.mark.parametrize("name", ["fruit_catch", "FruitCatch"])
def test_three_files(name: str, checkout: Path) -> None:
    before = {path for path in checkout.rglob("*") if path.is_file()}
    written = new_env(name, checkout / "docs")
    assert [str(path.relative_to(checkout)) for path in written] == [
        "native/envs/fruit_catch.hpp",
        "tests/test_env_fruit_catch.py",
        "docs/worlds/fruit_catch.md",
    ]
    assert {path for path in checkout.rglob("*") if path.is_file()} - before == set(written)
    assert "struct FruitCatch {" in written[0].read_text(encoding="utf-8")
    assert not [path for path in written if "@" in path.read_text(encoding="utf-8")]
    with pytest.raises(ConfigError, match=r"FruitCatch is taken by native/envs/fruit_catch\.hpp"):
        new_env(name, checkout)


def test_what_is_written_is_clean(checkout: Path) -> None:
    """As `make check` asks: formatted, and without a complaint of ruff's."""
    header, test, _ = new_env("a_rather_long_name_of_a_game", checkout)
    tools = Path(sys.executable).parent
    for command in (
        [tools / "clang-format", "--dry-run", "-Werror", header],
        [tools / "ruff", "check", "--quiet", test],
        [tools / "ruff", "format", "--check", "--quiet", test],
    ):
        result = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", ["2048", "fruit-catch", "", "fruit__catch", "../fruit", "früchte"])
def test_impossible_names(name: str, checkout: Path) -> None:
    with pytest.raises(ConfigError, match="named like fruit_catch or FruitCatch"):
        new_env(name, checkout)


@pytest.mark.parametrize(
    ("name", "by"),
    [("snake", "envs/snake.hpp"), ("rows", "core/rows.hpp"), ("field", "core/env.hpp"), ("team", "sync/team.hpp")],
)
def test_names_that_are_taken(name: str, by: str, checkout: Path) -> None:
    before = sorted(checkout.rglob("*"))
    with pytest.raises(ConfigError, match=f"is taken by native/{by}"):
        new_env(name, checkout)
    assert sorted(checkout.rglob("*")) == before


def test_elsewhere_it_says_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lies in no checkout of shoal"):
        new_env("fruit_catch", tmp_path)


@pytest.fixture
def headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkout's headers in the place of the installed ones."""
    monkeypatch.setattr(scaffold_package, "get_include", lambda: str(ROOT / "native"))


@pytest.mark.usefixtures("headers")
def test_a_package_is_a_project_of_its_own(tmp_path: Path) -> None:
    """tests/test_wheel.py builds one."""
    written = new_package("FruitCatch", tmp_path)
    root = tmp_path / "fruit_catch"
    assert [str(path.relative_to(root)) for path in written] == [
        "pyproject.toml",
        "CMakeLists.txt",
        "README.md",
        "native/fruit_catch.hpp",
        "src/fruit_catch/__init__.py",
        "tests/test_fruit_catch.py",
    ]
    texts = {path.name: path.read_text(encoding="utf-8") for path in written}
    assert not [name for name, text in texts.items() if "@" in text]
    entry = tomllib.loads(texts["pyproject.toml"])["project"]["entry-points"][packages.GROUP]
    assert entry == {"fruit_catch": "fruit_catch._native:environments"}
    assert 'id = "fruit_catch/FruitCatch-v0"' in texts["fruit_catch.hpp"]
    with pytest.raises(ConfigError, match="fruit_catch is there already"):
        new_package("fruit_catch", tmp_path)


@pytest.mark.usefixtures("headers")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("class", "'class' is a name of Python's or shoal's own"),
        ("json", "'json' is a name of Python's"),
        ("fruit-catch", "named like fruit_catch"),
        ("rows", "is taken by native/core/rows.hpp"),
    ],
)
def test_names_that_no_package_can_have(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        new_package(name, tmp_path)
    assert not list(tmp_path.iterdir())


found = EntryPoint("fruit_catch", f"{__name__}:environments", packages.GROUP)


def test_an_extension_of_another_shoal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stamp is compared before anything else of it is read."""
    said = r"cannot be loaded: it was built against .* \(shoal 0\.0\.9, .*; this one is (.*)\): build it again"
    monkeypatch.setattr(EntryPoint, "load", lambda _: capsule("shoal 0.0.9, headers 0123, libstdc++ 1"))
    with pytest.raises(ConfigError, match=said) as refused:
        packages.load(found)
    own = re.search(said, str(refused.value))
    assert own is not None
    monkeypatch.setattr(EntryPoint, "load", lambda _: capsule(own[1]))
    assert packages.load(found) == []


@pytest.mark.parametrize("environments", [None, vars(datetime)["datetime_CAPI"]])
def test_an_entry_point_of_something_else_is_refused(environments: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EntryPoint, "load", lambda _: environments)
    monkeypatch.setattr(packages, "entry_points", lambda **_: [found])
    with pytest.raises(ConfigError, match=r"the environments of .*:environments cannot be loaded: "):
        make("fruit_catch/FruitCatch-v0", 2)
    assert packages.load_all()[0].startswith("the environments of ")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_builds_and_passes_at_once(checkout: Path, tmp_path: Path) -> None:
    """From the command to a passing test, a page of the site and its example, with no other edit.

    -S keeps the installed shoal out of the way: what runs is the copy's.
    """
    command = [str(Path(sys.executable).with_name("shoal")), "new-env", "fruit_catch"]
    made = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    built = tmp_path / "built"
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-build-isolation",
        "--no-deps",
        "--target",
        str(built),
        ".",
    ]
    result = subprocess.run(pip, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    shutil.rmtree(checkout / "src")
    path = os.pathsep.join([str(built), sysconfig.get_paths()["purelib"]])
    environment |= {"PYTHONPATH": path, "NO_MKDOCS_2_WARNING": "1"}
    program = (
        (checkout / "docs/worlds/fruit_catch.md").read_text(encoding="utf-8").split("```")[1].removeprefix("python")
    )

    def run(*arguments: str) -> None:
        command = [sys.executable, "-S", *arguments]
        result = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr

    run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_env_fruit_catch.py")
    run("-c", program)
    pytest.importorskip("mkdocs", reason="the site's tools are not installed: make docs-tools")
    run("-m", "mkdocs", "build", "--strict", "--quiet")
    assert "FruitCatch" in (checkout / "site/index.html").read_text(encoding="utf-8")
