"""The native pool through its bindings: bits, refusals, saved states, two halves in flight; and the Env concept."""

import subprocess
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from shoal import _native
from tests.native_rows import NativeRows, native_rows

NATIVE = Path(__file__).parents[2] / "native"
Actions: TypeAlias = NDArray[np.int64] | NDArray[np.float32]

IDS = ["Acrobot-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"]
WORLDS = [f"shoal/{name}-v0" for name in ("Breakout", "Memory", "Pong", "Pursuit", "Snake", "Squared")]


def draw_actions(env_id: str, num_rows: int, rng: np.random.Generator) -> Actions:
    info = _native.env_info(env_id)
    if info["discrete"]:
        return rng.integers(0, info["num_actions"], num_rows)
    low, high = np.array(info["action_low"]), np.array(info["action_high"])
    return rng.uniform(low, high, (num_rows, len(low))).astype(np.float32)


def copy_outputs(rows: NativeRows) -> list[NDArray[Any]]:
    outputs = [rows.obs, rows.reward, rows.terminated, rows.truncated]
    outputs += [rows.final_obs, rows.episode_return, rows.episode_length]
    return [array.copy() for array in outputs]


def assert_same_bits(left: list[NDArray[Any]], right: list[NDArray[Any]]) -> None:
    assert [array.tobytes() for array in left] == [array.tobytes() for array in right]


def test_ids() -> None:
    assert [env_id for env_id in _native.env_ids() if env_id in IDS + WORLDS] == IDS + WORLDS


def test_info_of_a_discrete_environment() -> None:
    info = _native.env_info("CartPole-v1")
    infinity = float("inf")
    angle = float(np.float32(24 * np.pi / 180))
    assert info["obs_high"] == pytest.approx([4.8, infinity, angle, infinity])
    assert info["obs_low"] == pytest.approx([-4.8, -infinity, -angle, -infinity])
    assert (info["id"], info["discrete"], info["num_actions"]) == ("CartPole-v1", True, 2)
    assert (info["max_episode_steps"], info["reward_threshold"]) == (500, 475.0)
    assert info["params"] == {"max_episode_steps": 500.0, "sutton_barto_reward": 0.0}


def test_info_of_a_box_environment() -> None:
    info = _native.env_info("Pendulum-v1")
    assert (info["discrete"], info["action_low"], info["action_high"]) == (False, [-2.0], [2.0])
    assert (info["reward_threshold"], info["params"]["g"]) == (None, 10.0)


@pytest.mark.parametrize("env_id", IDS + WORLDS)
def test_threads_change_no_bit(env_id: str) -> None:
    pools = [native_rows(env_id, 1_000, num_threads=threads, max_episode_steps=60) for threads in (1, 2, 3)]
    rng = np.random.default_rng(0)
    for rows in pools:
        rows.reset(list(range(1_000)))
    for _ in range(150):
        actions = draw_actions(env_id, 1_000, rng)
        for rows in pools:
            rows.step(actions)
        assert_same_bits(copy_outputs(pools[0]), copy_outputs(pools[1]))
        assert_same_bits(copy_outputs(pools[0]), copy_outputs(pools[2]))


def test_vector_steps_equal_single_ones() -> None:
    whole, single = native_rows("CartPole-v1", 1_003), native_rows("CartPole-v1", 1_003)
    rng = np.random.default_rng(1)
    for rows in (whole, single):
        rows.reset(list(range(1_003)))
    for _ in range(300):
        actions = rng.integers(0, 2, 1_003)
        whole.step(actions)
        for row in range(1_003):
            single.pool.send(0, row, 1, actions[row : row + 1])
            single.pool.recv(0)
        assert_same_bits(copy_outputs(whole), copy_outputs(single))


@pytest.mark.parametrize("env_id", IDS + WORLDS)
def test_restore_continues(env_id: str) -> None:
    first, second = native_rows(env_id, 36, max_episode_steps=40), native_rows(env_id, 36, max_episode_steps=40)
    rng = np.random.default_rng(2)
    first.reset(list(range(36)))
    for _ in range(70):
        first.step(draw_actions(env_id, 36, rng))
    saved = first.pool.state()
    assert saved.dtype == np.uint8
    assert len(saved) == 36
    second.pool.restore(saved)
    assert second.pool.state().tobytes() == saved.tobytes()
    for rows in (first, second):
        rows.final_obs.fill(0)
        rows.episode_return.fill(0)
        rows.episode_length.fill(0)
    for _ in range(100):
        actions = draw_actions(env_id, 36, rng)
        first.step(actions)
        second.step(actions)
        assert_same_bits(copy_outputs(first), copy_outputs(second))


