"""Saved native rows: what steps come to is taken back, what they cannot come to is refused before it is used."""

import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shoal import _native
from shoal.envs.preprocessing import Preprocessing
from shoal.envs.registry import make
from shoal.types import ConfigError
from tests.native_rows import NativeRows, native_rows

IDS = _native.env_ids()
PARAMS: dict[str, list[dict[str, float]]] = {
    "shoal/Snake-v0": [{"size": 2}, {"size": 3, "patience": 1}, {"size": 4, "patience": 1000}],
    "shoal/Memory-v0": [{"delay": 0}, {"delay": 30}],
    "shoal/Breakout-v0": [{"speed": 0.049, "paddle_half": 0.5, "lives": 10}, {"speed": 0.005, "lives": 1}],
    "shoal/Pong-v0": [{"paddle_speed": 1.0, "opponent_speed": 0.0}, {"paddle_speed": 0.1, "opponent_speed": 1.0}],
    "CartPole-v1": [{"max_episode_steps": 0}],
    "Pendulum-v1": [{"g": 1000.0, "max_episode_steps": 0}],
    "LunarLander-v3": [{"enable_wind": 1.0}],
}
SEED = np.dtype([("state", "u1", 16), ("increment", "u1", 16), ("half", "<u8"), ("has_half", "<u8")])
SNAKE = np.dtype(
    {
        "names": ["board", "body", "places", "tail", "length", "head", "food", "size", "hunger", "patience"],
        "formats": ["<u8", "<u8", ("u1", 36), "u1", "u1", "u1", "u1", "u1", "<i2", "<i2"],
        "offsets": [0, 8, 16, 52, 53, 54, 55, 56, 58, 60],
    }
)


def actions_of(rows: NativeRows, env_id: str, rng: np.random.Generator) -> Any:
    info = _native.env_info(env_id)
    if info["discrete"]:
        return rng.integers(0, info["num_actions"], rows.pool.num_rows)
    low, high = np.array(info["action_low"]), np.array(info["action_high"])
    return rng.uniform(low, high, (rows.pool.num_rows, len(low))).astype(np.float32)


def stepped(env_id: str, num_steps: int, num_rows: int = 16, **params: float) -> NativeRows:
    rows, rng = native_rows(env_id, num_rows, num_threads=1, **params), np.random.default_rng(num_steps)
    rows.reset(list(range(num_rows)))
    for _ in range(num_steps):
        rows.step(actions_of(rows, env_id, rng))
    return rows


@pytest.mark.parametrize("env_id", IDS)
def test_whatever_steps_come_to_is_valid(env_id: str) -> None:
    for params in [{}, *PARAMS.get(env_id, [])]:
        slow = env_id.startswith("Lunar")  # its episodes are played again
        rows, rng = stepped(env_id, 0, 4 if slow else 64, **params), np.random.default_rng(7)
        for _ in range(80 if slow else 400):
            assert rows.pool.restore(rows.pool.state()) == []
            rows.step(actions_of(rows, env_id, rng))


def refusal_of(rows: NativeRows, saved: NDArray[np.uint8]) -> str:
    """What is said against saved rows, or nothing."""
    try:
        rows.pool.restore(saved)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("env_id", IDS)
def test_whatever_the_bytes_are_they_are_refused_or_stepped(env_id: str) -> None:
    """A byte in ten is another one; what is taken back is stepped on."""
    rng = np.random.default_rng(3)
    rows = stepped(env_id, 10, 4)
    saved, refused = rows.pool.state(), 0
    for _ in range(60):
        bad = saved.copy()
        chosen = rng.random(bad.shape) < rng.choice([0.002, 0.02, 0.1])
        bad[chosen] = rng.integers(0, 256, int(chosen.sum()))
        refusal = refusal_of(rows, bad)
        if refusal:
            refused += 1
            assert "saved row" in refusal
            with pytest.raises(RuntimeError, match="call attach and reset first"):
                rows.step(actions_of(rows, env_id, rng))
            rows.pool.restore(saved)
        for _ in range(3):
            rows.step(actions_of(rows, env_id, rng))
        assert np.isfinite(rows.obs).all()
    assert refused > 10


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("head", 200),
        ("tail", 36),
        ("length", 0),
        ("length", 255),
        ("food", 255),
        ("size", 9),
        ("hunger", -1),
        ("patience", 0),
        ("places", 77),
        ("board", 2**63),
        ("body", 0),
    ],
)
def test_every_field_of_a_snake_is_looked_at(field: str, value: int) -> None:
    rows = stepped("shoal/Snake-v0", 5, 2)
    saved = rows.pool.state()
    saved[1, : SNAKE.itemsize].view(SNAKE)[field] = value
    with pytest.raises(ValueError, match=r"saved row 1 holds a state that shoal/Snake-v0 cannot come to"):
        rows.pool.restore(saved)


def doubles(saved: NDArray[np.uint8], row: int) -> NDArray[np.float64]:
    return saved[row, :32].view(np.float64)


