"""Environments of several agents as rows: each agent of each environment has a row of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.envs.agents.episodes import Episodes
from shoal.envs.agents.games import game_of
from shoal.envs.agents.handover import Handover
from shoal.envs.agents.numbering import Numbering
from shoal.envs.agents.padding import Padded, common_spaces, groups_of
from shoal.envs.python_env import check_distinct, close_all
from shoal.envs.rendering import RENDER_MODE, frames_per_s, why_not_rendered
from shoal.envs.row_keeper import RowKeeper
from shoal.envs.vec_env import Capabilities, row_seeds
from shoal.types import ConfigError, EnvError, Spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.envs.agents.games import Game, PettingZooEnv
    from shoal.envs.outputs import Outputs
    from shoal.types import Bools, Ready, Tree


class AgentsEnv:
    """PettingZoo environments of A possible agents each behind the VecEnv contract, in this process.

    Row e * A + a is agent a of environment e. `turn` says whose next action counts; the actions of the other rows are
    ignored. A step is `valid` for the rows whose own step is complete: in a game of turns that is when the agent's next
    turn or its end has come. When no agent is left, the environment is reset in the same step.
    """

    native_pool = None
    python_rows = None

    def __init__(
        self,
        envs: list[PettingZooEnv],
        name: str,
        *,
        info_keys: tuple[str, ...] = (),
        first_row: int = 0,
    ) -> None:
        """`envs`: alike in their agents and spaces; else as SerialEnv."""
        self.envs = envs
        _check_alike(envs, name)
        self.capabilities = Capabilities(
            restartable=True,
            can_render=getattr(envs[0], "render_mode", None) == RENDER_MODE,
            frames_per_s=frames_per_s(getattr(envs[0], "metadata", None)),
        )
        self.games: list[Game] = [game_of(env) for env in envs]
        self._groups = groups_of(envs[0])
        self.keeper = RowKeeper(
            self._make_spec(name, info_keys),
            len(envs) * len(self.games[0].agents),
            first_row=first_row,
            allow=self._allow,
        )
        self.num_rows = self.keeper.num_rows
        agents = self.games[0].agents
        self._numbering = Numbering(self.keeper, agents)
        self._handover = Handover(self.games, self.keeper, self._numbering)
        self._episodes = Episodes(
            envs, self.games, self.keeper, self._numbering, self._handover
        )

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
        """Starts every environment anew, seeded as its first agent's row is."""
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
        """Begins new episodes in all rows; ConfigError for a part of them, and for options."""
        if options:
            raise ConfigError(
                f"{self.spec.env_id}: environments of several agents take no options; backend='serial' takes {options}"
            )
        if not rows.all():
            raise ConfigError(
                f"{self.spec.env_id}: environments of several agents are reset all together"
            )
        self.keeper.stop()
        self.out.clear()
        for env, seed in enumerate(seeds[:: self._numbering.count]):
            if seed is None:
                self._episodes.begin(env, None)
            else:
                self._episodes.begin(env, {"seed": seed})
        self._handover.show(range(len(self.games)))
        self.keeper.begin()

    def send(self, rows: slice, action: Tree) -> None:
        """Notes the actions, of whole environments; the step itself happens in `recv`."""
        self.keeper.send(rows, action)

    def recv(self) -> Ready:
        """Steps the environments of the oldest send."""
        return self.keeper.recv(self._episodes.step)

    def state(self) -> dict[str, Any]:
        """What each environment's episode began from, the actions since, and what the replay must come to."""
        state = self.keeper.state() | self._episodes.state()
        state["turn"] = self._handover.turn.copy()
        return state

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Plays each environment's episode again; one that comes out different is cut as truncated and said so."""
        keeper = self.keeper
        keeper.check_saved(state)
        keeper.stop()
        self.out.clear()

        lost = self._episodes.restore(state)
        keeper.begin()
        return lost

    def render(self, row: int) -> NDArray[np.uint8]:
        """What the environment of `row` renders, the same for all its agents; else as in SerialEnv."""
        if not self.capabilities.can_render:
            raise ConfigError(why_not_rendered(self.spec.env_id, self.envs[0]))
        return self.envs[row // self._numbering.count].render()

    def close(self) -> None:
        """Closes every environment; an error of one is raised when all were asked."""
        self.keeper.stop("the environment is closed")
        close_all(self.envs)

    def groups(self) -> dict[str, list[int]]:
        """The rows of the agents with equal spaces, as a cast has them: each group by the name of its first agent."""
        rows: dict[str, list[int]] = {}
        for name, agents in self._groups.items():
            everyone = [(env, one) for env in range(len(self.games)) for one in agents]
            rows[name] = self._numbering.rows_of(everyone).tolist()
        return rows

    def _make_spec(self, name: str, info_keys: tuple[str, ...]) -> Spec:
        """The specification of a row; games of agents with different spaces are padded to common ones."""
        count = len(self._groups)
        observation, action = common_spaces(self.envs[0], name, groups=count)
        if count > 1:
            for env, game in enumerate(self.games):
                self.games[env] = Padded(game, observation, action, self._groups)
        agents = self.games[0].agents
        return Spec.of(
            name,
            observation,
            action,
            info_keys=info_keys,
            num_agents=len(agents),
            agents=agents,
            groups=count,
            in_turns=self.games[0].in_turns,
        )

    def _allow(self, rows: slice) -> None:
        count = self._numbering.count
        if rows.start % count or rows.stop % count:
            raise ValueError(
                f"{self.spec.env_id}: rows {rows.start}..{rows.stop - 1} are no whole environments of {count} agents"
            )


def _check_alike(envs: list[PettingZooEnv], name: str) -> None:
    """EnvError unless every agent of all environments is as in the first; ConfigError for one object made twice."""
    first = envs[0]
    check_distinct(envs, name, "environments")
    for number, env in enumerate(envs):
        if tuple(env.possible_agents) != tuple(first.possible_agents):
            raise EnvError(
                f"{name}: environment {number} has other agents than environment 0"
            )
        for agent in env.possible_agents:
            what = ""
            if env.observation_space(agent) != first.observation_space(agent):
                what = "observation_space"
            elif env.action_space(agent) != first.action_space(agent):
                what = "action_space"
            if what:
                raise EnvError(
                    f"{name}: {agent} of environment {number} has another {what} than in environment 0"
                )
