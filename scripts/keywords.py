"""Writes src/shoal/experiment/keywords.py: the settings as typed keywords, for type checkers and editors.

With --check it changes nothing, and exits with 1 where the committed file is not what the settings give.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, Union, get_args, get_origin, get_type_hints

from shoal import algos
from shoal.experiment.options import CHANGEABLE, CHANGEABLE_PARTS, Options

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TARGET = Path("src/shoal/experiment/keywords.py")
PARAMETERS = ("env", "algo", "policy")
"""Settings that `train` has as parameters of its own."""
PATHS = ("run_dir", "init_from", "data")
PLAIN: dict[object, str] = {int: "int | float", float: "float", bool: "bool", str: "str", types.NoneType: "None"}
"""What a plain setting may be given as; whole numbers may be written as 1e6."""
HEAD = '''"""Keywords of `train` and `resume` as types; scripts/keywords.py writes this file from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike

'''


def generate() -> str:
    """The text of the file."""
    hints: dict[str, list[Any]] = {}
    for kind in (Options, *(algos.load(name).Config for name in algos.summaries())):
        for name, hint in get_type_hints(kind).items():
            hints.setdefault(name, []).append(hint)
    fields = {name: written(name, kinds) for name, kinds in hints.items() if name not in PARAMETERS}
    nested = [part for kinds in hints.values() for hint in kinds for part in parts_of(hint) if is_settings(part)]
    names: dict[str, set[str]] = {}
    for part in nested:
        names.setdefault(part.__module__, set()).add(part.__name__)
    imports = [f"    from {module} import {', '.join(sorted(names[module]))}" for module in sorted(names)]
    functions = [
        name for name, kind in fields.items() if "Callable" in kind or name == "action_guard"
    ]  # may be given again
    changes = {name: fields[name] for name in [*CHANGEABLE, *CHANGEABLE_PARTS, *functions]}
    return (
        HEAD
        + "\n".join([*imports, ""])
        + typed_dict("Settings", "Settings of a run and of shoal's algorithms, as they may be given.", fields)
        + typed_dict("Changes", "Settings that a resumed run may change.", changes)
    )


def typed_dict(name: str, about: str, fields: dict[str, str]) -> str:
    """A TypedDict of which every key may be left out."""
    lines = [f"    {field}: {kind}" for field, kind in fields.items()]
    return "\n".join(["", "", f"class {name}(TypedDict, total=False):", f'    """{about}"""', "", *lines, ""])


def written(name: str, hints: Iterable[Any]) -> str:
    """The type of a setting that several classes may have."""
    parts = list(dict.fromkeys(part for hint in hints for part in parts_of(hint)))
    choices = [f'"{part}"' for part in parts if isinstance(part, str)]
    others = [spelled(part) for part in parts if not isinstance(part, str)]
    if choices:
        others.insert(0, f"Literal[{', '.join(choices)}]")
    if name in PATHS:
        others.insert(1, "PathLike[str]")
    return " | ".join(dict.fromkeys(" | ".join(others).split(" | ")))


def parts_of(hint: Any) -> Iterator[Any]:
    """The members of a union, each choice of a Literal, or the type itself."""
    if get_origin(hint) in (Union, types.UnionType):
        for kind in get_args(hint):
            yield from parts_of(kind)
    elif get_origin(hint) is Literal:
        yield from get_args(hint)
    else:
        yield hint


def is_settings(kind: object) -> TypeGuard[type]:
    """Whether it is a class of nested settings."""
    return isinstance(kind, type) and is_dataclass(kind)


def spelled(kind: Any) -> str:
    """A type that is no union, as it is written."""
    if get_origin(kind) is tuple:
        return f"Sequence[{spelled(get_args(kind)[0])}]"
    if is_settings(kind):
        return f"{kind.__name__} | Mapping[str, Any]"
    if get_origin(kind) is Callable:
        taken, given = get_args(kind)
        return f"Callable[[{', '.join(spelled(part) for part in taken)}], {spelled(given)}]"
    return PLAIN[kind]


if __name__ == "__main__":
    text = generate()
    if "--check" not in sys.argv:
        TARGET.write_text(text, encoding="utf-8")
    elif TARGET.read_text(encoding="utf-8") != text:
        sys.exit(f"{TARGET} is not what the settings give: run `make format` and commit it.")