@pytest.mark.parametrize(
    ("env_id", "number"), [("Acrobot-v1", 1e300), ("Acrobot-v1", np.nan), ("CartPole-v1", np.inf), ("CartPole-v1", 3.0)]
)
def test_numbers_outside_the_space_are_refused(env_id: str, number: float) -> None:
    rows = stepped(env_id, 5, 2)
    saved = rows.pool.state()
    doubles(saved, 0)[0] = number
    with pytest.raises(ValueError, match=r"saved row 0 holds a state that .* cannot come to"):
        rows.pool.restore(saved)


@pytest.mark.parametrize(("env_id", "at"), [("Acrobot-v1", 32), ("MountainCarContinuous-v0", 16)])
def test_a_flag_that_is_neither_true_nor_false_is_refused(env_id: str, at: int) -> None:
    rows = stepped(env_id, 5, 2)
    saved = rows.pool.state()
    saved[0, at] = 2
    with pytest.raises(ValueError, match=r"saved row 0 holds a state that .* cannot come to"):
        rows.pool.restore(saved)


def test_generators_returns_and_lengths_are_looked_at() -> None:
    rows = stepped("CartPole-v1", 5, 1)
    saved = rows.pool.state()
    tally = 32 + SEED.itemsize
    for at, value in ((32 + 16, np.uint8(2)), (tally, np.float64(np.nan)), (tally + 8, np.int32(-1))):
        bad = saved.copy()
        bad[0, at : at + value.nbytes] = np.frombuffer(value.tobytes(), np.uint8)
        with pytest.raises(ValueError, match="saved row 0 has no generator, or a return or length"):
            rows.pool.restore(bad)


def state_of(**given: Any) -> tuple[Any, dict[str, Any]]:
    env = make("CartPole-v1", 2, **given)
    env.reset(0)
    env.recv()
    env.send(slice(0, 2), np.zeros(2, np.int64))
    env.recv()
    return env, env.state()


def test_rows_of_another_layout_are_refused() -> None:
    env, saved = state_of()
    assert saved["layout"].startswith("CartPole-v1, a state of 32 bytes, version 1")
    for layout in (saved["layout"].replace("version 1", "version 2"), None):
        with pytest.raises(ConfigError, match="the saved rows are of another build of the environment: they hold"):
            env.restore(saved | {"layout": layout})
    drawn, _ = state_of(env_kwargs={"sutton_barto_reward": "choice:0,1"})
    with pytest.raises(ConfigError, match=r"this one has CartPole-v1, .*; drawn: sutton_barto_reward"):
        drawn.restore(saved)
    assert env.restore(saved) == []


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        (np.zeros((3, 4), np.float32), r"saved observations are float32 of shape \(3, 4\)"),
        (np.zeros((2, 4)), "saved observations are float64"),
        (np.full((2, 4), np.nan, np.float32), "not all finite"),
    ],
)
def test_saved_observations_are_looked_at(obs: Any, message: str) -> None:
    env, saved = state_of()
    with pytest.raises(ConfigError, match=message):
        env.restore(saved | {"obs": obs})


def test_stored_actions_and_stacks_are_looked_at() -> None:
    env, saved = state_of(preprocessing=Preprocessing(frame_stack=2, sticky_actions=0.5))
    own = 24  # what decides whether the row sticks; then the action, then the stack
    for at, value, message in (
        (16, np.int64(7), "repeats an action that there is not"),
        (own, np.int64(9), "repeats an action that there is not"),
        (own + 8, np.float32(np.inf), "holds observations that are not finite"),
    ):
        bad = saved["rows"].copy()
        bad[1, at : at + value.nbytes] = np.frombuffer(value.tobytes(), np.uint8)
        with pytest.raises(ConfigError, match=f"the saved rows do not fit: saved row 1 {message}"):
            env.restore(saved | {"rows": bad})
    assert env.restore(saved) == []


def test_drawn_parameters_are_looked_at() -> None:
    env, saved = state_of(env_kwargs={"sutton_barto_reward": "choice:0,1"})
    bad = saved["rows"].copy()
    params = bad.shape[1] - 64 - 16
    for value in (np.nan, np.inf):
        bad[0, params : params + 8] = np.frombuffer(np.float64(value).tobytes(), np.uint8)
        with pytest.raises(ConfigError, match="saved row 0 holds drawn parameters that the environment cannot have"):
            env.restore(saved | {"rows": bad})


def test_one_thread_at_a_time_uses_a_pool() -> None:
    rows = native_rows("Acrobot-v1", 200_000)
    seeds = np.arange(200_000, dtype=np.uint64)
    rows.pool.reset(seeds)
    refused: list[str] = []
    thread = threading.Thread(target=lambda: [rows.pool.reset(seeds) for _ in range(3)])
    thread.start()
    while thread.is_alive():
        for call in (lambda: rows.pool.recv(0), lambda: rows.pool.restart(seeds, seeds > 0, seeds > 0)):
            try:
                call()
            except RuntimeError as error:
                refused.append(str(error))
    thread.join()
    assert any("another thread is using this pool" in text for text in refused)
    rows.pool.reset(seeds)
