"""Agents with different spaces in one batch: the smaller ones are padded to the largest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.envs.masks import KEY
from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gymnasium import Space
    from numpy.typing import NDArray

    from shoal.envs.agents.games import Game


def groups_of(env: Any) -> dict[str, list[str]]:
    """The agents with equal spaces, each group by the name of its first agent."""
    found: dict[str, list[str]] = {}
    for agent in env.possible_agents:
        own = env.observation_space(agent), env.action_space(agent)
        first = next(
            (
                g
                for g in found
                if (env.observation_space(g), env.action_space(g)) == own
            ),
            agent,
        )
        found.setdefault(first, []).append(agent)
    return found


def common_spaces(env: Any, name: str, *, groups: int) -> tuple[Space[Any], Space[Any]]:
    """The observation and the action space that hold those of every agent; EnvError where there is none.

    Of several groups, observations have a number more for each.
    """
    seen = {agent: env.observation_space(agent) for agent in env.possible_agents}
    done = {agent: env.action_space(agent) for agent in env.possible_agents}
    if groups == 1:
        return seen[env.possible_agents[0]], done[env.possible_agents[0]]
    actions = list(done.values())
    if all(
        isinstance(space, spaces.Discrete) and space.start == 0 for space in actions
    ):
        return _longest(seen, f"{name}: observation_space", more=groups), max(
            actions, key=_options
        )
    return _longest(seen, f"{name}: observation_space", more=groups), _longest(
        done, f"{name}: action_space", more=0
    )


class Padded:
    """A game whose agents' spaces differ, seen through their common ones.

    An observation is followed by zeros, then by a one at the place of the agent's group. Of actions, an agent's own
    first numbers count; where it has fewer options than others its info has the mask that says so.
    """

    def __init__(
        self,
        game: Game,
        observation: Space[Any],
        action: Space[Any],
        groups: Mapping[str, Sequence[str]],
    ) -> None:
        """`observation`, `action`: the common spaces; `groups`: as `groups_of` gives them."""
        self.game, self.env, self.agents, self.in_turns = (
            game,
            game.env,
            game.agents,
            game.in_turns,
        )
        assert isinstance(observation, spaces.Box)
        self._tails: dict[str, NDArray[Any]] = {}
        for number, own in enumerate(groups.values()):
            for agent in own:
                tail = np.zeros(
                    observation.shape[0] - self.env.observation_space(agent).shape[0],
                    observation.dtype,
                )
                tail[len(tail) - len(groups) + number] = 1
                self._tails[agent] = tail
        self._actions = {agent: self.env.action_space(agent) for agent in self.agents}
        self._options = _options(action)
        self.seen: dict[str, Any] = {}
        self.rewards: dict[str, Any] = {}
        self.left: dict[str, tuple[Any, Any, Any]] = {}
        self.infos: dict[str, Any] = {}

    def reset(self, **start: Any) -> None:
        """Begins an episode."""
        self.game.reset(**start)
        self._look()

    def step(self, actions: Sequence[Any]) -> None:
        """One step with the agents' own parts of the actions."""
        own = zip(self.agents, actions, strict=True)
        self.game.step(
            [
                x if self._options else x[: self._actions[agent].shape[0]]
                for agent, x in own
            ]
        )
        self._look()

    def _look(self) -> None:
        game = self.game
        self.rewards = game.rewards
        self.seen = {
            agent: self._padded(agent, obs) for agent, obs in game.seen.items()
        }
        self.left = {
            agent: (self._padded(agent, obs), *flags)
            for agent, (obs, *flags) in game.left.items()
        }
        self.infos = {agent: game.infos.get(agent) or {} for agent in game.agents}
        if self._options:
            self.infos = {
                agent: {KEY: self._mask(agent)} | info
                for agent, info in self.infos.items()
            }

    def _padded(self, agent: str, obs: Any) -> Any:
        tail = self._tails[agent]
        fits = isinstance(obs, np.ndarray) and obs.ndim == 1 and obs.dtype == tail.dtype
        return np.concatenate([obs, tail]) if fits else obs

    def _mask(self, agent: str) -> NDArray[np.bool_]:
        return np.arange(self._options) < self._actions[agent].n


def _options(space: Space[Any]) -> int:
    return int(space.n) if isinstance(space, spaces.Discrete) else 0


def _longest(found: dict[str, Any], name: str, *, more: int) -> spaces.Box:
    """A Box of the longest length and `more`."""
    kinds = list(found.values())
    if all(isinstance(space, spaces.Box) and len(space.shape) == 1 for space in kinds):
        dtypes, size = (
            {space.dtype for space in kinds},
            max(space.shape[0] for space in kinds) + more,
        )
        low, high = (
            min(float(space.low.min()) for space in kinds),
            max(float(space.high.max()) for space in kinds),
        )
        if len(dtypes) == 1:
            return spaces.Box(
                min(low, 0.0), max(high, 1.0) if more else high, (size,), kinds[0].dtype
            )
    said = ", ".join(f"{agent} has {space}" for agent, space in found.items())
    raise EnvError(
        f"{name}: {said}; agents share one batch, so spaces that differ must all be a Box of one axis and one dtype "
        "(or, for actions, all Discrete from 0)"
    )
