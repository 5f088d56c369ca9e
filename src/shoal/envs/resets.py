"""Resets: how rows of Gymnasium environments begin an episode, and what is asked of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.finite import not_finite, said
from shoal.envs.forks import end_if_forked
from shoal.envs.generators import Generators, set_generator
from shoal.envs.observations import TreeReader
from shoal.envs.outputs import take
from shoal.envs.python_env import KeptSpaces, is_long, refuse_stop
from shoal.envs.randomization import Randomizer
from shoal.types import RAISED, EnvError, misfit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import gymnasium as gym
    from numpy.typing import NDArray

    from shoal.envs.history import History, Start
    from shoal.envs.randomization import Ranges
    from shoal.envs.row_keeper import RowKeeper
    from shoal.types import Tree


class Resets:
    """Begins episodes in rows: from a seed, from a generator's state, or from where the row's generator stands."""

    def __init__(
        self,
        envs: list[gym.Env[Any, Any]],
        keeper: RowKeeper,
        history: History,
        ranges: Ranges,
    ) -> None:
        """`envs`: one a row; `ranges`: parameters that every episode draws."""
        bare = [env.unwrapped for env in envs]
        self.envs = envs
        self.keeper = keeper
        self.history = history
        self.infos: list[dict[str, Any]] = [{} for _ in envs]
        """The info of each row's last reset or step."""
        self.reader = TreeReader(keeper.spec)
        self.generators = Generators(bare)
        self.randomizer: Randomizer | None = None
        if ranges:
            self.randomizer = Randomizer(ranges, bare, keeper.spec.env_id)
        self._bare = bare
        self._spaces = KeptSpaces(envs)

    def begin(
        self,
        rows: NDArray[np.intp],
        starts: Sequence[Start | None],
        options: dict[str, Any] | None = None,
    ) -> None:
        """Resets rows: as their start says ({"seed"} or {"generator"}), else from where their generator stands."""
        keeper, seen = self.keeper, list[Any]()
        for row, given in zip(rows.tolist(), starts, strict=True):
            start = self._prepare(row, given, options)
            self.history.begin(row, start)
            obs = self._reset(row, start)
            if not self.reader.put(obs, keeper.out.obs, row):
                raise self.refusal(row, 0, obs)
            seen.append(obs)
        keeper.restart_counts(rows)
        bad = not_finite(keeper.spec.observation, take(keeper.out.obs, rows))
        if bad is not None:
            leaf, index, value = bad
            raise EnvError(
                f"{keeper.where(int(rows[index]), 0)} returned {said(f'observation{leaf.name}', value)}"
            )
        if len(seen) > 1 and starts[0]:
            self.reader.check_apart(seen, keeper.out.obs, rows, self._at_reset)

    def start_again(
        self,
        seeds: Sequence[int | None],
        rows: NDArray[np.intp],
        *,
        held: NDArray[np.bool_],
        options: dict[str, Any] | None,
    ) -> None:
        """Begins episodes from seeds; without one, rows that are `held` begin theirs again, with the options."""
        starts: list[Start | None] = []
        for row in rows.tolist():
            seed = seeds[row]
            if seed is not None:
                starts.append({"seed": seed})
            elif held[row]:
                starts.append(self.history.starts[row])
            else:
                starts.append(None)
        self.begin(rows, starts, options)

    def refusal(self, row: int, step: int, obs: Tree) -> EnvError:
        """The error of an observation that its space does not hold."""
        where = self.keeper.where(row, step)
        return EnvError(f"{where} returned {self.reader.complaint(obs)}")

    def _at_reset(self, row: int) -> str:
        return self.keeper.where(row, 0)

    def _prepare(
        self, row: int, given: Start | None, options: dict[str, Any] | None
    ) -> Start:
        """Puts generator and drawn parameters where the episode begins from, and says where that is."""
        if given is None:
            start = self.generators.start_of(row)
        else:
            start = given
            if "generator" in given:
                set_generator(self._bare[row], given["generator"])
        if options:
            start = start | {"options": options}
        if self.randomizer is not None:
            start = self.randomizer.begin(row, start, int(self.keeper.lengths[row]))
        return start

    def _reset(self, row: int, start: Start) -> Tree:
        keywords = {key: start[key] for key in ("seed", "options") if key in start}
        made: Any = (None, None)
        pid = os.getpid()
        try:
            made = self.envs[row].reset(**keywords)
            end_if_forked(pid, self._at_reset(row))
            obs, self.infos[row] = made
        except RAISED as error:
            where = self._at_reset(row)
            end_if_forked(pid, where)
            refuse_stop(error, where)
            why = misfit(self._bare[row].reset, **keywords)
            if why and isinstance(error, TypeError):
                raise EnvError(
                    f"{where}: reset() cannot be called with {', '.join(keywords)} ({why}); "
                    "Gymnasium's is reset(self, *, seed=None, options=None)"
                ) from error
            if is_long(made, 2):
                error.add_note(f"shoal: raised by {where}{given_seed(start)}")
                raise
            raise EnvError(
                f"{where} returned {made!r}; reset() returns (observation, info)"
            ) from None
        changed = self._spaces.changed(row)
        if changed:
            raise EnvError(f"{self._at_reset(row)} {changed}")
        return obs


def given_seed(start: Start) -> str:
    """The seed of a reset, and which ones may come."""
    if "seed" not in start:
        return ""
    return f", given the seed {start['seed']}: any whole number from 0 may come, which `seed % n` maps to n"
