"""The learner: three ways of one step, steps that are not finite, several networks, state and restore."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, RMSprop

from shoal.algos.a2c import A2C, a2c_loss
from shoal.algos.impala import IMPALA, impala_loss
from shoal.learn.learner import Learner
from shoal.learn.minibatches import minibatches
from shoal.nets.distributions import masked
from shoal.nets.policy import make_policy
from shoal.types import ConfigError, Steps
from tests.learn.paths import ACTIONS, CFG, PATHS, learner_of, loss_of, moments, ppo_loss, rollout_of


def learn(learner: Learner, path: str, steps: Steps, epochs: int = 3) -> list[list[float]]:
    """PPO's epochs over two minibatches; the statistics of each step."""
    rng = np.random.default_rng(7)
    loss = loss_of(path, ppo_loss)
    assert steps.advantage is not None
    assert steps.target is not None
    found: list[list[float]] = []
    for _ in range(epochs):
        batches = minibatches(steps, steps.advantage, steps.target, 2, rng)
        found.extend([float(x) for x in learner.step(loss, batch, CFG)] for batch in batches)
    return found


def assert_equal_learners(mine: Learner, theirs: Learner) -> None:
    """Weights and moments within rounding."""
    torch.testing.assert_close(mine.flat, theirs.flat, rtol=2e-5, atol=2e-6)
    expected = moments(theirs)
    for name, value in moments(mine).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)


RECURRENT = ("none", "gru", "lstm")


@pytest.mark.parametrize("kind", ACTIONS)
@pytest.mark.parametrize("recurrent", RECURRENT)
@pytest.mark.parametrize("path", ["fused", "native"])
def test_every_way_equals_torch(path: str, recurrent: str, kind: str) -> None:
    """Three epochs of PPO from the same weights: statistics, norms, weights and moments to float tolerance."""
    policy, steps = rollout_of(kind, recurrent=recurrent, recurrent_size=6)
    assert (steps.action_mask is not None) == kind.startswith("masked")
    assert bool(steps.start[1:].any())
    mine, theirs = learner_of(path, policy), learner_of("torch", copy.deepcopy(policy))
    np.testing.assert_allclose(learn(mine, path, steps), learn(theirs, "torch", steps), rtol=2e-4, atol=2e-5)
    assert_equal_learners(mine, theirs)
    assert (mine.updates, mine.skipped) == (6, 0)
    left, right = mine.statistics(), theirs.statistics()
    assert left[1] == right[1] == dict.fromkeys([*(f"loss/{x}" for x in STATISTICS), "loss/grad_norm"], 6)
    for name, total in left[0].items():
        assert float(total) == pytest.approx(float(right[0][name]), rel=2e-4, abs=2e-5), name
    assert mine.statistics() == ({}, {})


STATISTICS = ("policy", "value", "entropy", "approx_kl", "clip_fraction")


@pytest.mark.parametrize("norm_adv", [True, False])
@pytest.mark.parametrize("recurrent", RECURRENT)
@pytest.mark.parametrize("path", ["fused", "native"])
def test_a_whole_rollout_with_rmsprop_equals_torch(path: str, recurrent: str, *, norm_adv: bool) -> None:
    """Two updates of A2C; steps that do not count are left out."""
    policy, steps = rollout_of("categorical", recurrent=recurrent, recurrent_size=6)
    steps.valid[3:5, 2] = False
    cfg = A2C(norm_adv=norm_adv, ent_coef=0.05)
    settings: dict[str, Any] = {"alpha": 0.9, "eps": 0.1}
    mine, theirs = (learner_of(way, copy.deepcopy(policy), RMSprop, **settings) for way in (path, "torch"))
    for _ in range(2):
        ours = mine.step(loss_of(path, a2c_loss), steps, cfg)
        expected = theirs.step(a2c_loss, steps, cfg)
        np.testing.assert_allclose([float(x) for x in ours], [float(x) for x in expected], rtol=2e-4, atol=2e-5)
    assert_equal_learners(mine, theirs)


@pytest.mark.parametrize("recurrent", ["none", "gru"])
def test_an_update_of_impala_equals_torch(recurrent: str) -> None:
    """The fused loss, which has A2C's form, and Adam."""
    policy, steps = rollout_of("gaussian", recurrent=recurrent, recurrent_size=6)
    cfg = IMPALA(ent_coef=0.05)
    mine, theirs = (learner_of(way, copy.deepcopy(policy)) for way in ("fused", "torch"))
    ours, expected = mine.step(impala_loss, steps, cfg), theirs.step(impala_loss, steps, cfg)
    np.testing.assert_allclose([float(x) for x in ours], [float(x) for x in expected], rtol=2e-4, atol=2e-5)
    assert_equal_learners(mine, theirs)


