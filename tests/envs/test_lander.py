"""Native LunarLander's rows cannot be copied: saved ones are played again; and what is refused, or falls back."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shoal import _native
from shoal.envs import registry
from shoal.envs.native import NativeEnv
from shoal.envs.registry import make
from shoal.envs.serial import SerialEnv
from shoal.types import ConfigError
from tests.native_rows import NativeRows, native_rows

built = pytest.mark.skipif("LunarLander-v3" not in _native.env_ids(), reason="built without Box2D: run `make setup`")

IDS = ["LunarLander-v3", "LunarLanderContinuous-v3"]
WIND: Any = {"enable_wind": 1.0, "max_episode_steps": 90.0}
HEAD_BYTES = 48 + 16 + 8 * 4  # generator, return and length, observation


def draw(env_id: str, num_rows: int, rng: np.random.Generator) -> NDArray[Any]:
    if env_id == "LunarLander-v3":
        return rng.integers(0, 4, num_rows)
    return rng.uniform(-1, 1, (num_rows, 2)).astype(np.float32)


def outputs(rows: NativeRows) -> list[bytes]:
    ended = rows.terminated | rows.truncated
    last = [rows.final_obs[ended], rows.episode_return[ended], rows.episode_length[ended]]
    return [array.tobytes() for array in (rows.obs, rows.reward, rows.terminated, rows.truncated, *last)]


@built
@pytest.mark.parametrize("env_id", IDS)
def test_threads_change_no_bit(env_id: str) -> None:
    pools = [native_rows(env_id, 37, num_threads=threads, **WIND) for threads in (1, 2, 3)]
    rng = np.random.default_rng(0)
    for rows in pools:
        rows.reset(list(range(37)))
    for _ in range(120):
        action = draw(env_id, 37, rng)
        for rows in pools:
            rows.step(action)
        assert outputs(pools[0]) == outputs(pools[1]) == outputs(pools[2])


@built
@pytest.mark.parametrize("env_id", IDS)
def test_a_new_pool_continues_from_a_saved_state(env_id: str) -> None:
    first, second = native_rows(env_id, 9, **WIND), native_rows(env_id, 9, **WIND)
    rng = np.random.default_rng(1)
    first.reset(list(range(9)))
    for _ in range(130):
        first.step(draw(env_id, 9, rng))
    saved = first.pool.state()
    second.reset([99] * 9)
    assert second.pool.restore(saved) == []
    assert second.pool.state().tobytes() == saved.tobytes()
    for _ in range(200):
        action = draw(env_id, 9, rng)
        first.step(action)
        second.step(action)
        assert outputs(first) == outputs(second)


@built
def test_without_a_time_limit_rows_are_saved_whole() -> None:
    rows = native_rows("LunarLander-v3", 2, max_episode_steps=0)
    rows.reset([0, 1])
    assert rows.pool.state().shape == (2, HEAD_BYTES)
    for _ in range(30):
        rows.step(np.array([2, 0]))
    assert rows.pool.state().shape == (2, HEAD_BYTES + 30 * 8)


@built
def test_a_row_that_comes_out_different_is_cut() -> None:
    env, rng = make("LunarLander-v3", 3), np.random.default_rng(2)
    env.reset(5)
    env.recv()
    for _ in range(20):
        env.send(slice(0, 3), draw("LunarLander-v3", 3, rng))
        env.recv()
    state = env.state()
    # As if another machine had flown row 1: the last byte of its saved observation is another one.
    state["rows"][1, HEAD_BYTES - 1] ^= 1
    state["obs"][1, 7] = 0.5
    lost = env.restore(state)
    assert len(lost) == 1
    assert "LunarLander-v3: row 1 did not come back to its saved observation" in lost[0]
    ready = env.recv()
    assert ready.truncated.tolist() == [False, True, False]
    assert ready.terminated.tolist() == [False] * 3
    assert ready.episode_length[1] == 20
    assert not np.array_equal(ready.obs[1], state["obs"][1])
    assert np.array_equal(ready.obs[[0, 2]], state["obs"][[0, 2]])
    env.send(slice(0, 3), np.zeros(3, np.int64))
    env.recv()
    env.close()


@built
def test_damaged_states_are_refused() -> None:
    rows = native_rows("LunarLander-v3", 2)
    rows.reset([0, 1])
    for _ in range(5):
        rows.step(np.array([2, 3]))
    saved = rows.pool.state()
    longer, forbidden = saved.copy(), saved.copy()
    longer[1, 56] = 200
    forbidden[0, HEAD_BYTES] = 4
    for state, message in [
        (saved[:, : HEAD_BYTES - 1], r"state must have shape \(2,"),
        (saved[:1], r"state must have shape \(2,"),
        (longer, "a saved row claims 200 actions and has room for 5"),
        (forbidden, "saved row 0 holds an action outside the action space"),
    ]:
        with pytest.raises(ValueError, match=message):
            rows.pool.restore(np.ascontiguousarray(state))
    assert rows.pool.restore(saved) == []


@built
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"gravity": -12.0}, "gravity must lie between -12 and 0"),
        ({"gravity": 0.0}, "gravity must lie between -12 and 0"),
        ({"wind_power": 1e30}, "wind_power and turbulence_power must lie between"),
        ({"continuous": True}, "has no parameter 'continuous'"),
    ],
)
def test_parameters_that_cannot_work(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make("LunarLander-v3", 1, env_kwargs=params)


@built
@pytest.mark.parametrize("env_id", IDS)
def test_extreme_winds_stay_finite(env_id: str) -> None:
    rows = native_rows(env_id, 8, enable_wind=1, wind_power=1000, turbulence_power=-1000, max_episode_steps=300)
    rng = np.random.default_rng(3)
    rows.reset(list(range(8)))
    for _ in range(400):
        rows.step(draw(env_id, 8, rng))
        assert np.isfinite(rows.obs).all()
        assert np.isfinite(rows.reward).all()


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_own_runs_where_box2d_was_not_there(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "env_ids", lambda: ["CartPole-v1"])
    with pytest.warns(UserWarning, match=rf"the native {env_id} was built without .*`make setup` fetches them"):
        env = make(env_id, 1)
    monkeypatch.setattr(registry, "_ROOT", Path("/nowhere"))
    with pytest.warns(UserWarning, match=r"Box2D: a build where PyPI .* install shoal-rl from such a wheel; Gymnasium"):
        make(env_id, 1).close()
    assert isinstance(env, SerialEnv)
    env.close()
    with pytest.raises(ConfigError, match=rf"{env_id} was built without .*backend='serial' runs Gymnasium's own"):
        make(env_id, 1, backend="native")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(env_id, 1, backend="serial").close()


@built
def test_auto_takes_the_native_one() -> None:
    env = make("LunarLander-v3", 1)
    assert isinstance(env, NativeEnv)
    env.close()
