"""Confirmation: when a winner is called one, by numbers worked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from shoal.experiment.sweep.confirm import by_chance, judged
from shoal.experiment.sweep.trial import COMPLETE, FAILED, Ended, Ran
from tests.experiment.sweep.fake import make_plan


def ended(seconds: float, value: float = 500.0) -> Ended:
    return Ended(COMPLETE, "", seconds, (Ran(1, value, seconds, 1000, value >= 475, "nowhere"),))


def timed(seconds: Sequence[float]) -> list[Ended]:
    return [ended(one) for one in seconds]


def test_the_chance_of_an_order_is_counted_exactly() -> None:
    """Three against three: one of the 20 ways has the three smallest on one side."""
    assert by_chance([1, 2, 3], [4, 5, 6]) == pytest.approx(1 / 20)
    assert by_chance([1, 2, 4], [3, 5, 6]) == pytest.approx(2 / 20)
    assert by_chance([1, 1], [1, 1]) == 1.0
    assert by_chance([1, math.inf], [math.inf, math.inf]) == pytest.approx(1 / 2)
    assert by_chance(list(range(10)), list(range(10, 20))) < 0.001


def test_a_winner_is_one_where_fresh_seeds_say_so() -> None:
    plan = make_plan(objective="seconds_to_threshold")
    found = judged(plan, timed([4, 5, 6, 4, 5]), timed([8, 9, 10, 8, 9]))
    assert found.confirmed
    assert found.ratio == pytest.approx(5 / 9)
    assert found.said.startswith("confirmed: seconds_to_threshold: median 5 against 9 (0.56 x) on 5 fresh seeds")


def test_one_that_was_only_lucky_is_not() -> None:
    plan = make_plan(objective="seconds_to_threshold")
    found = judged(plan, timed([4, 9, 10, 11, 5]), timed([8, 9, 10, 8, 9]))
    assert found.confirmed is False
    assert found.said.startswith("not confirmed, so not called better")


def test_a_seed_that_fails_or_is_not_solved_counts_as_the_worst() -> None:
    plan = make_plan(objective="seconds_to_threshold")
    failed = Ended(FAILED, "no update is finite", 1.0, ())
    found = judged(plan, [failed, ended(1.0, value=20.0), ended(2.0)], timed([8, 9, 10]))
    assert found.confirmed is False
    assert found.winner == (math.inf, math.inf, 2.0)
    assert "median never against 9" in found.said


def test_a_return_is_better_where_it_is_larger() -> None:
    plan = make_plan(objective="return")
    worse, better = [ended(1.0, 100.0 + n) for n in range(5)], [ended(1.0, 200.0 + n) for n in range(5)]
    assert judged(plan, better, worse).confirmed
    assert judged(plan, worse, better).confirmed is False


def test_fewer_seconds_are_no_better_with_a_smaller_return() -> None:
    plan = make_plan(objective=["return", "seconds"])
    cheap, dear = [ended(1.0 + n / 9, 100.0) for n in range(5)], [ended(5.0 + n, 400.0) for n in range(5)]
    found = judged(plan, cheap, dear)
    assert found.confirmed is False
    assert "return 100 against 400" in found.said
    assert judged(plan, [ended(1.0 + n / 9, 400.0) for n in range(5)], dear).confirmed
