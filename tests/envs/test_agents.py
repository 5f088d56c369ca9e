"""Agents as rows: who is there and whose turn it is, what a step is worth, saved states, mistakes."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from mpe2 import simple_speaker_listener_v4, simple_spread_v3
from pettingzoo.classic.tictactoe import tictactoe
from pettingzoo.test import api_test, parallel_api_test

import shoal
from shoal.envs.agents.rows import AgentsEnv
from shoal.envs.agents.tictactoe import TicTacToe
from shoal.envs.forks import STRAY_STATUS
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.envs.rendering import Renderer
from shoal.envs.workers.settings import Workers
from shoal.types import ConfigError, EnvError, Ready
from tests.games import Ring, Shift
from tests.llm.toy import Successor

pytestmark = pytest.mark.usefixtures("warm_workers")


def started(factory: Any, num_envs: int = 1, seed: int = 0, **settings: Any) -> Any:
    """Rows after their first recv."""
    env = make(factory, num_envs, **settings)
    env.reset(seed)
    env.recv()
    return env


def step(env: Any, actions: list[int]) -> Ready:
    """One step of every row."""
    env.send(slice(None), np.array(actions))
    return env.recv()


def listed(ready: Ready, *names: str) -> list[Any]:
    """Arrays as lists."""
    return [getattr(ready, name).tolist() for name in names]


def test_agents_come_and_go() -> None:
    """The four steps of Shift: c comes, a ends, b is cut, c ends, and all begin again in that step."""
    env = make(Shift, 1, info_keys=("clock",))
    assert (env.spec.num_agents, env.spec.agents, env.num_rows) == (3, ("a", "b", "c"), 3)
    env.reset(0)
    assert listed(env.recv(), "turn") == [[True, True, False]]
    names = ("valid", "turn", "terminated", "truncated")
    first = step(env, [1, 2, 0])
    assert listed(first, *names) == [[True, True, False], [True, True, True], [False] * 3, [False] * 3]
    assert first.reward.tolist() == [1.1, 1.2, 0]
    assert first.obs.tolist() == [[1, 0], [1, 1], [1, 2]]
    second = step(env, [3, 0, 4])
    assert listed(second, *names) == [[True] * 3, [False, True, True], [True, False, False], [False] * 3]
    assert second.reward.tolist() == [2.3, 2, 2.4]
    assert second.final_obs[0].tolist() == [2, 0]
    assert (second.episode_return[0], second.episode_length[0], second.info["clock"][0]) == (pytest.approx(3.4), 2, 2)
    third = step(env, [4, 1, 0])
    assert listed(third, *names) == [[False, True, True], [False, False, True], [False] * 3, [False, True, False]]
    assert third.reward.tolist() == [0, 3.1, 3]
    assert third.episode_return[1] == pytest.approx(1.2 + 2 + 3.1)
    fourth = step(env, [0, 0, 1])
    assert listed(fourth, *names) == [[False, False, True], [True, True, False], [False, False, True], [False] * 3]
    assert (fourth.episode_return[2], fourth.episode_length[2]) == (pytest.approx(2.4 + 3 + 4.1), 3)
    assert fourth.final_obs[2].tolist() == [4, 2]
    assert fourth.obs[:2].tolist() == [[0, 0], [0, 1]]


def test_a_step_of_a_turn_is_worth_all_until_the_next_turn() -> None:
    """Two agents, x and y, act 1, 2, 3, 4: x gets 10 + 2 and 30 + 4, y 1 + 20 + 3 and 40."""
    env = started(Ring)
    assert listed(step(env, [1, 0]), "valid", "turn", "reward") == [[False, False], [False, True], [0, 0]]
    ready = step(env, [4, 2])
    assert listed(ready, "valid", "turn", "reward") == [[True, False], [True, False], [12, 0]]
    assert ready.obs[0].tolist() == [2, 2]
    ready = step(env, [3, 4])
    assert listed(ready, "valid", "turn", "reward") == [[False, True], [False, True], [0, 24]]
    ready = step(env, [0, 4])
    assert listed(ready, "valid", "turn", "reward") == [[True, True], [True, False], [34, 40]]
    assert listed(ready, "terminated", "episode_return", "episode_length") == [[True, True], [46, 64], [2, 2]]
    assert ready.final_obs.tolist() == [[4, 4], [4, 4]]
    assert ready.obs[0, 0] == 0


@pytest.mark.filterwarnings("ignore::UserWarning")  # names of agents, an action that is worth nothing
def test_what_is_accepted_passes_the_librarys_own_tests() -> None:
    """The environments of these tests keep PettingZoo's interface."""
    parallel_api_test(simple_spread_v3.parallel_env(), num_cycles=30)
    parallel_api_test(Shift(), num_cycles=10)
    api_test(Ring(), num_cycles=10)
    api_test(simple_spread_v3.env(), num_cycles=10)


