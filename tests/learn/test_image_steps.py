"""Gradient steps on images: transitions in shards, the optimizer in native code; the bits are not the threads'."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.optim import Adam

from shoal.algos.dqn import DQN, dqn_loss
from shoal.learn.hardware import Hardware
from shoal.learn.learner import Learner
from shoal.learn.shards import LEAST_PIXELS, Shards
from shoal.learn.targets import add_target, next_outputs
from shoal.nets.network import QNet
from shoal.nets.q_network import action_values, make_q_network
from shoal.types import Spec, Transitions

SIDE, BATCH = 36, 70
SPEC = Spec.of("Image-v0", spaces.Box(0, 255, (SIDE, SIDE), np.uint8), spaces.Discrete(3))


def network(seed: int = 1, **settings: Any) -> torch.nn.Module:
    return make_q_network(SPEC, QNet(image="nips", **settings), seed)


def batch_of(size: int = BATCH) -> Transitions:
    random = torch.Generator().manual_seed(0)

    def pixels() -> torch.Tensor:
        return torch.randint(0, 256, (size, SIDE, SIDE), dtype=torch.uint8, generator=random)

    return Transitions(
        obs=pixels(),
        action=torch.randint(0, 3, (size,), generator=random),
        reward=torch.zeros(size),
        discount=torch.zeros(size),
        next_obs=pixels(),
        steps=torch.ones(size, dtype=torch.int32),
        weight=torch.rand(size, generator=random),
        version=torch.zeros(size, dtype=torch.int32),
        target=torch.randn(size, generator=random),
        error=torch.full((size,), torch.nan),
        key=np.zeros(size, np.int64),
    )


def learned(batch: Transitions, *, steps: int = 3, grad_shards: int = 2, **hardware: Any) -> tuple[Learner, list[Any]]:
    """A learner after some steps on one batch, and their statistics."""
    made = Learner(network(), Adam, lr=1e-3, max_grad_norm=1.0, hardware=Hardware(grad_shards=grad_shards, **hardware))
    return made, [made.step(dqn_loss, batch, DQN()) for _ in range(steps)]


@pytest.mark.parametrize("native", [True, False])
def test_transitions_are_cut_the_same_for_any_number_of_threads(*, native: bool) -> None:
    one, two = batch_of(), batch_of()
    alone, stats = learned(one, num_threads=1, native=native)
    beside, others = learned(two, num_threads=2, native=native)
    assert torch.equal(alone.flat, beside.flat)
    assert stats == others
    assert torch.equal(one.error, two.error)


def test_networks_see_what_follows_side_by_side_as_one_after_another() -> None:
    """On two threads, which the batch is large enough for, and on none."""
    batch, values = batch_of(), dict[int, list[torch.Tensor]]()
    for threads in (1, 2):
        learner, _ = learned(batch_of(), num_threads=threads)
        add_target(learner, "target")
        networks = [learner.networks[name] for name in ("target", "policy")]
        values[threads] = [action_values(output) for output in next_outputs(networks, batch)]
    first, second = values[1]
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert all(torch.equal(one, two) for one, two in zip(values[1], values[2], strict=True))


def test_shards_of_transitions_sum_to_the_whole() -> None:
    """And each leaves its errors in its own part of the batch."""
    cut, whole = batch_of(), batch_of()
    _, stats = learned(cut, steps=1, grad_shards=2)
    _, others = learned(whole, steps=1, grad_shards=1)
    torch.testing.assert_close(cut.error, whole.error)
    assert torch.isfinite(cut.error).all()
    torch.testing.assert_close(stats[0], others[0])


def test_parts_are_views_and_none_is_too_small_to_be_worth_a_thread() -> None:
    each = SIDE * SIDE
    shards = Shards(network(), 4, num_threads=1)
    batch = batch_of(3 * LEAST_PIXELS // each + 1)
    parts = shards.parts(batch)
    assert [len(part.reward) for part in parts] == [31, 31, 31]
    for part in parts:
        assert isinstance(part, Transitions)
        part.error.fill_(1)
    assert batch.error.tolist() == [1] * len(batch.error)
    assert len(shards.parts(batch_of(LEAST_PIXELS // each))) == 1


def test_native_code_takes_the_steps_that_torch_would() -> None:
    """Also where gradients come channels last, as convolutions' do: torch's fused Adam does not look at that."""
    native, stats = learned(batch_of(), native=True)
    plain, others = learned(batch_of(), native=False)
    torch.testing.assert_close(native.flat, plain.flat, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(stats, others)
    assert float(native.networks["policy"].state()["optimizer"]["state"][0]["step"]) == 3


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    batch = batch_of()
    learner, _ = learned(batch)
    before, moments = learner.flat.clone(), copy.deepcopy(learner.networks["policy"].state()["optimizer"])
    learner.step(dqn_loss, replace(batch, target=torch.full((BATCH,), torch.nan)), DQN())
    assert learner.skipped == 1
    assert torch.equal(learner.flat, before)
    after = learner.networks["policy"].state()["optimizer"]
    assert torch.equal(after["state"][0]["exp_avg"], moments["state"][0]["exp_avg"])


def test_a_parameter_without_a_gradient_stays_as_it_is() -> None:
    batch = batch_of()
    learner, _ = learned(batch)
    policy: Any = learner.policy
    frozen = policy.encoder.first.weight
    frozen.requires_grad = False
    frozen.grad = None
    made = Learner(policy, Adam, lr=1e-3)
    before, others = frozen.detach().clone(), made.flat.clone()
    made.step(dqn_loss, batch, DQN())
    assert torch.equal(frozen, before)
    assert not torch.equal(made.flat, others)
