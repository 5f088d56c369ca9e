"""Steps of a library: observations in the space's form, rewards, ends and lives counted, refusals of what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal import _native
from shoal.envs.bounds import bounds_of
from shoal.envs.finite import check_finite, not_finite, put_last_finite, within
from shoal.envs.masks import KEY, LATE
from shoal.envs.outputs import write
from shoal.envs.python_env import NUMBERS
from shoal.types import EnvError, leaf_spaces, map_tree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.envs.libraries.library import Library, Stepped
    from shoal.envs.masks import RowMasks
    from shoal.envs.row_keeper import RowKeeper
    from shoal.types import Bools, Layout, Spec, Tree


class StepReader:
    """Hands a library's steps over to its rows."""

    def __init__(self, library: Library, keeper: RowKeeper, masks: RowMasks) -> None:
        """`keeper`: its returns and lengths are counted here, natively."""
        self._library = library
        self._keeper = keeper
        self._masks = masks
        self._spec = keeper.spec
        self._tally = _native.Tally(keeper.out, library.clip_reward)
        keeper.returns, keeper.lengths = self._tally.returns, self._tally.lengths
        self._has_floats = any(
            leaf.dtype.kind == "f" for leaf in self._spec.observation.leaves
        )
        self._counted = counted_leaves(self._spec)

    def step(self, stepped: Stepped) -> None:
        """Hands a step over: counts, ends, and refusals of what is not finite."""
        out = self._keeper.out
        self.show(stepped.obs)
        self._check_counted()
        lives, ends = self._library.lives, -1
        largest = self._keeper.tolerance.largest_reward
        if self._is_finite() and within(stepped.reward, largest):
            ends = self._count(stepped, lives)
        if ends < 0:
            stepped = self._checked(stepped)
            if lives is not None:
                lives = np.array(lives, np.int64)
            ends = self._count(stepped, lives)
        if ends < 0:
            raise EnvError(
                f"{self._spec.env_id}: the library has the lives {lives!r}, expected ({self._keeper.num_rows},)"
            )
        if ends:
            self._show_final(stepped)
        if out.action_mask is not None:
            rows = self._keeper.everywhere
            if ends and stepped.final_obs is None:
                # They are only reset next, whatever they choose.
                rows = ~(stepped.terminated | stepped.truncated)
                out.action_mask[:] = True
            self.read_masks(rows)
        elif KEY in self._library.infos:
            raise EnvError(f"{self._spec.env_id}: the library gave {LATE}")

    def with_last_finite(self, stepped: Stepped, before: Tree) -> Stepped:
        """The step with `before`, what the rows saw last, where a terminated row's observation is not finite."""
        terminated = np.asarray(stepped.terminated) != 0
        ended_in = stepped.obs if stepped.final_obs is None else stepped.final_obs
        layout = self._spec.observation
        if not terminated.any() or not_finite(layout, ended_in) is None:
            return stepped
        ended_in = map_tree(np.copy, ended_in)
        put_last_finite(layout, ended_in, before, terminated)
        if stepped.final_obs is None:
            return stepped._replace(obs=ended_in)
        return stepped._replace(final_obs=ended_in)

    def read_masks(self, rows: Bools) -> None:
        """What these rows may choose next."""
        keeper = self._keeper
        self._masks.read_joined(
            keeper.out.obs, self._library.infos, keeper.now, rows=rows
        )

    def show(self, obs: Tree) -> None:
        """Hands the library's own arrays over: they stay as they are until the rows are stepped again."""
        out = self._keeper.out
        last: Tree = out.obs
        if obs.__class__ is last.__class__ is np.ndarray:
            alike = obs.shape == last.shape and obs.dtype == last.dtype
            if alike and obs.flags.carray:
                out.put_obs(obs)
                return
        out.put_obs(self._in_spaces_form(obs))

    def note_lives(self) -> None:
        """After a reset: where the lives are counted from."""
        lives = self._library.lives
        if lives is not None:
            self._tally.lives[:] = lives

    def check_reset(self) -> None:
        """EnvError where what the rows begin with is not finite."""
        keeper = self._keeper
        out = keeper.out
        check_finite(self._spec, keeper.everything, out.obs, out.reward, keeper.lengths)
        self._check_counted()

    def _check_counted(self) -> None:
        """EnvError naming the first row whose choice among options is none of them."""
        if not self._counted:
            return
        layout = self._spec.observation
        for leaf, seen, bounds in zip(
            layout.leaves, layout.flat(self._keeper.out.obs), self._counted, strict=True
        ):
            if bounds is None:
                continue
            good = (seen >= bounds[0]) & (seen <= bounds[1])
            if not good.all():
                row = int(np.argmin(good.reshape(len(seen), -1).all(axis=1)))
                raise EnvError(
                    f"{self._spec.env_id}: row {row} returned the observation{leaf.name} {seen[row]}, "
                    f"outside {bounds[0]} to {bounds[1]}; return what its space holds"
                )

    def _is_finite(self) -> bool:
        if not self._has_floats:
            return True
        return not_finite(self._spec.observation, self._keeper.out.obs) is None

    def _count(self, stepped: Stepped, lives: NDArray[Any] | None) -> int:
        _, reward, terminated, truncated, _, only_reset = stepped
        return self._tally.step(reward, terminated, truncated, only_reset, lives)

    def _checked(self, stepped: Stepped) -> Stepped:
        """The step in arrays of the usual types; EnvError where it has other shapes, or holds what is not finite."""
        keeper = self._keeper
        _, reward, terminated, truncated, _, only_reset = stepped
        if only_reset is None:
            only_reset = np.zeros(keeper.num_rows, np.bool_)
        reward = self._read("reward", reward, NUMBERS).astype(np.float64)
        usual = {
            name: self._read(name, flags, "biu").astype(np.bool_)
            for name, flags in (
                ("terminated", terminated),
                ("truncated", truncated),
                ("only_reset", only_reset),
            )
        }
        reward[usual["only_reset"]] = 0
        check_finite(
            self._spec,
            keeper.everything,
            keeper.out.obs,
            reward,
            keeper.lengths + ~usual["only_reset"],
            terminated=usual["terminated"],
            largest_reward=keeper.tolerance.largest_reward,
        )
        return stepped._replace(reward=reward, **usual)

    def _show_final(self, stepped: Stepped) -> None:
        """Hands over the last observations of episodes that are over; EnvError where one is not finite."""
        keeper, out = self._keeper, self._keeper.out
        over, final_obs = stepped.terminated | stepped.truncated, stepped.final_obs
        if final_obs is None:
            final_obs = out.obs
        write(out.final_obs, over, final_obs)
        write(out.final_obs, out.terminated & ~over, out.obs)
        if self._has_floats and stepped.final_obs is not None:
            check_finite(
                self._spec,
                keeper.everything,
                out.final_obs,
                out.reward,
                out.episode_length,
                terminated=out.terminated,
                largest_reward=keeper.tolerance.largest_reward,
            )

    def _read(self, name: str, given: object, kinds: str) -> NDArray[Any]:
        """An array [B] of one of NumPy's `kinds`; EnvError where it is another."""
        array, count = np.asarray(given), self._keeper.num_rows
        if array.shape != (count,) or array.dtype.kind not in kinds:
            wanted = "numbers" if kinds == NUMBERS else "bools"
            raise EnvError(
                f"{self._spec.env_id}: the library returned {name} of shape {array.shape} and type {array.dtype}, "
                f"expected {wanted} ({count},)"
            )
        return array

    def _in_spaces_form(self, obs: Tree) -> Tree:
        """The observations in contiguous arrays of the space's types; EnvError where they are others."""
        layout: Layout = self._spec.observation
        own: list[NDArray[Any]] = []
        for leaf, new in zip(layout.leaves, layout.flat(obs), strict=True):
            seen, shape = np.asarray(new), (self._keeper.num_rows, *leaf.shape)
            fits = np.can_cast(seen.dtype, leaf.dtype, "same_kind")
            if seen.shape != shape or not fits:
                raise EnvError(
                    f"{self._spec.env_id}: the library returned observations{leaf.name} of shape {seen.shape} and type "
                    f"{seen.dtype}, but its space says {shape} and {leaf.dtype}"
                )
            own.append(np.require(seen, leaf.dtype, ["C", "W"]))
        return layout.tree(own)


def counted_leaves(spec: Spec) -> list[tuple[Any, Any] | None]:
    """The least and largest value of each leaf that is no Box, in the layout's order; empty where all are Boxes."""
    found: list[tuple[Any, Any] | None] = []
    for _, part in leaf_spaces(spec.observation_space):
        found.append(None if isinstance(part, spaces.Box) else bounds_of(part))
    return found if any(bounds is not None for bounds in found) else []
