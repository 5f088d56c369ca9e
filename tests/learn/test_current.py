"""What a learner says now of a rollout: as those who acted did, as torch does, and what PPO's proximal policy is."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.optim import Adam

from shoal.algos.ppo import PPO, ppo_loss
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.current import current, with_proximal_policy
from shoal.learn.hardware import Hardware
from shoal.learn.learner import Learner
from shoal.math.losses import ppo_policy_loss
from shoal.nets.distributions import masked
from shoal.nets.policy import Network, make_policy
from shoal.stream.actors.rows import ActorRows, ActorSettings
from shoal.stream.rollouts import rollouts
from shoal.types import Spec, Steps
from tests.learn.paths import ACTIONS, learner_of, rollout_of

if TYPE_CHECKING:
    from shoal.envs.vec_env import VecEnv


@pytest.mark.parametrize("recurrent", ["none", "gru", "lstm"])
@pytest.mark.parametrize("kind", ACTIONS)
def test_native_code_says_what_torch_says(kind: str, recurrent: str) -> None:
    """Of every step, for each kind of action, with memory from the rollout's own state and zeroed where it begins."""
    policy, steps = rollout_of(kind, recurrent=recurrent, recurrent_size=8)
    with torch.no_grad():
        output = policy(steps.obs, steps.state, steps.start)
        expected = masked(output.distribution, steps.action_mask).log_prob(steps.action), output.value
    assert (expected[0] - steps.log_prob).abs().max() > 1e-3
    for path in ("native", "torch"):
        found = current(learner_of(path, copy.deepcopy(policy)), steps)
        torch.testing.assert_close(tuple(found)[:2], expected, atol=1e-5, rtol=1e-5)
        assert found.log_prob.shape == steps.reward.shape
        assert not found.value.requires_grad


@pytest.mark.parametrize("path", ["native", "torch"])
def test_the_learner_says_what_follows_the_last_steps(path: str) -> None:
    """Of what a truncated episode ended with, and of what a row saw last, after its last step that counts.

    Row 0 was lost before the last step. All else is as those who acted said it, and so is a rollout without `latest`.
    """
    policy, steps = rollout_of("categorical", num_steps=20)
    valid, terminated, truncated = steps.valid.clone(), steps.terminated.clone(), steps.truncated.clone()
    valid[-1, 0] = terminated[-2, 0] = truncated[-2, 0] = False
    latest = torch.rand(8, 3, generator=torch.Generator().manual_seed(5))
    steps = replace(steps, valid=valid, terminated=terminated, truncated=truncated, latest=latest)

    def value(obs: torch.Tensor) -> torch.Tensor:
        return policy(obs.view(1, 1, 3), None, torch.zeros(1, 1, dtype=torch.bool)).value[0, 0].detach()

    expected, cut = steps.next_value.clone(), 0
    for t, b in np.ndindex(20, 8):
        if truncated[t, b]:
            expected[t, b] = value(steps.final_obs[steps.final_index[t, b]])
            cut += 1
    for b in range(8):
        t = 18 if b == 0 else 19
        if not (terminated[t, b] or truncated[t, b]):
            expected[t, b] = value(latest[b])
    learner = learner_of(path, copy.deepcopy(policy))
    found = current(learner, steps).next_value
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert int((found != steps.next_value).sum()) in range(cut + 1, cut + 9)
    assert torch.equal(current(learner, replace(steps, latest=None)).next_value, steps.next_value)


@pytest.mark.parametrize("actors", [0, 2])
def test_weights_that_acted_say_again_what_follows(actors: int) -> None:
    """Each row's own last sight, and final observation, here or from actors: Pendulum is truncated after 200 steps."""

    def pendulums(num_envs: int) -> VecEnv:
        return make("Pendulum-v1", num_envs)

    env = ActorRows(pendulums, 4, ActorSettings(actors=actors, inside="threads")) if actors else pendulums(4)
    learner = Learner(make_policy(env.spec, Network(hidden=(8,)), 1), Adam, lr=1e-3)
    steps = next(rollouts(env, learner, num_steps=210, acting=Acting(2, latest=True)))
    env.close()
    assert int(steps.truncated.sum()) == 4
    assert float(steps.next_value[-1].std()) > 1e-3
    unknown = torch.zeros_like(steps.next_value)
    places = steps.truncated.clone()
    places[-1] = True
    found = current(learner, replace(steps, next_value=unknown)).next_value
    torch.testing.assert_close(found, torch.where(places, steps.next_value, unknown), atol=1e-5, rtol=1e-5)


