"""The guard's rules, each on numbers that it must find wrong and numbers that it must not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from shoal.run.guard.answers import Hacking, Length
from shoal.run.guard.clock import Heartbeat, Speed, Staleness
from shoal.run.guard.held_out import BLOCK, HeldOutFall
from shoal.run.guard.reach import Reach
from shoal.run.guard.returns import ReturnFall, Returns
from shoal.run.guard.rules import Drift, Entropy, Finite, Gradient, Kl, ValueLoss
from shoal.run.guard.seen import Seen
from shoal.types import Episodes


def seen(numbers: dict[str, float] | None = None, **more: Any) -> Seen:
    return Seen("policy", 1, 1, numbers or {}, **more)


def said_of(rule: Any, name: str, values: list[float]) -> list[str]:
    """What a rule wants to follow each value; empty where it finds nothing."""
    found = [rule.look(seen({name: x})) for x in values]
    return ["" if x is None else x.action for x in found]


@pytest.mark.parametrize(
    ("rule", "name", "values", "last"),
    [
        (Kl(1.0), "loss/approx_kl", [0.9], ""),
        (Kl(1.0), "loss/approx_kl", [1.1], "halve"),
        (Kl(1.0), "loss/approx_kl", [10.1], "rollback"),
        (Drift(1.0), "loss/kl", [0.1, 1.1, 1.1], ""),
        (Drift(1.0), "loss/kl", [11.0, 0.1, 1.1], ""),  # one token makes such a mean
        (Drift(1.0), "loss/kl", [1.1, 11.0, 11.0], "halve"),
        (Drift(1.0), "loss/kl", [11.0, 11.0, 11.0], "rollback"),
        (Kl(1.0), "loss/kl", [9.0], ""),
        (ValueLoss(100.0), "loss/value", [1, 2, 1, 1, 1, 199], ""),
        (ValueLoss(100.0), "loss/value", [1, 2, 1, 1, 1, 201], "halve"),
        (ValueLoss(100.0), "loss/value", [1, 2, 1, 1, 1, 2001], "rollback"),
        (ValueLoss(100.0), "loss/value", [1, 2, 1, 1, 2001], ""),
        (ValueLoss(100.0), "loss/value", [100, *[1] * 20, 299], ""),  # it was as large as that before
        (ValueLoss(100.0), "loss/value", [100, *[1] * 20, 301], "halve"),
        (Gradient(100.0), "loss/grad_norm", [1, 1, 1, 1, 1, 101], "halve"),
        (
            Gradient(100.0),
            "loss/grad_norm",
            [*[0] * 9, 19, 64, 0, 0, 187, *[0] * 20, 2],
            "",
        ),  # of groups without signal
        (Entropy(0.1, continuous=False), "loss/entropy", [0.6, 0.6, 0.6, 0.6, 0.6, 0.07], ""),
        (Entropy(0.1, continuous=False), "loss/entropy", [0.6, 0.6, 0.6, 0.6, 0.6, 0.05], "rollback"),
        (Entropy(0.1, continuous=True), "loss/entropy", [1.0, 1.0, 1.0, 1.0, 1.0, -1.9], ""),
        (Entropy(0.1, continuous=True), "loss/entropy", [-1, -1, -1, -1, -1, -4.1], "rollback"),
    ],
)
def test_a_number_that_is_too_much(rule: Any, name: str, values: list[float], last: str) -> None:
    assert said_of(rule, name, values) == [""] * (len(values) - 1) + [last]


def test_what_was_found_wrong_is_not_what_the_next_is_compared_with() -> None:
    rule = ValueLoss(100.0)
    assert said_of(rule, "loss/value", [1, 1, 1, 1, 1, 200, 300])[-2:] == ["halve", "halve"]
    rule.forget()
    assert said_of(rule, "loss/value", [200]) == [""]


class Rewarded:
    """A batch with rewards."""

    def __init__(self, *rewards: float) -> None:
        self.reward = torch.tensor(rewards)


def test_a_first_success_is_no_explosion_and_another_unit_is_one() -> None:
    reach, value, gradient = Reach(), ValueLoss(100.0), Gradient(100.0)

    def look(loss: float, *rewards: float) -> list[str]:
        reach.note(Rewarded(*rewards))
        numbers = {"loss/value": loss, "loss/grad_norm": loss} | reach.numbers()
        return [rule.name for rule in (value, gradient) if rule.look(seen(numbers)) is not None]

    quiet = [0.0] * 20
    for _ in range(10):
        assert look(0.1, *quiet) == []
    assert look(90.0, *quiet[1:], 30.0) == []  # one of twenty found what no step had found before
    restored = Reach()
    restored.restore(reach.state())
    assert restored.state() == reach.state()
    for _ in range(30):  # and it is long until another does
        assert look(0.1, *quiet) == []
    assert look(910.0, *quiet[:10], *[30.0] * 10) == ["value", "gradient"]
    # Values can be off by 30, of which this is less than the square.
    assert look(890.0, *quiet[:10], *[30.0] * 10) == ["gradient"]
    assert look(8e7, *quiet[:10], *[3e4] * 10) == ["value", "gradient"]  # so many steps: their unit was changed
    assert look(0.1, math.nan, *quiet) == []


def test_a_reach_that_grows_little_by_little_says_nothing() -> None:
    reach = Reach()
    assert reach.numbers() == {}
    for high in (1.0, 1.9, 3.7, 7.3):
        reach.note(Rewarded(0.0, *[0.5] * 20, high))
        assert reach.numbers() == {"rewards/spread": pytest.approx(high), "rewards/grew": 0.0}
    reach.note(Rewarded(0.0, *[0.5] * 20, -7.4))
    assert reach.numbers() == {"rewards/spread": pytest.approx(14.7), "rewards/grew": 1.0}
    assert reach.numbers()["rewards/grew"] == 0.0


def test_finite() -> None:
    assert Finite().look(seen()) is None
    weights = Finite().look(seen(finite=False))
    assert weights is not None
    assert weights.action == "rollback"
    skipped = Finite().look(seen(skipped=1, taken=3))
    assert skipped is not None
    assert (skipped.action, skipped.said) == ("skip", "1 of 4 gradient steps were not finite")


@pytest.mark.parametrize(
    ("mean", "spread", "falls"),
    [(126, 0, False), (124, 0, True), (124, 50, True), (124, 500, False), (math.nan, 0, False)],
)
def test_returns_may_lose_a_share_of_what_was_gained(mean: float, spread: float, *, falls: bool) -> None:
    """From 100 to 204 with a band of 3/4, 126 is left; where returns scatter by 500, all that may be chance."""
    about = seen(mean_return=mean, best_return=204.0, first_return=100.0, spread=spread, episodes=25)
    assert (ReturnFall(0.75).look(about) is not None) is falls


def test_answers_to_one_prompt_count_once() -> None:
    """Eight answers to each of eight prompts are little to go by: the prompts may have been hard ones."""
    about = seen(mean_return=0.3, best_return=0.9, first_return=0.2, spread=0.45, episodes=64)
    assert ReturnFall(0.8).look(about) is not None
    assert ReturnFall(0.8).look(replace(about, alike=8)) is None
    assert ReturnFall(0.8).look(replace(about, alike=8, episodes=800)) is not None
    assert Returns(64, alike=8).size == 800


def test_returns_that_fall_again_right_after_going_back_stop_the_run() -> None:
    def followed(rule: ReturnFall, *means: float) -> list[str]:
        found = [rule.look(seen(mean_return=x, best_return=200.0, first_return=0.0, episodes=32)) for x in means]
        return ["" if one is None else one.action for one in found]

    rule = ReturnFall(0.75)
    assert followed(rule, 200, 10) == ["", "rollback"]
    rule.forget()
    other = ReturnFall(0.75)
    other.restore(rule.state())  # as a run that was killed then goes on
    assert followed(rule, math.nan, 10) == ["", "stop"]
    assert followed(other, 150, 10) == ["", "rollback"]
    rule = ReturnFall(0.75)
    assert followed(rule, 200) == [""]
    rule.forget()  # the learner went back for another reason
    assert followed(rule, 10) == ["rollback"]


def turned_after(flip: int, *, gain: float = 0.0, lost: float = 2.0, mean: float = 10.0) -> int | None:
    """Episodes after `flip` until returns of 16 rows count as turned; from there on `lost` times the mean is gone.

    `gain` is what is learned in each episode, by 4 episodes a check.
    """
    rng = np.random.default_rng(0)
    returns = Returns(16, alone=True)
    for number in range(0, 600, 4):
        usual = mean + gain * number + rng.normal(scale=5.0, size=4)
        values = usual - lost * (mean + gain * flip) * (number >= flip)
        returns.note(Episodes(values, np.ones(4, np.int64), {}), number)
        if returns.turned is not None:
            assert ReturnFall(0.8).look(seen(turned=returns.turned, episodes=32)) is not None
            return number - flip
    return None


def test_returns_whose_sign_turns_before_anything_was_verified() -> None:
    """A mirror image is found within a window and what was under way; other falls and rises are learning."""
    after = turned_after(100)
    assert after is not None
    assert 28 <= after <= 64
    assert turned_after(100, gain=0.02) is not None
    assert turned_after(100, lost=1.0) is None  # to nothing
    assert turned_after(100, lost=1.5) is None
    assert turned_after(100, lost=3.0) is None
    assert turned_after(0, lost=1.0) is None
    assert turned_after(100, mean=-10.0) is None  # what was lost is won: learned at once, perhaps
    assert turned_after(600, gain=-0.04) is None  # slowly from 10 to -14
    found = ReturnFall(0.8).look(seen(turned=(10.2, -10.7), episodes=32))
    assert found is not None
    assert found.action == "stop"
    assert "is -10.7, where just before it was 10.2: the rewards have turned their sign" in found.said


def test_after_a_step_back_episodes_of_older_weights_say_nothing() -> None:
    """They end for as long as episodes last, and are handed over by so many steps later."""
    returns = Returns(16, behind=4_096)
    returns.forget(1_000, 50.0)
    for step, counted in ((1_000 + 4_096 + 16 * 50 - 1, 0), (1_000 + 4_096 + 16 * 50, 2)):
        returns.note(Episodes(np.ones(2), np.ones(2, np.int64), {}), step)
        assert returns.total == counted


def test_what_is_compared_goes_on_after_a_kill() -> None:
    one, other = (Returns(16, alone=True) for _ in range(2))
    for number in range(0, 100, 4):
        one.note(Episodes(np.full(4, 10.0), np.ones(4, np.int64), {}), number)
    other.restore(one.state())
    for returns in (one, other):
        for number in range(100, 160, 4):
            returns.note(Episodes(np.full(4, -10.0), np.ones(4, np.int64), {}), number)
    assert one.turned == other.turned == (10, -10)
    one.forget(0, 1.0)
    assert one.turned is None


def test_an_actor_that_is_late() -> None:
    rule = Heartbeat(4.0)
    found = [rule.look(seen({"speed/slowest_actor": x})) is not None for x in (9, 9, 1, 9, 9, 9, 9, 1)]
    assert found == [False] * 5 + [True] + [False] * 2


def test_a_worker_that_is_late_and_a_machine_that_is() -> None:
    rule = Heartbeat(4.0)
    found = [rule.look(seen({"speed/slowest_worker": x}, seconds_a_step=9.0)) for x in (1, 1, 1, 9, 9, 9)]
    assert found[:5] == [None] * 5
    assert found[5] is not None
    assert "the slowest worker takes 9 times as long" in found[5].said


def test_speed_is_told_once_until_it_is_over() -> None:
    rule = Speed(4.0)
    fast, slow = seen(seconds_a_step=1.0, seconds=5.0), seen(seconds_a_step=5.0, seconds=5.0)
    assert [rule.look(fast) for _ in range(30)] == [None] * 30
    found = [rule.look(slow) for _ in range(8)]
    assert [x is not None for x in found] == [False] * 3 + [True] + [False] * 4
    assert [rule.look(fast) for _ in range(8)] == [None] * 8
    assert any(rule.look(slow) for _ in range(5))


def test_staleness_beyond_what_is_allowed() -> None:
    rule = Staleness(2)
    assert rule.look(seen({"actors/staleness_max": 2.0})) is None
    found = rule.look(seen({"groups/staleness_max": 3.0}))
    assert found is not None
    assert found.action == "tell"


def test_answers_that_grow() -> None:
    rule, about = Length(), {"groups/truncated": 0.0}
    assert [rule.look(seen(about, mean_length=10.0)) for _ in range(6)] == [None] * 6
    assert rule.look(seen(about, mean_length=29.0)) is None
    assert [rule.look(seen(about, mean_length=x)) for x in (31.0, 31.0, 10.0, 31.0, 31.0)] == [None] * 5
    assert rule.look(seen(about, mean_length=31.0)) is not None
    assert rule.look(seen(mean_length=3100.0)) is None  # episodes of an environment


def test_rewards_that_rise_while_the_evaluation_falls() -> None:
    def found(pairs: list[tuple[float, float]]) -> list[bool]:
        rule = Hacking()
        about = [({"groups/truncated": 0.0, "eval/return": e}, r) for e, r in pairs for _ in range(3)]
        return [rule.look(seen(n, mean_return=r)) is not None for n, r in about]

    before = [(0.9, 1.0), (0.92, 1.1), (0.89, 1.0), (0.91, 1.1), (0.9, 1.0)]
    assert any(found([*before, (0.8, 2.0), (0.7, 3.0), (0.6, 4.0)]))
    assert not any(found([*before, (0.8, 2.0), (0.7, 1.0), (0.6, 4.0)]))
    assert not any(found([*before, (0.8, 2.0), (0.85, 3.0), (0.6, 4.0)]))
    assert not any(found([*before, (0.89, 1.1), (0.88, 1.2), (0.87, 1.3)]))  # which may be chance
    assert not any(found([*before[2:], (0.8, 2.0), (0.7, 3.0), (0.6, 4.0)]))  # of so few nobody knows


def blocks(*means: tuple[float, float], spread: float = 0.5) -> list[Any]:
    """A check for each mean return and mean held-out value, of so many episodes as a block has."""
    signs = [spread * (-1) ** number for number in range(BLOCK)]
    return [seen(pairs=tuple((gained + x, held + x) for x in signs)) for gained, held in means]


GOOD, HACKED = [(2.0, 0.8)] * 10, [(3.0, 0.2)] * 4


def test_returns_that_rise_while_a_held_out_value_falls() -> None:
    def found(means: list[tuple[float, float]], spread: float = 0.5) -> list[int]:
        rule = HeldOutFall("held_out")
        looked = [rule.look(check) for check in blocks(*means, spread=spread)]
        return [number for number, one in enumerate(looked) if one is not None and one.action == "rollback"]

    assert found(GOOD + HACKED) == [11]
    assert found(GOOD[:5] + HACKED) == []  # of so few nobody knows what is chance
    assert found(GOOD + HACKED, spread=3.0) == []  # which may be chance
    assert found(GOOD + [(3.0, 0.2), (3.0, 0.8)] * 4) == []
    assert found(GOOD + [(2.0, 0.2)] * 4) == []  # returns do not rise
    assert found([(x, 0.8 + 0.1 * (x % 3)) for x in range(60)]) == []


def test_a_held_out_value_is_compared_anew_after_a_step_back_and_goes_on_after_a_kill() -> None:
    one, other = HeldOutFall("held_out"), HeldOutFall("held_out")
    *before, last = blocks(*GOOD, *HACKED[:2])
    for check in before:
        assert one.look(check) is None
    other.restore(one.state())
    one.forget()
    assert one.look(last) is None
    made = other.look(last)
    assert made is not None
    assert made.said == "returns rose from 2 to 2.67 while held_out fell from 0.8 to 0.4"
