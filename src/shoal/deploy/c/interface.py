"""The interface of an exported policy: its types and functions, as the header declares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shoal.deploy.c.names import c_type, comment
from shoal.deploy.names import fields_of, is_plain

if TYPE_CHECKING:
    from shoal.deploy.program import Program
    from shoal.types import Layout, Leaf, Spec


@dataclass(frozen=True, slots=True)
class Interface:
    """What callers of a program see."""

    spec: Spec
    program: Program
    prefix: str
    sha256: str
    """Of what is observed and done."""

    @property
    def length_name(self) -> str:
        """The constant that an observation's length is compared with."""
        return f"{self.prefix.upper()}_OBS_LENGTH"

    @property
    def obs_argument(self) -> str:
        """An observation, or several, as an argument."""
        return f"const {_pointed(self.spec.observation, self.prefix, 'observation')} *restrict obs"

    @property
    def action_argument(self) -> str:
        """An action, or several, as an argument."""
        kind = _pointed(self.spec.action, self.prefix, "action")
        return f"{kind} *restrict action"

    @property
    def extras(self) -> list[tuple[str, str, str]]:
        """The arguments beside these: type, name, and what a batch's next row is away."""
        found: list[tuple[str, str, str]] = []
        upper = self.prefix.upper()
        if self.program.options:
            found.append(("const uint8_t *", "mask", f"{upper}_OPTIONS"))
        if self.program.has_state:
            found.append((f"{self.prefix}_state *", "state", "1"))
        if self.program.draws:
            found.append(("const float *", "noise", f"{upper}_NOISE_LENGTH"))
        return found


def _pointed(layout: Layout, prefix: str, what: str) -> str:
    """The type that a pointer to rows of a layout points to."""
    return c_type(layout.single) if is_plain(layout) else f"{prefix}_{what}"


def numbers_of(layout: Layout) -> int:
    """Numbers in one row of a plain layout."""
    return int(np.prod(layout.single.shape))


def act_head(face: Interface) -> str:
    """`PREFIX_act`: the greedy action for one observation."""
    state = f"{face.prefix}_state *state, " if face.program.has_state else ""
    return (
        f"{face.prefix}_status {face.prefix}_act({face.obs_argument}, size_t length, "
        f"{state}{face.action_argument})"
    )


def step_head(face: Interface, *, batch: bool) -> str:
    """`PREFIX_step` or `PREFIX_step_batch`: an action for one observation or for several, with all arguments."""
    count = "size_t count, " if batch else ""
    extras = "".join(f"{kind}{name}, " for kind, name, _ in face.extras)
    name = "step_batch" if batch else "step"
    return (
        f"{face.prefix}_status {face.prefix}_{name}({face.obs_argument}, size_t length, "
        f"{count}{extras}{face.action_argument})"
    )


def header(face: Interface) -> str:
    """The text of PREFIX.h."""
    upper = face.prefix.upper()
    program, spec = face.program, face.spec
    lines = [
        f"/* The policy of {comment(spec.env_id)} as C99, written by shoal; see spec.json beside it. */",
        f"#ifndef {upper}_H",
        f"#define {upper}_H",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#define restrict",
        "#endif",
        "",
        f'#define {upper}_SPEC_SHA256 "{face.sha256}"',
        *_layout_lines(face, "observation"),
        *_layout_lines(face, "action"),
    ]
    if program.options:
        lines.append(f"#define {upper}_OPTIONS {program.options} /* in a mask */")
    if program.draws:
        lines += _noise_lines(face)
    if program.has_state:
        lines += _state_lines(face)
    lines += ["", *_status_lines(face), "", *_function_lines(face), ""]
    lines += ["#ifdef __cplusplus", "#undef restrict", "}", "#endif", "#endif", ""]
    return "\n".join(lines)