def test_images_are_read_a_few_steps_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five steps of two rows, two steps in each forward, by one thread or two: the same of every step."""
    monkeypatch.setattr("shoal.learn.current.MOST_STEPS", 4)
    draws = np.random.default_rng(1)
    space = spaces.Box(0, 255, (1, 100, 100), np.uint8)
    policy = make_policy(Spec.of("Images-v0", space, spaces.Discrete(3)), Network(hidden=(8,)), 0)
    zeros = torch.zeros(5, 2)
    flags = zeros.bool()
    names = ("log_prob", "value", "next_value", "reward", "version")
    steps = Steps(
        obs=torch.from_numpy(draws.integers(0, 256, (5, 2, 1, 100, 100), np.uint8)),
        start=flags,
        action=torch.from_numpy(draws.integers(0, 3, (5, 2))),
        terminated=flags,
        truncated=flags,
        valid=~flags,
        final_index=zeros.int() - 1,
        final_obs=None,
        state=None,
        **dict.fromkeys(names, zeros),
    )
    output = policy(steps.obs, None, steps.start)
    expected = output.distribution.log_prob(steps.action).detach(), output.value.detach()
    found: list[Any] = []
    for threads in (1, 2):
        hardware = Hardware(grad_shards=2, num_threads=threads)
        learner = Learner(copy.deepcopy(policy), Adam, hardware=hardware, lr=1e-3)
        found.append(current(learner, steps))
        torch.testing.assert_close(tuple(found[-1])[:2], expected, atol=1e-4, rtol=1e-4)
    assert all(map(torch.equal, *found))


def test_decoupled_surrogate_by_hand() -> None:
    """Ratios 1, 2, 1/2 to the proximal policy, which weighs 2, 1/2 and 3 times what acted; clip 0.2, advantage 3, -3.

    -3 * 2; -3.6 / 2, clipped; and 3 * 0.8 * 3 = 7.2, clipped.
    """
    proximal = torch.tensor([-1.0, -2.0, -0.5])
    log_prob = proximal + torch.tensor([1.0, 2.0, 0.5]).log()
    loss = ppo_policy_loss(log_prob, proximal, torch.tensor([3.0, 3.0, -3.0]), 0.2, torch.tensor([2.0, 0.5, 3.0]))
    torch.testing.assert_close(loss, torch.tensor([-6.0, -1.8, 7.2]))


def test_the_proximal_policy_is_the_learners() -> None:
    """Its log-probabilities take the place of those of the policy that acted, whose ratio to it is the weight."""
    policy, steps = rollout_of("categorical")
    learner = learner_of("native", policy)
    assert with_proximal_policy(learner, steps, most=None) is steps
    now = current(learner, steps).log_prob
    ratio = (now - steps.log_prob).exp()
    assert float(ratio.max()) > 1.01
    apart = with_proximal_policy(learner, steps, most=math.inf)
    assert torch.equal(apart.log_prob, now)
    torch.testing.assert_close(apart.weight, ratio)
    cut = with_proximal_policy(learner, steps, most=1.01)
    torch.testing.assert_close(cut.weight, ratio.clamp(max=1.01))


@pytest.mark.parametrize("path", ["fused", "torch"])
def test_a_decoupled_step_is_of_the_weighted_loss(path: str) -> None:
    """Native networks leave the fused loss, which knows no weights; weights of 1 are a step as ever."""
    policy, steps = rollout_of("categorical")
    cfg = PPO(norm_adv=False)
    learner = learner_of(path, copy.deepcopy(policy))
    apart = with_proximal_policy(learner, steps, most=1.01)
    weight = apart.weight
    assert weight is not None
    stats = learner.step(ppo_loss, apart, cfg)
    assert steps.advantage is not None
    expected = -(weight * steps.advantage)[steps.valid].mean()  # at the proximal policy the ratio is 1
    assert float(stats.policy) == pytest.approx(float(expected), abs=1e-5)
    assert float(stats.approx_kl) == pytest.approx(0, abs=1e-6)
    even, plain = (learner_of(path, copy.deepcopy(policy)) for _ in range(2))
    even.step(ppo_loss, replace(steps, weight=torch.ones_like(weight)), cfg)
    plain.step(ppo_loss, steps, cfg)
    torch.testing.assert_close(even.flat, plain.flat, atol=1e-5, rtol=1e-5)


def test_the_decoupled_gradient_is_unbiased() -> None:
    """Three actions: where mu acted, its mean is what it is where the proximal policy acts itself.

    Nothing is clipped; d/dtheta of E_proximal[pi/proximal A], enumerated.
    """
    mu, proximal = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.2, 0.3, 0.5])
    advantage = torch.tensor([1.0, -2.0, 3.0])
    gradients: list[torch.Tensor] = []
    for acts in (mu, proximal):
        logits = torch.tensor([0.1, -0.2, 0.3], requires_grad=True)
        weight = proximal / acts
        loss = ppo_policy_loss(logits.log_softmax(0), proximal.log(), advantage, 1e9, weight)
        (acts * loss).sum().backward()
        assert logits.grad is not None
        gradients.append(logits.grad)
    torch.testing.assert_close(*gradients)
