"""Towers in native code under a loss in torch: the same values and gradients, whoever else calls them in between."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from shoal.learn.hardware import Hardware
from shoal.learn.learner import Learner
from shoal.learn.towers import NativeTower
from shoal.nets.layers import tower

SIZES = [5, 24, 17, 3]


class Pair(nn.Module):
    """Two towers and a parameter of its own."""

    native_towers = True

    def __init__(self, activation: str = "relu") -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first = tower(SIZES, activation, last_gain=1.0, generator=generator)
        self.second = tower(SIZES, activation, last_gain=1.0, generator=generator)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * (self.first(x) + self.second(x).square())


class Stats(NamedTuple):
    """Of a loss."""

    error: Tensor


def learner_of(activation: str = "relu", *, native: bool = True, **networks: nn.Module) -> Learner:
    made = Learner(Pair(activation), torch.optim.Adam, hardware=Hardware(native=native, num_threads=2), lr=0.01)
    for name, module in networks.items():
        made.add(name, module, torch.optim.Adam, lr=0.01)
    return made


def pair(learner: Learner) -> Pair:
    assert isinstance(learner.policy, Pair)
    return learner.policy


def rows(seed: int = 0, count: int = 150) -> Tensor:
    return torch.randn(count, SIZES[0], generator=torch.Generator().manual_seed(seed))


def squares(networks: Any, batch: Tensor, cfg: None) -> tuple[Tensor, Stats]:
    loss = networks["policy"](batch).square().mean()
    return loss, Stats(loss)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_steps_are_those_of_torch(activation: str) -> None:
    """Ten steps of Adam with clipping; the parameter beside the towers moves too."""
    ours, theirs = learner_of(activation), learner_of(activation, native=False)
    assert isinstance(pair(ours).first.native, NativeTower)
    assert pair(theirs).first.native is None
    for seed in range(10):
        losses = [each.update(squares, rows(seed), None, of="policy").error for each in (ours, theirs)]
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.flat, theirs.flat, rtol=1e-3, atol=1e-4)
    assert pair(ours).scale.item() != 1


def test_gradients_reach_the_input_and_only_who_learns() -> None:
    """The critic's weights stay, get no gradient, and pass the one of its input on."""
    learner = learner_of(critic=Pair())
    critic: Any = learner.networks["critic"].module
    before = learner.networks["critic"].flat.clone()
    x = rows().requires_grad_()

    def through(networks: Any, batch: Tensor, cfg: None) -> tuple[Tensor, Stats]:
        seen = networks["policy"](batch)
        loss = networks["critic"](torch.cat([seen, batch[:, :2]], -1)).mean()
        return loss, Stats(loss)

    learner.update(through, x, None, of="policy")
    plain = copy.deepcopy(critic)
    policy = copy.deepcopy(learner_of().policy)
    exact = rows().requires_grad_()
    plain(torch.cat([policy(exact), exact[:, :2]], -1)).mean().backward()
    torch.testing.assert_close(x.grad, exact.grad, rtol=1e-4, atol=1e-7)
    assert all(p.grad is None and p.requires_grad for p in critic.parameters())
    torch.testing.assert_close(learner.networks["critic"].flat, before, rtol=0, atol=0)


def test_another_forward_may_come_before_a_backward() -> None:
    learner, x = learner_of(), rows()
    module: Any = learner.policy
    plain = copy.deepcopy(module)
    both = module(x[:70]).sum() + module(x[70:]).square().sum()
    both.backward()
    (plain(x[:70]).sum() + plain(x[70:]).square().sum()).backward()
    for ours, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_a_copy_is_torch_until_it_is_lowered_itself() -> None:
    learner = learner_of()
    assert copy.deepcopy(pair(learner)).first.native is None
    assert isinstance(pair(learner).first.native, NativeTower)


def test_what_native_code_does_not_have_stays_in_torch() -> None:
    """Hooks, another layer, float64 numbers, and no rows at all."""
    hooked = Pair()
    seen: list[int] = []
    hooked.first.register_forward_hook(lambda *_: seen.append(1))
    hooked.second[1] = nn.GELU()
    learner = learner_of(hooked=hooked)
    learner.networks["hooked"].module(rows())
    assert seen == [1]
    assert hooked.first.native is None
    assert hooked.second.native is None
    native: Any = learner.policy
    assert native(rows()[:0]).shape == (0, SIZES[-1])
    assert native.double()(rows().double()).dtype is torch.float64


def test_replaced_values_are_taken_over() -> None:
    """`p.data = ...` of a network that another one's loss goes through."""
    learner = learner_of(critic=Pair())
    critic: Any = learner.networks["critic"].module
    for parameter in critic.parameters():
        parameter.data = torch.zeros_like(parameter)

    def through(networks: Any, batch: Tensor, cfg: None) -> tuple[Tensor, Stats]:
        loss = networks["critic"](batch).sum() + networks["policy"](batch).sum() * 0
        return loss, Stats(loss)

    assert learner.update(through, rows(), None, of="policy").error == 0


def test_second_derivatives_are_refused() -> None:
    """Native code has none; a penalty on a gradient would else be without effect."""
    x = rows().requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivatives; train with native=False"):
        torch.autograd.grad(pair(learner_of())(x).sum(), x, create_graph=True)
