"""Policies that cannot take what they are given, the Spec or observations: each has its sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from shoal.learn.acting import Acting, make_actor
from shoal.learn.weights import load_weights
from shoal.nets.distributions import Categorical
from shoal.nets.given import check_factory
from shoal.nets.policy import Output, wrap
from shoal.types import ConfigError, Spec

BOX = spaces.Box(-1, 1, (4,), np.float32)
NESTED = spaces.Dict(a=BOX, n=spaces.Discrete(3))


class Sized(nn.Module):
    """A plain module of another library: it is made with numbers."""

    def __init__(self, obs_dim: int, n_actions: int = 2) -> None:
        super().__init__()
        self.actor, self.critic = nn.Linear(obs_dim, n_actions), nn.Linear(obs_dim, 1)

    def forward(self, obs: Any) -> Any:
        return self.actor(obs), self.critic(obs)


class OfBox(Sized):
    """A policy for environments that observe one array."""

    def __init__(self, spec: Spec) -> None:
        shape: Any = spec.observation_space.shape
        super().__init__(shape[0])


def named_otherwise(of: Spec) -> nn.Module:
    """Takes the Spec under another name, and has a mistake of its own."""
    raise KeyError(f"no key of {of.env_id}")


def spec_of(space: spaces.Space[Any]) -> Spec:
    return Spec.of("Toy-v0", space, spaces.Discrete(2))


def act(policy: nn.Module, space: spaces.Space[Any]) -> Any:
    obs = spec_of(space).observation.allocate(1, 3)
    tensors: Any = (
        torch.from_numpy(obs) if isinstance(obs, np.ndarray) else {k: torch.from_numpy(x) for k, x in obs.items()}
    )
    return policy(tensors, None, torch.ones(1, 3))


@pytest.mark.parametrize(
    ("factory", "space", "told"),
    [
        (
            Sized,
            BOX,
            r"the policy Sized\(obs_dim, n_actions\), called with the Spec, raised TypeError: .* in __init__\); write",
        ),
        (
            OfBox,
            NESTED,
            r"OfBox raised TypeError: .*Toy-v0 observes several arrays: obs\['a'\] float32 \[4\], obs\['n'\]",
        ),
        (OfBox, spaces.Discrete(3), "tuple index out of range"),  # the policy's own, as it is
        (named_otherwise, BOX, "no key"),
    ],
)
def test_a_class_that_cannot_be_made_of_the_spec(factory: Any, space: Any, told: str) -> None:
    with pytest.raises((ConfigError, IndexError, KeyError), match=told) as raised:
        wrap(factory, spec_of(space))
    assert isinstance(raised.value, ConfigError) == told.startswith(("the policy", "OfBox"))


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        (
            lambda obs_dim, actions: None,
            r"with the Spec alone, but missing a required argument: 'actions'; write it as",
        ),
        (lambda: None, "with the Spec alone, but too many positional arguments; write it as a class or function"),
        (3, "3 is neither a torch.nn.Module nor a function of the Spec"),
    ],
)
def test_another_signature(factory: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_factory(factory)


@pytest.mark.parametrize(
    ("space", "given"),
    [
        (NESTED, r"obs\['a'\] float32 \[3, 4\], obs\['n'\] int64 \[3\]; a choice .* by .*one_hot\(obs\['n'\] - s, n\)"),
        (spaces.Dict(b=spaces.MultiBinary(4)), r"obs\['b'\] int8 \[3, 4\]; integers .* by obs\['b'\].float\(\)$"),
        (spaces.Dict(a=BOX), r"given obs\['a'\] float32 \[3, 4\]$"),
        (spaces.Discrete(4), r"given obs int64 \[3\]; a choice of .*one_hot\(obs - s, n\).float\(\)$"),
        (spaces.MultiBinary(4), r"given obs int8 \[3, 4\]; integers"),
        (spaces.MultiDiscrete([3] * 4), r"given obs int64 \[3, 4\]; integers"),
        (spaces.Box(0, 255, (4,), np.uint8), r"given obs uint8 \[3, 4\]; integers"),
    ],
)
def test_observations_that_its_layers_do_not_take(space: Any, given: str) -> None:
    """Of integers, and of several arrays, with what they were and the line that took them."""
    policy = wrap(Sized(4), spec_of(space))
    with pytest.raises(
        ConfigError, match=rf"the policy Sized raised \w+: .*\(test_given.py:\d+ in forward\).* {given}"
    ):
        act(policy, space)


class Choices(Sized):
    """Does with choices from -1 to 2 what the message says."""

    def forward(self, obs: Any) -> Any:
        return super().forward(torch.nn.functional.one_hot(obs - -1, 4).float())


def test_the_advice_for_choices_is_followed() -> None:
    space = spaces.Discrete(4, start=-1)
    assert act(wrap(Choices(4), spec_of(space)), space).value.shape == (1, 3)


class Full(Sized):
    """A policy of shoal's own signature."""

    def initial_state(self, num_rows: int) -> None:
        return

    def forward(self, obs: Any, state: Any = None, start: Any = None) -> Any:
        logits, value = super().forward(obs)
        return Output(distribution=Categorical(logits), value=value.squeeze(-1), state=None)


