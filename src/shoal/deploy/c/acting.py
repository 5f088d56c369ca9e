"""Actions: the numbers of the head become what the environment takes, and the functions that callers have."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from shoal.deploy.c.interface import act_head, numbers_of, step_head
from shoal.deploy.c.names import c_type
from shoal.deploy.c.network import function
from shoal.deploy.names import fields_of, is_plain
from shoal.deploy.program import Choose
from shoal.envs.mask_places import observed_places

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.deploy.c.interface import Interface
    from shoal.deploy.program import Move
    from shoal.envs.mask_places import Place

MESSAGES = (
    "fine",
    "the observation has another length than the policy was trained with",
    "the observation holds NaN or infinity",
    "a choice in the observation is outside its space",
    "the mask leaves no option",
    "the policy was exported for another specification of observations and actions",
)


def choosing(face: Interface) -> str:
    """`choose`: from the numbers of the head to an action."""
    lines: list[str] = []
    fields = fields_of(face.spec.action)
    targets = [f"action->{field}" for field in fields] or ["action"]
    number, uniform, normal = 0, 0, face.program.uniforms
    for part, to in zip(face.program.head, targets, strict=True):
        scalar = not part.leaf.shape and to != "action"
        if isinstance(part, Choose):
            lines += _choices(face, part, to, number, uniform, scalar=scalar)
            uniform += len(part.options)
        else:
            lines += _moves(face, part, to, number, normal, scalar=scalar)
            normal += part.size
        number += part.numbers
    head = f"static {face.prefix}_status choose(const float *restrict number, "
    for kind, name, _ in face.extras:
        head += f"{kind}{name}, " if name != "state" else ""
    head += f"{face.action_argument})"
    return function(head, [*lines, f"return {face.prefix.upper()}_OK;"])


def _choices(
    face: Interface, part: Choose, to: str, number: int, uniform: int, *, scalar: bool
) -> list[str]:
    lines: list[str] = []
    pairs = zip(part.options, part.first, strict=True)
    for choice, (options, first) in enumerate(pairs):
        at = f"number + {number}, mask == NULL ? NULL : mask + {number}, {options}"
        call = f"highest({at})"
        if face.program.draws:
            call = f"noise == NULL ? {call} : drawn({at}, noise[{uniform}])"
        place = to if scalar else f"{to}[{choice}]"
        began = f"{first} + " if first else ""
        lines += [
            "{",
            f"  const int chosen = {call};",
            f"  if (chosen < 0) return {face.prefix.upper()}_MASK;",
            f"  {place} = ({c_type(part.leaf)})({began}chosen);",
            "}",
        ]
        number += options
        uniform += 1
    return lines


def _moves(
    face: Interface, part: Move, to: str, number: int, normal: int, *, scalar: bool
) -> list[str]:
    kind, size = c_type(part.leaf), part.size
    value = f"number[{number} + i]"
    noise = ""
    if face.program.draws:
        if isinstance(part.log_std, str):
            deviation = f"exponential(bounded(number[{number + size} + i]))"
        else:
            deviation = "deviation[i]"
        noise = f" + (noise == NULL ? 0.0f : {deviation} * noise[{normal} + i])"
    place = to if scalar else f"{to}[i]"
    lines = ["{", *_bounds(part, kind)]
    if not isinstance(part.log_std, str) and face.program.draws:
        written = ", ".join(f"{x:.8e}f" for x in np.exp(part.log_std).tolist())
        lines.append(f"  static const float deviation[{size}] = {{{written}}};")
    lines.append(f"  for (int i = 0; i < {size}; i++) {{")
    lines.append(f"    const float mean = {value}{noise};")
    if part.squash:
        half = "(high[i] - low[i]) / 2"
        lines.append(
            f"    const {kind} wanted = low[i] + {half} * (hyperbolic_tangent(mean) + 1);"
        )
    else:
        lines.append(f"    const {kind} wanted = mean;")
    lines += [
        f"    {place} = wanted < low[i] ? low[i] : wanted > high[i] ? high[i] : wanted;",
        "  }",
        "}",
    ]
    return lines


def _bounds(part: Move, kind: str) -> list[str]:
    lines: list[str] = []
    for name, bounds in (("low", part.low), ("high", part.high)):
        written = ", ".join(_written(bounds))
        lines.append(f"  static const {kind} {name}[{part.size}] = {{{written}}};")
    return lines


def _written(bounds: NDArray[np.floating]) -> list[str]:
    """Bounds as C writes them, with all digits of their type."""
    single = bounds.dtype == np.float32
    written: list[str] = []
    for bound in bounds.tolist():
        if np.isinf(bound):
            written.append("-INFINITY" if bound < 0 else "INFINITY")
        else:
            written.append(f"{bound:.8e}f" if single else f"{bound:.16e}")
    return written


def functions(face: Interface) -> str:
    """The functions that callers have, less `PREFIX_check`."""
    made = [_message(face), _check_spec(face)]
    if face.program.has_state:
        head = f"void {face.prefix}_begin({face.prefix}_state *state)"
        made.append(function(head, ["memset(state, 0, sizeof *state);"]))
    made += [_step(face), _act(face), _step_batch(face)]
    return "\n".join(made)


def _message(face: Interface) -> str:
    lines = ["static const char *const messages[] = {"]
    lines += [f'  "{message}",' for message in MESSAGES]
    lines += [
        "};",
        f'if ((int)status < 0 || (int)status >= {len(MESSAGES)}) return "an unknown status";',
        "return messages[status];",
    ]
    prefix = face.prefix
    return function(f"const char *{prefix}_message({prefix}_status status)", lines)


def _check_spec(face: Interface) -> str:
    upper = face.prefix.upper()
    same = f"strcmp(sha256, {upper}_SPEC_SHA256) == 0"
    line = f"return {same} ? {upper}_OK : {upper}_SPEC;"
    head = f"{face.prefix}_status {face.prefix}_check_spec(const char *sha256)"
    return function(head, [line])


def limiting(face: Interface) -> str:
    """`limit`: an action within the bounds of the run's action guard, and near the one before; "" without one."""
    limits = face.program.limits
    if limits is None:
        return ""
    kind, size = c_type(face.spec.action.single), len(limits.low)
    slow = face.program.changes_slowly
    lines = [
        f"static const double low[{size}] = {{{', '.join(_doubles(limits.low))}}};",
        f"static const double high[{size}] = {{{', '.join(_doubles(limits.high))}}};",
    ]
    if slow:
        change = ", ".join(_doubles(limits.max_change))
        lines.append(f"static const double change[{size}] = {{{change}}};")
    lines += [
        f"for (int i = 0; i < {size}; i++) {{",
        "  double least = low[i], most = high[i];",
    ]
    if slow:
        lines += [
            "  if (state->begun) {",
            "    if (state->previous[i] - change[i] > least) least = state->previous[i] - change[i];",
            "    if (state->previous[i] + change[i] < most) most = state->previous[i] + change[i];",
            "  }",
        ]
    lines += [
        "  double wanted = action[i] < least ? least : (double)action[i];",
        "  wanted = wanted > most ? most : wanted;",
        f"  {kind} kept = ({kind})wanted;",
        f"  kept = kept < ({kind})low[i] ? ({kind})low[i] : kept > ({kind})high[i] ? ({kind})high[i] : kept;",
    ]
    if slow:
        after = "nextafterf" if kind == "float" else "nextafter"
        lines += [
            "  if (state->begun && fabs(kept - state->previous[i]) > change[i]) /* by rounding */",
            f"    kept = {after}(kept, ({kind})state->previous[i]);",
            "  state->previous[i] = kept;",
        ]
    lines += ["  action[i] = kept;", "}"]
    state = f"{face.prefix}_state *restrict state, " if slow else ""
    lines += ["state->begun = 1;"] if slow else []
    return function(f"static void limit({state}{face.action_argument})", lines)


