"""Several roles in one stream: each has its rows and its policy; wrong casts are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Adam

from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.learner import Learner
from shoal.nets.policy import MlpPolicy, Network, make_policy
from shoal.stream.rollouts import Rollouts, rollouts
from shoal.stream.schedules import Overlap
from shoal.types import ConfigError, Steps
from tests.counting import CountingPolicy, counting_rows

CAST = {"learner": slice(0, 1), "rival": slice(1, 3)}


def test_every_role_has_its_own_rows_and_policy() -> None:
    """The learner plays row 0; the rival, shifted by one, rows 1 and 2: rewards show who acted."""
    policies = {"learner": CountingPolicy(), "rival": CountingPolicy(shift=1)}
    stream = rollouts(counting_rows(), policies, num_steps=3, cast=CAST)
    batch: dict[str, Steps] = next(stream)
    learner, rival = batch["learner"], batch["rival"]
    assert learner.obs.tolist() == [[[0, 0]], [[0, 1]], [[0, 2]]]
    assert learner.action.tolist() == [[0], [1], [2]]
    assert learner.next_value.tolist() == [[12], [23], [0]]
    assert learner.final_index.tolist() == [[-1], [-1], [0]]
    assert learner.final_obs[0].tolist() == [0, 3]
    assert rival.obs.tolist() == [[[1, 0], [2, 0]], [[1, 1], [2, 1]], [[1, 0], [2, 2]]]
    assert rival.action.tolist() == [[2, 0], [0, 1], [2, 2]]
    assert rival.reward.tolist() == [[0.25, 0], [1, 1.125], [0.25, 2.25]]
    assert rival.value.tolist() == [[101, 201], [112, 212], [101, 223]]
    assert rival.next_value.tolist() == [[112, 212], [123, 223], [112, 234]]
    assert rival.final_index.tolist() == [[-1, -1], [0, -1], [-1, -1]]
    assert rival.final_obs[0].tolist() == [1, 2]
    assert stream.env_steps == 9
    assert stream.episodes.lengths.tolist() == [2, 3]


def test_a_frozen_opponent_stays_as_it_is() -> None:
    """Only the learner's weights change; publishing both leaves the rival's actions alone."""
    learner, rival = CountingPolicy(), CountingPolicy(shift=1)
    stream = rollouts(counting_rows(), {"learner": learner, "rival": rival}, num_steps=1, cast=CAST)
    next(stream)
    learner.shift.data.fill_(2.0)
    stream.publish()
    batch = next(stream)
    assert batch["learner"].action.tolist() == [[0]]
    assert batch["rival"].action.tolist() == [[0, 1]]


def test_an_opponent_can_be_exchanged() -> None:
    """Other weights loaded into a role's module act from the next publish on."""
    rival = CountingPolicy()
    stream = rollouts(counting_rows(), {"learner": CountingPolicy(), "rival": rival}, num_steps=1, cast=CAST)
    next(stream)
    rival.load_state_dict(CountingPolicy(shift=1).state_dict())
    stream.publish()
    assert next(stream)["rival"].action.tolist() == [[0, 1]]


def small(env: Any, seed: int = 0, **network: Any) -> nn.Module:
    """A small policy whose actions vary."""
    return make_policy(env.spec, Network(hidden=(16,), **network), seed)


@pytest.mark.parametrize("network", [{}, {"recurrent": "gru"}])
@pytest.mark.parametrize("native", [True, False])
def test_roles_of_one_policy_equal_no_cast(*, native: bool, network: dict[str, Any]) -> None:
    """Each row keeps its own noise, whichever role plays it."""
    cast = {"left": slice(0, 2), "right": slice(2, 5)}
    acting = Acting(seed=3, native=native, act_block=1)
    whole, env = make("CartPole-v1", 5), make("CartPole-v1", 5)
    policy = small(env, **network)
    expected = next(rollouts(whole, policy, num_steps=30, acting=acting))
    batch = next(rollouts(env, {"left": policy, "right": policy}, num_steps=30, cast=cast, acting=acting))
    for name in ("obs", "action", "log_prob", "value", "reward", "start", "terminated"):
        joined = torch.cat([getattr(batch[role], name) for role in cast], 1)
        assert torch.equal(joined, getattr(expected, name)), name


def test_only_roles_in_training_keep_statistics() -> None:
    """The learner merges what it saw itself; the rival, a plain module, merges nothing."""
    env = make("CartPole-v1", 3)
    learner, rival = small(env, normalize_obs=True), small(env, 1, normalize_obs=True)
    stream = rollouts(env, {"learner": Learner(learner, Adam), "rival": rival}, num_steps=4, cast=CAST)
    seen = next(stream)["learner"].obs.clone()
    stream.publish()
    assert isinstance(learner, MlpPolicy)
    assert isinstance(rival, MlpPolicy)
    assert learner.encoder.normalizer is not None
    assert rival.encoder.normalizer is not None
    torch.testing.assert_close(learner.encoder.normalizer.mean, seen.mean((0, 1)))
    assert float(rival.encoder.normalizer.count) == 0


def test_a_restored_cast_goes_on_bit_for_bit() -> None:
    """Two roles, one with memory."""

    def fresh() -> Rollouts:
        env = make("CartPole-v1", 3)
        policies = {"learner": small(env, recurrent="lstm"), "rival": small(env, 1)}
        return rollouts(env, policies, num_steps=9, cast=CAST, acting=Acting(seed=2))

    stream = fresh()
    next(stream)
    stream.publish()
    state = stream.state()
    expected = {role: steps.action.clone() for role, steps in next(stream).items()}
    again = fresh()
    assert again.restore(state) == []
    for role, steps in next(again).items():
        assert torch.equal(steps.action, expected[role])


def test_wrong_casts_are_refused() -> None:
    """Policies without a cast, other roles, gaps, too few or too many rows, an overlap."""
    one, both = CountingPolicy(), {"learner": CountingPolicy(), "rival": CountingPolicy()}

    def made(policy: Any, cast: Any, **settings: Any) -> Rollouts:
        return rollouts(counting_rows(), policy, num_steps=2, cast=cast, **settings)

    for policy, cast, message in (
        (both, None, "several policies need a cast"),
        (one, CAST, r"roles \['learner', 'rival'\]; give a dict with one policy for each"),
        ({"learner": one}, CAST, r"roles \['learner', 'rival'\]; give a dict"),
        (both, {"learner": slice(0, 1), "rival": slice(2, 3)}, "0 roles play row 1 of 3"),
        (both, {"learner": slice(0, 2), "rival": slice(1, 3)}, "2 roles play row 1 of 3"),
        (both, {"learner": slice(0, 1), "rival": slice(1, 1)}, "'rival' plays no rows"),
        (both, {"learner": slice(0, 1), "rival": slice(1, 2)}, "0 roles play row 2 of 3"),
        (both, {"learner": slice(0, 1), "rival": slice(1, 4)}, r"rows lie in 0\.\.2, got range\(1, 4\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            made(policy, cast)
    with pytest.raises(ConfigError, match='a cast of several roles needs schedule="sync"'):
        made(both, CAST, schedule=Overlap())
    stream = made(both, CAST)
    assert all(bool((steps.version == 0).all()) for steps in next(stream).values())
