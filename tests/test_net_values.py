"""Q-networks in native code beside torch: values, epsilon-greedy choices, the gradient of Q-learning's loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch.optim import Adam

from shoal import _native
from shoal.algos.dqn import DQN, dqn_loss
from shoal.learn.hardware import Hardware
from shoal.learn.learner import Learner
from shoal.learn.lowering import lower
from shoal.learn.plan import Noise, Plan
from shoal.learn.weights import pack
from shoal.nets.epsilon_greedy import EpsilonGreedy
from shoal.nets.network import QNet
from shoal.nets.q_network import QNetwork, action_values, make_q_network
from shoal.types import Layout, Spec, Transitions

ACTIONS, SIZE = 5, 7


def spec_of(actions: int = ACTIONS) -> Spec:
    box, discrete = spaces.Box(-9, 9, (SIZE,), np.float32), spaces.Discrete(actions)
    return Spec("Made-v0", box, discrete, Layout.of(box), Layout.of(discrete))


def lowered(network: QNetwork) -> Plan:
    plan = lower(network, network.spec, pack(network), num_threads=1, act_block=64, grad_shards=1)
    assert plan is not None
    return plan


def made(seed: int = 3) -> QNetwork:
    return make_q_network(spec_of(), QNet(hidden=(33, 21)), seed)


def seen(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, SIZE)).astype(np.float32)


def masks(count: int) -> NDArray[np.bool_]:
    mask = np.random.default_rng(1).random((count, ACTIONS)) < 0.5
    mask[np.arange(count), np.arange(count) % ACTIONS] = True
    return mask


def transitions(count: int) -> Transitions:
    rng = np.random.default_rng(2)

    def column() -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(count).astype(np.float32))

    obs, after = torch.from_numpy(seen(count)), torch.from_numpy(seen(count, seed=1))
    action = torch.from_numpy(rng.integers(0, ACTIONS, count))
    ones = torch.ones(count, dtype=torch.int32)
    weight, target = column().abs(), 3 * column()
    key = np.arange(count, dtype=np.int64)
    columns = {"reward": column(), "discount": column(), "weight": weight, "target": target, "error": column()}
    return Transitions(obs=obs, action=action, next_obs=after, steps=ones, version=ones, key=key, **columns)


def test_values_and_the_highest_of_them_equal_torch() -> None:
    network, obs = made(), seen(150)
    output = lowered(network).outputs(torch.from_numpy(obs))
    expected = action_values(network(torch.from_numpy(obs), None, None)).detach()
    assert isinstance(output.distribution, EpsilonGreedy)
    torch.testing.assert_close(output.distribution.values, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.value, expected.amax(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_choices_equal_torch(*, masked: bool) -> None:
    """From the same noise both explore in the same rows and take the same options there."""
    count = 700
    plan, obs, mask = lowered(made()), seen(count), masks(count) if masked else None
    epsilon = np.random.default_rng(4).random(count).astype(np.float32)
    epsilon[:50], epsilon[50:100] = 0, 1
    noise = Noise(7, 2, np.arange(count, dtype=np.int64), np.full(count, 3, np.int64))
    action, log_prob, value = plan.act(
        obs, np.zeros(count, np.bool_), None, noise, greedy=False, action_mask=mask, epsilon=epsilon
    )
    output: Any = plan.outputs(torch.from_numpy(obs)).distribution
    if mask is not None:
        output = output.masked(torch.from_numpy(mask))
    drawn = torch.from_numpy(_native.philox_uniform(*noise, 1))
    exploring = output.exploring(torch.from_numpy(epsilon))
    np.testing.assert_array_equal(action, exploring.sample(drawn).numpy())
    np.testing.assert_allclose(log_prob, exploring.log_prob(torch.from_numpy(action)).numpy(), atol=1e-5)
    np.testing.assert_array_equal(value, output.values.amax(-1).numpy())
    np.testing.assert_array_equal(action[:50], output.mode()[:50].numpy())
    explored = np.mean(action[50:100] != output.mode()[50:100].numpy())
    assert masked or explored > 0.5
    if mask is not None:
        assert mask[np.arange(count), action].all()
    best, log_prob, _ = plan.act(
        obs, np.zeros(count, np.bool_), None, noise, greedy=True, action_mask=mask, epsilon=epsilon
    )
    np.testing.assert_array_equal(best, output.mode().numpy())
    np.testing.assert_allclose(log_prob, 0, atol=1e-6)


def test_how_often_each_option_is_chosen() -> None:
    """Epsilon 0.4 among 3 options that are allowed: 0.4 / 3 for each, and 0.6 more for the best of them."""
    count = 60_000
    values = torch.tensor([1.0, 9.0, 3.0, 2.0]).expand(count, 4)
    mask = torch.tensor([True, False, True, True]).expand(count, 4)
    chosen = EpsilonGreedy(values).masked(mask).exploring(torch.full((count,), 0.4))
    rows = np.arange(count, dtype=np.int64)
    noise = torch.from_numpy(_native.philox_uniform(1, 0, rows, rows, 1))
    share = torch.bincount(chosen.sample(noise), minlength=4) / count
    torch.testing.assert_close(share, torch.tensor([0.4 / 3, 0.0, 0.6 + 0.4 / 3, 0.4 / 3]), rtol=0, atol=0.01)
    torch.testing.assert_close(chosen.log_prob(torch.full((count,), 2))[0].exp(), torch.tensor(0.6 + 0.4 / 3))
    each = torch.tensor([0.4 / 3, 0.6 + 0.4 / 3, 0.4 / 3])
    torch.testing.assert_close(chosen.entropy()[0], -(each * each.log()).sum())


@pytest.mark.parametrize("huber", [True, False])
def test_the_loss_s_step_and_errors_equal_autograd(*, huber: bool) -> None:
    """One step of each path from the same weights, with weights and errors on both sides of Huber's limit."""
    cfg, batch = DQN(huber=huber), transitions(130)
    fused, reference = made(), made()
    ours = Learner(fused, Adam, lr=1e-3, hardware=Hardware(grad_shards=2))
    theirs = Learner(reference, Adam, lr=1e-3, hardware=Hardware(native=False))
    stats = ours.step(dqn_loss, batch, cfg)
    errors = batch.error.clone()
    expected = theirs.step(dqn_loss, batch, cfg)
    torch.testing.assert_close(errors, batch.error, rtol=1e-4, atol=1e-5)
    assert (batch.error.abs() > 1).any()
    assert (batch.error.abs() < 1).any()
    assert stats.value == pytest.approx(float(expected.value), rel=1e-5)
    assert stats.q == pytest.approx(float(expected.q), abs=1e-5)
    torch.testing.assert_close(ours.flat, theirs.flat, rtol=1e-4, atol=2e-6)


def test_a_loss_of_another_head_is_refused() -> None:
    plan: Any = lowered(made())
    samples = _native.Samples(seen(4), np.zeros((4, 1), np.int64), {"target": np.zeros(4, np.float32)})
    settings = {"ent_coef": 0.0, "vf_coef": 0.5, "norm_adv": 0.0}
    with pytest.raises(ValueError, match="a2c_loss is a loss of a policy and its value function"):
        plan.native.loss_gradient(
            "a2c_loss", samples, np.arange(4, dtype=np.int32), settings, np.zeros(plan.flat.numel(), np.float32),
            np.zeros(4),
        )  # fmt: skip


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_an_epsilon_that_is_no_share_is_refused(bad: float) -> None:
    plan, noise = lowered(made()), Noise(1, 0, np.arange(2, dtype=np.int64), np.zeros(2, np.int64))
    epsilon = np.array([0.5, bad], np.float32)
    with pytest.raises(ValueError, match=r"epsilon\[1\] must lie between 0 and 1"):
        plan.act(seen(2), np.zeros(2, np.bool_), None, noise, greedy=False, epsilon=epsilon)
