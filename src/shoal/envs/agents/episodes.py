"""Episodes of environments of several agents: begun, stepped, kept and played again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.actions import add_hint, one_by_one
from shoal.envs.forks import end_if_forked
from shoal.envs.generators import Generators, set_generator
from shoal.envs.history import History, play_again
from shoal.envs.outputs import take
from shoal.envs.python_env import bare_of, refuse_stop
from shoal.envs.resets import given_seed
from shoal.types import RAISED, EnvError, map_tree, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.envs.agents.games import Game, PettingZooEnv
    from shoal.envs.agents.handover import Handover
    from shoal.envs.agents.numbering import Numbering
    from shoal.envs.history import Start
    from shoal.envs.row_keeper import RowKeeper
    from shoal.types import Tree


class Episodes:
    """One episode after another in each environment, with what it began from and its actions."""

    def __init__(
        self,
        envs: Sequence[PettingZooEnv],
        games: Sequence[Game],
        keeper: RowKeeper,
        numbering: Numbering,
        handover: Handover,
    ) -> None:
        """`games`: what steps `envs`, one for each."""
        self._bare = [bare_of(env) for env in envs]
        self._games = games
        self._keeper = keeper
        self._numbering = numbering
        self._handover = handover
        self._generators = Generators(self._bare)
        self._history = History(
            keeper.spec.action, len(envs), rows_each=numbering.count
        )

    def step(self, rows: slice, actions: Tree) -> None:
        """Steps the environments of these rows; where nobody is left, the next episode begins."""
        count = self._numbering.count
        envs = range(rows.start // count, rows.stop // count)
        self._handover.clear(rows)
        given = one_by_one(self._keeper.spec, actions)
        # An environment may change its action in place; what is kept for the replay stays as it was sent.
        kept = map_tree(np.copy, actions)
        for at, env in enumerate(envs):
            self._advance(env, given[at * count : (at + 1) * count])
        self._history.record(slice(envs.start, envs.stop), kept)
        self._handover.take_rewards(envs)
        for env in envs:
            self._handover.end(env)
            if not self._games[env].seen:
                self._handover.games_over[self._numbering.rows(env)] = True
                self.begin(env, None)
        self._handover.show(envs)

    def begin(self, env: int, start: Start | None) -> None:
        """Resets an environment: as the start says ({"seed"} or {"generator"}), else from where its generator is."""
        game = self._games[env]
        if start is None:
            start = self._generators.start_of(env)
        elif "generator" in start:
            set_generator(self._bare[env], start["generator"])
        self._history.begin(env, start)
        where, pid = self._numbering.where(env, 0), os.getpid()
        try:
            if "generator" in start:
                game.reset()
            else:
                game.reset(**start)
            end_if_forked(pid, where)
        except EnvError as error:
            end_if_forked(pid, where)
            raise EnvError(f"{where}: {error}") from None
        except RAISED as error:
            end_if_forked(pid, where)
            refuse_stop(error, where)
            error.add_note(f"shoal: raised by {where}{given_seed(start)}")
            raise
        if not game.seen:
            raise EnvError(f"{where} has no agents; `agents` lists those who act first")
        self._keeper.restart_counts(self._numbering.rows(env))

    def state(self) -> dict[str, Any]:
        """What each episode began from, and the actions since."""
        return self._history.state(self._generators)

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Plays each episode of a state again; a sentence for each that was cut as truncated."""
        keeper = self._keeper

        def replay(env: int) -> str:
            return self._replay(env, state)

        def cut(env: int, start: Start | None) -> None:
            rows = self._numbering.rows(env)
            self.begin(env, start)
            self._handover.show(range(env, env + 1))
            keeper.returns[rows] = state["returns"][rows]
            keeper.lengths[rows] = state["lengths"][rows]
            keeper.cut(rows, state["obs"])
            keeper.restart_counts(rows)

        return play_again(state, replay, cut, self._numbering.named)

    def _advance(self, env: int, actions: list[Any]) -> None:
        where = self._numbering.where(env, int(self._history.lengths[env]) + 1)
        pid = os.getpid()
        try:
            self._games[env].step(actions)
            end_if_forked(pid, where)
        except EnvError as error:
            end_if_forked(pid, where)
            raise EnvError(f"{where}: {error}") from None
        except RAISED as error:
            end_if_forked(pid, where)
            refuse_stop(error, where)
            said = ", ".join(map(str, actions))
            error.add_note(f"shoal: raised by {where}, after the actions [{said}]")
            add_hint(error, actions[0])
            raise

    def _replay(self, env: int, state: dict[str, Any]) -> str:
        """Plays a saved episode again; returns why it is not the same, or nothing."""
        actions, rows = state["actions"][env], self._numbering.rows(env)
        given = one_by_one(self._keeper.spec, map_tree(np.copy, actions))
        length, pid = len(given) // self._numbering.count, os.getpid()
        where = f"{self._numbering.named(env)}, whose episode was played again,"
        try:
            self.begin(env, state["starts"][env])
            played = self._play(env, given)
            end_if_forked(pid, where)
            if isinstance(played, str):
                return played
            self._handover.show(range(env, env + 1))
        except Exception as error:
            end_if_forked(pid, where)
            return f"raised {type(error).__name__} ({error}) when its {length} steps were played again"
        turn, returns, lengths = state["turn"][rows], *played
        here, there = take(self._keeper.out.obs, rows), take(state["obs"], rows)
        same = map_tree(np.array_equal, select(here, turn), select(there, turn))
        alike = np.array_equal(turn, self._handover.turn[rows])
        alike = alike and np.array_equal(returns, state["returns"][rows])
        if not alike or not all(self._keeper.spec.observation.flat(same)):
            return f"did not come back to its saved observations and returns after {length} steps"
        self._history.resume(env, actions)
        self._keeper.returns[rows], self._keeper.lengths[rows] = returns, lengths
        return ""

    def _play(
        self, env: int, actions: list[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]] | str:
        """Plays an episode's actions: each agent's return and length, or why it did not go on as it did before."""
        game, count = self._games[env], self._numbering.count
        returns, lengths = np.zeros(count), np.zeros(count, np.int64)
        length = len(actions) // count
        for step in range(length):
            game.step(actions[step * count : (step + 1) * count])
            if not game.seen:
                return f"ended its episode after {step + 1} of the {length} saved steps"
            for slot, agent in enumerate(game.agents):
                if agent in game.left:
                    returns[slot] = lengths[slot] = 0
                elif agent in game.rewards:
                    returns[slot] += float(game.rewards[agent])
                    lengths[slot] += 1
        return returns, lengths
