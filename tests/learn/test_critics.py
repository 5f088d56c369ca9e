"""An actor beside critics in native code: the values, gradients and errors that torch has, and when torch runs them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import Adam

from shoal.algos.sac import SAC
from shoal.algos.td3 import TD3, td3_actor_loss
from shoal.envs.registry import make
from shoal.learn.critics import (
    Smoothing,
    critics_loss,
    plan_of,
    smoothed_next_value,
    soft_actor_loss,
    soft_next_value,
)
from shoal.learn.hardware import Hardware
from shoal.learn.learner import Learner
from shoal.learn.targets import add_target
from shoal.nets.actors import make_deterministic, make_stochastic
from shoal.nets.critics import make_critics
from shoal.nets.network import ActorCriticNet
from shoal.nets.temperature import make_temperature
from shoal.types import Spec, Transitions

SIZE, COUNT = 2, 150


def spec_of(env: str = "LunarLanderContinuous-v3") -> Spec:
    rows = make(env, num_envs=1)
    rows.close()
    return rows.spec


def learner_of(spec: Spec, *, native: bool, stochastic: bool, **settings: Any) -> Learner:
    """Actor, critics and their targets, the same weights for the same arguments."""
    network = ActorCriticNet(hidden=(24, 17), **settings)
    kind = make_stochastic if stochastic else make_deterministic
    actor = kind(spec, network, 1)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)), alpha=0.3)
    learner = Learner(actor, Adam, hardware=Hardware(native=native, num_threads=2), lr=0.01)
    learner.add("critics", make_critics(spec, network, 2, squash=stochastic), Adam, lr=0.01)
    add_target(learner, "target_critics", of="critics")
    if stochastic:
        add_target(learner, "target", of="critics")
        learner.add("temperature", make_temperature(spec, 0.3, None), Adam, lr=0.01)
    else:
        add_target(learner, "target")
    return learner


def transitions(spec: Spec, seed: int = 0) -> Transitions:
    """Random ones, with weights and targets."""
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    size = spec.observation.single.shape[0]
    return Transitions(
        obs=numbers(COUNT, size), action=numbers(COUNT, SIZE), reward=numbers(COUNT),
        discount=torch.full((COUNT,), 0.99), next_obs=numbers(COUNT, size),
        steps=torch.ones(COUNT, dtype=torch.int32), weight=numbers(COUNT).abs(),
        version=torch.zeros(COUNT, dtype=torch.int32), target=numbers(COUNT), error=torch.zeros(COUNT),
        key=np.zeros(COUNT, np.int64),
    )  # fmt: skip


@pytest.mark.parametrize("stochastic", [True, False])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_values_gradients_and_errors_are_those_of_torch(*, stochastic: bool, activation: str) -> None:
    """Ten steps of critics and actor."""
    spec = spec_of()
    sides = [learner_of(spec, native=n, stochastic=stochastic, activation=activation) for n in (True, False)]
    critics_of_target = "target" if stochastic else "target_critics"
    assert plan_of(sides[0], "policy", "critics") is not None
    assert plan_of(sides[1], "policy", critics_of_target) is None
    for seed in range(10):
        batch = transitions(spec, seed)
        found: list[list[Tensor]] = []
        for learner in sides:
            own = replace(batch, error=torch.zeros(COUNT))
            noise = torch.randn(COUNT, SIZE, generator=torch.Generator().manual_seed(seed))
            if stochastic:
                value = soft_next_value(learner, own, noise)
            else:
                value = smoothed_next_value(learner, own, noise, Smoothing(0.2, 0.3))
            critics = learner.update(critics_loss, own.with_target(value), SAC(), of="critics")
            if stochastic:
                actor = learner.update(soft_actor_loss, (own, noise), SAC(), of="policy")
            else:
                actor = learner.update(td3_actor_loss, own, TD3(), of="policy")
            numbers = [torch.as_tensor(number).float() for number in (*critics, *actor)]
            found.append([value, own.error, *numbers])
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    for name, network in sides[0].networks.items():
        torch.testing.assert_close(network.flat, sides[1].networks[name].flat, rtol=5e-3, atol=5e-4)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    spec, flats = spec_of(), list[Tensor]()
    for threads in (1, 2):
        learner = _with_threads(spec, threads)
        batch = transitions(spec)
        noise = torch.randn(COUNT, SIZE, generator=torch.Generator().manual_seed(1))
        learner.update(critics_loss, batch, SAC(), of="critics")
        learner.update(soft_actor_loss, (batch, noise), SAC(), of="policy")
        flats.append(torch.cat([learner.flat, learner.networks["critics"].flat]).clone())
    assert torch.equal(*flats)


def _with_threads(spec: Spec, threads: int) -> Learner:
    network = ActorCriticNet(hidden=(32, 32))
    learner = Learner(make_stochastic(spec, network, 1), Adam, hardware=Hardware(num_threads=threads), lr=0.01)
    learner.add("critics", make_critics(spec, network, 2, squash=True), Adam, lr=0.01)
    learner.add("temperature", make_temperature(spec, 0.3, None), Adam, lr=0.01)
    return learner


def test_gradients_of_log_deviations_that_are_cut_are_zero() -> None:
    """Beyond -20 and 2 a change of the output changes nothing."""
    spec = spec_of()
    sides = [learner_of(spec, native=n, stochastic=True) for n in (True, False)]
    batch, noise = transitions(spec), torch.randn(COUNT, SIZE, generator=torch.Generator().manual_seed(1))
    biases: list[Tensor] = []
    for learner in sides:
        policy: Any = learner.policy
        with torch.no_grad():
            policy.body[-1].weight[SIZE:] = 0
            policy.body[-1].bias[SIZE:] = torch.tensor([3.0, -21.0])
        learner.update(soft_actor_loss, (batch, noise), SAC(), of="policy")
        biases.append(policy.body[-1].bias.detach().clone())
    assert biases[0][SIZE:].tolist() == [3.0, -21.0]
    torch.testing.assert_close(*biases, rtol=1e-4, atol=1e-5)


def test_torch_has_what_was_changed() -> None:
    """A hook, another layer, a choice of options: no native code; the loss in torch is taken."""
    spec = spec_of()
    hooked = learner_of(spec, native=True, stochastic=True)
    called: list[int] = []
    critics = hooked.networks["critics"].module
    critics.register_forward_hook(lambda *_: called.append(1))
    assert plan_of(hooked, "policy", "critics") is None
    hooked.update(critics_loss, transitions(spec), SAC(), of="critics")
    assert called
    choosing = spec_of("LunarLander-v3")
    network = ActorCriticNet(hidden=(8,))
    learner = Learner(make_stochastic(choosing, network, 1), Adam, lr=0.01)
    learner.add("critics", make_critics(choosing, network, 2, squash=True), Adam, lr=0.01)
    assert plan_of(learner, "policy", "critics") is None


def test_a_gradient_that_is_not_finite_is_no_step() -> None:
    spec = spec_of()
    learner = learner_of(spec, native=True, stochastic=True)
    before = learner.networks["critics"].flat.clone()
    batch = transitions(spec)
    batch.target[3] = torch.nan
    learner.update(critics_loss, batch, SAC(), of="critics")
    assert learner.skipped == 1
    assert torch.equal(learner.networks["critics"].flat, before)
