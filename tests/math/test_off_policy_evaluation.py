"""Off-policy estimators against numbers worked by hand, and intervals against what they promise."""

from typing import Any

import numpy as np
import pytest

from shoal.math import fitted_q
from shoal.math import off_policy_evaluation as ope

HALF = np.log(0.5)


def two_episodes() -> ope.Logged:
    """Two steps and one step: ratios 2, 1 and 1/2; rewards 1, 2 and 4; gamma will be 1/2."""
    reward = np.array([[1.0, 2.0], [4.0, 0.0]])
    log_ratio = np.array([[-HALF, 0.0], [HALF, 0.0]])
    q = np.array([[1.0, 1.0], [2.0, 0.0]])
    v = np.array([[1.5, 1.0, 0.0], [3.0, 0.0, 0.0]])
    return ope.Logged(reward, log_ratio, q, v)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # Returns 1 + 2/2 = 2 and 4; whole ratios 2 and 1/2.
        ("importance sampling", (2 * 2 + 0.5 * 4) / 2),
        ("weighted importance sampling", (2 * 2 + 0.5 * 4) / 2.5),
        # Step 0: (2 * 1 + 1/2 * 4) / 2.5; step 1, where the second episode's ratio still counts: (2 * 2) / 2.5.
        ("per-decision weighted importance sampling", 4 / 2.5 + 0.5 * 4 / 2.5),
        # Errors 1 + 1/2 - 1 = 1/2, 2 - 1 = 1; and 4 - 2 = 2.
        ("doubly robust", ((1.5 + 2 * 0.5 + 0.5 * 2 * 1) + (3 + 0.5 * 2)) / 2),
        ("weighted doubly robust", 2.25 + (2 * 0.5 + 0.5 * 2) / 2.5 + 0.5 * (2 * 1) / 2.5),
    ],
)
def test_worked_by_hand(method: str, expected: float) -> None:
    (found,) = ope.ESTIMATORS[method](two_episodes(), np.ones((1, 2)), 0.5)
    assert found == pytest.approx(expected)


def test_counts_are_episodes_that_stand_there_twice() -> None:
    log = two_episodes()
    twice = ope.Logged(*(np.concatenate([part, part[:1]]) for part in (log.reward, log.log_ratio, log.q, log.v)))
    for estimator in ope.ESTIMATORS.values():
        counted = estimator(log, np.array([[2.0, 1.0]]), 0.9)
        np.testing.assert_allclose(counted, estimator(twice, np.ones((1, 3)), 0.9))


def test_effective_episodes() -> None:
    assert ope.effective_episodes(np.zeros((7, 3))) == pytest.approx(7)
    assert ope.effective_episodes(np.array([[0.0], [-np.inf]])) == pytest.approx(1)
    assert ope.effective_episodes(np.array([[-np.inf], [-np.inf]])) == 0
    # Weights 2 and 1/2: (5/2)^2 / (4 + 1/4).
    assert ope.effective_episodes(two_episodes().log_ratio) == pytest.approx(6.25 / 4.25)
    assert ope.effective_episodes(np.array([[700.0], [700.0]])) == pytest.approx(2)


def test_what_the_target_policy_never_does_has_no_weight() -> None:
    log = ope.Logged.of(np.array([[1.0], [9.0]]), np.array([[0.0], [-np.inf]]))
    (found,) = ope.weighted_importance_sampling(log, np.ones((1, 2)), 1.0)
    assert found == 1
    nothing = ope.Logged.of(np.array([[1.0]]), np.array([[-np.inf]]))
    assert ope.weighted_importance_sampling(nothing, np.ones((1, 1)), 1.0)[0] == 0


@pytest.mark.parametrize("log_ratio", [np.inf, np.nan])
def test_a_log_of_another_policy_is_refused(log_ratio: float) -> None:
    with pytest.raises(ValueError, match="the log names another one"):
        ope.Logged.of(np.array([[1.0]]), np.array([[log_ratio]]))


def test_the_bootstrap_of_a_mean_is_the_students_interval() -> None:
    rng = np.random.default_rng(0)
    reward = rng.normal(3, 2, (400, 1))
    log = ope.Logged.of(reward, np.zeros((400, 1)))
    found = ope.bootstrap("weighted importance sampling", log, gamma=1.0, rng=rng)
    half = 1.96 * reward.std() / 20
    assert found.mean == pytest.approx(reward.mean())
    assert found.low == pytest.approx(reward.mean() - half, abs=0.03)
    assert found.high == pytest.approx(reward.mean() + half, abs=0.03)
    assert found.effective_episodes == pytest.approx(400)
    assert str(found).startswith("weighted importance sampling: ")


