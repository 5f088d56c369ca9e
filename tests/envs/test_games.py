"""What games of several agents may do besides: agents who never act, never play, stay or are unknown; late masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv
from torch import nn

import shoal
from shoal.check.check_env import check_env
from shoal.envs.agents.tictactoe import TicTacToe
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.nets.policy import Network, make_policy, wrap
from shoal.run.evaluate import evaluate
from shoal.stream.rollouts import rollouts
from shoal.types import EnvError
from tests.envs.test_agents import listed, started, step
from tests.games import Ring, Shift


class Quit(AECEnv):
    """Zero-sum: a folds (0), which ends the game, or passes (1); then b ends it. Who ends it loses 1 to the other."""

    metadata = {"name": "quit"}  # noqa: RUF012
    possible_agents = ["a", "b"]  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.render_mode = None

    def observation_space(self, agent: str) -> Any:
        return spaces.Box(0, 1, (1,), np.float32)

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(2)

    def observe(self, agent: str) -> Any:
        return np.zeros(1, np.float32)

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        self.agents, self.agent_selection = ["a", "b"], "a"
        self.rewards, self._cumulative_rewards = dict.fromkeys(self.agents, 0.0), dict.fromkeys(self.agents, 0.0)
        self.terminations, self.truncations = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}

    def step(self, action: int | None) -> None:
        agent = self.agent_selection
        if self.terminations[agent]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[agent] = 0.0
        self._clear_rewards()
        if agent == "a" and action == 1:
            self.agent_selection = "b"
            return
        self.rewards = {name: -1.0 if name == agent else 1.0 for name in self.agents}
        self.terminations = dict.fromkeys(self.agents, True)
        self._accumulate_rewards()
        self._deads_step_first()


def test_a_game_that_ends_before_an_agent_acted_counts_for_it() -> None:
    """A folds: b gets 1 for an episode of no step, which is not valid; a saved game goes on all the same."""
    env = started(Quit)
    ready = step(env, [0, 0])
    assert listed(ready, "terminated", "valid", "reward") == [[True, True], [True, False], [-1, 1]]
    assert listed(ready, "episode_return", "episode_length", "over") == [[-1, 1], [1, 0], [True, True]]
    assert ready.game_over is not None
    assert ready.game_over.all()
    ready = step(env, [1, 0])
    assert listed(ready, "over", "game_over", "reward") == [[False, False], [False, False], [0, 0]]
    assert env.restore(env.state()) == []
    env.recv()
    ready = step(env, [0, 1])
    assert listed(ready, "episode_return", "episode_length", "valid") == [[1, -1], [1, 1], [True, True]]
    vector = shoal.make_vec(Quit, 1)
    vector.reset(seed=0)
    total = np.zeros(2)
    for _ in range(10):
        total += vector.step(np.zeros(2, np.int64))[1]
    assert total.tolist() == [-10, 10]


class Herd(ParallelEnv):
    """a and b of three possible agents play for 4 steps, 1 a step; a's end at step 2 is handled as `mistake` says."""

    metadata = {"name": "herd"}  # noqa: RUF012
    possible_agents = ["a", "b", "c"]  # noqa: RUF012

    def __init__(self, mistake: str = "") -> None:
        self.mistake, self.clock, self.render_mode = mistake, 0, None
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> Any:
        return spaces.Box(0, 9, (1,), np.float32)

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.clock, self.agents = 0, ["a", "b"]
        if self.mistake == "stranger at reset":
            self.agents.append("z")
        obs = {agent: np.zeros(1, np.float32) for agent in self.agents}
        return obs if self.mistake == "old reset" else (obs, {agent: {} for agent in self.agents})

    def step(self, actions: dict[str, int]) -> Any:
        self.clock += 1
        there = list(self.agents)
        dies = self.mistake == "stays" and self.clock == 2
        over = self.clock == 4
        terminated = {agent: over or (agent == "a" and dies) for agent in there}
        if over and self.mistake != "stays at the end":
            self.agents = []
        if self.clock == 1 and self.mistake in ("stranger", "twice"):
            self.agents.append("z" if self.mistake == "stranger" else "b")
        obs, none = {agent: np.zeros(1, np.float32) for agent in there}, dict.fromkeys(there, False)
        made = obs, dict.fromkeys(there, 1.0), terminated, none, {agent: {} for agent in there}
        return made[:4] if self.mistake == "four" else made


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("stays", r"a was terminated or truncated, but is still in `agents` while others go on"),
        ("stranger", r"z is in `agents`, but not in possible_agents \(a, b, c\)"),
        ("stranger at reset", r"at the reset: z is in `agents`, but not in possible_agents"),
        ("twice", r"`agents` lists somebody twice: a, b, b"),
        ("old reset", r"at the reset: the infos are a str|reset\(\) returned"),
        ("four", r"step\(\) returned .* return \(observations, rewards, terminations, truncations, infos\)"),
    ],
)
def test_lists_of_agents_that_break_the_contract_are_named(mistake: str, message: str) -> None:
    """One comparison each."""

    def play() -> None:
        env = started(Herd, env_kwargs={"mistake": mistake})
        for _ in range(2):
            step(env, [0, 0, 0])

    with pytest.raises(EnvError, match=message):
        play()


