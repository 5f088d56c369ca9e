"""Holding: the bounds of an action guard, and its limit on changes, in C."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoal.deploy.c.names import c_type
from shoal.deploy.c.network import function

if TYPE_CHECKING:
    from shoal.deploy.c.interface import Interface


def hold_head(face: Interface) -> str:
    """`PREFIX_hold`: an action within the limits of the run's guard."""
    kind = c_type(face.spec.action.single)
    return f"void {face.prefix}_hold(const {kind} *previous, {kind} *action)"


def declaration(face: Interface) -> list[str]:
    """The lines of the header; none where the run had no limits."""
    if face.limits is None:
        return []
    return [
        "",
        "/* Holds an action to the run's action guard: its bounds, and how far it may be from `previous`, what was",
        "   done in the step before; NULL where an episode begins. The functions above have held it to the bounds. */",
        f"{hold_head(face)};",
    ]


def holding(face: Interface) -> str:
    """`PREFIX_hold`; nothing where the run had no limits."""
    if face.limits is None:
        return ""
    limits = face.limits
    kind = c_type(face.spec.action.single)
    toward = "nextafterf" if kind == "float" else "nextafter"
    lines = [*_table("low", limits.low), *_table("high", limits.high)]
    if limits.max_change:
        lines += _table("change", limits.max_change)
    lines += [
        f"for (int i = 0; i < {len(limits.low)}; i++) {{",
        "  double least = low[i], most = high[i], wanted = action[i];",
    ]
    if limits.max_change:
        lines += [
            "  if (previous != NULL) {",
            "    const double before = previous[i];",
            "    if (before - change[i] > least) least = before - change[i];",
            "    if (before + change[i] < most) most = before + change[i];",
            "  }",
        ]
    lines += [
        "  wanted = wanted < least ? least : wanted > most ? most : wanted;",
        f"  {kind} kept = ({kind})wanted;",
        f"  if (kept < low[i]) kept = ({kind})low[i];",
        f"  if (kept > high[i]) kept = ({kind})high[i];",
    ]
    if limits.max_change:
        far = "fabs((double)kept - (double)previous[i]) > change[i]"
        lines += [
            f"  if (previous != NULL && {far}) kept = {toward}(kept, previous[i]);"
        ]
    else:
        lines.append("  (void)previous;")
    lines += ["  action[i] = kept;", "}"]
    return function(hold_head(face), lines)


def held(face: Interface, call: str) -> list[str]:
    """What becomes of the status that `call` gives: the action is within the bounds where there is one."""
    if face.limits is None:
        return [f"return {call};"]
    prefix = face.prefix
    return [
        f"const {prefix}_status fine = {call};",
        f"if (fine == {prefix.upper()}_OK) {prefix}_hold(NULL, action);",
        "return fine;",
    ]


def _table(name: str, numbers: tuple[float, ...]) -> list[str]:
    written = ", ".join(_written(number) for number in numbers)
    return [f"static const double {name}[{len(numbers)}] = {{{written}}};"]


def _written(number: float) -> str:
    if np.isinf(number):
        return "-INFINITY" if number < 0 else "INFINITY"
    return f"{number:.16e}"