def test_parallel_rows_equal_the_library() -> None:
    """simple_spread from the same seeds and actions, through four ends."""
    rows = make("mpe2.simple_spread_v3:parallel_env", 2, env_kwargs={"max_cycles": 10})
    rows.reset(5)
    ready = rows.recv()
    singles = [simple_spread_v3.parallel_env(max_cycles=10) for _ in range(2)]
    expected = [single.reset(seed=5 + 3 * e)[0] for e, single in enumerate(singles)]
    rng = np.random.default_rng(0)
    for count in range(25):
        for e, obs in enumerate(expected):
            assert ready.obs[3 * e : 3 * e + 3].tolist() == [x.tolist() for x in obs.values()]
        actions = rng.integers(0, 5, 6)
        ready = step(rows, actions.tolist())
        for e, single in enumerate(singles):
            own = dict(zip(single.agents, actions[3 * e : 3 * e + 3].tolist(), strict=True))
            expected[e], rewards, _, truncated, _ = single.step(own)
            assert ready.reward[3 * e : 3 * e + 3].tolist() == list(rewards.values())
            assert ready.truncated[3 * e : 3 * e + 3].tolist() == list(truncated.values()) == [count % 10 == 9] * 3
            if not single.agents:
                expected[e] = single.reset()[0]


def test_turns_equal_the_library() -> None:
    """PettingZoo's tic-tac-toe, played with its masks by its own loop; returns and lengths agree game by game."""
    rows = started("pettingzoo.classic.tictactoe.tictactoe:env")
    assert rows.spec.masked
    assert rows.spec.in_turns
    ready = rows.out.view(slice(0, 2))
    single: Any = tictactoe.env()
    rng = np.random.default_rng(3)
    for _ in range(4):
        single.reset()
        totals, lengths = dict.fromkeys(single.agents, 0.0), dict.fromkeys(single.agents, 0)
        for agent in single.agent_iter():
            obs, reward, terminated, _, _ = single.last()
            totals[agent] += reward
            if terminated:
                single.step(None)
                continue
            row = single.possible_agents.index(agent)
            assert ready.turn is not None
            assert ready.action_mask is not None
            assert ready.turn.tolist() == [row == 0, row == 1]
            assert ready.action_mask[row].tolist() == obs["action_mask"].astype(bool).tolist()
            assert ready.action_mask[1 - row].all()
            assert ready.obs["observation"][row].tolist() == obs["observation"].tolist()
            action, lengths[agent] = int(rng.choice(np.flatnonzero(obs["action_mask"]))), lengths[agent] + 1
            single.step(action)
            ready = step(rows, [action, action])
        assert ready.terminated.all()
        assert ready.episode_return.tolist() == list(totals.values())
        assert ready.episode_length.tolist() == list(lengths.values())


@pytest.mark.parametrize("factory", ["mpe2.simple_spread_v3:parallel_env", Ring, Shift])
def test_saved_rows_go_on_exactly(factory: Any) -> None:
    """Saved in the middle of episodes, restored in other objects, bit for bit, generators included."""
    rng = np.random.default_rng(1)
    env = started(factory, 3, seed=4)
    actions = rng.integers(0, 5, (70, env.num_rows)).tolist()
    for one in actions[:29]:
        step(env, one)
    saved = env.state()
    other = make(factory, 3)
    assert other.restore(saved) == []
    other.recv()
    for one in actions[29:]:
        left, right = step(env, one), step(other, one)
        assert left.turn is not None
        assert right.turn is not None
        assert left.turn.tobytes() == right.turn.tobytes()
        assert left.obs[left.turn].tobytes() == right.obs[right.turn].tobytes()
        for name in ("reward", "valid", "terminated", "truncated"):
            assert getattr(left, name).tobytes() == getattr(right, name).tobytes()
        ended = left.terminated | left.truncated
        assert left.episode_return[ended].tobytes() == right.episode_return[ended].tobytes()