class Estate(Herd):
    """B leaves after its second step, and inherits 5 in the third."""

    def step(self, actions: dict[str, int]) -> Any:
        obs, rewards, terminated, truncated, infos = super().step(actions)
        if self.clock == 2:
            self.agents, terminated["b"] = ["a"], True
        if self.clock == 3:
            rewards |= {"b": 5.0, "c": 0.0}
        return obs, rewards, terminated, truncated, infos


def test_a_reward_that_counts_for_nobody_is_said_once() -> None:
    env = started(Estate)
    for _ in range(2):
        step(env, [0, 0, 0])
    with pytest.warns(UserWarning, match=r"b did not act, but was given the reward 5\.0, which counts for nobody"):
        step(env, [0, 0, 0])
    for _ in range(4):
        step(env, [0, 0, 0])


@pytest.mark.parametrize("mistake", ["", "stays at the end"])
def test_an_agent_who_never_plays_is_not_waited_for(mistake: str) -> None:
    """C is never there: a game counts for a and b; agents that stay when all have ended begin the next game."""
    env = make(Herd, 2, env_kwargs={"mistake": mistake})
    policy = make_policy(env.spec, Network(hidden=(4,)), 0)
    score = evaluate(policy, env, episodes=3, acting=Acting(0))
    assert (score.returns.tolist(), score.lengths.tolist()) == ([4.0] * 6, [4.0] * 6)


def test_games_of_agents_who_never_act_are_counted_by_evaluation() -> None:
    """A policy that always folds: a loses 1, b wins 1, in each of 4 games; metrics count them too."""
    env = make(Quit, 2)

    class Folds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(torch.tensor([9.0, -9.0]))

        def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.logits.expand(*obs.shape[:-1], 2), obs[..., 0]

    policy = wrap(Folds(), env.spec)
    score = evaluate(policy, env, episodes=4, acting=Acting(0))
    assert score.returns.tolist() == [-1, -1, 1, 1, -1, -1, 1, 1]
    assert score.lengths.tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    stream = rollouts(make(Quit, 1), policy, num_steps=5, acting=Acting(0))
    steps = next(stream)
    assert stream.episodes.rows.tolist() == [0, 1] * 5
    assert stream.episodes.returns.tolist() == [-1, 1] * 5
    assert steps.valid.tolist() == [[True, False]] * 5


def test_an_agent_of_turns_who_is_not_taken_off_is_named() -> None:
    """Its author forgot step(None): without a word it would be asked for ever."""

    class Forgets(Quit):
        def step(self, action: int | None) -> None:
            if action is not None:
                super().step(action)

    env = started(Forgets)
    with pytest.raises(EnvError, match=r"a was terminated or truncated, but is still in `agents` after step\(None\)"):
        step(env, [0, 0])


def test_a_selection_that_is_not_there_is_named() -> None:
    """Instead of whatever `last` raises."""

    class Selects(Quit):
        def reset(self, seed: int | None = None, options: Any = None) -> None:
            super().reset(seed, options)
            self.agents = ["b"]

    with pytest.raises(EnvError, match=r"agent_selection is 'a', which is not in `agents` \(b\)"):
        started(Selects)


