"""Steps of Python rows: each environment is stepped, and what it returned is read, checked and handed over."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from shoal.envs.actions import add_hint, given_alone, one_by_one
from shoal.envs.costs.env import STEP, WITH_COST
from shoal.envs.counts import Counts
from shoal.envs.finite import check_finite, put_last_finite
from shoal.envs.forks import end_if_forked
from shoal.envs.outputs import write
from shoal.envs.python_env import (
    is_long,
    read_flag,
    read_info,
    read_rewards,
    refuse_stop,
)
from shoal.types import RAISED, EnvError, map_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import gymnasium as gym
    from numpy.typing import NDArray

    from shoal.envs.masks import RowMasks
    from shoal.envs.resets import Resets
    from shoal.types import Tree

    Flags: TypeAlias = list[tuple[int, object, object]]
    """Rows whose step returned something else than False twice, with what it returned."""

_NOTHING: tuple[None, ...] = (None,) * 5


class Steps:
    """Steps rows of Gymnasium environments; where an episode ends, the next one begins in the same step."""

    def __init__(
        self,
        envs: Sequence[gym.Env[Any, Any]],
        limits: Sequence[int | None],
        resets: Resets,
        masks: RowMasks,
    ) -> None:
        """`envs`: one a row; `limits`: steps after which each row's episode is truncated."""
        never = np.iinfo(np.int64).max
        self.final_infos: list[dict[str, Any]] = [{} for _ in envs]
        """The info with which each row's last episode ended."""
        self._steps: list[Callable[[Any], Any]] = [env.step for env in envs]
        self._limits = np.array([most or never for most in limits])
        self._resets = resets
        self._masks = masks
        self._keeper = resets.keeper
        self._infos = resets.infos
        self._reader = resets.reader
        self._spec = resets.keeper.spec
        self._alone = given_alone(self._spec)
        self._counts = Counts(self._keeper, self._limits, plain=self._reader.gathers)

    def step(self, rows: slice, actions: Tree) -> None:
        """Steps `rows` with checked actions, arrays of their own."""
        infos: list[Any] = []
        seen: list[Any] = []
        rewards: list[Any] = []
        flags: Flags = []
        given = list(actions) if self._alone else one_by_one(self._spec, actions)
        # An environment may change its action in place; what is kept for the replay stays as it was sent.
        kept = actions
        if not isinstance(given[0], np.integer):
            kept = map_tree(np.copy, actions)
        made, pid = _NOTHING, os.getpid()
        try:
            for step, action in zip(self._steps[rows], given, strict=True):
                made = step(action)
                obs, reward, terminated, truncated, info = made
                infos.append(info)
                seen.append(obs)
                rewards.append(reward)
                if terminated is not False or truncated is not False:
                    flags.append((rows.start + len(seen) - 1, terminated, truncated))
        except RAISED as error:
            row = rows.start + len(seen)
            where = self._keeper.where(row, int(self._keeper.lengths[row]) + 1)
            end_if_forked(pid, where)
            refuse_stop(error, where)
            if is_long(made, 5):
                action = one_by_one(self._spec, kept)[len(seen)]
                error.add_note(f"shoal: raised by {where}, after the action {action}")
                add_hint(error, action)
                raise
            raise _refusal(where, made) from None
        if os.getpid() != pid:
            first = rows.start + self._keeper.first_row
            last = first + len(seen) - 1
            end_if_forked(
                pid, f"{self._spec.env_id}: the step of a row among {first}..{last}"
            )
        if self._masks.reader is None and any(infos):
            self._check_unmasked(rows.start, infos)
        self._infos[rows] = infos
        self._resets.history.record(rows, kept)
        self._account(rows, seen, rewards, flags)

    def play(self, row: int, actions: list[Any]) -> float | str:
        """Plays an episode's actions from its reset on: its return, or why it did not go on as it did before."""
        total = 0.0
        obs: Any = None
        for count, action in enumerate(actions, 1):
            made = self._steps[row](action)
            obs, reward, terminated, truncated, self._infos[row] = made
            total += float(reward)
            if terminated or truncated:
                return f"ended its episode after {count} of the {len(actions)} saved actions"
        if actions and not self._reader.put(obs, self._keeper.out.obs, row):
            return "came back to an observation of another form"
        return total

    def read_masks(self, rows: slice) -> None:
        """What the rows may choose next."""
        if self._masks.reader is not None:
            self._masks.read_rows(rows, self._infos, self._keeper.now)

    def _account(
        self, rows: slice, seen: list[Any], rewards: list[Any], flags: Flags
    ) -> None:
        """Checks what the rows returned and hands it over; begins new episodes where one ended."""
        out, first = self._keeper.out.view(rows), rows.start
        if STEP in out.info:
            out.info[STEP][:] = [info[STEP] for info in self._infos[rows]]
        before: Tree = None
        if self._keeper.tolerance.last_finite:
            before = map_tree(np.copy, out.obs)
        cut = self._counts.step(first, seen, rewards)
        if cut < 0:
            lengths = self._keeper.lengths[rows]
            lengths += 1
            self._look_closer(rows, seen, rewards, flags, before)
            self._keeper.returns[rows] += out.reward
            out.terminated[:] = False
            np.greater_equal(lengths, self._limits[rows], out=out.truncated)
            cut = np.count_nonzero(out.truncated)
        terminated, truncated = out.terminated, out.truncated
        for row, terminal, is_cut in flags:
            terminated[row - first], ended = self._read_flags(row, terminal, is_cut)
            if ended:
                truncated[row - first] = True
        if flags or cut:
            self._end((terminated | truncated).nonzero()[0] + first)
        if self._masks.reader is not None:
            self.read_masks(rows)

    def _look_closer(
        self,
        rows: slice,
        seen: list[Any],
        rewards: list[Any],
        flags: Flags,
        before: Tree,
    ) -> None:
        """Reads what is not all plain finite arrays and numbers, or says what is wrong with it.

        `before`: what the rows saw last, where that may stand in for an episode's last observation.
        """
        keeper, first = self._keeper, rows.start
        out, lengths = keeper.out.view(rows), keeper.lengths[rows]
        bad = self._reader.read(seen, out.obs)
        if bad >= 0:
            raise self._resets.refusal(first + bad, int(lengths[bad]), seen[bad])
        read = read_rewards(rewards)
        if isinstance(read, int):
            where = keeper.now(first + read)
            raise EnvError(
                f"{where} returned the reward {rewards[read]!r}; return a float"
            )
        named = slice(first + keeper.first_row, rows.stop + keeper.first_row)
        terminated = np.zeros(len(seen), np.bool_)
        for row, terminal, _ in flags:
            terminated[row - first] = read_flag(terminal) or False
        if before is not None:
            put_last_finite(self._spec.observation, out.obs, before, terminated)
        check_finite(
            self._spec,
            named,
            out.obs,
            read,
            lengths,
            terminated=terminated,
            largest_reward=keeper.tolerance.largest_reward,
        )
        out.reward[:] = read

    def _read_flags(self, row: int, terminal: object, cut: object) -> tuple[bool, bool]:
        terminated, truncated = read_flag(terminal), read_flag(cut)
        if terminated is None or truncated is None:
            raise EnvError(
                f"{self._keeper.now(row)} returned the flags {terminal!r} and {cut!r}; "
                "terminated and truncated are bools"
            )
        return terminated, truncated

    def _end(self, rows: NDArray[np.intp]) -> None:
        """The episodes of these rows are over; others begin."""
        keeper = self._keeper
        write(keeper.out.final_obs, rows, keeper.out.obs)
        keeper.end(rows)
        for row in rows.tolist():
            info = self._infos[row]
            if keeper.out.info or info.__class__ is not dict:
                self._read_info(row, info)
            self.final_infos[row] = dict(info)
        self._resets.begin(rows, [None] * len(rows))
        if self._masks.reader is None:
            begun = [self._infos[row] for row in rows.tolist()]
            self._masks.check_late(begun, lambda at: keeper.now(int(rows[at])))

    def _check_unmasked(self, first: int, infos: list[Any]) -> None:
        """EnvError where a step's info holds a mask, though no reset's did."""
        keeper, lengths = self._keeper, self._keeper.lengths
        self._masks.check_late(
            infos, lambda at: keeper.where(first + at, int(lengths[first + at]) + 1)
        )

    def _read_info(self, row: int, info: object) -> None:
        where = self._keeper.now(row)
        if not isinstance(info, dict):
            raise EnvError(f"{where} returned the info {info!r}; return a dict")
        drawn = self._resets.history.starts[row].get("drawn", {})
        for key, values in self._keeper.out.info.items():
            values[row] = read_info(info | drawn, key, where)


def _refusal(where: str, made: object) -> EnvError:
    """The error of a step that returned something else than it is to."""
    also = ""
    if is_long(made, WITH_COST):
        also = "; where the third of six values is a cost, set preprocessing.cost_key='cost'"
    return EnvError(
        f"{where} returned {made!r}; step() returns (observation, reward, terminated, truncated, info){also}"
    )
