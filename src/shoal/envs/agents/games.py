"""Games of several agents, read through PettingZoo's two interfaces into one form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np

from shoal.envs.python_env import is_long
from shoal.envs.told import is_told, tell
from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gymnasium import Space

    from shoal.types import Tree


class PettingZooEnv(Protocol):
    """What both of PettingZoo's interfaces have."""

    possible_agents: Sequence[str]
    agents: Sequence[str]

    @property
    def unwrapped(self) -> Any:
        """The environment without wrappers."""
        ...

    def observation_space(self, agent: str) -> Space[Any]:
        """What an agent observes."""
        ...

    def action_space(self, agent: str) -> Space[Any]:
        """What an agent does."""
        ...

    def reset(self, **start: Any) -> Any:
        """Begins an episode; a parallel environment returns observations and infos."""
        ...

    def render(self) -> Any:
        """Draws the environment."""
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


class ParallelEnv(PettingZooEnv, Protocol):
    """A `pettingzoo.ParallelEnv`."""

    def step(self, actions: Mapping[str, Tree]) -> tuple[Any, Any, Any, Any, Any]:
        """Observations, rewards, both flags and infos, each by agent."""
        ...


class AECEnv(PettingZooEnv, Protocol):
    """A `pettingzoo.AECEnv`."""

    agent_selection: str

    def step(self, action: Tree) -> None:
        """The selected agent acts; one that has ended does so with None."""
        ...

    def last(self) -> tuple[Tree, Any, Any, Any, Any]:
        """The selected agent's observation, reward since its last turn, both flags and info."""
        ...


class Game(Protocol):
    """One environment of several agents.

    After `reset` and `step`: who acts next and what they see, whose step is complete and what it was worth, and who
    left, with their last observation and flags. `unplayed`: what those who left were given without ever acting.
    """

    agents: tuple[str, ...]
    in_turns: bool
    seen: dict[str, Tree]
    rewards: dict[str, Any]
    unplayed: dict[str, Any]
    left: dict[str, tuple[Tree, Any, Any]]
    infos: dict[str, Any]

    @property
    def env(self) -> PettingZooEnv:
        """The environment behind it."""
        ...

    def reset(self, **start: Any) -> None:
        """Begins an episode."""
        ...

    def step(self, actions: Sequence[Tree]) -> None:
        """One step: an action for each possible agent, of which only those in `seen` count."""
        ...


class Parallel:
    """A `pettingzoo.ParallelEnv`: all agents that are there act together."""

    in_turns = False

    def __init__(self, env: ParallelEnv) -> None:
        """`env`: stepped from here alone."""
        self.env = env
        self.agents = tuple(env.possible_agents)
        self.seen: dict[str, Tree] = {}
        self.rewards: dict[str, Any] = {}
        self.unplayed: dict[str, Any] = {}
        self.left: dict[str, tuple[Tree, Any, Any]] = {}
        self.infos: dict[str, Any] = {}
        self._told = is_told()

    def reset(self, **start: Any) -> None:
        """Begins an episode."""
        made: Any = self.env.reset(**start)
        if not is_long(made, 2):
            raise EnvError(f"reset() returned {made!r}; return (observations, infos)")
        obs, infos = made
        self.infos = _by_agent("info", infos)
        self.rewards, self.left = {}, {}
        self.seen = _each("observation", obs, self._there([]))

    def step(self, actions: Sequence[Tree]) -> None:
        """Agents who act: those of the last step who have not left, and those who came."""
        given = zip(self.agents, actions, strict=True)
        chosen = {agent: action for agent, action in given if agent in self.seen}
        made: Any = self.env.step(chosen)
        if not is_long(made, 5):
            raise EnvError(
                f"step() returned {made!r}; return (observations, rewards, terminations, truncations, infos)"
            )
        obs, rewards, terminated, truncated, infos = made
        self.infos = _by_agent("info", infos)
        self.rewards = _each("reward", rewards, chosen)
        if len(rewards) > len(chosen):
            self._look_at_others(rewards)
        terminated = _each("terminated", terminated, chosen)
        truncated = _each("truncated", truncated, chosen)
        ended = [agent for agent in chosen if terminated[agent] or truncated[agent]]
        last = _each("observation", obs, ended)
        self.left = {}
        for agent in ended:
            self.left[agent] = last[agent], terminated[agent], truncated[agent]
        there = self._there(ended)
        vanished = [agent for agent in chosen if agent not in (*there, *ended)]
        if vanished:
            raise EnvError(
                f"{vanished[0]} is gone from `agents`, but was neither terminated nor truncated"
            )
        self.seen = _each("observation", obs, there)

    def _look_at_others(self, rewards: Mapping[str, Any]) -> None:
        """Says, once, that somebody was rewarded who is not in the game."""
        lost = [x for x in self.agents if x in rewards and x not in self.rewards]
        paid = [agent for agent in lost if np.any(np.asarray(rewards[agent]) != 0)]
        if paid and not self._told:
            self._told = True
            tell(
                "reward",
                f"{paid[0]} did not act, but was given the reward {rewards[paid[0]]}, which counts for nobody",
                "give an agent who leaves all that it is worth in its last step, or let it stay",
            )

    def _there(self, ended: Sequence[str]) -> list[str]:
        """Who acts next, in the order of possible agents; EnvError where `agents` lists one who cannot."""
        now = self.env.agents
        there = [agent for agent in self.agents if agent in now and agent not in ended]
        if not there or len(there) == len(now):
            return there
        stayed = [agent for agent in ended if agent in now]
        if stayed:
            raise EnvError(
                f"{stayed[0]} was terminated or truncated, but is still in `agents` while others go on; take it off "
                "in that step (it may come back in a later one)"
            )
        raise _unlike(now, self.agents)


