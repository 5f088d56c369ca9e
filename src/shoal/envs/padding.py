"""Agents with different spaces in one batch: the smaller ones are padded to the largest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from shoal.envs.masks import KEY
from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gymnasium import Space
    from numpy.typing import NDArray

    from shoal.envs.games import Game


def common_spaces(env: Any, name: str) -> tuple[Space[Any], Space[Any]]:
    """The observation and the action space that hold those of every agent; EnvError where there is none."""
    seen = {agent: env.observation_space(agent) for agent in env.possible_agents}
    done = {agent: env.action_space(agent) for agent in env.possible_agents}
    return _common(seen, f"{name}: observation_space"), _common(done, f"{name}: action_space")


def groups_of(env: Any) -> dict[str, list[str]]:
    """The agents with equal spaces, each group by the name of its first agent."""
    found: dict[str, list[str]] = {}
    for agent in env.possible_agents:
        own = env.observation_space(agent), env.action_space(agent)
        first = next((g for g in found if (env.observation_space(g), env.action_space(g)) == own), agent)
        found.setdefault(first, []).append(agent)
    return found


class Padded:
    """A game whose agents' spaces differ, seen through their common ones.

    Observations are followed by zeros. Of actions, an agent's own first numbers count; where it has fewer options than
    others its info has the mask that says so.
    """

    def __init__(self, game: Game, observation: Space[Any], action: Space[Any]) -> None:
        """`observation`, `action`: the common spaces."""
        self.game, self.env, self.agents, self.in_turns = game, game.env, game.agents, game.in_turns
        self._dtype: Any = observation.dtype
        self._size = observation.shape[0] if observation.shape else 0
        self._actions = {agent: self.env.action_space(agent) for agent in self.agents}
        self._options = int(action.n) if isinstance(action, spaces.Discrete) else 0
        self._pads = any(self.env.observation_space(agent) != observation for agent in self.agents)
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
        self.game.step([a if self._options else a[: self._actions[agent].shape[0]] for agent, a in own])
        self._look()

    def _look(self) -> None:
        game = self.game
        self.rewards = game.rewards
        self.seen = {agent: self._padded(obs) for agent, obs in game.seen.items()}
        self.left = {agent: (self._padded(obs), *flags) for agent, (obs, *flags) in game.left.items()}
        self.infos = {agent: game.infos.get(agent) or {} for agent in game.agents}
        if self._options:
            self.infos = {agent: {KEY: self._mask(agent)} | info for agent, info in self.infos.items()}

    def _padded(self, obs: Any) -> Any:
        if not self._pads or not isinstance(obs, np.ndarray) or obs.ndim != 1 or obs.dtype != self._dtype:
            return obs
        return np.concatenate([obs, np.zeros(self._size - len(obs), self._dtype)])

    def _mask(self, agent: str) -> NDArray[np.bool_]:
        return np.arange(self._options) < self._actions[agent].n


def _common(found: dict[str, Any], name: str) -> Space[Any]:
    kinds = list(found.values())
    if all(space == kinds[0] for space in kinds):
        return kinds[0]
    if all(isinstance(space, spaces.Discrete) and space.start == 0 for space in kinds) and "action" in name:
        return spaces.Discrete(max(int(space.n) for space in kinds))
    if all(isinstance(space, spaces.Box) and len(space.shape) == 1 for space in kinds):
        dtypes, size = {space.dtype for space in kinds}, max(space.shape[0] for space in kinds)
        if len(dtypes) == 1:
            low, high = (
                min(float(space.low.min()) for space in kinds),
                max(float(space.high.max()) for space in kinds),
            )
            return spaces.Box(min(low, 0.0), max(high, 0.0), (size,), kinds[0].dtype)
    said = ", ".join(f"{agent} has {space}" for agent, space in found.items())
    raise EnvError(
        f"{name}: {said}; agents share one batch, so spaces that differ must all be a Box of one axis and one dtype "
        "(or, for actions, all Discrete from 0)"
    )
