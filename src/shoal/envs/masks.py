"""Action masks: which options each row may choose, from an observation's or info's `action_mask`."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.types import ConfigError, EnvError, choices, leaf_spaces, select

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.envs.vec_env import Outputs
    from shoal.types import Bools, Spec, Tree

KEY = "action_mask"


class MaskReader:
    """Reads masks nested as the action space is into one row of bools: the options of every choice, side by side.

    A Discrete(n) has n bools, a MultiDiscrete all of its choices' (or a tuple with an array for each choice), a Box or
    a leaf that the mask leaves out is always free.
    """

    def __init__(self, spec: Spec) -> None:
        """`spec`: whose actions are masked. ConfigError where its observation's `action_mask` cannot be one."""
        self.spec = spec
        self._parts: list[tuple[tuple[str | int, ...], Any, int, list[int]]] = []
        options: list[int] = []
        for path, part in leaf_spaces(spec.action_space):
            own = choices(part)
            size = sum(own) or int(np.prod(part.shape or ()))
            self._parts.append((path, part, size, own))
            options += own or [1] * size
        self.size = sum(options)
        self._firsts = list(accumulate(options, initial=0))[:-1]
        if in_observation(spec):
            try:
                self.read(spec.observation.allocate(1)[KEY], 1)
            except ValueError as error:
                raise ConfigError(
                    f"{spec.env_id}: the observation has {error}"
                ) from None

    def read(self, given: Tree, count: int) -> Bools:
        """The mask of `count` rows, [count, size]; ValueError when its form or numbers are wrong."""
        columns: list[Any] = []
        for path, part, size, own in self._parts:
            node, name = given, KEY + "".join(f"[{key!r}]" for key in path)
            for key in path:
                node = None if node is None else _inside(node, key, name)
            if node is None:
                columns.append(np.ones((count, size), np.bool_))
                continue
            pieces: Any = node if isinstance(node, tuple | list) else [node]
            array = np.concatenate(
                [np.asarray(piece).reshape(count, -1) for piece in pieces], axis=1
            )
            if not own:
                raise ValueError(
                    f"an {name} for {part}; only Discrete, MultiDiscrete and MultiBinary have masks"
                )
            if array.shape[1] != size:
                raise ValueError(
                    f"an {name} of {array.shape[1]} numbers, but {part} needs {size}"
                )
            if not np.isin(array, (0, 1)).all():
                raise ValueError(f"an {name} with other numbers than 0 and 1")
            columns.append(array.astype(np.bool_))
        return np.concatenate(columns, axis=1)

    def read_rows(
        self,
        rows: slice,
        out: Outputs,
        infos: Sequence[Any],
        where: Callable[[int], str],
    ) -> None:
        """Reads the masks of rows from their observations or infos into `out`; `where` names a row in an EnvError."""
        if out.action_mask is None:
            return
        whole = in_observation(self.spec)
        for part in (
            [rows]
            if whole
            else [slice(row, row + 1) for row in range(rows.start, rows.stop)]
        ):
            row = part.start
            if not whole and KEY not in (infos[row] or ()):
                raise EnvError(
                    f"{where(row)} gave no info[{KEY!r}], though earlier infos had one"
                )
            given = select(out.obs[KEY], part) if whole else infos[row][KEY]
            try:
                out.action_mask[part] = self.read(given, part.stop - row)
            except ValueError as error:
                raise EnvError(f"{where(row)} gave {error}") from None
        blocked = self.blocked(out.action_mask[rows])
        if blocked >= 0:
            row = rows.start + blocked
            raise EnvError(
                f"{where(row)} gave an {KEY} without any option: {out.action_mask[row].astype(int)}"
            )

    def blocked(self, mask: Bools) -> int:
        """The first row where some choice has no option left, or -1."""
        free = np.logical_or.reduceat(mask, self._firsts, axis=1).all(axis=1)
        return -1 if free.all() else int(np.argmin(free))


def in_observation(spec: Spec) -> bool:
    """Whether the observations hold the masks."""
    return (
        isinstance(spec.observation_space, spaces.Dict)
        and KEY in spec.observation_space.spaces
    )


def _inside(node: Any, key: str | int, name: str) -> Any:
    if isinstance(key, str):
        if not isinstance(node, dict):
            raise ValueError(
                f"an {name} that should lie in a dict, but lies in a {type(node).__name__}"
            )
        return node.get(key)
    if not isinstance(node, tuple | list) or key >= len(node):
        raise ValueError(f"an {name} that should lie in a tuple as the action does")
    return node[key]