def test_restore_refuses_another_size() -> None:
    rows = native_rows("CartPole-v1", 4)
    rows.reset([0, 1, 2, 3])
    state = rows.pool.state()
    with pytest.raises(ValueError, match=r"state must have shape \(4,"):
        rows.pool.restore(state[:3])
    with pytest.raises(ValueError, match="state must have shape"):
        rows.pool.restore(np.ascontiguousarray(state[:, :-1]))


def test_two_slots_fly_at_once() -> None:
    halves, whole = native_rows("CartPole-v1", 300, num_threads=2), native_rows("CartPole-v1", 300)
    rng = np.random.default_rng(3)
    for rows in (halves, whole):
        rows.reset(list(range(300)))
    for _ in range(200):
        actions = rng.integers(0, 2, 300)
        halves.pool.send(0, 0, 130, actions[:130])
        halves.pool.send(1, 130, 170, actions[130:])
        halves.pool.recv(1)
        halves.pool.recv(0)
        whole.step(actions)
        assert_same_bits(copy_outputs(halves), copy_outputs(whole))


def test_flights_are_kept_apart() -> None:
    rows = native_rows("CartPole-v1", 10)
    actions = np.zeros(10, np.int64)
    with pytest.raises(RuntimeError, match="call attach and reset first"):
        rows.pool.send(0, 0, 10, actions)
    rows.reset(list(range(10)))
    with pytest.raises(RuntimeError, match="slot 0 is not in flight"):
        rows.pool.recv(0)
    rows.pool.send(0, 0, 6, actions[:6])
    with pytest.raises(RuntimeError, match="slot 0 is in flight"):
        rows.pool.send(0, 6, 4, actions[:4])
    with pytest.raises(RuntimeError, match="rows 0 to 5 are in flight"):
        rows.pool.send(1, 5, 5, actions[:5])
    with pytest.raises(RuntimeError, match="rows 0 to 5 are in flight"):
        rows.pool.state()
    with pytest.raises(RuntimeError, match="rows 0 to 5 are in flight"):
        rows.reset(list(range(10)))
    rows.pool.recv(0)


@pytest.mark.parametrize(
    ("env_id", "bad", "message"),
    [
        ("CartPole-v1", 2, "row 21: action 2 is outside"),
        ("CartPole-v1", -1, "row 21: action -1 is outside"),
        ("CartPole-v1", -(2**63), "row 21: action -9223372036854775808 is outside"),
        ("MountainCar-v0", 2**63 - 1, "row 21: action 9223372036854775807 is outside"),
        ("Pendulum-v1", 2.5, "row 21: action 2.5"),
        ("Pendulum-v1", float("nan"), "row 21: action nan"),
        ("Pendulum-v1", float("-inf"), "row 21: action -inf"),
    ],
)
def test_a_bad_action_steps_nothing(env_id: str, bad: float, message: str) -> None:
    rows = native_rows(env_id, 64)
    rows.reset(list(range(64)))
    before, outputs = rows.pool.state(), copy_outputs(rows)
    actions = draw_actions(env_id, 40, np.random.default_rng(4))
    actions[11] = bad
    actions[30] = bad
    with pytest.raises(ValueError, match=message):
        rows.pool.send(0, 10, 40, actions)
    assert rows.pool.state().tobytes() == before.tobytes()
    assert_same_bits(copy_outputs(rows), outputs)


@pytest.mark.parametrize(
    ("env_id", "actions", "message"),
    [
        ("CartPole-v1", np.zeros(3, np.int64), r"shape \(4,\), not \(3,\)"),
        ("CartPole-v1", np.zeros((4, 2), np.int64), r"shape \(4,1,\), not \(4,2,\)"),
        ("CartPole-v1", np.zeros(4, np.int32), "must be a int64 array"),
        ("CartPole-v1", np.zeros(4, np.float32), "must be a int64 array"),
        ("CartPole-v1", np.zeros(8, np.int64)[::2], "must be contiguous"),
        ("Pendulum-v1", np.zeros(4, np.float32), r"shape \(4,1,\), not \(4,\)"),
        ("Pendulum-v1", np.zeros((4, 1), np.float64), "must be a float32 array"),
    ],
)
def test_actions_of_another_form_are_refused(env_id: str, actions: Actions, message: str) -> None:
    rows = native_rows(env_id, 4)
    rows.reset([0, 1, 2, 3])
    with pytest.raises(ValueError, match=message):
        rows.pool.send(0, 0, 4, actions)


