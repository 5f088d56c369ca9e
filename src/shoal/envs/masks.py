"""Action masks: which options each row may choose, from an observation's or info's `action_mask`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.envs.outputs import take
from shoal.types import ConfigError, EnvError, choices, leaf_spaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gymnasium import Space
    from numpy.typing import NDArray

    from shoal.envs.row_keeper import RowKeeper
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
        self._parts: list[_Part] = []
        options: list[int] = []
        for path, space in leaf_spaces(spec.action_space):
            own = choices(space)
            size = sum(own) or int(np.prod(space.shape or ()))
            self._parts.append(_Part(path, space, size, bool(own)))
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
        columns = [self._read_part(part, given, count) for part in self._parts]
        return np.concatenate(columns, axis=1)

    def blocked(self, mask: Bools) -> int:
        """The first row where some choice has no option left, or -1."""
        free = np.logical_or.reduceat(mask, self._firsts, axis=1).all(axis=1)
        if free.all():
            return -1
        return int(np.argmin(free))

    def _read_part(self, part: _Part, given: Tree, count: int) -> Bools:
        """The mask of one leaf of the action, [count, options]."""
        node, name = given, KEY + "".join(f"[{key!r}]" for key in part.path)
        for key in part.path:
            if node is None:
                break
            node = _inside(node, key, name)
        if node is None:
            return np.ones((count, part.size), np.bool_)
        pieces: Sequence[Tree] = node if isinstance(node, tuple | list) else [node]
        flat = [np.asarray(piece).reshape(count, -1) for piece in pieces]
        array = np.concatenate(flat, axis=1)
        if not part.has_choices:
            raise ValueError(
                f"an {name} for {part.space}; only Discrete, MultiDiscrete and MultiBinary have masks"
            )
        if array.shape[1] != part.size:
            raise ValueError(
                f"an {name} of {array.shape[1]} numbers, but {part.space} needs {part.size}"
            )
        if not np.isin(array, (0, 1)).all():
            raise ValueError(f"an {name} with other numbers than 0 and 1")
        return array.astype(np.bool_)


@dataclass(frozen=True, slots=True)
class _Part:
    """One leaf of an action: where it stands, and the bools that its mask has."""

    path: tuple[str | int, ...]
    space: Space[Any]
    size: int
    has_choices: bool


class RowMasks:
    """The masks of rows. Whether infos hold masks shows only at the first reset."""

    def __init__(
        self,
        keeper: RowKeeper,
        *,
        gave: str = "gave",
        others: str = "earlier infos had one",
    ) -> None:
        """`gave` and `others`: words of messages, what the one named does, and where masks were seen before."""
        self.reader: MaskReader | None = None
        self._keeper = keeper
        self._gave = gave
        self._others = others
        if in_observation(keeper.spec):
            self._add()

    def discover(self, infos: Iterable[object]) -> None:
        """Rows are masked from now on if one of these infos holds a mask."""
        if self.reader is not None:
            return
        if any(isinstance(info, dict) and KEY in info for info in infos):
            self._add()

    def read_rows(
        self, rows: slice, infos: Sequence[Any], where: Callable[[int], str]
    ) -> None:
        """Reads the masks of contiguous rows from their observations, or from the infos of all rows."""
        first = rows.start
        self.read(
            np.arange(first, rows.stop),
            take(self._keeper.out.obs, rows),
            infos[rows],
            lambda at: where(first + at),
        )

    def read(
        self,
        rows: NDArray[np.int64],
        obs: Tree,
        infos: Sequence[Any],
        where: Callable[[int], str],
    ) -> None:
        """Reads the masks of n rows.

        Args:
            rows: their numbers [n].
            obs: what they observe, [n, ...].
            infos: the info of each.
            where: names the i-th of them in an EnvError.
        """
        reader, masks = self.reader, self._keeper.out.action_mask
        if reader is None or masks is None or not len(rows):
            return
        if in_observation(self._keeper.spec):
            masks[rows] = self._read(reader, obs[KEY], len(rows), where(0))
        else:
            for at, row in enumerate(rows.tolist()):
                info = infos[at]
                if KEY not in (info or ()):
                    raise EnvError(
                        f"{where(at)} {self._gave} no info[{KEY!r}], though {self._others}"
                    )
                masks[row] = self._read(reader, info[KEY], 1, where(at))[0]
        blocked = reader.blocked(masks[rows])
        if blocked >= 0:
            raise EnvError(
                f"{where(blocked)} {self._gave} an {KEY} without any option: {masks[rows[blocked]].astype(int)}"
            )

    def _read(self, reader: MaskReader, given: Tree, count: int, where: str) -> Bools:
        try:
            return reader.read(given, count)
        except ValueError as error:
            raise EnvError(f"{where} {self._gave} {error}") from None

    def _add(self) -> None:
        self.reader = MaskReader(self._keeper.spec)
        self._keeper.add_masks(self.reader.size)


def in_observation(spec: Spec) -> bool:
    """Whether the observations hold the masks."""
    return (
        isinstance(spec.observation_space, spaces.Dict)
        and KEY in spec.observation_space.spaces
    )


def _inside(node: Tree, key: str | int, name: str) -> Any:
    if isinstance(key, str):
        if not isinstance(node, dict):
            raise ValueError(
                f"an {name} that should lie in a dict, but lies in a {type(node).__name__}"
            )
        return node.get(key)
    if not isinstance(node, tuple | list) or key >= len(node):
        raise ValueError(f"an {name} that should lie in a tuple as the action does")
    return node[key]
