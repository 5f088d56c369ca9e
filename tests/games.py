"""Small games of several agents in PettingZoo's two interfaces, whose numbers are worked by hand in the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv

SEEN = spaces.Box(-100, 100, (2,), np.float32)
DONE = spaces.Discrete(5)


class Shift(ParallelEnv):
    """Agents a and b begin; c comes after step 1; a ends (terminated) at step 2, b (truncated) at 3, c at step 4.

    Agent i observes [clock, i] and is rewarded clock + action / 10; the clock counts the steps, this one included.
    """

    metadata = {"name": "shift"}  # noqa: RUF012
    possible_agents = ["a", "b", "c"]  # noqa: RUF012

    def __init__(self, mistake: str = "") -> None:
        self.mistake, self.clock, self.render_mode = mistake, 0, None
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> Any:
        return DONE if (self.mistake, agent) == ("spaces", "b") else SEEN

    def action_space(self, agent: str) -> Any:
        return DONE

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.clock, self.agents = 0, ["a", "b"]
        return self.seen(self.agents), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> Any:
        assert set(actions) == set(self.agents)
        self.clock += 1
        there = list(self.agents)
        rewards = {agent: self.clock + actions[agent] / 10 for agent in there}
        terminated = {agent: (agent, self.clock) in (("a", 2), ("c", 4)) for agent in there}
        truncated = {agent: (agent, self.clock) == ("b", 3) for agent in there}
        self.agents = [agent for agent in there if not (terminated[agent] or truncated[agent])]
        infos: dict[str, Any] = {agent: {"clock": self.clock} for agent in there}
        if self.clock == 1:
            self.agents.append("c")
            there.append("c")
            infos["c"], rewards["c"], terminated["c"], truncated["c"] = {}, 0.0, False, False
        obs = self.seen(there)
        if self.mistake == "gone" and self.clock == 2:
            self.agents.remove("b")
        if self.mistake == "unpaid":
            del rewards["a"]
        if self.mistake == "nan":
            obs["b"][0] = np.nan
        if self.mistake == "rich":
            rewards["a"] = 1e39
        if self.mistake == "raises":
            raise OverflowError("clock")
        return obs, rewards, terminated, truncated, infos

    def seen(self, agents: list[str]) -> dict[str, Any]:
        return {agent: np.array([self.clock, self.possible_agents.index(agent)], np.float32) for agent in agents}


class Ring(AECEnv):
    """Two agents act in turn, `turns` times; an action is worth ten times itself to who acts, itself to the other.

    Observes [turn, the other's last action].
    """

    metadata = {"name": "ring"}  # noqa: RUF012
    possible_agents = ["x", "y"]  # noqa: RUF012

    def __init__(self, turns: int = 4) -> None:
        super().__init__()
        self.turns, self.turn, self.action, self.render_mode = turns, 0, 0, None
        self.np_random = np.random.default_rng(0)

    def observation_space(self, agent: str) -> Any:
        return SEEN

    def action_space(self, agent: str) -> Any:
        return DONE

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        if seed is not None:
            self.np_random = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.turn, self.action = 0, int(self.np_random.integers(5))
        self.rewards = dict.fromkeys(self.agents, 0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0)
        self.terminations, self.truncations = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}
        self.agent_selection = "x"

    def observe(self, agent: str) -> Any:
        return np.array([self.turn, self.action], np.float32)

    def step(self, action: int | None) -> None:
        agent = self.agent_selection
        other = "y" if agent == "x" else "x"
        if self.terminations[agent]:
            self._was_dead_step(action)
            return
        assert action is not None
        self.turn, self.action = self.turn + 1, int(action)
        self._cumulative_rewards[agent] = 0
        self.rewards = {agent: 10 * self.action, other: self.action}
        self._accumulate_rewards()
        if self.turn == self.turns:
            self.terminations = dict.fromkeys(self.agents, True)
        self.agent_selection = other
