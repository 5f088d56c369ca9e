"""Games of several agents, read through PettingZoo's two interfaces into one form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

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
    left, with their last observation and flags.
    """

    agents: tuple[str, ...]
    in_turns: bool
    seen: dict[str, Tree]
    rewards: dict[str, Any]
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
        self.left: dict[str, tuple[Tree, Any, Any]] = {}
        self.infos: dict[str, Any] = {}

    def reset(self, **start: Any) -> None:
        """Begins an episode."""
        obs, self.infos = self.env.reset(**start)
        self.rewards, self.left = {}, {}
        self.seen = _each("observation", obs, self.env.agents)

    def step(self, actions: Sequence[Tree]) -> None:
        """Agents who act: those of the last step who have not left, and those who came."""
        given = zip(self.agents, actions, strict=True)
        chosen = {agent: action for agent, action in given if agent in self.seen}
        obs, rewards, terminated, truncated, self.infos = self.env.step(chosen)
        self.rewards = _each("reward", rewards, chosen)
        terminated = _each("terminated", terminated, chosen)
        truncated = _each("truncated", truncated, chosen)
        ended = [agent for agent in chosen if terminated[agent] or truncated[agent]]
        last = _each("observation", obs, ended)
        self.left = {}
        for agent in ended:
            self.left[agent] = last[agent], terminated[agent], truncated[agent]
        now = self.env.agents
        there = [agent for agent in self.agents if agent in now and agent not in ended]
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

    def __init__(self, env: AECEnv) -> None:
        """`env`: stepped from here alone."""
        self.env = env
        self.agents = tuple(env.possible_agents)
        self.seen: dict[str, Tree] = {}
        self.rewards: dict[str, Any] = {}
        self.left: dict[str, tuple[Tree, Any, Any]] = {}
        self.infos: dict[str, Any] = {}
        self._waiting: set[str] = set()
        self._early: dict[str, Any] = {}

    def reset(self, **start: Any) -> None:
        """Begins an episode."""
        self.env.reset(**start)
        self._waiting, self._early, self.infos = set(), {}, {}
        self._look()

    def step(self, actions: Sequence[Tree]) -> None:
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


def _each(what: str, given: object, agents: Iterable[str]) -> dict[str, Any]:
    """The values of these agents; EnvError naming one that has none."""
    if not isinstance(given, dict):
        raise EnvError(
            f"the {what}s are a {type(given).__name__}; return a dict of agents"
        )
    for agent in agents:
        if agent not in given:
            raise EnvError(f"{agent} is there, but has no {what}")
    return {agent: given[agent] for agent in agents}


def is_game(env: object) -> TypeGuard[PettingZooEnv]:
    """Whether it has PettingZoo's interface."""
    spaces_of = getattr(env, "observation_space", None)
    return hasattr(env, "possible_agents") and callable(spaces_of)


def game_of(env: Any) -> Game:
    """The game behind either interface."""
    return Turns(env) if hasattr(env, "last") else Parallel(env)