def test_another_optimizer_stays_in_torch() -> None:
    """SGD has no native form: gradients from native code, the step in torch, the same as torch alone."""
    policy, steps = rollout_of("gaussian")
    mine, theirs = (
        Learner(copy.deepcopy(policy), SGD, hardware=learner_of(way, copy.deepcopy(policy)).hardware, lr=0.1)
        for way in ("native", "torch")
    )
    learn(mine, "fused", steps)
    learn(theirs, "torch", steps)
    torch.testing.assert_close(mine.flat, theirs.flat, rtol=2e-5, atol=2e-6)


class Means(NamedTuple):
    """Statistics of the loss below."""

    value: Tensor


def with_penalty(output: Any, batch: Steps, policy: nn.Module) -> tuple[Tensor, Means]:
    """A loss that looks at the network's output and at its parameters, too."""
    log_prob = masked(output.distribution, batch.action_mask).log_prob(batch.action)
    penalty = sum(p.square().sum() for p in policy.parameters())
    value = output.value.square().mean()
    return value - log_prob.mean() + 0.1 * penalty, Means(value.detach())


def test_a_loss_may_use_parameters_directly() -> None:
    """Native code's gradient and that of what torch did beside it are added."""
    policy, steps = rollout_of("gaussian")
    twin = copy.deepcopy(policy)
    mine, theirs = learner_of("native", policy), learner_of("torch", twin)
    for _ in range(3):
        mine.step(with_penalty, steps, policy)
        theirs.step(with_penalty, steps, twin)
    assert_equal_learners(mine, theirs)


@pytest.mark.parametrize("recurrent", RECURRENT)
@pytest.mark.parametrize("path", PATHS)
def test_a_step_that_is_not_finite_changes_nothing(path: str, recurrent: str) -> None:
    """It is counted; weights, moments and the optimizer's count of steps go on as if it had not been."""
    policy, steps = rollout_of("categorical", recurrent=recurrent, recurrent_size=6)
    bad = replace(steps, target=torch.full_like(steps.reward, torch.nan))
    mine, theirs = (learner_of(path, copy.deepcopy(policy)) for _ in range(2))
    learn(mine, path, steps, epochs=1)
    learn(theirs, path, steps, epochs=1)
    before, weights = moments(mine), mine.flat.clone()
    mine.step(loss_of(path, ppo_loss), bad, CFG)
    assert (mine.updates, mine.skipped) == (2, 1)
    assert torch.equal(mine.flat, weights)
    after = moments(mine)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {float(value) for name, value in after.items() if name.endswith(" step")} == {2.0}
    learn(mine, path, steps, epochs=1)
    learn(theirs, path, steps, epochs=1)
    assert torch.equal(mine.flat, theirs.flat)
    totals, counts = mine.statistics()
    assert counts["loss/value"] == counts["loss/grad_norm"] == 4
    assert all(np.isfinite(float(total)) for total in totals.values())


@pytest.mark.parametrize("path", PATHS)
def test_an_infinite_gradient_is_not_finite(path: str) -> None:
    """Values so far off that the gradient is infinite, while the policy's part is not."""
    policy, steps = rollout_of("gaussian")
    assert steps.target is not None
    far = steps.target.clone()
    far[0, 0] = torch.inf
    learner = learner_of(path, policy, RMSprop)
    before = learner.flat.clone()
    learner.step(loss_of(path, a2c_loss), replace(steps, target=far), A2C())
    assert (learner.updates, learner.skipped) == (0, 1)
    assert torch.equal(learner.flat, before)


@pytest.mark.parametrize("optimizer", [Adam, RMSprop])
@pytest.mark.parametrize("recurrent", ["none", "gru"])
@pytest.mark.parametrize("path", PATHS)
def test_a_rollback_rejoins_moments(path: str, recurrent: str, optimizer: Any) -> None:
    """Back to a saved state in the middle, the same steps again: the same bits as the first time."""
    policy, steps = rollout_of("categorical", recurrent=recurrent, recurrent_size=6)
    learner = learner_of(path, policy, optimizer)
    learn(learner, path, steps, epochs=1)
    saved = copy.deepcopy(learner.state())
    first = learn(learner, path, steps, epochs=2)
    weights, after = learner.flat.clone(), moments(learner)
    for _ in range(2):
        learner.restore(saved)
        assert (learner.updates, learner.flat.equal(weights)) == (2, False)
        assert learn(learner, path, steps, epochs=2) == first
        assert torch.equal(learner.flat, weights)
        assert all(torch.equal(value, after[name]) for name, value in moments(learner).items())
    assert float(after["0 step"]) == 6


