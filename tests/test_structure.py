"""The shape of the code: sizes, how densely it is written, who names and imports what, one version everywhere."""

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "shoal"
PACKAGES_OF_NATIVE = {"envs", "remote", "memory", "math", "nets", "learn"}
MAX_FILE, MAX_CLASS, MAX_FUNCTION = 500, 200, 60
LONG = ("ppo", "ppo_lagrangian", "dqn", "pqn", "sac", "td3", "r2d2", "ppo_sac", "impala", "grpo")
MAX_ALGORITHM = {"a2c": 100} | dict.fromkeys(LONG, 150)
ENCODER = r"\bimpala\b"
"""An image encoder of networks, which stands in the same paper as the algorithm."""
MAX_SHARED = 0.4
"""Of the lines of two algorithms: those that stand in both."""
SAME_IMPORTS = ({"sac", "td3", "ppo_sac"}, {"a2c", "impala"})
MAX_TOKENS_A_LINE = 8.5
MAX_ANY = 0.04
"""Of all parameters: those whose type says nothing."""
NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def find_sources(*suffixes: str) -> list[Path]:
    folders = ("src", "native", "benchmarks", "scripts", "tests")
    found = (path for folder in folders for path in sorted((ROOT / folder).rglob("*")))
    return [path for path in found if path.suffix in suffixes and not {".venvs", ".build"} & set(path.parts)]


def count_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@cache
def parse(path: Path) -> ast.Module:
    """A file's tree, which several tests read."""
    return ast.parse(path.read_text(encoding="utf-8"))


def measure_python_functions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def find_strings_alone(tree: ast.AST) -> set[int]:
    """The lines of docstrings, those of attributes included."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def count_tokens(source: str) -> tuple[int, int]:
    """Tokens and lines of code, without comments, docstrings and the ends of lines."""
    told = find_strings_alone(ast.parse(source))
    tokens, lines = 0, set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE and token.start[0] not in told:
            tokens += 1
            lines.update(range(token.start[0], token.end[0] + 1))
    return tokens, len(lines)


def find_code_lines(path: Path) -> list[str]:
    """Lines that are neither blank nor comments nor docstrings, without their indentation."""
    source = path.read_text(encoding="utf-8")
    told = find_strings_alone(ast.parse(source))
    lines = [line.strip() for number, line in enumerate(source.splitlines(), 1) if number not in told]
    return [line for line in lines if line and not line.startswith("#")]


def find_parameters(tree: ast.AST) -> Iterator[ast.arg]:
    """The parameters of all functions, less self and cls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            several = [one for one in (given.vararg, given.kwarg) if one is not None]
            for parameter in [*given.posonlyargs, *given.args, *given.kwonlyargs, *several]:
                if parameter.arg not in ("self", "cls"):
                    yield parameter


def is_any(annotation: ast.expr | None) -> bool:
    """Whether a type says nothing: Any, or a union with it."""
    if isinstance(annotation, ast.BinOp):
        return is_any(annotation.left) or is_any(annotation.right)
    return isinstance(annotation, ast.Name) and annotation.id == "Any"


def parse_package() -> Iterator[tuple[Path, ast.Module]]:
    written = (path for path in sorted(PACKAGE.rglob("*.py")) if "_pb2" not in path.name)  # others are generated
    for path in written:
        yield path, parse(path)


def find_backends() -> set[str]:
    """The names of the classes in envs/ that hand over rows."""
    found: set[str] = set()
    for path, tree in parse_package():
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        for node in classes if path.is_relative_to(PACKAGE / "envs") else []:
            methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
            if {"send", "recv"} <= methods and "Protocol" not in map(ast.unparse, node.bases):
                found.add(node.name)
    return found


def find_algorithms() -> dict[str, Path]:
    """Files of algos/ with a function train."""
    files = {path.stem: path for path in (PACKAGE / "algos").glob("*.py")}
    return {name: path for name, path in files.items() if "\ndef train(" in path.read_text(encoding="utf-8")}


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
    for node in ast.walk(parse(path)):
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


