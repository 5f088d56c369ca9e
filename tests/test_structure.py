"""The shape of the house: sizes of files and functions, the order of the rooms, one version everywhere."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "shoal"
PACKAGES_OF_NATIVE = {"envs", "memory", "math", "nets", "learn"}
MAX_FILE, MAX_ALGORITHM, MAX_FUNCTION = 500, 320, 60


def find_sources(*suffixes: str) -> list[Path]:
    folders = ("src", "native", "benchmarks", "scripts", "tests")
    found = (path for folder in folders for path in sorted((ROOT / folder).rglob("*")))
    return [path for path in found if path.suffix in suffixes and not {".venvs", ".build"} & set(path.parts)]


def count_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def measure_python_functions(source: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def blank_cpp(source: str) -> str:
    """The source with comments, literals and preprocessor lines blanked out; every line keeps its number."""
    pattern = (
        r'//[^\n]*|/\*.*?\*/|R"\((?:.*?)\)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*'
    )
    # A quote between digits separates thousands and opens nothing.
    source = re.sub(r"(?<=[0-9a-fA-F])'(?=[0-9a-fA-F])", "_", source)
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m.group()), source, flags=re.DOTALL | re.MULTILINE)


def is_scope(header: str) -> bool:
    """Whether the text before a brace opens a namespace, a type or a concept rather than a function."""
    header = re.sub(r"template\s*<[^{}]*?>(?=\s*(?:class|struct|union|requires|[\w:]))", " ", header)
    header = re.sub(r"alignas\s*\([^()]*\)", " ", header)
    return bool(re.search(r"\b(?:namespace|class|struct|union|enum|extern)\b", header)) and "(" not in header


def measure_cpp_functions(source: str) -> Iterator[tuple[str, int]]:
    """Outermost braces in namespaces and types that are neither of them, nor a value: functions and their lines."""
    text = blank_cpp(source)
    scopes: list[bool] = []  # for each open brace: does it hold declarations?
    start = opened = 0  # of the declaration being read; of its last outermost brace
    for match in re.finditer(r"[{};]|\b(?:public|private|protected)\s*:(?!:)", text):
        declaring = all(scopes)
        if match.group() == "{":
            scope = declaring and is_scope(text[start : match.start()])
            opened = match.start() if declaring else opened
            scopes.append(scope)
            start = match.end() if scope else start
        elif match.group() == "}":
            was_scope = scopes.pop()
            if was_scope:
                start = match.end()
            elif all(scopes) and not re.match(r"\s*[,{]", text[match.end() :]):  # else a member's initializer
                header = text[start:opened]
                if not header.rstrip().endswith("="):
                    begin = start + len(header) - len(header.lstrip())
                    yield " ".join(header.split())[-80:], text.count("\n", begin, match.end()) + 1
                start = match.end()
        elif declaring:
            start = match.end()


def find_imports(path: Path) -> set[str]:
    """Every absolute dotted name that a file of the package imports, also inside functions."""
    inside = path.relative_to(PACKAGE.parent).with_suffix("").parts
    package = inside[:-1]  # the same for a module and for its package's __init__
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (start, node.module)))
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def test_files_are_short() -> None:
    long = {str(path.relative_to(ROOT)): count_lines(path) for path in find_sources(".py", ".hpp", ".cpp")}
    assert {name: lines for name, lines in long.items() if lines > MAX_FILE} == {}


def test_algorithms_are_shorter() -> None:
    long = {path.name: count_lines(path) for path in (PACKAGE / "algos").glob("*.py")}
    assert {name: lines for name, lines in long.items() if lines > MAX_ALGORITHM} == {}


def test_functions_are_short() -> None:
    long: dict[str, int] = {}
    for path in find_sources(".py", ".hpp", ".cpp"):
        source = path.read_text(encoding="utf-8")
        measured = measure_python_functions(source) if path.suffix == ".py" else measure_cpp_functions(source)
        long |= {f"{path.relative_to(ROOT)}: {name}": lines for name, lines in measured if lines > MAX_FUNCTION}
    assert long == {}


def test_reading_of_cpp() -> None:
    source = """
namespace shoal {  // not a { function
template <class T>
struct Row : Base<T> {
  int x{0};
 public:
  explicit Row(int n)
      : x{n}, y(1'000) {
    if (n) { x = '}'; }
  }
  T step() const noexcept { return {}; }
};
constexpr int table[] = {
  1, 2,
};
template <class T> requires(sizeof(T) > 1)
void run(T t, const char* s = "}") {
  auto f = [&](int i) {
    return i;
  };
}
}
"""
    assert [lines for name, lines in measure_cpp_functions(source) if "(" in name] == [4, 1, 6]


def test_no_algorithm_imports_another() -> None:
    algorithms = {path.stem: path for path in (PACKAGE / "algos").glob("*.py") if path.stem != "__init__"}
    algorithms = {name: path for name, path in algorithms.items() if "\ndef train(" in path.read_text(encoding="utf-8")}
    assert {"ppo", "a2c"} <= set(algorithms)
    for name, path in algorithms.items():
        imported = {part.split(".")[2] for part in find_imports(path) if part.startswith("shoal.algos.")}
        assert not imported & (set(algorithms) - {name}), f"{path.name} imports {imported}"


def test_native_is_imported_by_its_packages_only() -> None:
    for path in PACKAGE.rglob("*.py"):
        package = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if package not in PACKAGES_OF_NATIVE:
            assert not any(name.startswith("shoal._native") for name in find_imports(path)), path


def test_packages_are_in_order() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


WITHOUT_TORCH = """
import importlib
import pkgutil
import sys

name = sys.argv[1]
package = importlib.import_module(name)
for found in pkgutil.walk_packages(getattr(package, "__path__", []), name + "."):
    importlib.import_module(found.name)
    if "torch" in sys.modules:
        sys.exit(f"{found.name} imports torch")
sys.exit("torch" in sys.modules)
"""


@pytest.mark.parametrize("package", ["shoal.types", "shoal.envs", "shoal.check", "shoal.export"])
def test_torch_stays_out_of_every_module(package: str) -> None:
    result = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, package], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("module", ["shoal", "shoal.run.log", "shoal.cli"])
def test_torch_stays_out(module: str) -> None:
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_one_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [version]
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == version
