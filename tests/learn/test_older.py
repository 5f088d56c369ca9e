"""Older weights of a policy beside it: how old they are, by hand, and that they resume."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import SGD

from shoal.learn.learner import Learner
from shoal.learn.older import Age, Fixed, Older, age_of, beside
from shoal.types import ConfigError


def learner() -> Learner:
    """Of one weight, which is the number of the version that was published last."""
    policy = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        policy.weight.fill_(0.0)
    return Learner(policy, SGD, lr=0.0)


def publish(made: Learner, older: Older) -> float:
    """Another version; which weights the older ones are."""
    with torch.no_grad():
        made.policy.weight.fill_(made.version + 1)  # pyright: ignore[reportCallIssue]
    made.publish()
    older.follow()
    return older.module.weight.item()


def test_weights_of_three_versions_ago() -> None:
    """At least three and at most five; in the beginning those of the beginning. A resumed one goes on the same."""
    made = learner()
    older = Older(made, "older", Age(versions=3))
    found = [publish(made, older) for _ in range(7)]
    assert found == [0, 0, 0, 0, 0, 3, 3]
    again = learner()
    other = Older(again, "older", Age(versions=3))
    again.restore(made.state())
    assert [publish(again, other) for _ in range(3)] == [3, 6, 6]


def test_an_average_and_the_first_weights() -> None:
    """Half of what was stays: 0, 1 -> 1/2, 2 -> 5/4, 3 -> 17/8."""
    made = learner()
    assert [publish(made, Older(made, "a", Age(decay=0.5)))] == [0.5]
    older = Older(made, "b", Age(decay=0.5))
    assert [publish(made, older) for _ in range(2)] == [1.5, 2.25]
    first = Older(made, "first", Age())
    assert publish(made, first) == 3.0
    assert not first.follow()
    assert not any(p.requires_grad for p in first.module.parameters())


def test_names_of_older_weights() -> None:
    """What is nearly one is refused, anything else is something else."""
    assert age_of("first") == Age()
    assert age_of("version:-10") == Age(versions=10)
    assert age_of("average:0.99") == Age(decay=0.99)
    assert age_of("smollm2") is None
    for wrong in ("version:10", "version:-0", "version:", "average:1", "average:0", "average:.0"):
        with pytest.raises(ConfigError, match=r"version:-N .* or average:DECAY"):
            age_of(wrong)
    made = learner()
    other = beside(made, "teacher", "a-folder", lambda: nn.Linear(2, 1))
    assert isinstance(other, Fixed)
    assert not other.follow()
    assert other.module.in_features == 2
