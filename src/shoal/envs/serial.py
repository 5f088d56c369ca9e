"""The backend `serial`: Python environments of any kind, stepped one after another in this process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.actions import one_by_one
from shoal.envs.forks import end_if_forked
from shoal.envs.history import History, play_again
from shoal.envs.masks import RowMasks
from shoal.envs.names import declared_names
from shoal.envs.outputs import take
from shoal.envs.python_env import (
    check_alike,
    close_after,
    close_all,
    make_envs,
    shortest_limit,
    strip,
)
from shoal.envs.randomization import info_keys_of
from shoal.envs.rendering import RENDER_MODE, frames_per_s, why_not_rendered
from shoal.envs.resets import Resets
from shoal.envs.row_keeper import RowKeeper
from shoal.envs.steps import Steps
from shoal.envs.vec_env import Capabilities, PythonRows, row_seeds
from shoal.types import ConfigError, Spec, map_tree, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import gymnasium as gym
    from numpy.typing import NDArray

    from shoal.envs.history import Start
    from shoal.envs.outputs import Outputs
    from shoal.envs.randomization import Ranges
    from shoal.types import Bools, Ready, Tree


def make(
    factory: Callable[[], gym.Env[Any, Any]],
    num_envs: int,
    *,
    name: str,
    info_keys: tuple[str, ...] = (),
    ranges: Ranges | None = None,
    first_row: int = 0,
) -> SerialEnv:
    """`num_envs` environments, each made by one call of `factory`; the keywords are `SerialEnv`'s."""
    envs = make_envs(factory, num_envs, name=name, first_row=first_row)
    try:
        return SerialEnv(
            envs, name, info_keys=info_keys, ranges=ranges, first_row=first_row
        )
    except BaseException as error:
        close_after(error, envs)
        raise


