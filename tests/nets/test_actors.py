"""Actors and critics Q(s, a): shapes, what they are given and what they refuse, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from shoal.nets.actors import (
    DeterministicActor,
    PlainActor,
    StochasticActor,
    action_noise,
    make_deterministic,
    make_stochastic,
    policy_of,
)
from shoal.nets.critics import expected, make_critics
from shoal.nets.deterministic import Deterministic
from shoal.nets.distributions import Categorical, SquashedNormal
from shoal.nets.network import ActorCriticNet
from shoal.nets.temperature import Temperature, usual_entropy
from shoal.types import ConfigError, Layout, Spec

BOX = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32))
SMALL = ActorCriticNet(hidden=(8,))


def spec_of(actions: Any = BOX) -> Spec:
    box = spaces.Box(-9, 9, (3,), np.float32)
    return Spec("Made-v0", box, actions, Layout.of(box), Layout.of(actions))


def seen(count: int = 6) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32))


def test_a_stochastic_actor_of_a_box() -> None:
    """Its deviation comes from the observation and stays within bounds; actions are scaled to the Box."""
    actor = make_stochastic(spec_of(), SMALL, seed=1)
    assert isinstance(actor, StochasticActor)
    last: Any = actor.body[-1]
    last.bias.data[2:] = torch.tensor([-99.0, 99.0])
    distribution: Any = actor(seen(), None, None).distribution
    assert isinstance(distribution, SquashedNormal)
    torch.testing.assert_close(distribution.base.log_std[0], torch.tensor([-20.0, 2.0]))
    action = distribution.to_env(torch.tensor([[0.0, 50.0]]).expand(6, 2))
    torch.testing.assert_close(action[0], torch.tensor([0.0, 1.0]))


def test_a_stochastic_actor_of_a_choice_and_its_mask() -> None:
    actor = make_stochastic(spec_of(spaces.Discrete(4)), SMALL, seed=1)
    mask = torch.tensor([[False, True, False, False]]).expand(6, 4)
    policy = policy_of(actor, seen(), mask)
    assert isinstance(policy, Categorical)
    assert policy.mode().tolist() == [1] * 6


def test_a_deterministic_actor() -> None:
    """Tanh of its numbers, scaled for the environment: -1 is the Box's low, 1 its high."""
    actor = make_deterministic(spec_of(), SMALL, seed=1)
    assert isinstance(actor, DeterministicActor)
    distribution: Any = actor(seen(), None, None).distribution
    torch.testing.assert_close(distribution.mode(), actor.body(seen()).tanh())
    scaled = distribution.to_env(torch.tensor([[-1.0, 1.0], [0.0, 0.0]]))
    assert scaled.tolist() == [[-2.0, 1.0], [0.0, 0.5]]


def test_a_deterministic_action_explores_with_clipped_noise() -> None:
    """0.5 + 0.2 * 1 = 0.7; 0.9 + 0.2 * 2 is clipped to 1; a row without noise stays."""
    action = torch.tensor([[0.5, 0.9], [0.5, 0.9]])
    plain = Deterministic(action, torch.zeros(2), torch.ones(2))
    noise = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    assert plain.sample(noise) is action
    explored = plain.exploring(torch.tensor([0.2, 0.0])).sample(noise)
    torch.testing.assert_close(explored, torch.tensor([[0.7, 1.0], [0.5, 0.9]]))


@pytest.mark.parametrize("squash", [True, False])
def test_critics_read_the_observation_and_the_action(squash: bool) -> None:  # noqa: FBT001
    """The action before the tanh where the policy keeps it so; critics differ."""
    critics = make_critics(spec_of(), SMALL, seed=1, squash=squash)
    action = torch.full((6, 2), 0.5)
    values = critics(seen(), action)
    first: Any = critics.towers[0]
    read = action.tanh() if squash else action
    torch.testing.assert_close(values[0], first(torch.cat([seen(), read], -1)).squeeze(-1))
    assert not torch.equal(values[0], values[1])
    torch.testing.assert_close(critics(seen(), action, first=True)[0], values[0])


def test_critics_of_choices() -> None:
    critics = make_critics(spec_of(spaces.Discrete(4)), SMALL, seed=1, squash=True)
    action = torch.tensor([0, 1, 2, 3, 3, 0])
    assert critics(seen()).shape == (2, 6, 4)
    chosen = critics.of(seen(), action)
    assert chosen[1, 2] == critics(seen())[1, 2, 2]


