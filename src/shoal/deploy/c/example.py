"""The example beside an exported policy: acts on zeros, and measures how long one observation takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.deploy.c.interface import numbers_of
from shoal.deploy.c.names import c_type
from shoal.deploy.names import is_plain

if TYPE_CHECKING:
    from shoal.deploy.c.interface import Interface
    from shoal.types import Layout


def example(face: Interface) -> str:
    """The text of example.c."""
    prefix, upper = face.prefix, face.prefix.upper()
    memory = face.program.has_state
    obs = _declared(face.spec.observation, prefix, "observation", "obs")
    action = _declared(face.spec.action, prefix, "action", "action")
    obs_at, action_at = (
        name if is_plain(layout) else f"&{name}"
        for name, layout in (
            ("obs", face.spec.observation),
            ("action", face.spec.action),
        )
    )
    given = ", ".join(
        [obs_at, face.length_name, *(["&state"] if memory else []), action_at]
    )
    state = f"  {prefix}_state state;\n  {prefix}_begin(&state);\n" if memory else ""
    return f"""\
/* Acts on an observation of zeros a million times: make && ./example */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "{prefix}.h"

int main(void) {{
  static {obs};
  static {action};
  if ({prefix}_check_spec({upper}_SPEC_SHA256) != {upper}_OK) return 1;
{state}  const int steps = 1000000;
  const clock_t began = clock();
  for (int step = 0; step < steps; step++) {{
    const {prefix}_status status = {prefix}_act({given});
    if (status != {upper}_OK) {{
      printf("step %d: %s\\n", step, {prefix}_message(status));
      return 1;
    }}
  }}
  const double seconds = (double)(clock() - began) / CLOCKS_PER_SEC;
  printf("%.3f microseconds for one observation\\n", seconds / steps * 1e6);
  return 0;
}}
"""


def _declared(layout: Layout, prefix: str, what: str, name: str) -> str:
    if is_plain(layout):
        return f"{c_type(layout.single)} {name}[{numbers_of(layout)}]"
    return f"{prefix}_{what} {name}"
