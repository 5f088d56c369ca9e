"""The contract that every VecEnv backend keeps: order, autoreset, counts, refusals, saved states."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from shoal.envs.registry import make
from shoal.envs.vec_env import VecEnv
from shoal.envs.workers.settings import Workers
from shoal.types import ConfigError, Ready
from tests.contract.backends import Backend, bad_actions, draw_actions, listed

pytestmark = pytest.mark.usefixtures("warm_workers")

ALL = slice(None)
in_parts = pytest.mark.parametrize("backend", listed(lambda b: not b.whole), indirect=True)
restored_exactly = pytest.mark.parametrize("backend", listed(lambda b: b.restores), indirect=True)
NUM_ROWS = 6
Make = Callable[..., VecEnv]


@pytest.fixture(params=listed(lambda _: True))
def backend(request: pytest.FixtureRequest) -> Backend:
    return request.param


@pytest.fixture(scope="module")
def idle() -> Iterator[dict[tuple[str, int], list[VecEnv]]]:
    """Rows in processes that a test has left, by backend and number: a reset makes them as good as new."""
    left: dict[tuple[str, int], list[VecEnv]] = {}
    yield left
    for envs in left.values():
        for env in envs:
            env.close()


@pytest.fixture
def rows(backend: Backend, idle: dict[tuple[str, int], list[VecEnv]]) -> Iterator[Make]:
    """Makes rows; those in processes are taken from `idle`, as each process starts an interpreter."""
    made: list[tuple[int, VecEnv]] = []

    def make(num_rows: int = NUM_ROWS) -> VecEnv:
        left = idle.get((backend.name, num_rows))
        made.append((num_rows, left.pop() if left else backend.rows(num_rows)))
        return made[-1][1]

    yield make
    for num_rows, env in made:
        if backend.name.startswith("workers"):
            idle.setdefault((backend.name, num_rows), []).append(env)
        else:
            env.close()


@pytest.fixture
def new_rows(backend: Backend) -> Iterator[VecEnv]:
    """Rows that nobody has used."""
    env = backend.rows(NUM_ROWS)
    yield env
    env.close()


def started(env: VecEnv, seed: int = 0) -> VecEnv:
    env.reset(seed)
    env.recv()
    return env


def copied(ready: Ready) -> dict[str, NDArray[Any]]:
    """Every array; what only ended rows hold is blanked elsewhere."""
    ended = ready.terminated | ready.truncated
    values = {field.name: getattr(ready, field.name) for field in fields(ready)}
    del values["rows"], values["info"]
    if ready.action_mask is None:
        del values["action_mask"]
    for name in ("turn", "game_over", "executed", "changed", "cost"):
        del values[name]
    arrays = {name: array.copy() for name, array in values.items()}
    for name in ("final_obs", "episode_return", "episode_length"):
        arrays[name][~ended] = 0
    return arrays


def assert_same(left: dict[str, NDArray[Any]], right: dict[str, NDArray[Any]]) -> None:
    assert {name: array.tobytes() for name, array in left.items()} == {n: a.tobytes() for n, a in right.items()}


def play(env: VecEnv, num_steps: int, seed: int) -> list[dict[str, NDArray[Any]]]:
    rng = np.random.default_rng(seed)
    steps: list[dict[str, NDArray[Any]]] = []
    for _ in range(num_steps):
        env.send(ALL, draw_actions(env.spec.action_space, env.num_rows, rng))
        steps.append(copied(env.recv()))
    return steps


class Single:
    """One row in plain Gymnasium, reset in the same step, with counts of its own."""

    def __init__(self, env: gym.Env[Any, Any], seed: int) -> None:
        self.env = env
        self.obs: Any = env.reset(seed=seed)[0]
        self.total, self.count = 0.0, 0

    def step(self, action: Any) -> dict[str, Any]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.total, self.count = self.total + float(reward), self.count + 1
        seen = {"reward": float(reward), "terminated": bool(terminated), "truncated": bool(truncated), "valid": True}
        last = {"final_obs": np.zeros_like(obs), "episode_return": 0.0, "episode_length": 0}
        if terminated or truncated:
            last = {"final_obs": np.copy(obs), "episode_return": self.total, "episode_length": self.count}
            (obs, info), self.total, self.count = self.env.reset(), 0.0, 0
        return seen | last | {"obs": np.copy(obs), "action_mask": info.get("action_mask")}


@pytest.mark.parametrize("backend", listed(lambda b: b.single is not None), indirect=True)
def test_every_row_equals_plain_gymnasium(backend: Backend, rows: Make) -> None:
    assert backend.single is not None
    env = rows()
    env.reset(7)
    singles = [Single(backend.single(), 7 + row) for row in range(NUM_ROWS)]
    assert env.recv().obs.tolist() == [single.obs.tolist() for single in singles]
    rng = np.random.default_rng(0)
    ends = np.zeros(2, np.int64)
    for _ in range(200):
        actions = draw_actions(env.spec.action_space, NUM_ROWS, rng)
        env.send(ALL, actions)
        got = copied(env.recv())
        # A copy: an environment may change its action in place.
        expected = [single.step(action) for single, action in zip(singles, actions.copy(), strict=True)]
        for name, values in got.items():
            assert values.tolist() == [np.asarray(row[name]).tolist() for row in expected], name
        ends += got["terminated"].sum(), got["truncated"].sum()
    assert ends[0] >= 3 or env.spec.env_id == "Pendulum-v1"
    assert ends[1] >= 3 * backend.truncates
    for single in singles:
        single.env.close()


def test_terminated_and_truncated_stay_apart(rows: Make) -> None:
    steps = play(started(rows(16)), 120, seed=1)
    terminated = sum(int(step["terminated"].sum()) for step in steps)
    truncated = sum(int(step["truncated"].sum()) for step in steps)
    both = sum(int((step["terminated"] & step["truncated"]).sum()) for step in steps)
    assert terminated + truncated - both > 0
    assert both < max(terminated, truncated)


def test_seeds_decide(rows: Make) -> None:
    env, twin = rows(), rows()
    first = play(started(env, 3), 60, seed=2)
    for one, other in zip(first, play(started(twin, 3), 60, seed=2), strict=True):
        assert_same(one, other)
    for one, again in zip(first, play(started(env, 3), 60, seed=2), strict=True):
        assert_same(one, again)
    assert any(
        one["obs"].tobytes() != other["obs"].tobytes()
        for one, other in zip(first, play(started(env, 400), 60, seed=2), strict=True)
    )


def test_row_r_is_seeded_with_seed_plus_r(rows: Make) -> None:
    env, shifted, listed = rows(4), rows(3), rows(3)
    env.reset(10)
    shifted.reset(11)
    listed.reset([13, 10, 11])
    obs = env.recv().obs
    assert shifted.recv().obs.tobytes() == obs[1:].tobytes()
    assert listed.recv().obs.tolist() == [obs[3].tolist(), obs[0].tolist(), obs[1].tolist()]


@pytest.mark.parametrize("seed", [[1, 2], -1, 2**64 - 2, [0, 1, 2, 3, 4, -5]])
def test_impossible_seeds_are_refused(rows: Make, seed: Any) -> None:
    with pytest.raises(ValueError, match=r"one seed for each of 6 rows|must lie between 0 and"):
        rows().reset(seed)


def test_first_recv_has_no_reward_and_no_end(rows: Make) -> None:
    env = started(rows())
    play(env, 60, seed=3)
    env.reset(1)
    ready = env.recv()
    assert ready.rows == slice(0, NUM_ROWS)
    assert not ready.reward.any()
    assert not (ready.terminated | ready.truncated).any()
    assert ready.valid.all()


def test_order_before_reset(new_rows: VecEnv) -> None:
    env = new_rows
    actions = draw_actions(env.spec.action_space, NUM_ROWS, np.random.default_rng(0))
    with pytest.raises(RuntimeError, match="send before reset"):
        env.send(ALL, actions)
    with pytest.raises(RuntimeError, match="recv before reset"):
        env.recv()
    with pytest.raises(RuntimeError, match="state before reset"):
        env.state()
    env.reset(0)
    with pytest.raises(RuntimeError, match="send before recv"):
        env.send(ALL, actions)
    env.recv()
    with pytest.raises(RuntimeError, match="no rows under way"):
        env.recv()


@in_parts
def test_order_of_sends(rows: Make) -> None:
    env = started(rows())
    actions = draw_actions(env.spec.action_space, NUM_ROWS, np.random.default_rng(0))
    for wrong in (slice(2, 2), slice(0, 6, 2), slice(6, 9)):
        with pytest.raises(ValueError, match="contiguous, non-empty slice of 6 rows"):
            env.send(wrong, actions[:1])
    env.send(slice(0, 2), actions[:2])
    with pytest.raises(RuntimeError, match=r"rows 1\.\.3 were sent before rows 0\.\.1 were received"):
        env.send(slice(1, 4), actions[1:4])
    env.send(slice(4, 6), actions[4:])
    with pytest.raises(RuntimeError, match=r"rows 2\.\.3 were sent before rows 0\.\.1 and 4\.\.5"):
        env.send(slice(2, 4), actions[2:4])
    with pytest.raises(RuntimeError, match=r"rows 0\.\.1 and 4\.\.5 are under way: receive them"):
        env.state()
    assert [env.recv().rows, env.recv().rows] == [slice(0, 2), slice(4, 6)]


def test_capabilities_say_what_rows_can_do(backend: Backend, rows: Make) -> None:
    env = started(rows())
    can = env.capabilities
    assert can.in_order
    assert (can.whole_sends, can.can_save) == (backend.whole, backend.restores)
    assert not env.dropped.any()
    pool, python = env.native_pool, env.python_rows
    assert (pool is not None) == backend.name.startswith("native")
    assert pool is None or pool.obs.shape[0] == NUM_ROWS
    assert (python is not None) == backend.name.startswith("serial")
    assert python is None or len(python.envs) == len(python.infos) == len(python.final_infos) == NUM_ROWS
    play(env, 2, seed=1)
    everywhere = np.ones(NUM_ROWS, np.bool_)
    seeds = list(range(NUM_ROWS))
    if can.restartable:
        env.restart(seeds, everywhere, held=~everywhere)
        twin = rows()
        twin.reset(0)
        assert env.recv().obs.tobytes() == twin.recv().obs.tobytes()
    if not (can.restartable and can.reset_options):
        with pytest.raises(ConfigError):
            env.restart(seeds, everywhere, held=~everywhere, options={"low": 0})
    if can.can_render:
        assert env.render(0).dtype == np.uint8
    else:
        with pytest.raises(ConfigError, match="render"):
            env.render(0)


def test_workers_that_hand_over_in_any_order_say_so() -> None:
    env = make("CartPole-v1", 4, backend="workers", workers=Workers(2, batch_rows=2))
    assert not env.capabilities.in_order
    assert not env.capabilities.restartable
    env.close()


def test_reset_forgets_what_is_under_way(backend: Backend, rows: Make) -> None:
    env, twin = started(rows()), rows()
    actions = draw_actions(env.spec.action_space, NUM_ROWS, np.random.default_rng(0))
    some = slice(0, NUM_ROWS if backend.whole else 3)
    env.send(some, actions[some])
    assert_same(play(started(env, 5), 1, seed=4)[0], play(started(twin, 5), 1, seed=4)[0])


@in_parts
def test_two_halves_in_flight_equal_one_send(rows: Make) -> None:
    whole, halves = started(rows()), started(rows())
    rng = np.random.default_rng(5)
    for _ in range(90):
        actions = draw_actions(whole.spec.action_space, NUM_ROWS, rng)
        whole.send(ALL, actions)
        expected = copied(whole.recv())
        halves.send(slice(2, 6), actions[2:])
        halves.send(slice(0, 2), actions[:2])
        parts = {part.rows.start: copied(part) for part in (halves.recv(), halves.recv())}
        assert list(parts) == [2, 0]
        assert_same(expected, {name: np.concatenate([parts[0][name], parts[2][name]]) for name in expected})


@in_parts
def test_views_hold_until_their_rows_are_sent_again(rows: Make) -> None:
    env = started(rows())
    rng = np.random.default_rng(6)
    for _ in range(60):
        actions = draw_actions(env.spec.action_space, NUM_ROWS, rng)
        env.send(slice(0, 3), actions[:3])
        first = env.recv()
        before = copied(first)
        env.send(slice(3, 6), actions[3:])
        second = env.recv()
        assert_same(copied(first), before)
        assert not np.shares_memory(first.obs, second.obs)
        assert not np.shares_memory(first.obs, first.final_obs)


@in_parts
def test_whole_batches_follow_halves_in_flight(rows: Make) -> None:
    env, twin = started(rows()), started(rows())
    rng = np.random.default_rng(16)
    for _ in range(5):
        actions = draw_actions(env.spec.action_space, NUM_ROWS, rng)
        env.send(slice(0, 3), actions[:3])
        env.send(slice(3, 6), actions[3:])
        env.recv()
        env.recv()
        twin.send(ALL, actions)
        twin.recv()
        assert_same(play(env, 1, seed=17)[0], play(twin, 1, seed=17)[0])


@restored_exactly
def test_actions_may_change_after_send_and_recv(rows: Make) -> None:
    env, twin = started(rows()), started(rows())
    play(env, 3, seed=7)
    play(twin, 3, seed=7)
    rng = np.random.default_rng(8)
    for _ in range(30):
        actions = draw_actions(env.spec.action_space, NUM_ROWS, rng)
        kept = actions.copy()
        env.send(ALL, actions)
        obs = env.recv().obs
        actions[:] = actions[::-1].copy()
        twin.send(ALL, kept)
        assert twin.recv().obs.tobytes() == obs.tobytes()
    restored, again = rows(), rows()
    assert restored.restore(env.state()) == again.restore(twin.state()) == []
    assert restored.recv().obs.tobytes() == again.recv().obs.tobytes()


@restored_exactly
def test_restore_continues_bit_for_bit(rows: Make) -> None:
    env = started(rows())
    obs = play(env, 70, seed=9)[-1]["obs"]
    state = env.state()
    expected = play(env, 100, seed=10)
    restored = rows()
    assert restored.restore(state) == []
    ready = restored.recv()
    assert ready.obs.tobytes() == obs.tobytes()
    assert not (ready.terminated | ready.truncated).any()
    for one, other in zip(expected, play(restored, 100, seed=10), strict=True):
        assert_same(one, other)
    assert env.restore(state) == []
    env.recv()
    assert_same(expected[0], play(env, 1, seed=10)[0])


@restored_exactly
def test_state_right_after_reset(rows: Make) -> None:
    env, restored = rows(), rows()
    env.reset(2)
    env.recv()
    assert restored.restore(env.state()) == []
    restored.recv()
    for one, other in zip(play(env, 60, seed=11), play(restored, 60, seed=11), strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("backend", listed(lambda b: not b.restores), indirect=True)
def test_rows_that_cannot_be_saved_say_so_and_begin_anew(rows: Make) -> None:
    env = started(rows())
    last = play(env, 20, seed=18)[-1]
    state, restored = env.state(), rows()
    lost = restored.restore(state)
    assert lost == [f"{env.spec.env_id}: row {r} cannot be saved; its episode is cut as truncated" for r in range(6)]
    ready = restored.recv()
    assert ready.truncated.all()
    assert ready.final_obs.tobytes() == last["obs"].tobytes()
    assert ready.obs.tobytes() != last["obs"].tobytes()
    assert (ready.episode_length >= 1).all()
    assert (play(restored, 1, seed=19)[0]["episode_length"] <= 1).all()


@pytest.mark.parametrize("backend", listed(lambda b: b.whole), indirect=True)
def test_libraries_refuse_a_part_of_their_rows(rows: Make) -> None:
    env = started(rows())
    actions = draw_actions(env.spec.action_space, NUM_ROWS, np.random.default_rng(0))
    with pytest.raises(ConfigError, match=r'its 6 rows at once, but rows 0\.\.1 were sent alone; use schedule="sync"'):
        env.send(slice(0, 2), actions[:2])
    play(env, 1, seed=20)


def test_restore_refuses_another_number_of_rows(rows: Make) -> None:
    state = started(rows()).state()
    with pytest.raises(ConfigError, match="rows"):
        rows(NUM_ROWS + 1).restore(state)


def test_bad_actions_step_nothing(backend: Backend, rows: Make) -> None:
    env, twin = started(rows()), started(rows())
    rng = np.random.default_rng(12)
    good = draw_actions(env.spec.action_space, NUM_ROWS, rng)
    for wrong, word in bad_actions(env.spec.action_space, good, row=4):
        with pytest.raises(ValueError, match=word):
            env.send(ALL, wrong)
    for wrong, word in bad_actions(env.spec.action_space, good[2:], row=2) * (not backend.whole):
        with pytest.raises(ValueError, match=word.replace("row 2", "row 4")):
            env.send(slice(2, 6), wrong)
    for one, other in zip(play(env, 30, seed=13), play(twin, 30, seed=13), strict=True):
        assert_same(one, other)


@in_parts
def test_a_bad_second_half_leaves_the_first(rows: Make) -> None:
    env = started(rows())
    good = draw_actions(env.spec.action_space, NUM_ROWS, np.random.default_rng(14))
    env.send(slice(0, 3), good[:3])
    with pytest.raises(ValueError, match="shape"):
        env.send(slice(3, 6), good[:2])
    env.send(slice(3, 6), good[3:])
    assert [env.recv().rows, env.recv().rows] == [slice(0, 3), slice(3, 6)]


def test_actions_of_another_width_are_taken(rows: Make) -> None:
    env, twin = started(rows()), started(rows())
    actions = draw_actions(env.spec.action_space, NUM_ROWS, np.random.default_rng(15))
    wider = {"i": np.int32, "f": np.float64}[actions.dtype.kind]
    env.send(ALL, actions.astype(wider))
    twin.send(ALL, actions)
    assert_same(copied(env.recv()), copied(twin.recv()))


def test_close_twice(new_rows: VecEnv) -> None:
    env = started(new_rows)
    env.send(ALL, draw_actions(env.spec.action_space, NUM_ROWS, np.random.default_rng(0)))
    env.close()
    env.close()
    with pytest.raises(RuntimeError, match="closed"):
        env.recv()
