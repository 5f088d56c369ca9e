"""What a loss of one's own may return, and whose parameters a network may have."""

from __future__ import annotations

import copy
import re
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.optim import Adam

from shoal.algos.ppo import PPOStatistics
from shoal.learn.hardware import Hardware
from shoal.learn.learner import Learner
from shoal.learn.losses import fused
from shoal.learn.minibatches import minibatches
from shoal.nets.policy import Network, make_policy
from shoal.types import ConfigError, Spec, Steps
from tests.learn.paths import PATHS, learner_of, rollout_of

RULE = re.escape("a loss returns (loss, NamedTuple of scalars that are means)")


class Mixed(NamedTuple):
    """Scalars of every kind."""

    plain: float
    whole: int
    array: Any
    tensor: torch.Tensor


class Nothing(NamedTuple):
    """No statistics."""


def mixed_loss(output: Any, batch: Steps, cfg: Any) -> tuple[torch.Tensor, Mixed]:
    loss = output.value.square().mean() - output.distribution.entropy().mean()
    return loss, Mixed(0.5, 2, np.float32(0.25), loss)


def assert_mixed(learner: Learner, stats: Any) -> None:
    assert isinstance(stats, Mixed)
    assert [float(x) for x in stats[:3]] == [0.5, 2.0, 0.25]
    assert not stats.tensor.requires_grad
    totals, counts = learner.statistics()
    assert float(totals["loss/plain"]) == 0.5
    assert float(totals["loss/whole"]) == 2.0
    assert counts["loss/array"] == 1


@pytest.mark.parametrize("path", ["native", "torch"])
def test_statistics_may_be_plain_numbers(path: str) -> None:
    """With the step in native code or in torch; a critic's loss, too; or there are none."""
    policy, steps = rollout_of("categorical")
    learner = learner_of(path, policy)
    assert_mixed(learner, learner.step(mixed_loss, steps, None))
    torch.manual_seed(0)
    learner.add("critic", nn.Linear(3, 1), Adam)

    def critic_loss(networks: Any, batch: Steps, cfg: Any) -> tuple[torch.Tensor, Mixed]:
        loss = networks["critic"](batch.obs).square().mean()
        return loss, Mixed(0.5, 2, np.float32(0.25), loss)

    assert_mixed(learner, learner.update(critic_loss, steps, None, of="critic"))
    assert learner.step(lambda output, batch, cfg: (output.value.mean(), Nothing()), steps, None) == ()
    assert learner.updates == 3


def test_statistics_of_shards_may_be_plain_numbers() -> None:
    """A minibatch of images in two parts: the mean of what both say."""
    space = spaces.Box(0, 255, (1, 100, 100), np.uint8)
    spec = Spec.of("Images-v0", space, spaces.Discrete(3))
    policy = make_policy(spec, Network(hidden=(8,)), 0)
    learner = Learner(policy, Adam, hardware=Hardware(grad_shards=2), lr=1e-3)
    shape = (4, 2)
    zeros = torch.zeros(shape)
    _, like = rollout_of("categorical")
    images = torch.randint(0, 255, (*shape, 1, 100, 100), dtype=torch.uint8)
    fields: dict[str, Any] = {}
    for name in like.__dataclass_fields__:
        value = getattr(like, name)
        fields[name] = value[: shape[0], : shape[1]] if isinstance(value, torch.Tensor) and value.ndim > 1 else value
    fields.update({"obs": images, "advantage": zeros, "target": zeros, "state": None})
    steps = Steps(**fields)
    (batch,) = minibatches(steps, zeros, zeros, 1, np.random.default_rng(0))
    parts: list[int] = []

    def loss(output: Any, part: Steps, cfg: Any) -> tuple[torch.Tensor, Mixed]:
        parts.append(part.reward.numel())
        return mixed_loss(output, part, cfg)

    assert_mixed(learner, learner.step(loss, batch, None))
    assert parts == [4, 4]


class Wide(NamedTuple):
    """No scalar."""

    ratio: Any


WRONG: list[tuple[Any, str]] = [
    (lambda loss: (loss, ()), r"\(a tensor of shape \(\), \(\)\)"),
    (lambda loss: (loss, None), r"\(a tensor of shape \(\), NoneType\)"),
    (lambda loss: (loss, {"a": 1.0}), "dict"),
    (lambda loss: loss, r"a tensor of shape \(\)"),
    (lambda loss: None, "NoneType"),
    (lambda loss: (loss.expand(3), Nothing()), r"a tensor of shape \(3,\)"),
    (lambda loss: (loss, Wide(loss.expand(3))), r"ratio as a tensor of shape \(3,\)"),
    (lambda loss: (loss, Wide("x")), "ratio as str"),
]


@pytest.mark.parametrize(("make", "told"), WRONG)
@pytest.mark.parametrize("path", ["native", "torch"])
def test_anything_else_is_refused(path: str, make: Any, told: str) -> None:
    """The error names the loss, what it returned and the rule; the weights stay."""
    policy, steps = rollout_of("categorical")
    learner = learner_of(path, policy)
    learner.add("critic", nn.Linear(3, 1), Adam)
    before = learner.flat.clone()

    def my_loss(output: Any, batch: Any, cfg: Any) -> Any:
        return make(output.value.mean())

    def my_critic_loss(networks: Any, batch: Any, cfg: Any) -> Any:
        return make(networks["critic"](batch.obs).mean())

    with pytest.raises(ConfigError, match=f"the loss my_loss (returned|gives) .*{told}.*; {RULE}"):
        learner.step(my_loss, steps, None)
    with pytest.raises(ConfigError, match=f"the loss my_critic_loss (returned|gives) .*{told}.*; {RULE}"):
        learner.update(my_critic_loss, steps, None, of="critic")
    assert torch.equal(learner.flat, before)


@pytest.mark.parametrize("path", PATHS)
def test_a_network_s_parameters_are_its_own(path: str) -> None:
    """The policy's critic, or the policy itself, is refused, and the policy stays packed; a copy is taken."""
    policy: Any = rollout_of("categorical")[0]
    learner = learner_of(path, policy)
    for module in (policy.critic, policy, nn.Sequential(policy.critic)):
        with pytest.raises(ConfigError, match=r"'critic' shares the parameter \S+ with 'policy'"):
            learner.add("critic", module, Adam)
    assert list(learner.networks) == ["policy"]
    assert learner.flat.data_ptr() == next(policy.parameters()).data_ptr()
    learner.add("critic", copy.deepcopy(policy.critic), Adam)


def test_a_loss_of_ones_own_cannot_be_marked_fused() -> None:
    """Native code would run shoal's loss of that name in its place."""

    def ppo_loss() -> None: ...

    with pytest.raises(ConfigError, match=r"ppo_loss is marked @fused, but only shoal's own.*@prepared"):
        fused(PPOStatistics)(ppo_loss)
