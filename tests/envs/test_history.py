"""What is kept of episodes so that they can be played again: exact, compact, and bounded."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from shoal.envs import history
from shoal.envs.generators import Generators
from shoal.envs.history import FIRST_ROOM, History
from shoal.envs.registry import make
from shoal.envs.workers.settings import Workers
from shoal.types import Layout

pytestmark = pytest.mark.usefixtures("warm_workers")

DISCRETE = Layout.of(spaces.Discrete(5))
NESTED = Layout.of(spaces.Dict({"go": spaces.Discrete(3), "arm": spaces.Box(-1, 1, (2,), np.float32)}))
BOUND = 10


class Endless(gym.Env[Any, Any]):
    """Observes its seeded start and the sum of the actions since; ends where action 3 is taken."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.seen = np.array([self.np_random.random(), 0.0])
        return self.seen.copy(), {}

    def step(self, action: int) -> Any:
        self.seen[1] += action
        return self.seen.copy(), float(action), action == 3, False, {}


class EndlessPair:
    """The same for two agents at once, as PettingZoo's parallel interface has it."""

    possible_agents = ("a", "b")
    render_mode = None

    def __init__(self) -> None:
        self.agents: list[str] = []
        self.np_random = np.random.Generator(np.random.PCG64(0))

    @property
    def unwrapped(self) -> Any:
        return self

    def observation_space(self, agent: str) -> Any:
        return Endless.observation_space

    def action_space(self, agent: str) -> Any:
        return Endless.action_space

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            self.np_random = np.random.Generator(np.random.PCG64(seed))
        self.agents = list(self.possible_agents)
        self.seen = {agent: np.array([self.np_random.random(), 0.0]) for agent in self.agents}
        return {agent: seen.copy() for agent, seen in self.seen.items()}, {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> Any:
        for agent, action in actions.items():
            self.seen[agent][1] += action
        over = dict.fromkeys(actions, False)
        obs = {agent: seen.copy() for agent, seen in self.seen.items()}
        return obs, {agent: float(x) for agent, x in actions.items()}, over, over, {agent: {} for agent in actions}

    def close(self) -> None:
        pass


def endless_in_a_process() -> Endless:
    """In a worker, where the bound is set before the rows are made."""
    history.MAX_STEPS = BOUND
    return Endless()


def play(env: Any, steps: int, action: int = 1) -> Any:
    ready: Any = None
    for _ in range(steps):
        env.send(slice(0, env.num_rows), np.full(env.num_rows, action))
        ready = env.recv()
    return ready


def test_actions_come_back_as_they_were_recorded() -> None:
    """More steps than there is room for at first, in parts; environment 1 begins anew in between."""
    kept = History(DISCRETE, 3)
    expected: list[list[int]] = [[], [], []]
    rng = np.random.default_rng(0)
    for step in range(3 * FIRST_ROOM + 5):
        if step == FIRST_ROOM:
            kept.begin(1, {"seed": 7})
            expected[1] = []
        for part in (slice(0, 2), slice(2, 3)):
            actions = rng.integers(0, 5, part.stop - part.start)
            kept.record(part, actions)
            for at, action in zip(range(part.start, part.stop), actions.tolist(), strict=True):
                expected[at].append(action)
    assert [kept.actions_of(number).tolist() for number in range(3)] == expected
    assert kept.starts == [{}, {"seed": 7}, {}]
    assert kept.lengths.tolist() == [197, 133, 197]


def test_nested_actions_of_several_rows() -> None:
    """Two environments of two rows each: the actions of a step stand side by side, in order."""
    kept = History(NESTED, 2, rows_each=2)
    for step in range(3):
        arm = np.arange(8, dtype=np.float32).reshape(4, 2) / 8 + step
        kept.record(slice(0, 2), {"go": np.arange(4) % 3, "arm": arm})
    second = kept.actions_of(1)
    assert second["go"].tolist() == [2, 0] * 3
    rows = [[0.5, 0.625], [0.75, 0.875]]
    assert second["arm"].tolist() == [*rows, *(np.array(rows) + 1).tolist(), *(np.array(rows) + 2).tolist()]
    other = History(NESTED, 1, rows_each=2)
    other.resume(0, second)
    assert other.lengths.tolist() == [3]
    assert other.actions_of(0)["arm"].tolist() == second["arm"].tolist()


def test_memory_is_bounded() -> None:
    """An episode as long as the bound is whole; one step more and nothing of it is handed out, nor anything added."""
    kept = History(DISCRETE, 2, max_steps=100)
    for _ in range(100):
        kept.record(slice(0, 2), np.array([1, 2]))
    assert kept.is_whole(0)
    assert kept.actions_of(1).tolist() == [2] * 100
    held = [leaf.nbytes for leaf in kept._leaves]
    assert held == [2 * 100 * 8]
    for step in range(500):
        if step == 400:
            kept.begin(1, {})
        kept.record(slice(0, 2), np.array([3, 4]))
    assert [leaf.nbytes for leaf in kept._leaves] == held
    assert kept.lengths.tolist() == [600, 100]
    assert [kept.is_whole(0), kept.is_whole(1)] == [False, True]
    assert kept.actions_of(0).tolist() == []
    assert kept.actions_of(1).tolist() == [4] * 100


def test_a_short_row_beside_a_long_one_costs_no_memory() -> None:
    """Room is for the longest; of the others only what was written is copied when it grows."""
    kept = History(DISCRETE, 2)
    kept.record(slice(0, 2), np.array([4, 4]))
    for _ in range(1000):
        kept.record(slice(0, 1), np.array([1]))
    assert kept.actions_of(1).tolist() == [4]
    assert kept.actions_of(0).tolist() == [4] + [1] * 1000


def test_the_state_names_what_is_not_whole() -> None:
    envs = [Endless(), Endless()]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    kept = History(DISCRETE, 2, max_steps=1)
    kept.begin(0, {"seed": 0})
    kept.begin(1, {"seed": 1})
    kept.record(slice(0, 2), np.array([1, 1]))
    kept.record(slice(0, 1), np.array([1]))
    state = kept.state(Generators(envs))
    assert state["whole"].tolist() == [False, True]
    assert state["starts"] == [{"generator": envs[0].np_random.bit_generator.state}, {"seed": 1}]
    assert [actions.tolist() for actions in state["actions"]] == [[], [1]]


@pytest.mark.parametrize("backend", ["serial", "workers"])
def test_an_episode_without_an_end_cannot_be_saved_and_says_so(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows 0 and 2 are over the bound; row 1 ended in between and goes on exactly, as do all rows' generators."""
    monkeypatch.setattr(history, "MAX_STEPS", BOUND)

    def rows() -> Any:
        workers = Workers(2) if backend == "workers" else None
        made = make(endless_in_a_process, 3, backend=backend, workers=workers)
        made.reset(5)
        made.recv()
        return made

    env = rows()
    play(env, 4)
    env.send(slice(0, 3), np.array([1, 3, 1]))
    env.recv()
    last = play(env, 9).obs.copy()
    state = env.state()
    assert [len(actions) for actions in state["actions"]] == [0, 9, 0]
    restored, again = rows(), rows()
    why = "cannot be saved after more than 10 steps of one episode; its episode is cut as truncated"
    assert (
        restored.restore(state) == again.restore(state) == [f"endless_in_a_process: row {row} {why}" for row in (0, 2)]
    )
    ready, twin = restored.recv(), again.recv()
    assert ready.truncated.tolist() == [True, False, True]
    assert ready.final_obs[[0, 2]].tolist() == last[[0, 2]].tolist()
    assert ready.episode_length.tolist()[0] == 14
    assert ready.episode_return.tolist()[0] == 14
    assert ready.obs[1].tolist() == last[1].tolist()
    fresh = [np.random.Generator(np.random.PCG64(5 + row)).random(2)[1] for row in (0, 2)]
    assert ready.obs[[0, 2]].tolist() == [[start, 0.0] for start in fresh]
    assert ready.obs.tobytes() == twin.obs.tobytes()
    assert play(restored, 3).obs.tobytes() == play(again, 3).obs.tobytes()
    assert restored.state()["whole"].tolist() == [True, False, True]
    for made in (env, restored, again):
        made.close()


def test_environments_of_several_agents_likewise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_STEPS", BOUND)
    env, restored = make(EndlessPair, 2), make(EndlessPair, 2)
    env.reset(0)
    env.recv()
    last = play(env, BOUND + 1).obs.copy()
    state = env.state()
    why = "cannot be saved after more than 10 steps of one episode; its episode is cut as truncated"
    assert restored.restore(state) == [f"EndlessPair: rows 0..1 {why}", f"EndlessPair: rows 2..3 {why}"]
    ready = restored.recv()
    assert ready.truncated.all()
    assert ready.final_obs.tobytes() == last.tobytes()
    assert ready.episode_length.tolist() == [11] * 4
    assert ready.obs[:, 1].tolist() == [0] * 4
    assert play(restored, 1).obs[:, 1].tolist() == [1] * 4


def test_states_from_before_the_bound_are_read() -> None:
    """They do not say which episodes are whole: all are."""
    env, restored = make(Endless, 2), make(Endless, 2)
    env.reset(3)
    env.recv()
    last = play(env, 5).obs.copy()
    state = env.state()
    del state["whole"]
    assert restored.restore(state) == []
    assert restored.recv().obs.tobytes() == last.tobytes()