@pytest.mark.parametrize("path", PATHS)
def test_a_rollback_brings_back_statistics_and_learning_rate(path: str) -> None:
    """What the policy normalizes by is part of a version, also for native code that has seen the rollout."""
    policy, steps = rollout_of("categorical")
    learner = learner_of(path, policy, RMSprop)
    saved = copy.deepcopy(learner.state())
    first = learner.step(loss_of(path, a2c_loss), steps, A2C())
    weights = learner.flat.clone()
    encoder: Any = learner.policy.encoder
    encoder.observe(torch.rand(99, 3) + 5)
    learner.learning_rate = 1e-4
    learner.step(loss_of(path, a2c_loss), replace(steps), A2C())
    learner.restore(saved)
    assert learner.learning_rate == 1e-2
    assert learner.step(loss_of(path, a2c_loss), steps, A2C()) == first
    assert torch.equal(learner.flat, weights)


@pytest.mark.parametrize("path", PATHS)
def test_another_learner_goes_on_from_a_state(path: str) -> None:
    """Counts, versions, weights and moments of a learner in another process, by whatever way it then learns."""
    policy, steps = rollout_of("categorical")
    learner = learner_of(path, policy)
    learn(learner, path, steps, epochs=1)
    learner.publish()
    saved = copy.deepcopy(learner.state())
    learn(learner, path, steps, epochs=2)
    for other_path in PATHS:
        other = learner_of(other_path, fresh_like(policy))
        learn(other, other_path, steps, epochs=1)
        other.restore(saved)
        assert (other.version, other.updates, other.skipped) == (1, 2, 0)
        learn(other, other_path, steps, epochs=2)
        assert_equal_learners(other, learner)


def fresh_like(policy: Any) -> nn.Module:
    """The same network with other weights."""
    return make_policy(policy.spec, policy.network, 99)


@pytest.mark.parametrize("path", PATHS)
def test_states_of_something_else_are_refused(path: str) -> None:
    """Another network, another optimizer, a network that the state lacks."""
    policy, _ = rollout_of("categorical")
    other, _ = rollout_of("gaussian")
    learner = learner_of(path, policy)
    with pytest.raises(ConfigError, match=r"another network: actor.2.weight is \[2, 8\] there and \[4, 8\] here"):
        learner.restore(learner_of(path, other).state())
    two = SGD([nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))], lr=1.0)
    saved = learner.state()
    networks = {"policy": saved["networks"]["policy"] | {"optimizer": two.state_dict()}}
    with pytest.raises(ConfigError, match="another optimizer"):
        learner.restore(saved | {"networks": networks})
    learner.add("critic", nn.Linear(3, 1))
    with pytest.raises(ConfigError, match="no network 'critic'"):
        learner.restore(saved)


def critic_loss(networks: Any, batch: Any, cfg: Any) -> tuple[Tensor, Means]:
    """The critic learns what its target network and the policy say of [N, 3] observations."""
    value = networks["critic"](batch)
    with torch.no_grad():
        aim = networks["target"](batch) + 1
    error = (value - aim).square().mean() + 0 * networks["policy"](batch.unsqueeze(0), None, None).value.sum()
    return error * cfg, Means(error.detach())


def with_critic(path: str) -> tuple[Learner, Tensor]:
    """A policy, a critic with an optimizer of its own, and its target network without."""
    policy, _ = rollout_of("categorical")
    learner = learner_of(path, policy)
    torch.manual_seed(1)
    critic = nn.Linear(3, 1)
    learner.add("critic", critic, SGD, lr=0.1)
    learner.add("target", copy.deepcopy(critic))
    return learner, torch.rand(8, 3)


@pytest.mark.parametrize("path", ["native", "torch"])
def test_networks_beside_the_policy(path: str) -> None:
    """Only the named network moves, by its own optimizer: one step of SGD, by hand."""
    learner, batch = with_critic(path)
    critic, target = learner.networks["critic"], learner.networks["target"]
    before = {name: network.flat.clone() for name, network in learner.networks.items()}
    stats = learner.update(critic_loss, batch, 1.0, of="critic")
    # The critic is its target as yet: every error is 1, and d/dv of its square -2.
    assert float(stats.value) == 1.0
    expected = before["critic"] + 0.2 * torch.cat([batch.mean(0), torch.ones(1)])
    torch.testing.assert_close(critic.flat, expected)
    assert torch.equal(learner.flat, before["policy"])
    assert torch.equal(target.flat, before["target"])
    assert all(p.grad is None or not p.grad.any() for p in target.module.parameters())
    totals, counts = learner.statistics()
    assert (float(totals["loss/value"]), counts["loss/value"], learner.updates) == (1.0, 1, 1)