@pytest.mark.parametrize(("slot", "first", "count"), [(2, 0, 4), (-1, 0, 4), (0, -1, 2), (0, 1, 4), (0, 0, 0)])
def test_rows_outside_the_pool_are_refused(slot: int, first: int, count: int) -> None:
    rows = native_rows("CartPole-v1", 4)
    rows.reset([0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"slot must be 0 or 1|are out of range for a pool of 4"):
        rows.pool.send(slot, first, count, np.zeros(max(count, 0), np.int64))


def test_arrays_of_another_form_are_refused() -> None:
    rows = native_rows("CartPole-v1", 4)
    rest = (rows.reward, rows.terminated, rows.truncated, rows.final_obs, rows.episode_return, rows.episode_length)
    rest += (np.zeros((4, 0)),)
    with pytest.raises(ValueError, match=r"obs must have shape \(4,4,\), not \(4,3,\)"):
        rows.pool.attach(np.zeros((4, 3), np.float32), *rest)
    with pytest.raises(ValueError, match="obs must be a float32 array"):
        rows.pool.attach(np.zeros((4, 4), np.float64), *rest)
    with pytest.raises(ValueError, match=r"seeds must have shape \(4,\), not \(3,\)"):
        rows.reset([0, 1, 2])


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="no native environment 'CartPole-v9'; there are Acrobot-v1, CartPole-v1"):
        _native.Pool("CartPole-v9", 1, 1, {})
    with pytest.raises(ValueError, match="Pendulum-v1 has no parameter 'gravity'; it has max_episode_steps, g"):
        _native.Pool("Pendulum-v1", 1, 1, {"gravity": 9.8})
    with pytest.raises(ValueError, match="g must be finite"):
        _native.Pool("Pendulum-v1", 1, 1, {"g": float("nan")})
    with pytest.raises(ValueError, match="max_episode_steps must be a whole number"):
        _native.Pool("Pendulum-v1", 1, 1, {"max_episode_steps": 1.5})
    with pytest.raises(ValueError, match="num_rows must be at least 1"):
        _native.Pool("Pendulum-v1", 0, 1, {})
    with pytest.raises(ValueError, match="num_threads must be between 1 and"):
        _native.Pool("Pendulum-v1", 1, 0, {})


def test_no_time_limit() -> None:
    rows = native_rows("Pendulum-v1", 1, max_episode_steps=0)
    rows.reset([0])
    for _ in range(1_000):
        rows.step(np.zeros((1, 1), np.float32))
        assert not rows.truncated[0]


HEADER = """
#include "core/pool.hpp"
namespace shoal {
struct Mine {
  static constexpr std::string_view id = "Mine-v0";
  static constexpr Box<1> observation_space{{0}, {1}};
  static constexpr Discrete action_space{2};
  static constexpr int max_episode_steps = 10;
  static constexpr std::optional<double> reward_threshold = std::nullopt;
  using Params = NoParams;
  double x;
  void reset(const Params&, Pcg64& rng) noexcept { x = rng.next_double(); }
  Outcome step(const Params&, std::int64_t) noexcept { return {x, false}; }
  void observe(std::span<float, 1> obs) const noexcept { obs[0] = static_cast<float>(x); }
  bool valid(const Params&) const noexcept { return x >= 0 && x < 1; }
};
static_assert(require_env<Mine>());
}
"""


def compile_header(source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "mine.cpp"
    path.write_text(source, encoding="utf-8")
    options = ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", f"-I{NATIVE}"]
    return subprocess.run(["g++", *options, str(path)], capture_output=True, text=True, check=False)


def test_a_complete_header_compiles(tmp_path: Path) -> None:
    assert compile_header(HEADER, tmp_path).stderr == ""


def test_the_documented_header_compiles(tmp_path: Path) -> None:
    page = (NATIVE.parent / "docs" / "environments.md").read_text(encoding="utf-8")
    header = page.split("```cpp\n")[1].split("```")[0]
    (tmp_path / "line_walk.hpp").write_text(header, encoding="utf-8")
    check = (
        '#include "core/pool.hpp"\n#include "line_walk.hpp"\nstatic_assert(shoal::require_env<shoal::LineWalk>());\n'
    )
    assert compile_header(check, tmp_path).stderr == ""


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("  static constexpr std::string_view id", "`static constexpr std::string_view id` is missing"),
        ("  static constexpr Discrete", "`static constexpr Discrete|Box<N> action_space` is missing"),
        (
            "  static constexpr std::optional",
            "`static constexpr int max_episode_steps` or `static constexpr std::optional<double>",
        ),
        ("  void reset", "`void reset(const Params&, Pcg64&) noexcept` is missing"),
        ("  Outcome step", "`Outcome step(const Params&, action) noexcept` is missing"),
        (
            "  bool valid",
            "`bool valid(const Params&) const noexcept` is missing: whether a step may come to this state",
        ),
        ("  void observe", "`void observe(std::span<float, N>) const noexcept` is missing"),
    ],
)
def test_an_incomplete_header_names_the_concept(start: str, message: str, tmp_path: Path) -> None:
    lines = [line for line in HEADER.splitlines() if not line.startswith(start)]
    assert len(lines) == len(HEADER.splitlines()) - 1
    result = compile_header("\n".join(lines) + "\n", tmp_path)
    assert result.returncode != 0
    assert f"concept shoal::Env: {message}" in result.stderr
