"""Writes the tables of settings and presets into docs/algorithms.md from the dataclasses and the sentences under them.

With --check it changes nothing and exits 1 if the page is out of date.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from shoal import algos
from shoal.algos import a2c, ppo
from shoal.algos.presets import presets
from shoal.experiment.options import Options
from shoal.nets.policy import Network
from shoal.stream.self_play import SelfPlay

PAGE = Path(__file__).resolve().parent / "algorithms.md"
TABLES = {"ppo": ppo.Config, "a2c": a2c.Config, "options": Options, "network": Network, "self_play": SelfPlay}


def sentences(kind: type) -> dict[str, str]:
    """The string under each field of a dataclass."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    name = ""
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            found[name], name = " ".join(str(node.value.value).split()), ""
    return found


def show(value: Any) -> str:
    """A default as a reader would write it."""
    if is_dataclass(value):
        return "see below"
    if isinstance(value, tuple):
        return "`" + " ".join(map(str, value)) + "`" if value else "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"`{value:_}`"
    return f"`{value}`"


def settings_table(kind: Any) -> list[str]:
    """A row for each field: name, default, sentence."""
    said = sentences(kind)
    rows = [f"| `{f.name}` | {default_of(f)} | {said.get(f.name, '')} |" for f in fields(kind)]
    return ["| setting | default | |", "|---|---|---|", *rows]


def default_of(field: Field[Any]) -> str:
    """A field's default as a reader would write it."""
    if field.default is not MISSING:
        return show(field.default)
    return "required" if field.default_factory is MISSING else show(field.default_factory())


def presets_table() -> list[str]:
    """A row for each preset: algorithm, name, what differs from the defaults."""
    rows = ["| algorithm | preset | what it sets |", "|---|---|---|"]
    for algorithm in algos.summaries():
        for name, values in presets(algorithm).items():
            parts = [f"`{key}={value}`" for key, value in flatten(values)]
            rows.append(f"| {algorithm} | `{name}` | {', '.join(parts)} |")
    return rows


def flatten(values: dict[str, Any]) -> list[tuple[str, Any]]:
    """Nested settings under dotted names."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        pairs += [(f"{key}.{k}", v) for k, v in flatten(value)] if isinstance(value, dict) else [(key, value)]
    return pairs


def main() -> int:
    """Writes or checks the page; the exit status."""
    tables = {name: settings_table(kind) for name, kind in TABLES.items()} | {"presets": presets_table()}
    text = PAGE.read_text(encoding="utf-8")
    updated = text
    for name, lines in tables.items():
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        block = "\n".join([start, "", *lines, "", end])
        updated = re.sub(f"{re.escape(start)}.*?{re.escape(end)}", lambda _, b=block: b, updated, flags=re.DOTALL)
    if updated != text and "--check" in sys.argv[1:]:
        print(f"{PAGE} does not show the settings of the code; run python docs/settings.py")
        return 1
    PAGE.write_text(updated, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
