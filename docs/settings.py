"""Writes the tables of settings and presets into the pages from the dataclasses and the sentences under them.

A page has a table NAME between the marks `NAME:start` and `NAME:end`. With --check nothing is changed, and the exit
status is 1 if a page is out of date.
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
from shoal.algos import a2c, bc, distill, dqn, grpo, impala, ppo, ppo_lagrangian, ppo_sac, pqn, r2d2, sac, td3
from shoal.algos.presets import presets
from shoal.envs.action_guard.settings import ActionGuard
from shoal.envs.preprocessing import Preprocessing
from shoal.experiment.options import Options
from shoal.fleet.settings import Placement
from shoal.learn.corrections import Correction
from shoal.learn.curiosity import Curiosity
from shoal.llm.sampler.protocol import Sampling
from shoal.llm.settings import Language
from shoal.memory.settings import Replay
from shoal.nets.network import ActorCriticNet, Network, QNet
from shoal.run.guard.settings import Guarding
from shoal.run.members import Population
from shoal.stream.explorers import Explorers
from shoal.stream.groups.settings import Curriculum
from shoal.stream.self_play import SelfPlay

DOCS = Path(__file__).resolve().parent
TABLES = {
    "ppo": ppo.Config,
    "a2c": a2c.Config,
    "impala": impala.Config,
    "dqn": dqn.Config,
    "pqn": pqn.Config,
    "r2d2": r2d2.Config,
    "sac": sac.Config,
    "td3": td3.Config,
    "ppo_sac": ppo_sac.Config,
    "ppo_lagrangian": ppo_lagrangian.Config,
    "explorers": Explorers,
    "bc": bc.Config,
    "grpo": grpo.Config,
    "distill": distill.Config,
    "sampling": Sampling,
    "correction": Correction,
    "curriculum": Curriculum,
    "language": Language,
    "replay": Replay,
    "q_network": QNet,
    "actor_critic": ActorCriticNet,
    "options": Options,
    "network": Network,
    "self_play": SelfPlay,
    "guarding": Guarding,
    "placement": Placement,
    "population": Population,
    "curiosity": Curiosity,
    "preprocessing": Preprocessing,
    "action_guard": ActionGuard,
}
PRESETS = {
    "ppo": ("ppo", ""),
    "a2c": ("a2c", ""),
    "impala": ("impala", ""),
    "dqn": ("dqn", ""),
    "pqn": ("pqn", ""),
    "sac": ("sac", ""),
    "td3": ("td3", ""),
    "grpo": ("grpo", ""),
    "replay": ("", "replay."),
    "q_network": ("dqn", "network."),
    "options": ("", ""),
    "network": ("", "network."),
}
"""Tables that say which values the presets have: of which algorithm (all of them where empty), under which prefix."""


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


def settings_table(name: str) -> list[str]:
    """A row for each field: name, default, the values of the presets where the table has them, sentence."""
    kind: Any = TABLES[name]
    said = {field: text for base in reversed(kind.__mro__[:-1]) for field, text in sentences(base).items()}
    used = values_of_presets(*PRESETS[name]) if name in PRESETS else {}
    rows: list[str] = []
    for field in fields(kind):
        cells = [f"`{field.name}`", default_of(field), *([spread(used.get(field.name, []))] if used else [])]
        rows.append(f"| {' | '.join(cells)} | {said.get(field.name, '')} |")
    head = ["| setting | default | presets | |", "|---|---|---|---|"]
    return [*(head if used else ["| setting | default | |", "|---|---|---|"]), *rows]


def values_of_presets(algorithm: str, prefix: str) -> dict[str, list[Any]]:
    """The values that presets give to each setting under a prefix."""
    found: dict[str, list[Any]] = {}
    for name in [algorithm] if algorithm else algos.summaries():
        for values in presets(name).values():
            for key, value in flatten(values):
                if key.startswith(prefix):
                    found.setdefault(key.removeprefix(prefix), []).append(value)
    return found


def spread(values: list[Any]) -> str:
    """The least and the largest of numbers, or every value once; a dash for none."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if not values:
        return "–"
    if len(numbers) < len(values):
        return ", ".join(dict.fromkeys(show(tuple(v) if isinstance(v, list) else v) for v in values))
    least, largest = min(numbers), max(numbers)
    return show(least) if least == largest else f"{show(least)} to {show(largest)}"


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
    """Writes or checks the pages; the exit status."""
    tables = {name: settings_table(name) for name in TABLES} | {"presets": presets_table()}
    stale: list[str] = []
    for page in sorted(DOCS.glob("*.md")):
        text = updated = page.read_text(encoding="utf-8")
        for name, lines in tables.items():
            start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
            block = "\n".join([start, "", *lines, "", end])
            updated = re.sub(f"{re.escape(start)}.*?{re.escape(end)}", lambda _, b=block: b, updated, flags=re.DOTALL)
        if updated != text:
            stale.append(page.name)
            if "--check" not in sys.argv[1:]:
                page.write_text(updated, encoding="utf-8")
    if stale and "--check" in sys.argv[1:]:
        print(f"not the settings of the code: {', '.join(stale)}; run python docs/settings.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
