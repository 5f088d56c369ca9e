"""Several agents in one native environment: Pursuit, worked by hand, and rows that belong together."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shoal
from shoal.envs.native import NativeEnv
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.randomization import Choice, Uniform
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.nets.policy import Network, make_policy
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError, Ready


def pursuit(hunters: list[tuple[int, int]], prey: list[tuple[int, int]], *, restless: bool = False) -> NativeEnv:
    """One environment of four hunters and two prey, each at (x, y)."""
    env = make("shoal/Pursuit-v0", 1)
    env.reset(0)
    env.recv()
    assert isinstance(env, NativeEnv)
    state = env.state()
    for row in state["rows"]:
        row[:12] = [number for place in hunters + prey for number in place]
        row[12:15] = 1, 1, restless
    env.restore(state)
    env.recv()
    return env


def play_all(env: NativeEnv, actions: list[int]) -> Ready:
    env.send(slice(0, 4), np.array(actions))
    return env.recv()


def test_two_hunters_catch_a_prey_and_all_earn() -> None:
    """One hunter walks right to stand below the prey at (3, 3), where another stands above; one alone catches none."""
    env = pursuit([(3, 2), (2, 4), (7, 7), (0, 0)], [(3, 3), (7, 6)])
    ready = play_all(env, [0, 2, 0, 0])
    assert ready.reward.tolist() == [0.5] * 4
    assert not ready.terminated.any()
    assert ready.obs[:, 8:11].tolist() == [[0, 0, 0]] * 4
    ready = play_all(pursuit([(3, 2), (2, 4), (7, 7), (6, 5)], [(3, 3), (7, 6)]), [0, 2, 0, 2])
    assert ready.reward.tolist() == [1] * 4
    assert ready.terminated.all()
    assert ready.episode_return.tolist() == [1] * 4
    assert ready.episode_length.tolist() == [1] * 4


def test_prey_flee_in_every_second_step() -> None:
    """From (4, 4), with the nearest hunter at (2, 4), to a cell that is 3 steps away from all of them."""
    env = pursuit([(2, 4), (1, 4), (0, 4), (1, 5)], [(4, 4), (7, 0)])
    still = play_all(env, [0, 0, 0, 0])
    assert still.obs[0, 8:10].tolist() == pytest.approx([2 / 7, 0])
    assert still.obs[0, 14] == 1
    fled = play_all(env, [0, 0, 0, 0])
    assert fled.obs[0, 8] + abs(fled.obs[0, 9]) == pytest.approx(3 / 7)
    assert fled.obs[0, 14] == 0


def test_an_agent_sees_from_its_place() -> None:
    ready = play_all(pursuit([(0, 0), (7, 0), (0, 7), (7, 7)], [(3, 4), (5, 5)]), [0, 0, 0, 0])
    assert ready.obs[1].tolist() == pytest.approx([1, -1, -1, 1, 0, 1, -1, 0, -4 / 7, 4 / 7, 1, -2 / 7, 5 / 7, 1, 1])


def test_environments_are_not_cut_in_two() -> None:
    env = make("shoal/Pursuit-v0", 3, num_threads=2)
    assert (env.num_rows, env.spec.num_agents) == (12, 4)
    env.reset(0)
    env.recv()
    for wrong in (slice(0, 6), slice(2, 10), slice(2, 6)):
        with pytest.raises(ValueError, match="split an environment of 4 agents"):
            env.send(wrong, np.zeros(wrong.stop - wrong.start, np.int64))
    env.send(slice(4, 12), np.zeros(8, np.int64))
    env.send(slice(0, 4), np.zeros(4, np.int64))
    assert [env.recv().rows, env.recv().rows] == [slice(4, 12), slice(0, 4)]


def test_threads_and_halves_change_nothing_for_teams() -> None:
    """Blocks of 64 rows and tasks of threads hold whole environments; two halves in flight equal one send."""
    one, two = make("shoal/Pursuit-v0", 101), make("shoal/Pursuit-v0", 101, num_threads=3)
    for env in (one, two):
        env.reset(5)
        env.recv()
    rng = np.random.default_rng(0)
    for _ in range(130):
        actions = rng.integers(0, 5, 404)
        one.send(slice(0, 404), actions)
        two.send(slice(0, 204), actions[:204])
        two.send(slice(204, 404), actions[204:])
        whole, first, second = one.recv(), two.recv(), two.recv()
        assert whole.obs.tobytes() == first.obs.tobytes() + second.obs.tobytes()
        assert whole.reward.tobytes() == first.reward.tobytes() + second.reward.tobytes()


def test_teams_go_the_way_of_make() -> None:
    with pytest.raises(ConfigError, match="has 4 agents"):
        shoal.make_vec("shoal/Pursuit-v0", num_envs=2)


@pytest.mark.parametrize(
    "settings", [{}, {"act_block": 6}, {"schedule": "overlap"}, {"network": Network(recurrent="gru")}]
)
def test_a_team_trains(settings: dict[str, Any], tmp_path: Path) -> None:
    """Fused; in blocks that would cut environments, which falls back; in halves; with a memory. Rows are agents."""
    given: dict[str, Any] = {"num_envs": 4, "num_steps": 16, "num_minibatches": 2, "total_timesteps": 768} | settings
    run = shoal.train("shoal/Pursuit-v0", run_dir=str(tmp_path), panel="none", **given)
    assert run.steps == 768 == 3 * 16 * (4 * 4)
    assert 0 <= run.greedy_return <= 1


def test_blocks_that_cut_environments_choose_the_same_actions() -> None:
    """Acting in blocks of 6 rows, step by step, equals the fused rollout but for the rounding of other shapes."""
    seen: list[Any] = []
    for act_block in (4, 6):
        env = make("shoal/Pursuit-v0", 6)
        policy = make_policy(env.spec, Network(), seed=1)
        stream = rollouts(env, policy, num_steps=12, acting=Acting(3, act_block=act_block))
        seen.append(next(stream))
    assert seen[0].action.tolist() == seen[1].action.tolist()
    assert seen[0].reward.tolist() == seen[1].reward.tolist()
    assert np.abs((seen[0].value - seen[1].value).numpy()).max() < 1e-5


def test_teams_and_drawn_parameters() -> None:
    """Pursuit has no parameter to draw; a world refuses draws beyond what the parameter may be."""
    with pytest.raises(ConfigError, match="size must be a whole number between 2 and 6, not 9"):
        NativeEnv(
            "shoal/Snake-v0",
            1,
            num_threads=1,
            env_kwargs={},
            ranges={"size": Choice((2.0, 9.0))},
            preprocessing=Preprocessing(),
        )
    with pytest.raises(ConfigError, match="size is a whole number: draw it by choice"):
        NativeEnv(
            "shoal/Snake-v0",
            1,
            num_threads=1,
            env_kwargs={},
            ranges={"size": Uniform(2, 6)},
            preprocessing=Preprocessing(),
        )


def test_a_team_behind_preprocessing() -> None:
    """Stacks are of each agent's own observations; rewards are scaled for all, returns are not."""
    env, plain = (
        make("shoal/Pursuit-v0", 3, preprocessing=Preprocessing(frame_stack=2, reward_scale=2.0)),
        make("shoal/Pursuit-v0", 3),
    )
    before: Any = None
    for each in (env, plain):
        each.reset(2)
        each.recv()
    rng = np.random.default_rng(1)
    for _ in range(150):
        actions = rng.integers(0, 5, 12)
        env.send(slice(0, 12), actions)
        plain.send(slice(0, 12), actions)
        stacked, one = env.recv(), plain.recv()
        assert (stacked.obs[:, 1] == one.obs).all()
        ended = one.terminated | one.truncated
        if before is not None:
            assert (stacked.obs[~ended, 0] == before[~ended]).all()
        assert (stacked.reward == 2 * one.reward).all()
        assert (stacked.episode_return[ended] == one.episode_return[ended]).all()
        before = one.obs.copy()
    assert isinstance(env, NativeEnv)
    assert env.render(0).shape == (96, 96, 3)