def test_a_critic_s_step_that_is_not_finite() -> None:
    """One rule for every network."""
    learner, batch = with_critic("native")
    before = learner.networks["critic"].flat.clone()
    learner.update(critic_loss, batch, float("inf"), of="critic")
    assert (learner.updates, learner.skipped) == (0, 1)
    assert torch.equal(learner.networks["critic"].flat, before)


def test_networks_are_saved_and_restored() -> None:
    """All of them, with moments; the steps after a restore are those after the save."""

    def fresh() -> Learner:
        learner, _ = with_critic("native")
        return learner

    learner, batch = with_critic("native")
    learner.networks["target"].flat.add_(0.5)
    learner.update(critic_loss, batch, 1.0, of="critic")
    saved = copy.deepcopy(learner.state())
    assert set(saved["networks"]) == {"policy", "critic", "target"}
    assert set(saved["networks"]["target"]) == {"module"}
    learner.update(critic_loss, batch, 1.0, of="critic")
    other = fresh()
    other.restore(saved)
    assert torch.equal(other.networks["target"].flat, learner.networks["target"].flat)
    other.update(critic_loss, batch, 1.0, of="critic")
    assert torch.equal(other.networks["critic"].flat, learner.networks["critic"].flat)
    assert other.updates == 2


def test_wrong_networks_are_refused() -> None:
    """A name twice; a step of a network without an optimizer, and of none."""
    learner, batch = with_critic("torch")
    with pytest.raises(ConfigError, match="has a network 'critic' already"):
        learner.add("critic", nn.Linear(3, 1))
    for name in ("target", "nobody"):
        with pytest.raises(ConfigError, match=f"no network '{name}' with an optimizer"):
            learner.update(critic_loss, batch, 1.0, of=name)
    with pytest.raises(ConfigError, match="has no optimizer"):
        _ = learner.networks["target"].learning_rate


def transposed(x: Tensor) -> Tensor:
    """The same numbers [T, B] in memory of the order [B, T]."""
    return x.t().contiguous().t()


@pytest.mark.parametrize("path", ["fused", "native"])
@pytest.mark.parametrize("given", [torch.clone, transposed], ids=["plain", "transposed"])
def test_what_changes_in_place_between_epochs_is_learned_from(given: Any, path: str) -> None:
    """Advantages, targets and valid steps of one rollout that an algorithm changes after each epoch."""
    policy, steps = rollout_of("categorical")
    found: list[list[list[float]]] = []
    for way in (path, "torch"):
        learner = learner_of(way, copy.deepcopy(policy))
        assert steps.advantage is not None
        assert steps.target is not None
        advantage, target = given(steps.advantage), given(steps.target)
        mine = replace(steps, advantage=advantage, target=target, valid=steps.valid.clone())
        seen: list[list[float]] = []
        for row in range(3):
            seen += learn(learner, way, mine, epochs=1)
            advantage.copy_(advantage * 3 + 1)
            target.numpy()[:] += 2
            mine.valid[:, row] = False
        found.append(seen)
    np.testing.assert_allclose(found[0], found[1], rtol=2e-3, atol=2e-4)


ODD = {
    "doubles": lambda x: x.double(),
    "a slice": lambda x: torch.stack([x, x], -1)[..., 0],
    "with gradients": lambda x: x.clone().requires_grad_(),
}


@pytest.mark.parametrize("path", ["fused", "native"])
@pytest.mark.parametrize("kind", ODD)
def test_advantages_of_other_kinds(kind: str, path: str) -> None:
    """What torch alone takes, native code takes too."""
    policy, steps = rollout_of("categorical")
    odd = replace(steps, advantage=ODD[kind](steps.advantage), target=ODD[kind](steps.target))
    mine, theirs = learner_of(path, copy.deepcopy(policy)), learner_of(path, copy.deepcopy(policy))
    expected, found = learn(theirs, path, steps, epochs=2), learn(mine, path, odd, epochs=2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rate", [float("nan"), -1.0, float("inf")])
@pytest.mark.parametrize("path", PATHS)
def test_a_learning_rate_that_is_none_is_refused(path: str, rate: float) -> None:
    policy, _ = rollout_of("categorical")
    learner = learner_of(path, policy)
    with pytest.raises(ConfigError, match="learning_rate must be a finite number of at least 0"):
        learner.learning_rate = rate
    assert learner.learning_rate == 1e-2


def test_an_optimizer_that_is_made_already_is_refused() -> None:
    policy, _ = rollout_of("categorical")
    other = nn.Linear(1, 1)
    made: Any = Adam(other.parameters())
    with pytest.raises(ConfigError, match="the optimizer of 'baseline' must be a class: give Adam itself"):
        learner_of("torch", policy).add("baseline", other, made)