def test_masks_of_a_player_who_waits_are_not_read() -> None:
    """Some games show the waiting player the mover's mask: only the mover's own counts."""

    class Shows(TicTacToe):
        def observe(self, agent: str) -> dict[str, Any]:
            seen = super().observe(agent)
            return seen | {"action_mask": np.eye(9, dtype=np.int8)[4]}

    env = started(Shows)
    assert env.out.action_mask.sum(1).tolist() == [1, 9]


def test_a_mask_that_only_later_turns_have_is_refused() -> None:
    """The first mover would have chosen among all options."""

    class Late(Quit):
        def reset(self, seed: int | None = None, options: Any = None) -> None:
            super().reset(seed, options)
            self.infos["b"] = {"action_mask": [0, 1]}

    env = started(Late)
    with pytest.raises(EnvError, match=r"row 1 \(b\) .* was given info\['action_mask'\], though its reset gave none"):
        step(env, [1, 0])


def test_an_agents_own_mask_is_padded_with_its_options() -> None:
    """A speaker of 3 words among 5 options who may say the second one only."""

    class Tells(Herd):
        def action_space(self, agent: str) -> Any:
            return spaces.Discrete(3 if agent == "a" else 5)

        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            obs, infos = super().reset(seed, options)
            infos["a"] = {"action_mask": np.array([0, 1, 0], np.int8)}
            return obs, infos

    env = started(Tells)
    assert env.out.action_mask[:2].astype(int).tolist() == [[0, 1, 0, 0, 0], [1, 1, 1, 1, 1]]


@pytest.mark.parametrize("game", [Shift, Ring, TicTacToe])
def test_check_env_plays_games(game: Any) -> None:
    """Agents who act together and in turns, with masks: nothing to object to."""
    report = check_env(game, steps=400)
    found = {finding.name: finding.verdict for finding in report.findings}
    assert report.ok
    assert set(found.values()) <= {"ok", "warning"}
    assert {name for name, verdict in found.items() if verdict == "warning"} == (set() if game is Ring else {"seed"})
    assert {"agents", "determinism", "ends", "resume", "speed"} <= set(found)


def test_check_env_names_what_games_do_wrong() -> None:
    """An agent who stays after its end; one who never plays."""
    report = check_env(Herd, steps=400, env_kwargs={"mistake": "stays"})
    (error,) = report.errors
    assert "a was terminated or truncated, but is still in `agents`" in error.says
    assert "parallel_api_test" in error.advice
    warned = {finding.name: finding.says for finding in check_env(Herd, steps=400).warnings}
    assert warned["agents"].startswith("c never had a turn")


class Match:
    """Two agents name the number that both see; the interface of a ParallelEnv, from no class of PettingZoo's."""

    possible_agents: tuple[str, ...] = ("left", "right")

    def __init__(self) -> None:
        self.agents: list[str] = []
        self.np_random = np.random.default_rng()

    def observation_space(self, agent: str) -> Any:
        return spaces.Discrete(3)

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(3)

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            self.np_random = np.random.default_rng(seed)
        self.agents, self.shown = list(self.possible_agents), int(self.np_random.integers(3))
        return dict.fromkeys(self.agents, self.shown), {}

    def step(self, actions: dict[str, int]) -> Any:
        both = float(all(action == self.shown for action in actions.values()))
        there, self.agents = self.agents, []
        given = (dict.fromkeys(there, value) for value in (self.shown, both, True, False))
        return *given, {agent: {} for agent in there}


def test_a_game_of_no_class_of_pettingzoos() -> None:
    """Without render, close, unwrapped and metadata it is checked, stepped, saved and closed."""
    report = check_env(Match, steps=50)
    assert report.ok, str(report)
    env = make(Match, 2)
    env.reset(seed=0)
    shown = env.recv().obs.copy()
    saved = env.state()
    env.send(slice(0, 4), shown)
    ready = env.recv()
    assert ready.reward.tolist() == [1.0] * 4
    assert ready.terminated.all()
    after = ready.obs.copy()
    env.restore(saved)
    env.recv()
    env.send(slice(0, 4), shown)
    assert env.recv().obs.tolist() == after.tolist()
    env.close()
