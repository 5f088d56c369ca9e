"""A whole rollout in one call against a slow loop over Pool and act, bit for bit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shoal import _native
from tests.native_plans import Arrays, Shape, act, forward, identical, make

# Episodes of at most 17 steps: some rows end by termination, others by truncation, in the same step too.
ROLLOUTS = [
    ("CartPole-v1", {"max_episode_steps": 17.0}, Shape(), 40),
    ("MountainCar-v0", {}, Shape(obs_size=2, hidden=(20,), nvec=(3,), activation="relu"), 70),
    ("Pendulum-v1", {}, Shape(obs_size=3, hidden=(16, 8), head="gaussian", nvec=(1,)), 70),
    ("shoal/Pursuit-v0", {"max_episode_steps": 17.0}, Shape(obs_size=15, hidden=(16,), nvec=(5,)), 72),
]


@dataclass
class World:
    """A pool with its attached arrays, and what a rollout carries from one call to the next."""

    pool: Any
    arrays: Arrays
    start: NDArray[np.uint8]
    row_step: NDArray[np.int64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]


def make_world(env: str, rows: int, params: dict[str, float] | None = None) -> World:
    info = _native.env_info(env)
    pool = _native.Pool(env, rows, 1, params or {})
    size = len(info["obs_low"])
    arrays: Arrays = {
        "obs": np.zeros((rows, size), np.float32),
        "reward": np.zeros(rows),
        "terminated": np.zeros(rows, np.uint8),
        "truncated": np.zeros(rows, np.uint8),
        "final_obs": np.zeros((rows, size), np.float32),
        "episode_return": np.zeros(rows),
        "episode_length": np.zeros(rows, np.int64),
        "drawn": np.zeros((rows, 0)),
    }
    pool.attach(**arrays)
    pool.reset(np.arange(rows, dtype=np.uint64) + np.uint64(50))
    bounds = [np.array(info.get(name, [0.0]), np.float32) for name in ("action_low", "action_high")]
    return World(pool, arrays, np.ones(rows, np.uint8), np.zeros(rows, np.int64), *bounds)


def make_slab(world: World, shape: Any, steps: int) -> Arrays:
    rows, size = world.arrays["obs"].shape
    gaussian = shape.head == "gaussian"
    action = np.zeros((steps, rows, 1), np.float32 if gaussian else np.int64)
    return {
        "obs": np.zeros((steps, rows, size), np.float32),
        "start": np.full((steps, rows), 9, np.uint8),
        "action": action,
        **{name: np.zeros((steps, rows), np.float32) for name in ("log_prob", "value", "next_value", "reward")},
        **{name: np.full((steps, rows), 9, np.uint8) for name in ("terminated", "truncated")},
        "final_index": np.full((steps, rows), 9, np.int32),
        "final_obs": np.zeros((steps * rows, size), np.float32),
        "episode_return": np.zeros((steps, rows)),
        "episode_length": np.zeros((steps, rows), np.int64),
        "drawn": np.zeros((steps, rows, 0)),
    }


def fused_rollout(plan: Any, world: World, slab: Arrays, *, stream: int = 2, first_row: int = 0) -> None:
    rows = np.arange(len(world.start)) + first_row
    plan.set_action_bounds(world.low, world.high) if slab["action"].dtype == np.float32 else None
    plan.rollout(world.pool, world.arrays["obs"], world.start, world.row_step, *slab.values(), 7, stream, rows)


def slow_rollout(plan: Any, shape: Shape, world: World, slab: Arrays, *, stream: int = 2, first_row: int = 0) -> Arrays:
    """Step by step through Pool and act; the final observations are kept whole, [T, B, D]."""
    steps, rows = slab["reward"].shape
    finals = np.zeros_like(slab["obs"])
    now = world.arrays
    for t in range(steps):
        slab["obs"][t], slab["start"][t] = now["obs"], world.start
        numbers = np.arange(rows) + first_row
        chosen = act(plan, shape, slab["obs"][t], rows=numbers, steps=world.row_step, stream=stream)
        for name in chosen:
            slab[name][t] = chosen[name]
        sent = chosen["action"][:, 0] if world.pool.discrete else np.clip(chosen["action"], world.low, world.high)
        world.pool.send(0, 0, rows, sent)
        world.pool.recv(0)
        world.row_step += 1
        ended = (now["terminated"] | now["truncated"]).astype(bool)
        slab["reward"][t] = now["reward"]
        for name in ("terminated", "truncated"):
            slab[name][t] = now[name]
        for name in ("episode_return", "episode_length"):
            slab[name][t, ended] = now[name][ended]
        finals[t, ended] = now["final_obs"][ended]
        world.start[...] = ended
        next_value = forward(plan, shape, np.where(ended[:, None], now["final_obs"], now["obs"]))[1]
        slab["next_value"][t] = np.where(now["terminated"], np.float32(0), next_value)
        slab["final_index"][t] = np.where(ended, 0, -1)
    return slab | {"final_obs": finals}


def with_whole_finals(slab: Arrays) -> Arrays:
    """The compact final observations put back to [T, B, D], their index reduced to its sign."""
    finals = np.zeros_like(slab["obs"])
    ended = slab["final_index"] >= 0
    finals[ended] = slab["final_obs"][slab["final_index"][ended]]
    return slab | {"final_obs": finals, "final_index": np.where(ended, 0, -1).astype(np.int32)}


@pytest.mark.parametrize(("env", "params", "shape", "steps"), ROLLOUTS)
@pytest.mark.parametrize(("threads", "block"), [(1, 64), (2, 8)])
def test_rollout_equals_a_slow_loop(
    env: str, params: dict[str, float], shape: Shape, steps: int, threads: int, block: int
) -> None:
    rows = 20
    slow, fast = make_world(env, rows, params), make_world(env, rows, params)
    reference, plan = make(shape).plan, make(shape, threads=threads, block=block).plan
    ends = 0
    for _ in range(3):
        expected = slow_rollout(reference, shape, slow, make_slab(slow, shape, steps))
        slab = make_slab(fast, shape, steps)
        fused_rollout(plan, fast, slab)
        got = with_whole_finals(slab)
        for name in expected:
            identical(got[name], expected[name])
        ends += int((expected["final_index"] == 0).sum())
        identical(fast.arrays["obs"], slow.arrays["obs"])
        identical(fast.start, slow.start)
        identical(fast.row_step, slow.row_step)
    assert ends >= rows


@pytest.mark.parametrize(("stream", "first_row"), [(0, 0), (3, 0), (0, 100)])
def test_noise_is_a_function_of_stream_and_row(stream: int, first_row: int) -> None:
    shape = Shape()
    slow, fast = make_world("CartPole-v1", 20), make_world("CartPole-v1", 20)
    noise = {"stream": stream, "first_row": first_row}
    expected = slow_rollout(make(shape).plan, shape, slow, make_slab(slow, shape, 12), **noise)
    slab = make_slab(fast, shape, 12)
    fused_rollout(make(shape).plan, fast, slab, **noise)
    for name in ("action", "log_prob", "obs", "reward"):
        identical(slab[name], expected[name])


def test_streams_and_rows_act_differently() -> None:
    """Equal observations at the first step, so that only the noise can tell the actions apart."""
    actions: list[bytes] = []
    for stream, first_row in ((0, 0), (3, 0), (0, 100)):
        world = make_world("CartPole-v1", 64)
        slab = make_slab(world, Shape(), 1)
        fused_rollout(make(Shape()).plan, world, slab, stream=stream, first_row=first_row)
        actions.append(slab["action"].tobytes())
    assert len(set(actions)) == 3


def test_final_observations_lie_in_their_block_s_region() -> None:
    world = make_world("CartPole-v1", 10)
    slab = make_slab(world, Shape(), 50)
    fused_rollout(make(Shape(), block=4).plan, world, slab)
    for first in (0, 4, 8):
        index = slab["final_index"][:, first : first + 4]
        places = index[index >= 0]
        np.testing.assert_array_equal(places, first * 50 + np.arange(len(places)))


def test_rollout_refuses_what_does_not_fit() -> None:
    world = make_world("CartPole-v1", 3)
    three = Shape(nvec=(3,))
    with pytest.raises(ValueError, match="its rows refuse action 2, which the plan can choose"):
        fused_rollout(make(three).plan, world, make_slab(world, three, 2))
    wide = Shape(obs_size=5)
    slab = make_slab(world, Shape(), 2)
    with pytest.raises(ValueError, match=r"current_obs must have shape \(3, 5\), not \(3, 4\)"):
        fused_rollout(make(wide).plan, world, slab)
    with pytest.raises(ValueError, match=r"action must be an array of int64"):
        fused_rollout(make(Shape()).plan, world, slab | {"action": np.zeros((2, 3, 1), np.int32)})
    team, seen = make_world("shoal/Pursuit-v0", 8), ROLLOUTS[3][2]
    with pytest.raises(ValueError, match="blocks of 6 rows cut environments of 4 agents in two"):
        fused_rollout(make(seen, block=6).plan, team, make_slab(team, seen, 2))
    pendulum = make_world("Pendulum-v1", 3)
    shape = ROLLOUTS[2][2]
    case = make(shape)
    case.params[...] = np.nan
    with pytest.raises(ValueError, match="row 0: the policy chose an action that is not a number"):
        fused_rollout(case.plan, pendulum, make_slab(pendulum, shape, 2))