def test_intervals_cover_as_often_as_they_say() -> None:
    """A bandit of two arms: rewards 1 and 3 with noise; the log takes each alike, the target the second with 0.8."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        arm = rng.random(100) < 0.5
        reward = np.where(arm, 3, 1) + rng.normal(0, 1, 100)
        ratio = np.log(np.where(arm, 0.8, 0.2) / 0.5)
        log = ope.Logged.of(reward[:, None], ratio[:, None])
        found = ope.bootstrap("weighted importance sampling", log, gamma=1.0, rng=rng, resamples=400)
        covered += found.low <= 2.6 <= found.high
    assert covered >= 90


def test_all_resamples_equal() -> None:
    log = ope.Logged.of(np.ones((5, 2)), np.zeros((5, 2)))
    found = ope.bootstrap("importance sampling", log, gamma=1.0, rng=np.random.default_rng(0))
    assert (found.low, found.mean, found.high) == (2, 2, 2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gamma": 1.1}, "gamma"),
        ({"confidence": 1.0}, "confidence"),
        ({"resamples": 1}, "resamples"),
        ({"method": "magic"}, "method must be one of importance sampling"),
    ],
)
def test_numbers_outside_their_ranges(settings: dict, said: str) -> None:
    given: dict[str, Any] = {"method": "importance sampling", "gamma": 1.0, **settings}
    with pytest.raises(ValueError, match=said):
        ope.bootstrap(given.pop("method"), two_episodes(), rng=np.random.default_rng(0), **given)


def test_one_episode_has_no_interval() -> None:
    log = ope.Logged.of(np.ones((1, 2)), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="two episodes"):
        ope.bootstrap("doubly robust", log, gamma=1.0, rng=np.random.default_rng(0))


def chain(count: int = 2) -> fitted_q.Transitions:
    """State 0 goes to state 1 with reward 1, state 1 ends with reward 2; one action, features one-hot."""
    phi = np.tile(np.eye(2), (count, 1))
    next_phi = np.tile(np.array([[0.0, 1.0], [0.0, 0.0]]), (count, 1))
    reward = np.tile([1.0, 2.0], count)
    episode = np.repeat(np.arange(count), 2)
    return fitted_q.Transitions(phi, next_phi, reward, episode, np.tile([[1.0, 0.0]], (count, 1)))


def test_fitted_values_of_a_chain() -> None:
    values = fitted_q.fitted_q_evaluation(chain(), np.ones(2), gamma=0.5, iterations=5, ridge=0)
    np.testing.assert_allclose(values, [1 + 0.5 * 2, 2])
    one = fitted_q.fitted_q_evaluation(chain(), np.ones(2), gamma=0.5, iterations=1, ridge=0)
    np.testing.assert_allclose(one, [1, 2])
    mean, drawn = fitted_q.bootstrapped_values(chain(), gamma=0.5, iterations=3, rng=np.random.default_rng(0))
    assert mean == pytest.approx(2, rel=1e-2)
    np.testing.assert_allclose(drawn, 2, rtol=1e-2)


def test_iterations() -> None:
    assert fitted_q.iterations_for(10, 1.0) == 40
    assert fitted_q.iterations_for(10, 0.0) == 1
    assert fitted_q.iterations_for(10_000, 0.9) == 88
    assert fitted_q.iterations_for(10, 0.999) == 40
    assert fitted_q.value_range(np.array([-2.0, 1.0]), gamma=0.5, longest=2) == (-3.0, 1.5)
    assert fitted_q.value_bound(np.array([-2.0, 1.0]), gamma=0.5, iterations=2) == pytest.approx(3)


def test_divergence_is_said() -> None:
    """Tsitsiklis and Van Roy's example: features 1 and 2, all weight on the step from the first to the second."""
    data = fitted_q.Transitions(np.array([[1.0]]), np.array([[2.0]]), np.array([1.0]), np.array([0]), np.array([[1.0]]))
    with pytest.raises(ValueError, match="diverges on this log"):
        fitted_q.fitted_q_evaluation(data, np.ones(1), gamma=0.99, iterations=200, ridge=0)


@pytest.mark.parametrize(
    ("share", "degrees", "expected"),
    [(0.975, 4, 2.776), (0.975, 10, 2.228), (0.975, 60, 2.000), (0.95, 5, 2.015), (0.975, 1e9, 1.960)],
)
def test_quantiles_of_student(share: float, degrees: float, expected: float) -> None:
    assert ope.student_quantile(share, degrees) == pytest.approx(expected, rel=0.003)


def test_an_interval_of_few_episodes_is_wider() -> None:
    """Of a mean of normal numbers it is that of Student: n = 5 has t = 2.776 and sqrt(5 / 4) for the resamples."""
    drawn = np.random.default_rng(0).normal(0, 1, 400_000)
    low, high = ope.accelerated_interval(0.0, drawn, np.zeros(5), confidence=0.95, episodes=5)
    assert (high, -low) == pytest.approx((2.776 * 1.25**0.5,) * 2, rel=0.02)
