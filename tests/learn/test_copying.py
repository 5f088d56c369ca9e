"""A learner that takes over from another one goes on exactly as that one would, with parameters of its own."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch

import shoal
from shoal.algos import sac
from shoal.envs.registry import make
from shoal.learn.copying import take_over
from shoal.learn.weights import pack
from shoal.nets.network import ActorCriticNet
from tests.learn.paths import CFG, PATHS, learner_of, loss_of, moments, ppo_loss, rollout_of

if TYPE_CHECKING:
    from shoal.learn.learner import Learner
    from shoal.types import Steps


def pair(path: str) -> tuple[Learner, Learner, Steps]:
    """Two learners that took other steps, and what to learn from."""
    policy, steps = rollout_of("categorical")
    other = copy.deepcopy(policy)
    with torch.no_grad():
        pack(other).mul_(0.5)
    child, parent = learner_of(path, policy, lr=1e-3), learner_of(path, other, lr=1e-2)
    child.step(loss_of(path, ppo_loss), steps, CFG)
    for _ in range(3):
        parent.step(loss_of(path, ppo_loss), steps, CFG)
    return child, parent, steps


@pytest.mark.parametrize("path", PATHS)
def test_one_more_step_gives_both_the_same_bits(path: str) -> None:
    """Weights, moments and their count of steps; the child's version stays, so that its next one is new."""
    child, parent, steps = pair(path)
    child.publish()
    take_over(child, parent)
    assert torch.equal(child.flat, parent.flat)
    for learner in (parent, child):
        learner.step(loss_of(path, ppo_loss), steps, CFG)
    assert torch.equal(child.flat, parent.flat)
    assert moments(child).keys() == moments(parent).keys()
    assert all(torch.equal(x, moments(parent)[name]) for name, x in moments(child).items())
    assert (child.updates, child.version, parent.version) == (4, 1, 0)


@pytest.mark.parametrize("path", PATHS)
def test_each_has_parameters_of_its_own(path: str) -> None:
    """What the parent learns afterwards is not the child's, nor the other way round."""
    child, parent, steps = pair(path)
    take_over(child, parent)
    before = child.flat.clone()
    parent.step(loss_of(path, ppo_loss), steps, CFG)
    assert torch.equal(child.flat, before)
    after = parent.flat.clone()
    child.step(loss_of(path, ppo_loss), steps, CFG)
    assert torch.equal(parent.flat, after)
    assert child.networks["policy"].optimizer is not parent.networks["policy"].optimizer


def test_all_networks_are_copied() -> None:
    """Actor, critics, their target and the temperature."""
    spec = make("Pendulum-v1", 1).spec
    cfg = sac.SAC(network=ActorCriticNet(hidden=(8,)))
    run = shoal.run.open(policy=partial(sac.make_policy, cfg=cfg, seed=1))
    child, parent = sac.make_learner(cfg, spec, run, 0), sac.make_learner(cfg, spec, run, 0)
    for network in parent.networks.values():
        with torch.no_grad():
            network.flat.add_(0.25)
    take_over(child, parent)
    assert list(child.networks) == ["policy", "critics", "target", "temperature"]
    for name, network in child.networks.items():
        assert torch.equal(network.flat, parent.networks[name].flat)