def test_the_expected_value_of_a_choice() -> None:
    """Probabilities 1/4 and 3/4 of min(4, 5) = 4 and min(9, 8) = 8: 7; the log-probability is minus the entropy."""
    critics: Any = lambda obs: torch.tensor([[[4.0, 9.0]], [[5.0, 8.0]]])  # noqa: E731
    policy = Categorical(torch.tensor([[0.25, 0.75]]).log())
    value, log_prob = expected(critics, seen(1), policy, torch.zeros(1, 0))
    torch.testing.assert_close(value, torch.tensor([7.0]))
    torch.testing.assert_close(log_prob, torch.tensor([0.25 * math.log(0.25) + 0.75 * math.log(0.75)]))


def test_the_expected_value_of_a_box_is_that_of_one_action() -> None:
    policy = SquashedNormal(torch.zeros(1, 2), torch.zeros(1, 2), -torch.ones(2), torch.ones(2))
    critics: Any = lambda obs, action: torch.stack([action.sum(-1), action.sum(-1) + 1])  # noqa: E731
    noise = torch.tensor([[0.5, -2.0]])
    value, log_prob = expected(critics, seen(1), policy, noise)
    torch.testing.assert_close(value, torch.tensor([-1.5]))
    torch.testing.assert_close(log_prob, policy.log_prob(noise))


def test_the_temperature() -> None:
    """The slope of its logarithm is entropy - target: above the target the temperature falls."""
    temperature = Temperature(0.2, target_entropy=-2.0)
    torch.testing.assert_close(temperature(), torch.tensor([0.2]))
    temperature.loss(torch.tensor(1.0)).backward()
    assert temperature.log.grad is not None
    assert temperature.log.grad.item() == 3.0
    assert usual_entropy(spec_of()) == -2
    assert usual_entropy(spec_of(spaces.Discrete(4))) == 0.5 * math.log(4)


def test_noise_is_the_box_s() -> None:
    rng = np.random.default_rng(0)
    assert action_noise(spec_of(), 5, rng).shape == (5, 2)
    assert action_noise(spec_of(spaces.Discrete(4)), 5, rng).shape == (5, 0)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (spaces.Box(-np.inf, np.inf, (2,)), r"bounded Box of one axis or a Discrete space.*RescaleAction"),
        (spaces.MultiDiscrete([2, 3]), "shoal algos"),
    ],
)
def test_other_actions_are_refused(actions: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_stochastic(spec_of(actions), SMALL, seed=1)


def test_a_deterministic_actor_refuses_choices() -> None:
    with pytest.raises(ConfigError, match="bounded Box of one axis, but the actions are Discrete"):
        make_deterministic(spec_of(spaces.Discrete(2)), SMALL, seed=1)


class Two(nn.Module):
    """Mean and log deviation, or what else is asked."""

    def __init__(self, outputs: int, parts: int) -> None:
        super().__init__()
        self.layer, self.parts = nn.Linear(3, outputs), parts

    def forward(self, x: torch.Tensor) -> Any:
        numbers = self.layer(x)
        return numbers if self.parts == 1 else (numbers,) * self.parts


def test_a_module_of_the_user_s() -> None:
    """(mean, log_std), logits, or actions that are clipped."""
    assert isinstance(PlainActor(Two(2, 2), spec_of())(seen(), None, None).distribution, SquashedNormal)
    discrete = PlainActor(Two(4, 1), spec_of(spaces.Discrete(4)))(seen(), None, None)
    assert isinstance(discrete.distribution, Categorical)
    module = Two(2, 1)
    module.layer.bias.data.fill_(40)
    actor = PlainActor(module, spec_of(), deterministic=True)
    assert actor(seen(), None, None).distribution.mode().max() == 1


@pytest.mark.parametrize(
    ("module", "actions", "deterministic", "message"),
    [
        (Two(2, 1), BOX, False, r"return \(mean \[N, 2\], log_std \[N, 2\]\), both before the tanh"),
        (Two(3, 1), spaces.Discrete(4), False, r"gave shapes \[\(6, 3\)\].*return logits \[N, 4\]"),
        (Two(2, 2), BOX, True, r"return actions \[N, 2\] between -1 and 1"),
    ],
)
def test_what_a_module_returned_is_told(module: nn.Module, actions: Any, deterministic: bool, message: str) -> None:  # noqa: FBT001
    with pytest.raises(ConfigError, match=message):
        PlainActor(module, spec_of(actions), deterministic=deterministic)(seen(), None, None)
