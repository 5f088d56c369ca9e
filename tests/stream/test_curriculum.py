"""A curriculum: which level is asked when, by hand, in a stream, and after a restore."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from shoal.stream.groups.curriculum import Climb
from shoal.stream.groups.settings import Curriculum
from shoal.types import ConfigError
from tests.llm.toy import Successor
from tests.stream.test_groups import Drawn, groups, taken


def told(climb: Climb, index: int, *rewards: float) -> None:
    """What the answers to a prompt have earned."""
    group: Any = SimpleNamespace(prompt=SimpleNamespace(index=index), scored=[(None, reward) for reward in rewards])
    climb.note(group)


def test_the_next_level_is_asked_where_answers_earn_enough() -> None:
    """Three levels, two prompts of 0.6 on average: the third prompt's 0.8 makes the last two 0.65."""
    climb = Climb(Curriculum(by="success", raise_at=0.6, window=2, review=0), 3)
    assert [climb.next_index() for _ in range(3)] == [0, 3, 6]
    told(climb, 0, 1.0, 0.0)
    told(climb, 3, 0.5, 0.5)
    assert climb.level == 0
    assert climb.mean(0) == 0.5
    told(climb, 6, 1.0, 0.6)
    assert climb.level == 1
    assert climb.mean(0) == pytest.approx(0.65)
    assert [climb.next_index() for _ in range(2)] == [1, 4]
    told(climb, 9, 1.0)  # of the level below: it says nothing of this one
    assert climb.level == 1
    for index in (1, 4, 2, 5):
        told(climb, index, 1.0)
    assert climb.level == 2  # the hardest; there is none after it


def test_levels_below_are_asked_again_the_one_with_the_least_reward_first() -> None:
    """A quarter of the prompts; level 1 earned less than level 0."""
    climb = Climb(Curriculum(by="success", raise_at=0.5, window=1, review=0.25), 3)
    told(climb, climb.next_index(), 0.9)
    told(climb, climb.next_index(), 0.6)
    assert climb.level == 2
    assert [index % 3 for index in (climb.next_index() for _ in range(8))] == [2, 2, 1, 2, 2, 2, 1, 2]
    told(climb, 1, 0.95)
    assert [index % 3 for index in (climb.next_index() for _ in range(4))] == [2, 2, 0, 2]


def test_groups_whose_rewards_are_unknown_say_nothing() -> None:
    climb = Climb(Curriculum(by="success", raise_at=0.5, window=1), 2)
    told(climb, 0)
    assert (climb.level, climb.earned(0)) == (0, 0)


class Leveled(Successor):
    """At level 0 everything earns 1, at level 1 as much as at `Successor`."""

    levels = 2

    def score(self, prompt: Any, answer: str) -> float:
        """1 for an even prompt."""
        return 1.0 if prompt.index % 2 == 0 else super().score(prompt, answer)


@dataclass(frozen=True, slots=True)
class Climbing(Drawn):
    """Two prompts a batch; the next level after two."""

    curriculum: Curriculum = field(default_factory=lambda: Curriculum(by="success", raise_at=0.9, window=2, review=0.5))


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_a_stream_climbs_and_goes_on_where_it_was(max_staleness: int) -> None:
    """All of level 0 at first; then half of each; a restored stream asks the same prompts."""
    stream = groups(Climbing(), task=Leveled(), max_staleness=max_staleness)
    taken(stream, 1 + max_staleness)
    climb = stream.gathering.climb
    assert climb is not None
    assert climb.level == 1
    saved, version = stream.state(), stream.version
    wanted = taken(stream, 4)
    again = groups(Climbing(), task=Leveled(), max_staleness=max_staleness)
    again._learner.version = version
    again.restore(saved)
    for before, after in zip(wanted, taken(again, 4), strict=True):
        assert torch.equal(before.prompt, after.prompt)
        assert torch.equal(before.token, after.token)
    assert again.gathering.climb is not None
    assert again.gathering.climb.state() == climb.state()
    rewards = torch.cat([batch.reward for batch in wanted])
    assert (rewards == 1).float().mean() < 1


def test_groups_without_signal_count_too() -> None:
    """With dynamic sampling those of the easy level are replaced, and the stream climbs to where answers differ."""

    @dataclass(frozen=True, slots=True)
    class Dynamic(Climbing):
        dynamic_sampling: bool = True

    stream = groups(Dynamic(), task=Leveled())
    (batch,) = taken(stream, 1)
    assert stream.replaced >= 2
    assert stream.gathering.climb is not None
    assert stream.gathering.climb.level == 1
    assert batch.reward.std() > 0


def test_a_task_of_one_level_is_refused() -> None:
    with pytest.raises(ConfigError, match="successor has one; give its levels"):
        groups(Climbing())