class Turns:
    """A `pettingzoo.AECEnv`: one agent acts at a time.

    An agent's step goes from its action to its next turn, or to its end: it is worth all that the agent was rewarded
    in between. What comes before an agent's first action counts for its first step. An agent who never acts has no
    step, but an episode, with what it was rewarded.
    """

    in_turns = True

    def __init__(self, env: AECEnv) -> None:
        """`env`: stepped from here alone."""
        self.env = env
        self.agents = tuple(env.possible_agents)
        self.seen: dict[str, Tree] = {}
        self.rewards: dict[str, Any] = {}
        self.unplayed: dict[str, Any] = {}
        self.left: dict[str, tuple[Tree, Any, Any]] = {}
        self.infos: dict[str, Any] = {}
        self._waiting: set[str] = set()
        self._early: dict[str, Any] = {}

    def reset(self, **start: Any) -> None:
        """Begins an episode."""
        self.env.reset(**start)
        self._waiting, self._early, self.infos = set(), {}, {}
        if not set(self.env.agents) <= set(self.agents):
            raise _unlike(self.env.agents, self.agents)
        self._look()

    def step(self, actions: Sequence[Tree]) -> None:
        """The agent whose turn it is acts; agents who have ended are taken off in the same step."""
        agent = self.env.agent_selection
        self._waiting.add(agent)
        self.env.step(actions[self.agents.index(agent)])
        self._look()

    def _look(self) -> None:
        self.seen, self.rewards, self.unplayed, self.left = {}, {}, {}, {}
        while self.env.agents:
            agent = self.env.agent_selection
            if agent not in self.env.agents:
                raise EnvError(
                    f"agent_selection is {agent!r}, which is not in `agents` ({', '.join(self.env.agents)})"
                )
            obs, reward, terminated, truncated, self.infos[agent] = self.env.last()
            if not (terminated or truncated):
                self._take_turn(agent, obs, reward)
                return
            worth = reward + self._early.pop(agent, 0)
            if agent in self._waiting:
                self._waiting.remove(agent)
                self.rewards[agent] = worth
            else:
                self.unplayed[agent] = worth
            self.left[agent] = (obs, terminated, truncated)
            self.env.step(None)
            if agent in self.env.agents:
                raise EnvError(
                    f"{agent} was terminated or truncated, but is still in `agents` after step(None); take it off "
                    "there, as PettingZoo's `_was_dead_step` does"
                )

    def _take_turn(self, agent: str, obs: Tree, reward: Any) -> None:
        """It is an agent's turn: its last step is complete, or it has not acted yet."""
        self.seen = {agent: obs}
        if agent in self._waiting:
            self._waiting.remove(agent)
            self.rewards[agent] = reward + self._early.pop(agent, 0)
        else:
            self._early[agent] = reward


def _by_agent(what: str, given: object) -> dict[str, Any]:
    """Values by agent; EnvError where they are none."""
    if not isinstance(given, dict):
        raise EnvError(
            f"the {what}s are a {type(given).__name__}; return a dict of agents"
        )
    return given


def _each(what: str, given: object, agents: Iterable[str]) -> dict[str, Any]:
    """The values of these agents; EnvError naming one that has none."""
    values = _by_agent(what, given)
    for agent in agents:
        if agent not in values:
            raise EnvError(
                f"{agent} is there, but has no {what}; every agent who acted or acts next has one, "
                "and one that only waits has its last observation and a reward of 0"
            )
    return {agent: values[agent] for agent in agents}


def _unlike(now: Sequence[str], possible: Sequence[str]) -> EnvError:
    """The error of `agents` that hold somebody unknown, or somebody twice."""
    strangers = [agent for agent in now if agent not in possible]
    if strangers:
        return EnvError(
            f"{strangers[0]} is in `agents`, but not in possible_agents ({', '.join(possible)})"
        )
    return EnvError(f"`agents` lists somebody twice: {', '.join(now)}")


def is_game(env: object) -> TypeGuard[PettingZooEnv]:
    """Whether it has PettingZoo's interface."""
    spaces_of = getattr(env, "observation_space", None)
    return hasattr(env, "possible_agents") and callable(spaces_of)


def game_of(env: Any) -> Game:
    """The game behind either interface."""
    return Turns(env) if hasattr(env, "last") else Parallel(env)