def test_algorithms_are_short_and_differ() -> None:
    paths = find_algorithms()
    for name, most in MAX_ALGORITHM.items():
        assert count_lines(paths[name]) <= most, name
    lines = {name: find_code_lines(paths[name]) for name in MAX_ALGORITHM}
    for first, second in combinations(lines, 2):
        own = [lines[first], lines[second]]
        if any({first, second} <= alike for alike in SAME_IMPORTS):  # their code is compared
            own = [[x for x in each if not x.startswith(("import ", "from "))] for each in own]
        one, two = map(Counter, own)
        shared = 2 * (one & two).total() / (one.total() + two.total())
        assert shared <= MAX_SHARED, (first, second)


def test_algorithms_are_named_by_themselves_only() -> None:
    """Nothing of the engine, its core and its tools knows which algorithms there are.

    Allowed are their own folders, tests, docs, and what is about them: benchmarks, README and CHANGELOG.
    """
    names = re.compile(rf"\b(?:{'|'.join(find_algorithms())})\b", re.IGNORECASE)
    allowed = [PACKAGE / "algos", ROOT / "native" / "losses", ROOT / "tests", ROOT / "benchmarks"]
    others = [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "CMakeLists.txt", ROOT / ".ci" / "run"]
    found: list[str] = []
    for path in [*find_sources(".py", ".pyi", ".hpp", ".cpp", ".toml"), *others]:
        if not any(path.is_relative_to(folder) for folder in allowed):
            lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            allowed_here = ENCODER if path.is_relative_to(PACKAGE / "nets") else "^$"
            told = ((number, line) for number, line in lines if names.search(re.sub(allowed_here, "", line)))
            found += [f"{path.relative_to(ROOT)}:{number}: {line}" for number, line in told]
    assert found == []


def test_the_engine_names_no_environment_and_no_task() -> None:
    """Neither one that there are presets for nor any other of reasoning-gym's or TextArena's."""
    presets = [
        tomllib.loads(path.read_text(encoding="utf-8")) for path in (PACKAGE / "algos" / "presets").glob("*.toml")
    ]
    known = {
        name.removeprefix("reasoning-gym:") for preset in presets for name in preset if ":" in name or "-v" in name
    }
    assert {"chain_sum", "CartPole-v1"} <= known
    words = {name for name in known if not name.isalpha()}  # products are of matrices too
    names = re.compile(rf"reasoning.gym|textarena|{'|'.join(map(re.escape, sorted(words)))}", re.IGNORECASE)
    engine = [path for folder in ("learn", "stream", "run") for path in (PACKAGE / folder).rglob("*.py")]
    assert [path for path in engine if names.search(path.read_text(encoding="utf-8"))] == []


def test_code_is_not_compressed() -> None:
    counted = [count_tokens(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    tokens, lines = (sum(numbers) for numbers in zip(*counted, strict=True))
    assert tokens / lines <= MAX_TOKENS_A_LINE


def test_counting_of_tokens() -> None:
    source = '''
"""A docstring."""

def add(a: int) -> int:  # a comment
    """Two more
    lines."""
    return (
        a + 1
    )

LIMIT = 3
"""Said of it."""
'''
    assert count_tokens(source) == (10 + 2 + 3 + 1 + 3, 5)


def test_classes_are_short() -> None:
    long: dict[str, int] = {}
    for path, tree in parse_package():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                long[f"{path.relative_to(ROOT)}: {node.name}"] = (node.end_lineno or node.lineno) - node.lineno + 1
    assert {name: lines for name, lines in long.items() if lines > MAX_CLASS} == {}


def test_parameters_have_types() -> None:
    kinds = [is_any(parameter.annotation) for _, tree in parse_package() for parameter in find_parameters(tree)]
    assert sum(kinds) <= MAX_ANY * len(kinds), f"{sum(kinds)} of {len(kinds)} are Any"


def test_nobody_asks_for_the_class_of_a_backend() -> None:
    backends = find_backends()
    assert {"NativeEnv", "SerialEnv", "WorkersEnv"} <= backends
    found: list[str] = []
    for path, tree in parse_package():
        for node in ast.walk(tree) if not path.is_relative_to(PACKAGE / "envs") else []:
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                kinds = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
                found += [f"{path.relative_to(ROOT)}:{node.lineno}"] if kinds & backends else []
    assert found == []


def test_functions_are_short() -> None:
    long: dict[str, int] = {}
    for path in find_sources(".py", ".hpp", ".cpp"):
        python = path.suffix == ".py"
        measured = measure_python_functions(parse(path)) if python else measure_cpp_functions(path.read_text("utf-8"))
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
    algorithms = find_algorithms()
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
