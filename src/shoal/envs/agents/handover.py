"""What games of several agents give, handed over to rows: rewards, ends, observations, turns and masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.finite import LARGEST, LAST_FINITE, not_finite, said
from shoal.envs.masks import RowMasks
from shoal.envs.observations import TreeReader
from shoal.envs.outputs import take, write
from shoal.envs.python_env import read_flag, read_info, read_rewards
from shoal.types import EnvError, assign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.envs.agents.games import Game
    from shoal.envs.agents.numbering import Numbering
    from shoal.envs.row_keeper import RowKeeper
    from shoal.types import Bools, Floats, Tree


class Handover:
    """Writes what games give into the rows of their agents, or says what is wrong with it."""

    def __init__(
        self, games: Sequence[Game], keeper: RowKeeper, numbering: Numbering
    ) -> None:
        """`games`: one an environment."""
        self._games = games
        self._keeper = keeper
        self._numbering = numbering
        self._reader = TreeReader(keeper.spec)
        self._masks = RowMasks(keeper, gave="was given", others="others were")
        self._scratch: Tree = keeper.spec.observation.allocate(keeper.num_rows)

    @property
    def turn(self) -> Bools:
        """Rows whose next action counts [B]."""
        turn = self._keeper.out.turn
        assert turn is not None
        return turn

    @property
    def games_over(self) -> Bools:
        """Rows whose game ended with this step [B]."""
        over = self._keeper.out.game_over
        assert over is not None
        return over

    def clear(self, rows: slice) -> None:
        """Before a step of these rows: none is complete."""
        out = self._keeper.out.view(rows)
        out.reward[:] = 0
        out.terminated[:] = out.truncated[:] = out.valid[:] = False
        self.games_over[rows] = False

    def take_rewards(self, envs: range) -> None:
        """Whose steps are complete in these environments, and what they were worth; what others were left with."""
        keeper = self._keeper
        agents: list[tuple[int, str]] = []
        given: list[Any] = []
        unplayed: list[tuple[int, str]] = []
        for env in envs:
            game = self._games[env]
            for agent, reward in game.rewards.items():
                agents.append((env, agent))
                given.append(reward)
            unplayed += [(env, agent) for agent in game.unplayed]
        rows = self._numbering.rows_of(agents)
        keeper.lengths[rows] += 1
        keeper.out.valid[rows] = True
        if unplayed:
            given += [self._games[env].unplayed[agent] for env, agent in unplayed]
            agents += unplayed
            rows = self._numbering.rows_of(agents)
        if not agents:
            return
        rewards = self._read_rewards(agents, given)
        keeper.out.reward[rows] = rewards
        keeper.returns[rows] += rewards

    def end(self, env: int) -> None:
        """The episodes of the agents who left the environment are over."""
        game, keeper, out = self._games[env], self._keeper, self._keeper.out
        for agent, (obs, *flags) in game.left.items():
            row, where = self._numbering.row(env, agent), self._numbering.at(env, agent)
            terminated, truncated = read_flag(flags[0]), read_flag(flags[1])
            if terminated is None or truncated is None:
                raise EnvError(
                    f"{where} was given the flags {flags}; terminated and truncated are bools"
                )
            if not self._reader.put(obs, out.final_obs, row):
                raise EnvError(f"{where} was given {self._reader.complaint(obs)}")
            last = take(out.final_obs, slice(row, row + 1))
            bad = not_finite(keeper.spec.observation, last)
            if bad is not None and terminated and keeper.tolerance.last_finite:
                write(out.final_obs, row, out.obs)
            elif bad is not None:
                also = f"; {LAST_FINITE}" if terminated else ""
                raise EnvError(
                    f"{where} was given {said(f'observation{bad[0].name}', bad[2])}{also}"
                )
            out.terminated[row], out.truncated[row] = terminated, truncated
            keeper.end(row)
            for key, values in out.info.items():
                values[row] = read_info(game.infos.get(agent) or {}, key, where)
            keeper.restart_counts(row)

    def show(self, envs: range) -> None:
        """What the agents of these environments see who act next, and which actions they may choose."""
        agents: list[tuple[int, str]] = []
        seen: list[Any] = []
        infos: list[dict[str, Any]] = []
        for env in envs:
            game = self._games[env]
            for agent, obs in game.seen.items():
                agents.append((env, agent))
                seen.append(obs)
                infos.append(game.infos.get(agent) or {})
        rows = self._numbering.rows_of(agents)
        out, block = self._keeper.out, take(self._scratch, slice(0, len(rows)))
        self._read(agents, seen, block)
        assign(out.obs, rows, block)
        first, last = self._numbering.rows(envs[0]), self._numbering.rows(envs[-1])
        everyone = slice(first.start, last.stop)
        self.turn[everyone] = False
        self.turn[rows] = True
        if not self._keeper.started:
            self._masks.discover(infos)
        elif self._masks.reader is None:
            self._masks.check_late(infos, lambda at: self._numbering.at(*agents[at]))
        if out.action_mask is not None:
            out.action_mask[everyone] = True
        self._masks.read(rows, block, infos, lambda at: self._numbering.at(*agents[at]))

    def _read(
        self, agents: list[tuple[int, str]], seen: list[Any], block: Tree
    ) -> None:
        """Reads the agents' observations into `block`; EnvError naming one that its space does not hold."""
        bad = self._reader.read(seen, block)
        if bad >= 0:
            raise EnvError(
                f"{self._numbering.at(*agents[bad])} was given {self._reader.complaint(seen[bad])}"
            )
        wrong = not_finite(self._keeper.spec.observation, block)
        if wrong is not None:
            leaf, bad, value = wrong
            raise EnvError(
                f"{self._numbering.at(*agents[bad])} was given {said(f'observation{leaf.name}', value)}"
            )

    def _read_rewards(self, agents: list[tuple[int, str]], given: list[Any]) -> Floats:
        """The rewards as numbers; EnvError naming the first agent whose reward is none that is finite."""
        rewards = read_rewards(given)
        if isinstance(rewards, int):
            bad = rewards
        else:
            fits = np.abs(rewards) <= LARGEST
            if fits.all():
                return rewards
            bad = int(np.argmin(fits))
            if np.isfinite(rewards[bad]):
                raise EnvError(
                    f"{self._numbering.at(*agents[bad])} was given {said('reward', given[bad])}"
                )
        raise EnvError(
            f"{self._numbering.at(*agents[bad])} was given the reward {given[bad]!r}; give a finite float"
        )