def _layout_lines(face: Interface, what: str) -> list[str]:
    """The constant of an observation's or an action's length, and its structure where it is nested."""
    layout = face.spec.observation if what == "observation" else face.spec.action
    prefix = face.prefix
    name = f"{prefix.upper()}_{'OBS' if what == 'observation' else 'ACTION'}_LENGTH"
    if is_plain(layout):
        return [
            f"#define {name} {numbers_of(layout)} /* numbers in one {what} {list(layout.single.shape)} */"
        ]
    lines = ["", "typedef struct {"]
    for leaf, field in zip(layout.leaves, fields_of(layout), strict=True):
        lines.append(f"  {_field(leaf, field)}; /* {comment(leaf.name)} */")
    lines += [f"}} {prefix}_{what};", ""]
    return [*lines, f"#define {name} sizeof({prefix}_{what}) /* bytes in one {what} */"]


def _field(leaf: Leaf, name: str) -> str:
    if not leaf.shape:
        return f"{c_type(leaf)} {name}"
    return f"{c_type(leaf)} {name}[{int(np.prod(leaf.shape))}]"


def _noise_lines(face: Interface) -> list[str]:
    uniforms, normals = face.program.uniforms, face.program.normals
    kinds: list[str] = []
    if uniforms:
        kinds.append(f"{uniforms} uniform in [0, 1)")
    if normals:
        kinds.append(f"{normals} standard normal")
    said = ", then ".join(kinds)
    length = uniforms + normals
    return [f"#define {face.prefix.upper()}_NOISE_LENGTH {length} /* {said} */"]


def _state_lines(face: Interface) -> list[str]:
    program = face.program
    fields: list[str] = []
    if program.memory is not None:
        units = program.memory.units
        fields += [f"  float {name}[{units}];" for name in program.memory.arrays]
    if program.changes_slowly:
        size = numbers_of(face.spec.action)
        fields.append(f"  double previous[{size}]; /* the action before */")
        fields.append("  int32_t begun; /* whether there was one */")
    return [
        "",
        f"/* What the policy remembers of an episode; one for each that it plays. Zeros, as {face.prefix}_begin "
        "writes, begin one. */",
        "typedef struct {",
        *fields,
        f"}} {face.prefix}_state;",
    ]


def _status_lines(face: Interface) -> list[str]:
    upper = face.prefix.upper()
    names = [
        ("OK", ""),
        ("LENGTH", "an observation of another length"),
        ("FINITE", "an observation holds NaN or infinity"),
        ("RANGE", "a choice in an observation is outside its space"),
        ("MASK", "a mask leaves no option of a choice"),
        ("SPEC", "the policy of another specification"),
    ]
    lines = ["typedef enum {"]
    for number, (name, said) in enumerate(names):
        note = f" /* {said} */" if said else ""
        lines.append(f"  {upper}_{name} = {number},{note}")
    return [*lines, f"}} {face.prefix}_status;"]


def _function_lines(face: Interface) -> list[str]:
    prefix = face.prefix
    lines = [
        "/* What a status means, as a sentence. */",
        f"const char *{prefix}_message({prefix}_status status);",
        "",
        f"/* Whether a caller was written for this policy: compares with {prefix.upper()}_SPEC_SHA256. */",
        f"{prefix}_status {prefix}_check_spec(const char *sha256);",
        "",
        "/* Whether an observation can be acted on; the functions below ask it first. */",
        f"{prefix}_status {prefix}_check({face.obs_argument}, size_t length);",
        "",
    ]
    if face.program.has_state:
        lines += [f"void {prefix}_begin({prefix}_state *state);", ""]
    lines += [
        f"/* The greedy action for one observation of `length` {face.length_name}. */",
        f"{act_head(face)};",
        "",
        "/* The same with all arguments, of which mask (1 where an option is allowed) and noise may be NULL;",
        "   noise draws the action from the policy's distribution. A mask in the observation holds as well. */",
        f"{step_head(face, batch=False)};",
        "",
        "/* The same for `count` observations one after another, as their masks, states, noise and actions are;",
        "   `length` is still that of one. It stops at the first that is refused. */",
        f"{step_head(face, batch=True)};",
    ]
    return lines
