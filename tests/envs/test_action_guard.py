"""The action guard around rows: hand-worked limits, functions, the quadratic program, and what is refused."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from shoal.envs.action_guard.guarded import SHARE, GuardedEnv, guarded
from shoal.envs.action_guard.limits import Limits, limits_of
from shoal.envs.action_guard.settings import ActionGuard
from shoal.envs.registry import make
from shoal.envs.vec_env import VecEnv
from shoal.types import ConfigError, EnvError, Spec


class Echo(gym.Env[Any, Any]):
    """Observes the action that was done last, and rewards its sum; an episode has four steps."""

    def __init__(self, *, size: int = 1, options: int = 0) -> None:
        self.action_space = spaces.Discrete(options, start=3) if options else spaces.Box(-2, 2, (size,), np.float32)
        self.observation_space = spaces.Box(-9, 9, (size,), np.float32)
        self.size, self.steps = size, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(self.size, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        obs = np.broadcast_to(np.float32(action), self.size).copy()
        return obs, float(np.sum(action)), self.steps == 4, False, {}


def rows_of(guard: ActionGuard, num_envs: int = 1, **about: Any) -> GuardedEnv:
    made = guarded(make(lambda: Echo(**about), num_envs), guard)
    assert isinstance(made, GuardedEnv)
    made.reset(0)
    made.recv()
    return made


def step(rows: VecEnv, *actions: Any, dtype: Any = np.float32) -> Any:
    rows.send(slice(0, rows.num_rows), np.array(actions, dtype))
    return rows.recv()


def test_clip_and_rate_limit_by_hand() -> None:
    rows = rows_of(ActionGuard(low=(-1,), high=(1.5,), max_change=(0.5,), penalty=10))
    # The first action of an episode is clipped alone; the others may move 0.5 from what was done.
    wanted = [2.0, 1.25, -2.0, 0.5]
    done = [1.5, 1.25, 0.75, 0.5]
    changed = [True, False, True, False]
    ready = step(rows, [wanted[0]])
    for number, (did, other) in enumerate(zip(done, changed, strict=True)):
        if number:
            ready = step(rows, [wanted[number]])
        assert ready.executed.tolist() == [[did]]
        assert ready.changed.tolist() == [other]
        assert ready.reward.tolist() == [did - 10 * other]
        if number < 3:
            assert ready.obs.tolist() == [[did]]
            assert np.isnan(ready.info[SHARE]).all()
    assert ready.terminated.all()
    # The penalty is the learner's alone.
    assert ready.episode_return.tolist() == [sum(done)]
    assert ready.info[SHARE].tolist() == [0.5]
    # A new episode has no action before its first one.
    assert step(rows, [-2.0]).executed.tolist() == [[-1]]
    rows.close()


def test_each_row_and_dimension_has_limits_of_its_own() -> None:
    rows = rows_of(ActionGuard(low=(-1, -2), max_change=(0.25, 4)), num_envs=2, size=2)
    step(rows, [0, 0], [-2, -2])
    ready = step(rows, [1, 1], [-1, 2])
    assert ready.executed.tolist() == [[0.25, 1], [-1, 2]]
    assert ready.changed.tolist() == [True, False]
    rows.close()


def test_rows_sent_apart_keep_their_own_actions() -> None:
    rows = rows_of(ActionGuard(max_change=(0.5,)), num_envs=2)
    rows.send(slice(0, 1), np.array([[1]], np.float32))
    rows.send(slice(1, 2), np.array([[-1]], np.float32))
    rows.recv()
    rows.recv()
    rows.send(slice(1, 2), np.array([[1]], np.float32))
    rows.send(slice(0, 1), np.array([[-1]], np.float32))
    assert rows.recv().executed.tolist() == [[-0.5]]
    assert rows.recv().executed.tolist() == [[0.5]]
    rows.close()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_limits_hold_after_rounding(dtype: str) -> None:
    rng = np.random.default_rng(0)
    space = spaces.Box(-1, 1, (3,), np.dtype(dtype).type)
    spec = Spec.of("toy", spaces.Box(-1, 1), space)
    limits = limits_of(ActionGuard(low=(-0.1,), high=(0.3,), max_change=(0.1,)), spec)
    assert limits is not None
    previous, begun = np.zeros((1000, 3)), np.zeros(1000, np.bool_)
    for _ in range(20):
        action = rng.uniform(-1, 1, (1000, 3)).astype(dtype)
        done = limits.apply(action, previous, begun)
        assert (done == done.astype(dtype)).all()
        assert (done >= -0.1).all()
        assert (done <= 0.3).all()
        assert (np.abs(done - previous)[begun] <= 0.1).all()
        previous, begun = done, rng.random(1000) < 0.9


def test_limits_as_plain_numbers() -> None:
    spec = Spec.of("toy", spaces.Box(-1, 1), spaces.Box(-np.inf, np.inf, (2,), np.float32))
    limits = limits_of(ActionGuard(high=(1,), max_change=(0.5, 2)), spec)
    assert limits is not None
    assert limits == Limits((-np.inf, -np.inf), (1, 1), (0.5, 2), "float32")
    described = {"low": [None, None], "high": [1, 1], "max_change": [0.5, 2], "dtype": "float32"}
    assert limits.description() == described


def halved(obs: Any, action: Any) -> Any:
    assert obs.shape == action.shape
    return action / 2 + obs


def test_a_function_has_the_last_word_and_sees_observations() -> None:
    rows = rows_of(ActionGuard(high=(1,), constraint=halved))
    assert step(rows, [2]).executed.tolist() == [[0.5]]
    assert step(rows, [1]).executed.tolist() == [[1]]
    rows.close()


def test_a_mask_of_options_and_the_safe_one() -> None:
    def mask(obs: Any, action: Any) -> Any:
        return np.array([[True, False, True], [False, False, True], [False, True, True]])

    rows = rows_of(ActionGuard(constraint=mask, safe_action=(5,)), num_envs=3, options=3)
    ready = step(rows, 4, 3, 4, dtype=np.int64)
    assert ready.executed.tolist() == [5, 5, 4]
    assert ready.changed.tolist() == [True, True, False]
    rows.close()
    rows = rows_of(ActionGuard(constraint=mask), num_envs=3, options=3)
    assert step(rows, 4, 3, 3, dtype=np.int64).executed.tolist() == [3, 5, 4]
    rows.close()


def test_the_safe_option_is_done_where_a_mask_leaves_none() -> None:
    guard = ActionGuard(constraint=lambda obs, action: np.array([[False] * 3, [True] * 3]), safe_action=(4,))
    rows = rows_of(guard, num_envs=2, options=3)
    ready = step(rows, 3, 3, dtype=np.int64)
    assert ready.executed.tolist() == [4, 3]
    assert ready.changed.tolist() == [True, False]
    rows.close()


def half_plane(obs: Any) -> Any:
    """The sum is at most 1, in every row."""
    return np.ones((len(obs), 1, 2)), np.ones((len(obs), 1))


def test_the_nearest_action_of_a_half_plane() -> None:
    rows = rows_of(ActionGuard(inequalities=half_plane), num_envs=3, size=2)
    ready = step(rows, [1, 1], [2, 0], [0.5, 0.25])
    # The projection of (a, b) on x + y = 1 is (a, b) - (a + b - 1) / 2.
    assert ready.executed == pytest.approx(np.array([[0.5, 0.5], [1.5, -0.5], [0.5, 0.25]]), abs=1e-5)
    assert (ready.executed.astype(np.float64).sum(1) <= 1).all()
    assert ready.changed.tolist() == [True, True, False]
    rows.close()


def test_the_program_heeds_bounds_and_changes_too() -> None:
    rows = rows_of(ActionGuard(high=(0.75,), max_change=(1,), inequalities=half_plane), size=2)
    # x <= 0.75 and x + y <= 1: from (2, 1) the corner (0.75, 0.25).
    assert step(rows, [2, 1]).executed == pytest.approx(np.array([[0.75, 0.25]]), abs=1e-5)
    assert step(rows, [-2, 0.25]).executed == pytest.approx(np.array([[-0.25, 0.25]]), abs=1e-5)
    rows.close()


@pytest.mark.parametrize("size", [1e200, 1e308, 1e-200, 1e-320])
def test_inequalities_of_any_size_are_the_same(size: float) -> None:
    """Also beside one of size 1; sums of such coefficients would be infinite, whose difference is no number."""

    def scaled(obs: Any) -> Any:
        matrix = np.array([[size, size], [size, -size], [0, 1], [0, 0]])
        return np.tile(matrix, (len(obs), 1, 1)), np.tile([size, 0, 0.25, 0], (len(obs), 1))

    rows = rows_of(ActionGuard(inequalities=scaled), size=2)
    # x + y <= 1, x <= y, y <= 1/4: from (2, 1) the corner (1/4, 1/4).
    assert step(rows, [2, 1]).executed == pytest.approx(np.array([[0.25, 0.25]]), abs=1e-5)
    rows.close()


def nowhere(obs: Any) -> Any:
    """Below -1 and above 1 at once in the last row."""
    sides = np.tile(np.array([[[1.0], [-1.0]]]), (len(obs), 1, 1))
    bound = np.full((len(obs), 2), np.inf)
    bound[-1] = -1
    return sides, bound


def test_where_nothing_is_allowed_the_row_is_named_or_the_safe_action_done() -> None:
    rows = rows_of(ActionGuard(inequalities=nowhere), num_envs=2)
    with pytest.raises(EnvError, match=r"no action satisfies the inequalities of row 1.*safe_action"):
        step(rows, [0], [0])
    rows.close()
    rows = rows_of(ActionGuard(inequalities=nowhere, safe_action=(0.5,)), num_envs=2)
    assert step(rows, [1], [0]).executed.tolist() == [[1], [0.5]]
    rows.close()


def test_saved_rows_go_on_with_the_action_before() -> None:
    guard = ActionGuard(max_change=(0.5,), penalty=1)
    rows, other = rows_of(guard), rows_of(guard)
    step(rows, [1])
    saved = rows.state()
    other.restore(saved)
    other.recv()
    for want in (2, -2, 2):
        mine, theirs = step(rows, [want]), step(other, [want])
        assert mine.executed.tolist() == theirs.executed.tolist()
        assert mine.reward.tolist() == theirs.reward.tolist()
    assert mine.info[SHARE].tolist() == theirs.info[SHARE].tolist() == [0.75]
    rows.close()
    other.close()
    wide = rows_of(guard, num_envs=2)
    with pytest.raises(ConfigError, match="the saved action guard holds rows"):
        wide.restore(saved)
    wide.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"low": (-3,)}, r"dimension 0 to \[-3, 2\], but the action space only has \[-2, 2\]"),
        ({"high": (np.inf,)}, "give bounds inside it"),
        ({"low": (1,), "high": (0,)}, "low is above action_guard.high in dimension 0"),
        ({"low": (0, 0)}, r"low has 2 numbers, but an action of Box\(.*\) has 1; give one number$"),
        ({"low": (np.nan,)}, "low holds NaN"),
        ({"max_change": (0,)}, "max_change must be above 0"),
        ({"max_change": (np.inf,)}, "leave it out for no limit"),
        ({"penalty": 1}, "nothing is limited"),
        ({"low": (0,), "penalty": -1}, "penalty must be at least 0"),
        ({"safe_action": (0,)}, "for where inequalities or a mask leave no action"),
        ({"constraint": "nonsense"}, "package.module:function"),
        ({"constraint": "math:no_such"}, "no_such"),
        ({"constraint": "math:pi"}, "no function"),
        ({"constraint": halved, "inequalities": half_plane}, "both have the last word"),
        ({"constraint": halved, "safe_action": (0,)}, "return the safe action itself"),
        ({"inequalities": half_plane, "safe_action": (3,)}, "safe_action .* lies outside"),
        ({"low": "wide"}, "low must be a number, or one a dimension, got 'wide'"),
        ({"max_change": [[1.0], [2.0]]}, "max_change must be a number"),
        ({"low": (0,), "penalty": "1"}, "penalty must be at least 0 and finite, got .1."),
        ({"low": (np.inf,)}, "low holds inf, which no action can be"),
        ({"high": (-np.inf,)}, "high holds -inf, which no action can be"),
        ({"inequalities": half_plane, "safe_action": (np.inf,)}, "safe_action holds inf"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rows_of(ActionGuard(**settings))


def test_one_number_is_a_limit_too() -> None:
    given: dict[str, Any] = {"low": -1, "high": np.float32(1), "max_change": [0.5]}
    guard = ActionGuard(**given)
    assert (guard.low, guard.high, guard.max_change) == ((-1.0,), (1.0,), (0.5,))
    rows_of(guard).close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"low": (0,)}, r"low is for a Box of real numbers, but the actions are Discrete\(3, start=3\).*a mask"),
        ({"max_change": (1,)}, "max_change is for a Box"),
        ({"inequalities": half_plane}, "use action_guard.constraint"),
        ({"constraint": halved, "safe_action": (0,)}, "is none of Discrete"),
    ],
)
def test_limits_of_choices_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rows_of(ActionGuard(**settings), options=3)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (np.array([[0], [np.nan]], np.float32), "gave \\[nan\\] for row 1; it must return finite"),
        (np.array([[0], [3]], np.float32), "the action \\[3.\\] of row 1 is outside"),
        (np.array([[0], [2]], np.float32), "row 1, outside action_guard.low and high"),
        (np.array([0, 0], np.float32), "need actions of shape \\(2, 1\\)"),
        (np.array([["a"], ["b"]]), "need actions of type float32"),
    ],
)
def test_what_a_function_may_not_answer(answer: Any, said: str) -> None:
    rows = rows_of(ActionGuard(high=(1,), constraint=lambda obs, action: answer), num_envs=2)
    with pytest.raises(EnvError, match=said):
        step(rows, [0], [0])
    rows.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (np.ones((2, 2), np.bool_), r"mask of shape \(2, 2\); it must be \(2, 3\)"),
        (np.array([[True] * 3, [False] * 3]), "gave row 1 a mask that allows no option"),
    ],
)
def test_masks_that_cannot_be(answer: Any, said: str) -> None:
    rows = rows_of(ActionGuard(constraint=lambda obs, action: answer), num_envs=2, options=3)
    with pytest.raises(EnvError, match=said):
        step(rows, 3, 3, dtype=np.int64)
    rows.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, r"must return \(A \[n, m, 1\], b \[n, m\]\)"),
        ((np.ones((2, 1)), np.ones(2)), "they must be \\[2, m, 1\\]"),
        ((np.ones((2, 1, 1)), np.array([[1], [np.nan]])), "not finite for row 1"),
        ((np.array([[[np.inf]], [[1]]]), np.ones((2, 1))), "not finite for row 0"),
    ],
)
def test_inequalities_that_cannot_be(answer: Any, said: str) -> None:
    rows = rows_of(ActionGuard(inequalities=lambda obs: answer), num_envs=2)
    with pytest.raises(EnvError, match=said):
        step(rows, [0], [0])
    rows.close()


@pytest.mark.parametrize("name", ["constraint", "inequalities"])
def test_an_error_of_the_function_itself_names_the_rows(name: str) -> None:
    """A TypeError too, which is not taken for an answer of the wrong kind: its author needs to see where."""

    def broken(*given: Any) -> Any:
        raise TypeError

    given: dict[str, Any] = {name: broken}
    rows = rows_of(ActionGuard(**given), num_envs=2)
    with pytest.raises(TypeError) as caught:
        step(rows, [0], [0])
    assert f"action_guard.{name} raised this for rows 0..1" in caught.value.__notes__[0]
    rows.close()


def test_an_action_outside_the_space_is_refused_as_ever() -> None:
    rows = rows_of(ActionGuard(high=(1,)))
    with pytest.raises(ValueError, match="outside"):
        step(rows, [3])
    rows.close()


def test_sticky_actions_and_games_are_refused() -> None:
    with pytest.raises(ConfigError, match="sticky_actions would repeat"):
        guarded(make(Echo, 1), ActionGuard(high=(1,)), sticky=True)
    with pytest.raises(ConfigError, match="several agents"):
        guarded(make("shoal.envs.agents.tictactoe:TicTacToe", 1), ActionGuard(constraint=halved))


def test_without_settings_rows_are_themselves() -> None:
    rows = make(Echo, 1)
    assert guarded(rows, ActionGuard()) is rows
    rows.close()