def test_a_game_that_cannot_be_played_again_is_cut() -> None:
    """The saved return does not come out: all of its agents' episodes are truncated, and said so."""
    env = started(Ring, 2)
    step(env, [1, 0, 2, 0])
    step(env, [0, 1, 0, 2])
    saved = env.state()
    saved["returns"] = saved["returns"] + [0, 0, 5, 0]
    (said,) = env.restore(saved)
    assert "rows 2..3 did not come back to its saved observations and returns after 2 steps" in said
    assert env.recv().truncated.tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("factory", "backend", "action", "episode"),
    [
        (Ring, "serial", 99, 1),
        (Shift, "serial", -1, 1),
        ("Pendulum-v1", "serial", 2.5, 1),
        ("Acrobot-v1", "workers", 3, 0),
    ],
)
def test_saved_actions_outside_the_space_are_refused(factory: Any, backend: str, action: float, episode: int) -> None:
    """As native rows refuse them; a checkpoint may hold anything."""
    env = started(factory, 2, backend=backend)
    env.send(slice(None), env.spec.action.allocate(env.num_rows))
    env.recv()
    saved = env.state()
    saved["actions"][1][0] = action
    with pytest.raises((ConfigError, EnvError), match=f"the saved episode {episode} holds an action outside"):
        env.restore(saved)
    env.close()


@pytest.mark.parametrize("where", ["reset", "step"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_game_that_forks_is_named_and_its_child_ended(where: str, capfd: pytest.CaptureFixture[str]) -> None:
    children = list[int]()

    class Twice(Shift):
        def fork(self) -> None:
            child = os.fork()
            if child:
                children.append(child)

        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            if where == "reset":
                self.fork()
            return super().reset(seed=seed)

        def step(self, actions: dict[str, int]) -> Any:
            if where == "step":
                self.fork()
            return super().step(actions)

    env = started(Twice)
    step(env, [0, 0, 0])
    (child,) = children
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == STRAY_STATUS
    said = "at the reset" if where == "reset" else "at step 1 of the episode"
    assert f"Twice: rows 0..2 {said} forked, and the child (pid {child}) came back" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("mistake", "actions", "message"),
    [
        ("gone", 2, r"rows 0..2 at step 2 of the episode: b is gone from `agents`, but was neither"),
        ("unpaid", 1, r"rows 0..2 at step 1 of the episode: a is there, but has no reward; every agent who acted"),
        ("nan", 1, r"row 1 \(b\) at step 1 was given the observation \[nan .*; fix the environment"),
        ("rich", 1, r"row 0 \(a\) at step 1 was given the reward 1e\+39, but float32, in which it is learned from"),
    ],
)
def test_games_at_fault_are_named(mistake: str, actions: int, message: str) -> None:
    """What an environment of agents may do wrong."""
    env = started(Shift, env_kwargs={"mistake": mistake})
    for _ in range(actions - 1):
        step(env, [0, 0, 0])
    with pytest.raises(EnvError, match=message):
        step(env, [0, 0, 0])
    with pytest.raises(RuntimeError, match="a step failed halfway"):
        env.recv()


def test_exceptions_arrive_unchanged_with_a_note() -> None:
    """The user's own error says where it was raised."""
    env = started(Shift, env_kwargs={"mistake": "raises"})
    with pytest.raises(OverflowError, match="clock") as raised:
        step(env, [0, 0, 0])
    assert "raised by Shift: rows 0..2 at step 1" in raised.value.__notes__[0]


def test_agents_with_other_spaces_are_padded() -> None:
    """A speaker sees 3 numbers and says one of 3 words; the listener sees 11 and moves in 5 ways."""
    env = make("mpe2.simple_speaker_listener_v4:parallel_env", 2)
    assert env.spec.observation_space.shape == (13,)
    assert env.spec.action_space == spaces.Discrete(5)
    env.reset(1)
    ready = env.recv()
    assert ready.action_mask is not None
    assert ready.action_mask.astype(int).tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]] * 2
    single = simple_speaker_listener_v4.parallel_env()
    obs, _ = single.reset(seed=1)
    assert ready.obs[0].tolist() == [*obs["speaker_0"].tolist(), *[0] * 8, 1, 0]
    assert ready.obs[1].tolist() == [*obs["listener_0"].tolist(), 0, 1]
    ready = step(env, [2, 3, 0, 1])
    obs, rewards, *_ = single.step({"speaker_0": 2, "listener_0": 3})
    assert ready.obs[1].tolist() == [*obs["listener_0"].tolist(), 0, 1]
    assert ready.reward[:2].tolist() == list(rewards.values())
    assert isinstance(env, AgentsEnv)
    assert env.groups() == {"speaker_0": [0, 2], "listener_0": [1, 3]}
    moving = make("mpe2.simple_speaker_listener_v4:parallel_env", 1, env_kwargs={"continuous_actions": True})
    assert moving.spec.action_space.shape == (5,)
    moving.reset(1)
    moving.recv()
    moving.send(slice(None), np.full((2, 5), 0.5, np.float32))
    assert moving.recv().valid.all()


