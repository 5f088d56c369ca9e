"""Versions of weights as actors see them, and the noise they act with: streams, rows and steps."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD

from shoal import _native
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.learn.weights import pack
from shoal.nets.policy import Network, make_policy
from shoal.stream.rollouts import Rollouts, rollouts
from shoal.stream.schedules import Overlap, Sync
from tests.counting import CountingPolicy, counting_rows
from tests.inside import inside


def acted_with(stream: Rollouts) -> torch.Tensor:
    """The packed weights that the actor of the only role has."""
    actor: Any = inside(stream).roles[0].actor
    return actor.snapshot.flat


@pytest.mark.parametrize(
    ("native", "schedule"), [(True, Sync()), (True, Overlap()), (False, Sync())], ids=["fused", "overlap", "torch"]
)
def test_publish_copies_only_when_rows_act_next(
    schedule: Any, monkeypatch: pytest.MonkeyPatch, *, native: bool
) -> None:
    """Two publishes make two versions and one copy, at the next pull; the batch says who chose it."""
    env = make("CartPole-v1", 4)
    learner = Learner(make_policy(env.spec, Network(hidden=(8,)), 0), SGD, lr=0.1)
    stream = rollouts(env, learner, num_steps=3, schedule=schedule, acting=Acting(1, native=native))
    actor: Any = inside(stream).roles[0].actor
    copies: list[int] = []
    real = actor.update

    def update(policy: nn.Module, flat: torch.Tensor, only: frozenset[str]) -> None:
        assert not only
        copies.append(learner.version)
        real(policy, flat)

    monkeypatch.setattr(actor, "update", update)
    assert next(stream).version.unique().tolist() == [0]
    assert copies == []
    before = acted_with(stream).clone()
    learner.flat.add_(1.0)
    assert [stream.publish(), stream.publish()] == [1, 2]
    assert torch.equal(acted_with(stream), before)
    steps = next(stream)
    assert steps.version.shape == (3, 4)
    assert steps.version.unique().tolist() == [2]
    assert copies == [2]
    assert torch.equal(acted_with(stream), learner.flat)


def test_two_streams_of_one_learner_see_its_versions() -> None:
    """A publish of either makes a version; the other takes it over when its rows act next."""
    learner = Learner(CountingPolicy(), SGD, lr=0.1)
    one, two = (rollouts(counting_rows(), learner, num_steps=1) for _ in range(2))
    next(one)
    next(two)
    learner.flat.fill_(1.0)
    one.publish()
    two.publish()
    assert learner.version == 2
    for stream in (one, two):
        steps = next(stream)
        assert (steps.version.unique().tolist(), steps.action.tolist()) == ([2], [[2, 0, 1]])


def test_a_plain_module_keeps_its_statistics() -> None:
    """A module that nobody trains acts with new weights at each publish; what it saw is not merged."""
    env = make("CartPole-v1", 4)
    policy: Any = make_policy(env.spec, Network(hidden=(8,), normalize_obs=True), 0)
    stream = rollouts(env, policy, num_steps=5)
    next(stream)
    pack(policy).add_(1.0)
    stream.publish()
    assert float(policy.encoder.normalizer.count) == 0
    assert next(stream).version.unique().tolist() == [1]
    assert torch.equal(acted_with(stream), pack(policy))


def test_rolled_back_weights_act_as_a_new_version() -> None:
    """Versions only grow: after a restore to an older state the next publish is not taken for one that acted."""
    learner = Learner(CountingPolicy(), SGD, lr=0.1)
    stream = rollouts(counting_rows(), learner, num_steps=1)
    next(stream)
    saved = copy.deepcopy(learner.state())
    learner.flat.fill_(1.0)
    stream.publish()
    next(stream)
    learner.restore(saved)
    stream.publish()
    steps = next(stream)
    assert steps.action.tolist() == [[2, 1, 1]]
    assert steps.version.unique().tolist() == [2]


def coin(num_rows: int) -> tuple[Any, nn.Module]:
    """CartPole and a policy that throws a coin: all weights are zero."""
    env = make("CartPole-v1", num_rows)
    policy = make_policy(env.spec, Network(hidden=(8,)), 0)
    pack(policy).zero_()
    return env, policy


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("stream_number", [0, 3])
@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [10, 7, 8, 2**31]])
def test_noise_is_of_seed_stream_row_and_step(stream_number: int, rows: list[int], *, native: bool) -> None:
    """Fused or not, a coin of row r at its step t falls as Philox of (seed, stream, r, t) says."""
    env, policy = coin(4)
    acting = Acting(seed=5, stream=stream_number, native=native)
    stream = rollouts(env, policy, num_steps=6, acting=acting)
    assert (inside(stream).plan is not None) == native
    actor: Any = inside(stream).roles[0].actor
    actor.rows[:] = rows
    for pulled in range(2):
        steps = next(stream)
        for t in range(6):
            counts = np.full(4, 6 * pulled + t, np.int64)
            noise = _native.philox_uniform(5, stream_number, np.array(rows, np.int64), counts, 1)
            assert steps.action[t].tolist() == (noise[:, 0] >= 0.5).astype(int).tolist()
        stream.publish()
