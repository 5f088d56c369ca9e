"""A recurrent plan's whole rollout in one call against a slow loop over Pool and act, bit for bit."""

from typing import Any

import numpy as np
import pytest

from tests.native_sequences import Arrays, Shape, identical, make
from tests.test_net_rollout import World, make_slab, make_world, with_whole_finals

# Episodes of at most 17 steps: some rows end by termination, others by truncation, in the same step too.
ROLLOUTS = [
    ("CartPole-v1", {"max_episode_steps": 17.0}, Shape(hidden=(20,), size=33), 40),
    ("MountainCar-v0", {}, Shape("lstm", obs_size=2, hidden=(), size=16, nvec=(3,)), 70),
    ("Pendulum-v1", {}, Shape("lstm", obs_size=3, hidden=(16, 8), size=9, head="gaussian", nvec=(1,)), 70),
    ("shoal/Pursuit-v0", {"max_episode_steps": 17.0}, Shape(obs_size=15, hidden=(16,), size=8, nvec=(5,)), 72),
]


def memory_of(shape: Shape, rows: int) -> list[Any]:
    h, c = (np.zeros((rows, shape.size), np.float32) for _ in range(2))
    return [h, c if shape.cell == "lstm" else None]


def fused_rollout(plan: Any, world: World, memory: list[Any], slab: Arrays) -> None:
    plan.set_action_bounds(world.low, world.high) if slab["action"].dtype == np.float32 else None
    rows = np.arange(len(world.start)) + 3
    carried = (world.arrays["obs"], world.start, world.row_step, *memory)
    plan.rollout(world.pool, *carried, *slab.values(), 7, 2, rows)


def values(plan: Any, shape: Shape, obs: Any, memory: list[Any]) -> Any:
    logits, value = np.zeros((len(obs), shape.outputs), np.float32), np.zeros(len(obs), np.float32)
    plan.forward(obs, np.zeros(len(obs), np.bool_), *memory, logits, value)
    return value


def slow_rollout(plan: Any, shape: Shape, world: World, memory: list[Any], slab: Arrays) -> Arrays:
    """Step by step through Pool and act; the final observations are kept whole, [T, B, D]."""
    steps, rows = slab["reward"].shape
    finals = np.zeros_like(slab["obs"])
    now, numbers = world.arrays, np.arange(rows) + 3
    for t in range(steps):
        slab["obs"][t], slab["start"][t] = now["obs"], world.start
        out = [slab[name][t] for name in ("action", "log_prob", "value")]
        where = (7, 2, numbers, world.row_step, False)
        plan.act(slab["obs"][t], world.start, *memory, *where, *out)
        sent = out[0][:, 0] if world.pool.discrete else np.clip(out[0], world.low, world.high)
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
        seen = np.where(ended[:, None], now["final_obs"], now["obs"])
        slab["next_value"][t] = np.where(now["terminated"], np.float32(0), values(plan, shape, seen, memory))
        # What follows without an end is the next step's own value; both must be the same number.
        if t > 0:
            goes_on = slab["final_index"][t - 1] < 0
            identical(slab["next_value"][t - 1][goes_on], slab["value"][t][goes_on])
        slab["final_index"][t] = np.where(ended, 0, -1)
    return slab | {"final_obs": finals}


@pytest.mark.parametrize(("env", "params", "shape", "steps"), ROLLOUTS)
@pytest.mark.parametrize(("threads", "block"), [(1, 64), (2, 8)])
def test_rollout_equals_a_slow_loop(
    env: str, params: dict[str, float], shape: Shape, steps: int, threads: int, block: int
) -> None:
    rows = 20
    slow, fast = make_world(env, rows, params), make_world(env, rows, params)
    reference, plan = make(shape, scale=2.0).plan, make(shape, scale=2.0, threads=threads, block=block).plan
    slow_memory, fast_memory = memory_of(shape, rows), memory_of(shape, rows)
    ends = 0
    for _ in range(3):
        expected = slow_rollout(reference, shape, slow, slow_memory, make_slab(slow, shape, steps))
        slab = make_slab(fast, shape, steps)
        fused_rollout(plan, fast, fast_memory, slab)
        got = with_whole_finals(slab)
        for name in expected:
            identical(got[name], expected[name])
        ends += int((expected["final_index"] == 0).sum())
        identical(fast.arrays["obs"], slow.arrays["obs"])
        identical(fast.start, slow.start)
        identical(fast.row_step, slow.row_step)
        identical(fast_memory[0], slow_memory[0])
        if shape.cell == "lstm":
            identical(fast_memory[1], slow_memory[1])
    assert ends >= rows


def test_rollout_refuses_a_memory_that_does_not_fit() -> None:
    shape = Shape()
    world = make_world("CartPole-v1", 3)
    plan = make(shape).plan
    with pytest.raises(ValueError, match=r"h must have shape \(3, 64\), not \(4, 64\)"):
        fused_rollout(plan, world, memory_of(shape, 4), make_slab(world, shape, 2))
    with pytest.raises(ValueError, match="c must be None: a GRU's memory is h alone"):
        fused_rollout(plan, world, memory_of(Shape("lstm"), 3), make_slab(world, shape, 2))
