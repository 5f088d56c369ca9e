"""Rollouts of agents that learn side by side: each gets its own rows, in turn, and what waits is saved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import SGD

from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.nets.network import QNet
from shoal.nets.policy import Network, make_policy
from shoal.nets.q_network import make_q_network
from shoal.stream.members import MemberRollouts
from shoal.stream.rollouts import rollouts
from tests.counting import CountingPolicy, counting_rows
from tests.inside import inside

CAST = {"agent0": slice(0, 1), "agent1": slice(1, 3)}


def test_each_agent_has_its_rows_in_turn() -> None:
    """Row 0 is agent0's, rows 1 and 2 are agent1's, who is shifted by one; steps count when both have theirs."""
    policies = {"agent0": CountingPolicy(), "agent1": CountingPolicy(shift=1)}
    stream = MemberRollouts(rollouts(counting_rows(), policies, num_steps=3, cast=CAST))
    first = next(stream)
    assert (stream.agent, stream.env_steps) == ("agent0", 0)
    assert first.action.tolist() == [[0], [1], [2]]
    assert stream.episodes.lengths.tolist() == [2, 3]
    with pytest.raises(RuntimeError, match="before publish"):
        next(stream)
    assert stream.publish() == 0
    second = next(stream)
    assert (stream.agent, stream.env_steps) == ("agent1", 9)
    assert second.action.tolist() == [[2, 0], [0, 1], [2, 2]]
    assert len(stream.episodes.lengths) == 0
    assert stream.publish() == 1
    next(stream)
    assert (stream.agent, stream.env_steps) == ("agent0", 9)


def members(network: dict[str, Any]) -> tuple[MemberRollouts, dict[str, Learner]]:
    """Two agents on four rows of CartPole."""
    env = make("CartPole-v1", 4)
    made = [make_policy(env.spec, Network(hidden=(8,), normalize_obs=True, **network), seed) for seed in (0, 1)]
    learners = {f"agent{i}": Learner(policy, SGD, lr=0.01) for i, policy in enumerate(made)}
    cast = {"agent0": slice(0, 2), "agent1": slice(2, 4)}
    return MemberRollouts(rollouts(env, learners, num_steps=40, cast=cast, acting=Acting(3))), learners


@pytest.mark.parametrize("network", [{}, {"recurrent": "lstm", "recurrent_size": 4}])
def test_what_waits_is_saved(network: dict[str, Any]) -> None:
    """Saved between two agents, a stream goes on with the rollout that the second had not seen, bit for bit."""
    (one, learners), (two, others) = members(network), members(network)
    next(one)
    one.publish()
    saved = one.state()
    lost = [other.restore(learners[name].state()) for name, other in others.items()]
    assert lost == [None, None]
    assert two.restore(saved) == []
    for _ in range(3):
        mine, theirs = next(one), next(two)
        assert (one.agent, one.env_steps, one.version) == (two.agent, two.env_steps, two.version)
        assert torch.equal(mine.obs, theirs.obs)
        assert torch.equal(mine.action, theirs.action)
        assert torch.equal(mine.next_value, theirs.next_value)
        used = int(mine.final_index.max()) + 1
        assert torch.equal(mine.final_obs[:used], theirs.final_obs[:used])
        if network:
            np.testing.assert_equal([x.numpy() for x in mine.state], [x.numpy() for x in theirs.state])
        one.publish()
        two.publish()
    every: list[Any] = [learner.policy for learner in (*learners.values(), *others.values())]
    mean = [policy.encoder.normalizer.mean for policy in every]
    assert torch.equal(mean[0], mean[2])
    assert torch.equal(mean[1], mean[3])
    assert not torch.equal(mean[0], mean[1])


def test_the_agent_at_hand_explores() -> None:
    """Before the first rollout an epsilon is for all, then for the agent at hand."""
    env = make("CartPole-v1", 4)
    learners = {f"agent{i}": Learner(make_q_network(env.spec, QNet(hidden=(8,)), i), SGD, lr=0.01) for i in (0, 1)}
    inner = rollouts(env, learners, num_steps=4, cast={"agent0": slice(0, 2), "agent1": slice(2, 4)})
    stream = MemberRollouts(inner)
    stream.explore(0.5)
    next(stream)
    stream.publish()
    next(stream)
    stream.explore(0.25)
    found = [role.actor.epsilon for role in inside(inner).roles if role.actor.epsilon is not None]
    assert [epsilon.tolist() for epsilon in found] == [[0.5] * 2, [0.25] * 2]
