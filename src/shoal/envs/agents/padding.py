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

    from shoal.envs.agents.games import Game, PettingZooEnv
    from shoal.types import Tree


def groups_of(env: PettingZooEnv) -> dict[str, list[str]]:
    """The agents with equal spaces, each group by the name of its first agent."""
    found: dict[str, list[str]] = {}
    for agent in env.possible_agents:
        found.setdefault(_first_alike(env, agent, found), []).append(agent)
    return found


def _first_alike(env: PettingZooEnv, agent: str, known: Mapping[str, object]) -> str:
    """The first of the known agents with the same spaces, or the agent itself."""
    for other in known:
        sees_same = env.observation_space(other) == env.observation_space(agent)
        if sees_same and env.action_space(other) == env.action_space(agent):
            return other
    return agent


def common_spaces(
    env: PettingZooEnv, name: str, *, groups: int
) -> tuple[Space[Any], Space[Any]]:
    """The observation and the action space that hold those of every agent; EnvError where there is none.

    Of several groups, observations have a number more for each.
    """
    seen = {agent: env.observation_space(agent) for agent in env.possible_agents}
    done = {agent: env.action_space(agent) for agent in env.possible_agents}
    if groups == 1:
        first = env.possible_agents[0]
        return seen[first], done[first]
    observation = _longest(seen, f"{name}: observation_space", more=groups)
    actions = list(done.values())
    if all(_counts_from_0(space) for space in actions):
        return observation, max(actions, key=_options)
    return observation, _longest(done, f"{name}: action_space", more=0)


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
        assert isinstance(observation, spaces.Box)
        self.game = game
        self.env = game.env
        self.agents = game.agents
        self.in_turns = game.in_turns
        self._tails: dict[str, NDArray[Any]] = {}
        for number, own in enumerate(groups.values()):
            for agent in own:
                length = _length(self.env.observation_space(agent))
                tail = np.zeros(observation.shape[0] - length, observation.dtype)
                tail[len(tail) - len(groups) + number] = 1
                self._tails[agent] = tail
        own_actions = {agent: self.env.action_space(agent) for agent in self.agents}
        self._options = _options(action)
        self._own_options = {agent: _options(x) for agent, x in own_actions.items()}
        self._own_lengths = {agent: _length(x) for agent, x in own_actions.items()}
        self.seen: dict[str, Tree] = {}
        self.rewards: dict[str, Any] = {}
        self.unplayed: dict[str, Any] = {}
        self.left: dict[str, tuple[Tree, Any, Any]] = {}
        self.infos: dict[str, Any] = {}

    def reset(self, **start: Any) -> None:
        """Begins an episode."""
        self.game.reset(**start)
        self._look()

    def step(self, actions: Sequence[Tree]) -> None:
        """One step with the agents' own parts of the actions."""
        own = list(actions)
        if not self._options:
            for at, agent in enumerate(self.agents):
                own[at] = own[at][: self._own_lengths[agent]]
        self.game.step(own)
        self._look()

    def _look(self) -> None:
        game = self.game
        self.rewards, self.unplayed = game.rewards, game.unplayed
        self.seen, self.left, self.infos = {}, {}, {}
        for agent, obs in game.seen.items():
            self.seen[agent] = self._padded(agent, obs)
        for agent, (obs, terminated, truncated) in game.left.items():
            self.left[agent] = self._padded(agent, obs), terminated, truncated
        for agent in game.agents:
            info = game.infos.get(agent) or {}
            if self._options:
                info = info | {KEY: self._padded_mask(agent, info.get(KEY))}
            self.infos[agent] = info

    def _padded_mask(self, agent: str, own: Tree) -> Tree:
        """The mask of the common options, of which an agent has its own first ones."""
        count = self._own_options[agent]
        mask = np.arange(self._options) < count
        if own is None:
            return mask
        given = np.asarray(own)
        if given.shape != (count,):
            return own
        return np.concatenate([given, np.zeros(self._options - count, given.dtype)])

    def _padded(self, agent: str, obs: Tree) -> Tree:
        tail = self._tails[agent]
        if not isinstance(obs, np.ndarray) or obs.ndim != 1 or obs.dtype != tail.dtype:
            return obs
        return np.concatenate([obs, tail])


def _counts_from_0(space: Space[Any]) -> bool:
    return isinstance(space, spaces.Discrete) and space.start == 0


def _options(space: Space[Any]) -> int:
    """The options of a Discrete; 0 for others."""
    return int(space.n) if isinstance(space, spaces.Discrete) else 0


def _length(space: Space[Any]) -> int:
    """The numbers of a space of one axis; 0 for a Discrete."""
    return space.shape[0] if space.shape else 0


def _longest(found: dict[str, Space[Any]], name: str, *, more: int) -> spaces.Box:
    """A Box of the longest length and `more`."""
    every_box = [space for space in found.values() if isinstance(space, spaces.Box)]
    boxes = [space for space in every_box if len(space.shape) == 1]
    dtypes = {space.dtype for space in boxes}
    if len(boxes) < len(found) or len(dtypes) > 1:
        said = ", ".join(f"{agent} has {space}" for agent, space in found.items())
        raise EnvError(
            f"{name}: {said}; agents share one batch, so spaces that differ must all be a Box of one axis and one "
            "dtype (or, for actions, all Discrete from 0)"
        )
    size = max(space.shape[0] for space in boxes) + more
    low = min(float(space.low.min()) for space in boxes)
    high = max(float(space.high.max()) for space in boxes)
    if more:
        high = max(high, 1.0)
    return spaces.Box(min(low, 0.0), high, (size,), boxes[0].dtype)
