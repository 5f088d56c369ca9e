"""Action masks: which options each row may choose, as an observation, an info or a method of its environment says."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from shoal.envs.mask_names import warn_of_names
from shoal.envs.outputs import take
from shoal.types import ConfigError, EnvError, choices, leaf_spaces, select
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gymnasium import Space
    from numpy.typing import NDArray

    from shoal.envs.row_keeper import RowKeeper
    from shoal.types import Bools, Spec, Tree

KEY, METHOD = "action_mask", "action_masks"
LATE = (
    f"info[{KEY!r}], though its reset gave none: the first action of an episode is chosen from what reset() returns; "
    "put the mask there too"
)
MaskMethod: TypeAlias = "Callable[[], Tree]"


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

    def observed(self, obs: Tree, count: int, given: Bools | None) -> Bools | None:
        """The options that observations [count, ...] and a mask beside them leave, [count, size]; None: all.

        ValueError where the observations' masks have other numbers than 0 and 1.
        """
        if not in_observation(self.spec):
            return given
        own = self.read(obs[KEY], count)
        return own if given is None else own & given

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
        if isinstance(node, dict):
            keys = ", ".join(map(repr, node))
            raise ValueError(
                f"an {name} that is a dict with the keys {printable(keys, 200)}, but {part.space} needs an array of "
                f"{part.size} numbers 0 and 1"
            )
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
    """The masks of rows, from the first of these that has one: observation, info, the method `action_masks`.

    Whether infos hold masks shows at the first reset. One that comes later only is refused, as the first action of an
    episode would be chosen without it.
    """

    def __init__(
        self,
        keeper: RowKeeper,
        *,
        envs: Sequence[object] = (),
        gave: str = "gave",
        others: str = "earlier infos had one",
    ) -> None:
        """`envs`: one a row, which may have the method.

        `gave` and `others`: words of messages, what the one named does, and where masks were seen before.
        """
        self.reader: MaskReader | None = None
        self._keeper = keeper
        self._envs = envs
        self._methods: list[MaskMethod] = []
        self._gave = gave
        self._others = others
        self.looked = False
        """Whether it was looked for masks under other names, which is said once."""
        if in_observation(keeper.spec):
            self._add()

    def discover(self, infos: Iterable[object]) -> None:
        """Rows are masked from now on if one of these infos holds a mask, or the environments have the method."""
        if self.reader is not None:
            return
        given = list(infos)
        if has_mask(given):
            self._add()
            return
        found = [method_of(env) for env in self._envs]
        self._methods = [method for method in found if method is not None]
        if self._methods:
            if len(self._methods) < len(found):
                raise EnvError(
                    f"{self._keeper.spec.env_id}: some rows have the method {METHOD}, others have none"
                )
            self._add()
            return
        self._look_nearby(next(iter(given), None), 1)

    def discover_joined(self, infos: Mapping[str, Any]) -> None:
        """The same where all rows have one info, as Gymnasium's vector environments join them."""
        if self.reader is None and KEY in infos:
            self._add()
        elif self.reader is None:
            self._look_nearby(infos, self._keeper.num_rows)

    def check_late(self, infos: Sequence[object], where: Callable[[int], str]) -> None:
        """EnvError where an info holds a mask, though no reset's did."""
        if any(infos) and has_mask(infos):
            row = next(at for at, info in enumerate(infos) if has_mask([info]))
            raise EnvError(f"{where(row)} {self._gave} {LATE}")

    def read_rows(
        self, rows: slice, infos: Sequence[Any], where: Callable[[int], str]
    ) -> None:
        """Reads the masks of contiguous rows from their observations, the infos of all rows, or the method."""
        first = rows.start
        chosen = infos[rows]
        if self._methods:
            chosen = [{KEY: method()} for method in self._methods[rows]]
        self.read(
            np.arange(first, rows.stop),
            take(self._keeper.out.obs, rows),
            chosen,
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
                    raise self._without(where(at))
                masks[row] = self._read(reader, info[KEY], 1, where(at))[0]
        self._check(masks[rows], where)

    def read_joined(
        self,
        obs: Tree,
        infos: Mapping[str, Any],
        where: Callable[[int], str],
        *,
        rows: Bools,
    ) -> None:
        """Reads the masks of some rows from the observations, or from the joined infos, of all.

        Args:
            obs: what they observe, [B, ...].
            infos: as Gymnasium's vector environments join them.
            where: names a row in an EnvError.
            rows: which [B].
        """
        reader, masks = self.reader, self._keeper.out.action_mask
        if reader is None or masks is None or not rows.any():
            return
        if in_observation(self._keeper.spec):
            masks[rows] = self._read(reader, obs[KEY], len(rows), where(0))[rows]
            self._check(masks, where)
            return
        lacking = rows
        if KEY in infos:
            lacking = rows & ~infos.get(f"_{KEY}", np.ones_like(rows))
        if lacking.any():
            raise self._without(where(int(np.argmax(lacking))))
        given = infos[KEY]
        if is_joined(given):
            masks[rows] = self._read(reader, given, len(rows), where(0))[rows]
        else:
            for row in np.flatnonzero(rows).tolist():
                masks[row] = self._read(reader, select(given, row), 1, where(row))[0]
        self._check(masks, where)

    def _check(self, masks: Bools, where: Callable[[int], str]) -> None:
        assert self.reader is not None
        blocked = self.reader.blocked(masks)
        if blocked >= 0:
            raise EnvError(
                f"{where(blocked)} {self._gave} an {KEY} without any option: {masks[blocked].astype(int)}"
            )

    def _without(self, where: str) -> EnvError:
        return EnvError(f"{where} {self._gave} no info[{KEY!r}], though {self._others}")

    def _read(self, reader: MaskReader, given: Tree, count: int, where: str) -> Bools:
        try:
            return reader.read(given, count)
        except ValueError as error:
            raise EnvError(f"{where} {self._gave} {error}") from None

    def _look_nearby(self, info: object, count: int) -> None:
        """At the first reset, says where there is a mask under another name."""
        if not self.looked:
            self.looked = True
            warn_of_names(MaskReader(self._keeper.spec), info, count)

    def _add(self) -> None:
        self.reader = MaskReader(self._keeper.spec)
        self._keeper.add_masks(self.reader.size)


def has_mask(infos: Iterable[object]) -> bool:
    """Whether one of these infos holds a mask."""
    return any(isinstance(info, dict) and KEY in info for info in infos)


def mask_of(
    space: Space[Any], obs: Tree, info: Tree, method: MaskMethod | None
) -> Tree:
    """The mask of one environment that observes `space`, by the rule of rows; None where it has none."""
    if isinstance(space, spaces.Dict) and KEY in space.spaces:
        return obs.get(KEY) if isinstance(obs, dict) else None
    if has_mask([info]):
        return info[KEY]
    return None if method is None else method()


def method_of(env: object) -> MaskMethod | None:
    """The method `action_masks` of an environment or of one of its wrappers, as sb3-contrib calls it."""
    if not isinstance(env, gym.Env) or not env.has_wrapper_attr(METHOD):
        return None
    method = env.get_wrapper_attr(METHOD)
    return method if callable(method) else None


def is_joined(masks: Tree) -> bool:
    """Whether the masks of all rows lie in arrays of numbers, not in arrays of objects."""
    if isinstance(masks, dict):
        parts = [masks[key] for key in masks if f"_{key}" in masks]
        return all(is_joined(part) for part in parts)
    return isinstance(masks, np.ndarray) and masks.dtype != object


def masks_beside(spec: Spec) -> bool:
    """Whether masks come beside the observations, as far as is known."""
    return spec.masked and not in_observation(spec)


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