def test_rows_draw_their_environment() -> None:
    """Every agent's row shows the whole."""
    env = started("mpe2.simple_spread_v3:parallel_env", 2, env_kwargs={"render_mode": "rgb_array"})
    pictures = Renderer(env)
    assert pictures.now(0).tobytes() == pictures.now(2).tobytes()
    assert pictures.now(0).tobytes() != pictures.now(3).tobytes()


def test_one_object_is_not_two_environments() -> None:
    """Its agents would step each other's game."""
    one = Shift()
    with pytest.raises(ConfigError, match="environments 0 and 1 are the same object; the callable must make a new"):
        make(lambda: one, 2)


def test_what_data_run_out_of_is_no_end_of_a_loop() -> None:
    """A StopIteration would end whatever iterates over rollouts as if it were over."""

    class Spent(Ring):
        def reset(self, seed: int | None = None, options: Any = None) -> None:
            raise StopIteration("no more games")

    with pytest.raises(EnvError, match=r"at the reset raised StopIteration \(no more games\) in .*; an environment"):
        make(Spent, 1).reset(0)


def test_wrong_uses_are_refused() -> None:
    """Other spaces for one agent, parts of an environment, actions outside, one environment instead of a callable."""
    with pytest.raises(
        EnvError, match=r"Shift: observation_space: a has Box.*, b has Discrete.*must all be a Box of one"
    ):
        make(Shift, 1, env_kwargs={"mistake": "spaces"})
    env = started(Shift, 2)
    with pytest.raises(ValueError, match=r"rows 0\.\.3 are no whole environments of 3 agents"):
        env.send(slice(0, 4), np.zeros(4, np.int64))
    with pytest.raises(ValueError, match=r"of row 4 is outside"):
        env.send(slice(3, 6), np.array([0, 5, 0]))
    env.send(slice(3, 6), np.zeros(3, np.int64))
    assert env.recv().rows == slice(3, 6)
    with pytest.raises(ConfigError, match=r"expected a gymnasium\.Env or a PettingZoo one"):
        make(dict, 1)
    with pytest.raises(ConfigError, match=r"it looks like a task of a language model, which other algorithms train"):
        make(Successor, 1)


def test_tic_tac_toe_is_a_draw_when_played_well() -> None:
    """The whole game: 5,478 positions can come up, and the empty board is worth 0."""
    from shoal.envs.agents import tictactoe

    assert tictactoe.worth(tictactoe.EMPTY) == 0
    seen = {tictactoe.EMPTY}
    front = [tictactoe.EMPTY]
    while front:
        board = front.pop()
        if not tictactoe.lost(board):
            reached = {tictactoe.move(board, cell) for cell in tictactoe.moves(board)} - seen
            seen |= reached
            front += reached
    assert len({(sum(map(abs, board)), board) for board in seen}) == 5478
    game = started(TicTacToe)
    for cell in (0, 3, 1, 4):
        assert not step(game, [cell, cell]).terminated.any()
    ready = step(game, [2, 2])
    assert listed(ready, "terminated", "reward", "valid") == [[True, True], [1, -1], [True, True]]


def test_what_does_not_go_with_several_agents_is_refused() -> None:
    """Processes, preprocessing, drawn parameters, another time limit, resets one step later."""
    refused: list[tuple[dict[str, Any], str]] = [
        ({"backend": "workers", "workers": Workers(1)}, "several agents; backend='serial' steps them"),
        ({"preprocessing": Preprocessing(frame_stack=2)}, "has several agents, which take no preprocessing"),
        ({"preprocessing": Preprocessing(max_episode_steps=5)}, "have a time limit of their own"),
        ({"env_kwargs": {"turns": "uniform:2,4"}}, "whose parameters cannot be sampled: turns"),
    ]
    for settings, message in refused:
        with pytest.raises(ConfigError, match=message):
            make(Ring, 2, **settings)
    with pytest.raises(ConfigError, match="use autoreset='same_step'"):
        shoal.make_vec(Ring, 2, autoreset="next_step")


def test_agents_in_another_librarys_vector() -> None:
    """Each agent is an environment; infos say whose turn it is and whose step is complete."""
    vector = shoal.make_vec(Ring, 2)
    assert vector.num_envs == 4
    _, infos = vector.reset(seed=1)
    assert infos["turn"].tolist() == [True, False, True, False]
    _, reward, _, _, infos = vector.step(np.array([1, 0, 2, 0]))
    assert infos["valid"].tolist() == [False] * 4
    _, reward, terminated, _, infos = vector.step(np.array([0, 3, 0, 4]))
    assert (reward.tolist(), terminated.any()) == ([13, 0, 24, 0], False)
    assert infos["valid"].tolist() == infos["turn"].tolist() == [True, False, True, False]
