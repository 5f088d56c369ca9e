"""Rows in processes, compared with the same rows in this one: what `--backend workers` adds to a check."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from gymnasium.vector.utils import batch_space

from shoal.check.legal import legal_rows
from shoal.check.play import same
from shoal.check.report import shown
from shoal.types import Tree, select

if TYPE_CHECKING:
    from shoal.check.report import Findings
    from shoal.envs.vec_env import VecEnv
    from shoal.types import Ready

COMPARED = ("obs", "reward", "terminated", "truncated")
AT_ENDS = ("episode_return",)
ADVICE = (
    "let an episode depend on reset(seed=...) and its actions alone, not on the process: no pid, no environment "
    "variable, no file or global that another row writes, no hash of a text"
)


def check_workers(
    found: Findings,
    here: VecEnv,
    there: VecEnv,
    *,
    seed: int,
    count: int,
) -> bool:
    """Steps both with the same seed and actions, `count` times; whether the rows in processes did the same."""
    rows = slice(0, here.num_rows)
    actions = batch_space(here.spec.action_space, here.num_rows)
    actions.seed(seed)
    for env in (here, there):
        env.reset(seed)
    first, second = here.recv(), there.recv()
    for number in range(count + 1):
        difference = _differ(first, second)
        if difference:
            when = f"after {number} steps" if number else "at the reset"
            says = f"in another process, {when} from the same seed {difference}"
            found.error("workers", says, ADVICE)
            return False
        masks, turn = first.action_mask, first.turn
        action = legal_rows(here.spec.action_space, actions.sample(), masks, turn)
        for env in (here, there):
            env.send(rows, action)
        first, second = here.recv(), there.recv()
    return True


def _differ(here: Ready, there: Ready) -> str:
    """The first value of the first row that differs, or nothing."""
    for row in range(len(here.reward)):
        ended = here.terminated[row] or here.truncated[row]
        for name in (*COMPARED, *AT_ENDS) if ended else COMPARED:
            one = select(getattr(here, name), row)
            other = select(getattr(there, name), row)
            if not same(one, other):
                return f"the {name} of row {row} is {_shown(other)} instead of {_shown(one)}"
    return ""


def _shown(value: Tree) -> str:
    return shown(value.tolist() if isinstance(value, np.generic) else value)