@pytest.mark.parametrize(
    ("space", "given"),
    [
        (BOX, "obs float32 [1, 2, 4]"),
        (spaces.MultiBinary(4), "obs int8 [1, 2, 4]; integers become numbers by obs.float()"),
    ],
)
def test_whole_policies_that_raise_say_what_they_were_given(space: Any, given: str) -> None:
    """While acting, with the exception of their own layer."""
    spec = spec_of(space)
    actor = make_actor(Full(5), spec, 2, Acting(seed=0))
    with pytest.raises(RuntimeError, match="mat1 and mat2") as raised:
        actor.act(spec.observation.allocate(2), np.ones(2, np.bool_), slice(0, 2))
    assert raised.value.__notes__ == [f"shoal: the policy Full was given {given}"]


def test_another_size_is_the_modules_own_error() -> None:
    policy = wrap(Sized(5), spec_of(BOX))
    with pytest.raises(RuntimeError, match="mat1 and mat2") as raised:
        act(policy, BOX)
    assert raised.value.__notes__ == ["shoal: the policy was given obs float32 [3, 4]"]


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        (Sized(4, 3), r"actor.weight is \[3, 4\] there and \[2, 4\] here; a run"),
        (nn.ModuleDict({"actor": nn.Linear(4, 2)}), r"it has no critic.weight, which is \[1, 4\] here; "),
        (
            nn.ModuleDict({"actor": nn.Linear(4, 2), "critic": nn.Linear(4, 1), "x": nn.Linear(1, 1)}),
            r"it has x.weight \[1, 1\], which is not here; ",
        ),
    ],
)
def test_weights_of_another_network(saved: nn.Module, told: str) -> None:
    """The first difference is named, alone."""
    with pytest.raises(ConfigError, match=f"^the checkpoint holds another network: {told}") as raised:
        load_weights(Sized(4), saved.state_dict())
    assert len(str(raised.value)) < 200


class Returns(Sized):
    """A plain module whose outputs `change` spoils, as autocast or a mistake does."""

    def __init__(self, change: Any) -> None:
        super().__init__(4)
        self.change = change

    def forward(self, obs: Any) -> Any:
        return self.change(*super().forward(obs))


class Whole(Returns):
    """A policy in shoal's own signature."""

    def initial_state(self, num_rows: int) -> None:
        return

    def forward(self, obs: Any, state: None = None, start: Any = None) -> Any:
        return super().forward(obs)


def output_of(logits: Any, value: Any) -> Output:
    return Output(Categorical(logits, start=0), value.squeeze(-1), None)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (Returns(lambda x, v: None), "the policy Returns returned None; return .*float32"),
        (Returns(lambda x, v: (x, None)), r"returned \(a tensor of float32, None\); return"),
        (Returns(lambda x, v: (x.long(), v)), r"returned \(a tensor of int64, a tensor of float32\); return"),
        (Returns(lambda x, v: (x.detach().numpy(), v)), r"returned \(ndarray, a tensor"),
        (Returns(lambda x, v: (x, v, v, v)), "the policy gave shapes"),
        (Returns(lambda x, v: (x.detach(), v.detach())), "the policy Returns returned tensors without a gradient"),
        (Whole(lambda x, v: None), r"the policy Whole returned NoneType; .* returns shoal.nets.policy.Output\("),
        (Whole(lambda x, v: output_of(x, v.bfloat16())), r"Whole returned a value of bfloat16; return float32"),
        (Whole(lambda x, v: output_of(x.bfloat16(), v)), r"the distribution of the policy Whole is one of bfloat16"),
        (Whole(lambda x, v: output_of(x.detach(), v.detach())), "the policy Whole returned tensors without a gradient"),
    ],
)
def test_outputs_that_cannot_work_are_refused_before_training(policy: nn.Module, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        wrap(policy, spec_of(BOX))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_outputs_of_half_precision_become_float32(dtype: torch.dtype) -> None:
    """As autocast makes them; the value alone keeps a gradient, which is enough."""
    policy = wrap(Returns(lambda x, v: (x.detach().to(dtype), v.to(dtype))), spec_of(BOX))
    output = act(policy, BOX)
    assert (output.distribution.log_probs.dtype, output.value.dtype) == (torch.float32, torch.float32)
    output.value.sum().backward()
    gradient = policy.get_parameter("module.critic.bias").grad
    assert gradient is not None
    assert gradient.tolist() == [3]
