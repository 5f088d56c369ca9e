"""Games of several agents, read through PettingZoo's two interfaces into one form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Game(Protocol):
    """One environment of several agents.

    After `reset` and `step`: who acts next and what they see, whose step is complete and what it was worth, and who
    left, with their last observation and flags.
    """

    env: Any
    agents: tuple[str, ...]
    in_turns: bool
    seen: dict[str, Any]
    rewards: dict[str, Any]
    left: dict[str, tuple[Any, Any, Any]]
    infos: dict[str, Any]

    def reset(self, **start: Any) -> None:
        """Begins an episode."""
        ...

    def step(self, actions: Sequence[Any]) -> None:
        """One step: an action for each possible agent, of which only those in `seen` count."""
        ...


class Parallel:
    """A `pettingzoo.ParallelEnv`: all agents that are there act together."""

    in_turns = False

    def __init__(self, env: Any) -> None:
        """`env`: stepped from here alone."""
        self.env, self.agents = env, tuple(env.possible_agents)
        self.seen: dict[str, Any] = {}
        self.rewards: dict[str, Any] = {}
        self.left: dict[str, tuple[Any, Any, Any]] = {}
        self.infos: dict[str, Any] = {}

    def reset(self, **start: Any) -> None:
        """Begins an episode."""
        obs, self.infos = self.env.reset(**start)
        self.rewards, self.left = {}, {}
        self.seen = _each("observation", obs, self.env.agents)

    def step(self, actions: Sequence[Any]) -> None:
        """Agents who act: those of the last step who have not left, and those who came."""
        chosen = {
            agent: action
            for agent, action in zip(self.agents, actions, strict=True)
            if agent in self.seen
        }
        obs, rewards, terminated, truncated, self.infos = self.env.step(chosen)
        self.rewards = _each("reward", rewards, chosen)
        terminated, truncated = (
            _each("terminated", terminated, chosen),
            _each("truncated", truncated, chosen),
        )
        ended = [agent for agent in chosen if terminated[agent] or truncated[agent]]
        last = _each("observation", obs, ended)
        self.left = {
            agent: (last[agent], terminated[agent], truncated[agent]) for agent in ended
        }
        there = [
            agent
            for agent in self.agents
            if agent in self.env.agents and agent not in ended
        ]
        vanished = [agent for agent in chosen if agent not in (*there, *ended)]
        if vanished:
            raise EnvError(
                f"{vanished[0]} is gone from `agents`, but was neither terminated nor truncated"
            )
        self.seen = _each("observation", obs, there)


class Turns:
    """A `pettingzoo.AECEnv`: one agent acts at a time.

    An agent's step goes from its action to its next turn, or to its end: it is worth all that the agent was rewarded
    in between. What comes before an agent's first action counts for its first step.
    """

    in_turns = True

    def __init__(self, env: Any) -> None:
        """`env`: stepped from here alone."""
        self.env, self.agents = env, tuple(env.possible_agents)
        self.seen: dict[str, Any] = {}
        self.rewards: dict[str, Any] = {}
        self.left: dict[str, tuple[Any, Any, Any]] = {}
        self.infos: dict[str, Any] = {}
        self._waiting: set[str] = set()
        self._early: dict[str, Any] = {}

    def reset(self, **start: Any) -> None:
        """Begins an episode."""
        self.env.reset(**start)
        self._waiting, self._early, self.infos = set(), {}, {}
        self._look()

    def step(self, actions: Sequence[Any]) -> None:
        """The agent whose turn it is acts; agents who have ended are taken off in the same step."""
        agent = self.env.agent_selection
        self._waiting.add(agent)
        self.env.step(actions[self.agents.index(agent)])
        self._look()

    def _look(self) -> None:
        self.seen, self.rewards, self.left = {}, {}, {}
        while self.env.agents:
            agent = self.env.agent_selection
            obs, reward, terminated, truncated, self.infos[agent] = self.env.last()
            over = terminated or truncated
            if agent in self._waiting:
                self._waiting.remove(agent)
                self.rewards[agent] = reward + self._early.pop(agent, 0)
                if over:
                    self.left[agent] = (obs, terminated, truncated)
            else:
                self._early[agent] = reward
            if not over:
                self.seen = {agent: obs}
                return
            self.env.step(None)


def _each(what: str, given: Any, agents: Iterable[str]) -> dict[str, Any]:
    """The values of these agents; EnvError naming one that has none."""
    if not isinstance(given, dict):
        raise EnvError(
            f"the {what}s are a {type(given).__name__}; return a dict of agents"
        )
    for agent in agents:
        if agent not in given:
            raise EnvError(f"{agent} is there, but has no {what}")
    return {agent: given[agent] for agent in agents}


def is_game(env: Any) -> bool:
    """Whether it has PettingZoo's interface."""
    return hasattr(env, "possible_agents") and callable(
        getattr(env, "observation_space", None)
    )


def game_of(env: Any) -> Game:
    """The game behind either interface."""
    return Turns(env) if hasattr(env, "last") else Parallel(env)


def check_agents_alike(envs: list[Any], name: str) -> None:
    """EnvError unless every agent of all environments is as it is in the first."""
    for number, env in enumerate(envs):
        if tuple(env.possible_agents) != tuple(envs[0].possible_agents):
            raise EnvError(
                f"{name}: environment {number} has other agents than environment 0"
            )
        for what in ("observation_space", "action_space"):
            for agent in env.possible_agents:
                if getattr(env, what)(agent) != getattr(envs[0], what)(agent):
                    raise EnvError(
                        f"{name}: {agent} of environment {number} has another {what} than in environment 0"
                    )