class SerialEnv:
    """Python environments behind the VecEnv contract.

    A row is saved as what its episode began from (seed or generator, draws) and its actions; `restore` plays them.
    """

    native_pool = None

    def __init__(
        self,
        envs: list[gym.Env[Any, Any]],
        name: str,
        *,
        info_keys: tuple[str, ...] = (),
        ranges: Ranges | None = None,
        first_row: int = 0,
    ) -> None:
        """`envs`: one environment a row, alike in their spaces; `name` stands in messages.

        `info_keys`: numbers of every episode's last info; `ranges`: what each episode draws. `Ready.info` has both.
        `first_row`: the number of the first row in messages, where these are a part of more rows.
        """
        check_alike(envs, name)
        stripped = [strip(env) for env in envs]
        self.envs = [env for env, _ in stripped]
        limits = [limit for _, limit in stripped]
        self.capabilities = Capabilities(
            restartable=True,
            reset_options=True,
            can_render=envs[0].render_mode == RENDER_MODE,
            frames_per_s=frames_per_s(envs[0].metadata),
        )
        registered = envs[0].spec
        spec = Spec.of(
            name,
            envs[0].observation_space,
            envs[0].action_space,
            max_episode_steps=shortest_limit(envs[0]),
            reward_threshold=getattr(registered, "reward_threshold", None),
            info_keys=(*info_keys, *info_keys_of(ranges or {})),
            **declared_names(envs[0], name),
        )
        self.num_rows = len(envs)
        self.keeper = RowKeeper(spec, self.num_rows, first_row=first_row)
        self.history = History(spec.action, self.num_rows)
        self.resets = Resets(self.envs, self.keeper, self.history, ranges or {})
        self.masks = RowMasks(self.keeper, envs=self.envs)
        self.steps = self.make_steps(limits)
        self.python_rows: PythonRows | None = PythonRows(
            self.envs, registered, self.resets.infos, self.steps.final_infos
        )

    def make_steps(self, limits: Sequence[int | None]) -> Steps:
        """What steps the rows, made once; `limits`: steps after which each row's episode is truncated."""
        return Steps(self.envs, limits, self.resets, self.masks)

    @property
    def spec(self) -> Spec:
        """What a row observes and does."""
        return self.keeper.spec

    @property
    def out(self) -> Outputs:
        """The arrays of all rows."""
        return self.keeper.out

    @property
    def dropped(self) -> Bools:
        """No row is ever dropped."""
        return np.zeros(self.num_rows, np.bool_)

    def reset(self, seed: int | Sequence[int]) -> None:
        """Starts every row anew."""
        everywhere = self.keeper.everywhere
        self.restart(row_seeds(seed, self.num_rows), everywhere, held=~everywhere)

    def restart(
        self,
        seeds: Sequence[int | None],
        rows: Bools,
        *,
        held: Bools,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Begins new episodes in some rows."""
        self.keeper.stop_to_restart(rows)
        begun = held & np.array([seed is None for seed in seeds])
        if not options:
            rows = rows & ~begun
        chosen = np.flatnonzero(rows)
        self.resets.start_again(seeds, chosen, held=held, options=options)
        self._read_masks()
        self.keeper.out.clear()
        self.keeper.begin()

    def send(self, rows: slice, action: Tree) -> None:
        """Notes the actions; the step itself happens in `recv`."""
        self.keeper.send(rows, action)

    def recv(self) -> Ready:
        """Steps the rows of the oldest send."""
        return self.keeper.recv(self.steps.step)

    def state(self) -> dict[str, Any]:
        """What each row's episode began from, the actions since, and what the replay must come to."""
        state = self.keeper.state() | self.history.state(self.resets.generators)
        if self.resets.randomizer is not None:
            state["draws"] = self.resets.randomizer.state()
        return state

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Plays each row's episode again; a row that comes out different is cut as truncated and said so."""
        keeper = self.keeper
        keeper.check_saved(state)
        keeper.stop()
        keeper.out.clear()
        if self.resets.randomizer is not None:
            self.resets.randomizer.restore(state["draws"])

        def replay(row: int) -> str:
            return self._replay(row, state)

        def cut(row: int, start: Start | None) -> None:
            keeper.returns[row] = state["returns"][row]
            keeper.lengths[row] = state["lengths"][row]
            keeper.cut(row, state["obs"])
            self.steps.final_infos[row] = {}
            self.resets.begin(np.array([row]), [start])

        def name(row: int) -> str:
            return f"{self.spec.env_id}: row {keeper.first_row + row}"

        lost = play_again(state, replay, cut, name)
        self._read_masks()
        keeper.begin()
        return lost

    def render(self, row: int) -> NDArray[np.uint8]:
        """What the row's environment renders; ConfigError where it was not made with render_mode="rgb_array"."""
        if not self.capabilities.can_render:
            raise ConfigError(why_not_rendered(self.spec.env_id, self.envs[0]))
        frame: Any = self.envs[row].render()
        return frame

    def close(self) -> None:
        """Closes every environment; an error of one is raised when all were asked."""
        self.keeper.stop("the environment is closed")
        close_all(self.envs)

    def _read_masks(self) -> None:
        self.masks.discover(self.resets.infos[:1])
        self.steps.read_masks(self.keeper.everything)

    def _replay(self, row: int, state: dict[str, Any]) -> str:
        """Plays a saved episode again; returns why it is not the same, or nothing."""
        actions, spec = state["actions"][row], self.spec
        given = one_by_one(spec, map_tree(np.copy, actions))
        number, pid = self.keeper.first_row + row, os.getpid()
        where = f"{spec.env_id}: row {number}, whose episode was played again,"
        try:
            self.resets.begin(np.array([row]), [state["starts"][row]])
            played = self.steps.play(row, given)
            end_if_forked(pid, where)
        except Exception as error:
            end_if_forked(pid, where)
            return f"raised {type(error).__name__} ({text_of(error)}) when its {len(given)} actions were played again"
        if isinstance(played, str):
            return played
        alike = map_tree(
            np.array_equal, take(self.out.obs, row), take(state["obs"], row)
        )
        if not all(spec.observation.flat(alike)) or played != state["returns"][row]:
            return f"did not come back to its saved observation and return after {len(given)} actions"
        self.history.resume(row, actions)
        self.keeper.returns[row] = played
        self.keeper.lengths[row] = len(given)
        return ""
