"""A sampler in another process: the same tokens, and none lost where it dies or hangs."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.protocol import Drawing, Request
from shoal.stream.groups.process import ProcessSampler
from shoal.types import EnvError
from tests.llm.toy import toy_model

if TYPE_CHECKING:
    from collections.abc import Generator

    from shoal.llm.sampler.protocol import Drawn, Sampler

pytestmark = pytest.mark.usefixtures("warm_workers")

LONG = Drawing(max_tokens=50, top_k=9)
"""The token that ends answers is seldom drawn: most answers are cut."""
REQUESTS = [Request(key, (2 + key, 1), (0, 1, 2)) for key in range(4)]


def finished(sampler: Sampler) -> list[Drawn]:
    """All that is pending, by key and number."""
    found: list[Drawn] = []
    while sampler.pending:
        found += sampler.poll()
    return sorted(found, key=lambda one: (one.key, one.number))


def check_same(mine: list[Drawn], theirs: list[Drawn]) -> None:
    """Equal tokens and sets; equal log-probabilities up to rounding."""
    assert [(a.key, a.number) for a in mine] == [(b.key, b.number) for b in theirs]
    for a, b in zip(mine, theirs, strict=True):
        assert a.token.tolist() == b.token.tolist()
        assert a.truncated == b.truncated
        np.testing.assert_array_equal(a.kept, b.kept)
        np.testing.assert_allclose(a.logprob, b.logprob, atol=1e-5)


@pytest.fixture(scope="module")
def wanted() -> list[Drawn]:
    """What a sampler in this process draws."""
    local = LocalSampler(toy_model(), LONG, slots=5, seed=3)
    local.submit(REQUESTS)
    return finished(local)


@pytest.fixture
def sampler() -> Generator[ProcessSampler]:
    """One with the toy model's weights."""
    told: list[str] = []
    made = ProcessSampler(toy_model(), LONG, slots=5, seed=3, max_restarts=1, timeout_s=20, tell=told.append)
    made.load(0, toy_model())
    yield made
    made.close()


def test_it_draws_what_one_here_draws(sampler: ProcessSampler, wanted: list[Drawn]) -> None:
    """Bit for bit: the same batches on the same machine."""
    sampler.submit(REQUESTS)
    drawn = finished(sampler)
    check_same(drawn, wanted)
    for a, b in zip(drawn, wanted, strict=True):
        assert a.logprob.tobytes() == b.logprob.tobytes()


def test_what_a_killed_one_has_drawn_is_kept(sampler: ProcessSampler, wanted: list[Drawn]) -> None:
    """Another goes on where it was: every answer comes once, with the tokens that it would have had."""
    sampler.submit(REQUESTS)
    early = sampler.poll()
    begun = sum(len(one.token) for one in sampler._book.answers())
    assert begun > 0
    os.kill(sampler.pid, signal.SIGKILL)
    check_same(sorted(early + finished(sampler), key=lambda one: (one.key, one.number)), wanted)


def test_one_that_dies_too_often_is_named(sampler: ProcessSampler) -> None:
    """After its restarts the error says how it ended."""
    sampler.submit(REQUESTS)
    sampler._left = 0
    os.kill(sampler.pid, signal.SIGKILL)
    with pytest.raises(EnvError, match=r"sampler 0 \(pid \d+.*was killed by SIGKILL"):
        finished(sampler)


def test_its_state_goes_on_elsewhere(sampler: ProcessSampler, wanted: list[Drawn]) -> None:
    """A checkpoint in the middle holds every token."""
    sampler.submit(REQUESTS)
    early = sampler.poll()
    early += sampler.poll(0)
    state = sampler.state()
    local = LocalSampler(toy_model(), LONG, slots=5, seed=3)
    local.restore(state)
    check_same(sorted(early + finished(local), key=lambda one: (one.key, one.number)), wanted)


def test_weights_change_between_two_tokens(sampler: ProcessSampler) -> None:
    """Answers under way go on with the new ones, and say so token by token."""
    sampler.submit([Request(key, (2, 1), (0, 1, 2, 3)) for key in range(40)])
    found = sampler.poll()
    for version in range(1, 5):
        sampler.load(version, toy_model(version))
        time.sleep(0.02)
    found += finished(sampler)
    versions = {version for one in found for version in one.version.tolist()}
    assert {0, 4} <= versions
    assert any(len(set(one.version.tolist())) > 1 for one in found)
    assert all((np.diff(one.version) >= 0).all() for one in found)
