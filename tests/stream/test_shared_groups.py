"""The stream of groups of several learners: one of them draws, all of them get the same."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.optim import SGD

from shoal.learn.learner import Learner
from shoal.llm.sampler.protocol import Sampling
from shoal.stream.ending import EndingError
from shoal.stream.groups.shared import SharedGroups
from tests.learn.ranks import together
from tests.llm.toy import toy_model
from tests.stream.test_groups import Drawn, groups

if TYPE_CHECKING:
    from shoal.learn.ranks import Ranks
    from shoal.types import Answers


def followed(ranks: Ranks) -> list[Any]:
    """Two batches and the answers by then, on one rank; then nobody waits any longer."""
    cfg = Drawn(sampling=Sampling(top_k=3))
    drawn = groups(cfg) if ranks.rank == 0 else None
    learner = Learner(toy_model(), SGD, lr=0.0) if drawn is None else drawn._learner
    stream = SharedGroups(ranks, learner, cfg, drawn)
    first = next(stream)
    stream.publish()
    found = [first, next(stream), (stream.env_steps, stream.version)]
    stream.publish()
    if drawn is not None:
        drawn._meter.ending.begin()
        drawn._meter.ending._asked_s -= 10
    with pytest.raises(EndingError):
        next(stream)
    return found


def test_all_learners_get_what_the_first_one_draws() -> None:
    """Every tensor of every batch; and that there is none any more."""
    first, second = together(2, followed)
    assert first.pop() == second.pop() == (12, 1)
    for mine, theirs in zip(first, second, strict=True):
        same(mine, theirs)


def same(mine: Answers, theirs: Answers) -> None:
    """Bit for bit, what is absent too."""
    for field in fields(mine):
        a, b = getattr(mine, field.name), getattr(theirs, field.name)
        assert (a is None) == (b is None), field.name
        assert a is None or (a.dtype == b.dtype and torch.equal(a, b)), field.name