def _doubles(numbers: tuple[float, ...]) -> list[str]:
    return _written(np.array(numbers, np.float64))


def _step(face: Interface) -> str:
    """An action for one observation. The state changes only where there is one."""
    program, prefix, upper = face.program, face.prefix, face.prefix.upper()
    lines = [
        f"const {prefix}_status fits = {prefix}_check(obs, length);",
        f"if (fits != {upper}_OK) return fits;",
        f"float x[{program.size}], number[{program.numbers}];",
        "encode(obs, x);",
    ]
    rest = [name for _, name, _ in face.extras if name != "state"]
    places = observed_places(face.spec)
    if places:
        lines += _allowed(face, places)
        rest = ["allowed" if name == "mask" else name for name in rest]
    chosen = ", ".join(["number", *rest, "action"])
    if program.memory is None:
        lines.append("decide(x, number);")
    else:
        lines += [f"{prefix}_state next = *state;", "decide(x, &next, number);"]
    lines.append(f"const {prefix}_status made = choose({chosen});")
    lines.append(f"if (made != {upper}_OK) return made;")
    if program.memory is not None:
        lines.append("*state = next;")
    if program.limits is not None:
        state = "state, " if program.changes_slowly else ""
        lines.append(f"limit({state}action);")
    lines.append(f"return {upper}_OK;")
    return function(step_head(face, batch=False), lines)


def _allowed(face: Interface, places: list[Place]) -> list[str]:
    """`allowed`: the options that the observation's own masks and the caller's leave."""
    size = face.program.options
    numbers = [part.numbers for part in face.program.head]
    begins = [0, *accumulate(numbers)]
    fields = fields_of(face.spec.observation)
    lines = [
        f"uint8_t allowed[{size}];",
        f"for (int i = 0; i < {size}; i++) allowed[i] = mask == NULL || mask[i] != 0;",
    ]
    for place in places:
        leaf, name = (
            face.spec.observation.leaves[place.observed],
            fields[place.observed],
        )
        value = f"obs->{name}[i]" if leaf.shape else f"obs->{name}"
        to = begins[place.action] + place.first
        lines += [
            f"for (int i = 0; i < {place.size}; i++)",
            f"  if ({value} == 0) allowed[{to} + i] = 0;",
        ]
    return lines


def _act(face: Interface) -> str:
    extras = ["state" if name == "state" else "NULL" for _, name, _ in face.extras]
    given = ", ".join(["obs", "length", *extras, "action"])
    return function(act_head(face), [f"return {face.prefix}_step({given});"])


def _step_batch(face: Interface) -> str:
    prefix, upper = face.prefix, face.prefix.upper()
    given = [_row(face, "observation"), "length"]
    for _, name, away in face.extras:
        row = f"{name} + row * {away}" if away != "1" else f"{name} + row"
        given.append(row if name == "state" else f"{name} == NULL ? NULL : {row}")
    given.append(_row(face, "action"))
    lines = [
        "for (size_t row = 0; row < count; row++) {",
        f"  const {prefix}_status made = {prefix}_step({', '.join(given)});",
        f"  if (made != {upper}_OK) return made;",
        "}",
        f"return {upper}_OK;",
    ]
    return function(step_head(face, batch=True), lines)


def _row(face: Interface, what: str) -> str:
    layout = face.spec.observation if what == "observation" else face.spec.action
    name = "obs" if what == "observation" else "action"
    away = f" * {numbers_of(layout)}" if is_plain(layout) else ""
    return f"{name} + row{away}"
