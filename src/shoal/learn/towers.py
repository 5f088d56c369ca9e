"""Towers in native code: dense layers of a network, forward and backward, wherever a loss in torch calls them."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from shoal import _native
from shoal.nets.layers import Tower

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from torch import Tensor

    from shoal.learn.hardware import Hardware

MOST_LAYERS = 16
"""Dense layers of a tower that native code has room for."""
ONCE = "shoal's native layers have no second derivatives; train with native=False (--no-native)"


def has_native_towers(module: nn.Module, hardware: Hardware) -> bool:
    """Whether native code runs a module's towers and takes its optimizer's steps; the module's class says so."""
    if not getattr(module, "native_towers", False) or not hardware.native:
        return False
    kinds = {(p.device.type, p.dtype) for p in module.parameters()}
    return kinds == {("cpu", torch.float32)}


def lower_towers(module: nn.Module, hardware: Hardware) -> None:
    """Has native code run those towers of a packed module that it can; torch keeps the others.

    Args:
        module: its parameters lie in one flat buffer.
        hardware: threads, shards of a gradient, rows of a block.
    """
    for tower in module.modules():
        if isinstance(tower, Tower):
            tower.native = _lowered(tower, hardware)


@contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Generator[None]:
    """No gradient reaches these parameters; it goes through what is computed with them all the same."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad = True


def pack_gradient(parameters: list[nn.Parameter], out: Tensor) -> None:
    """Puts the parameters' gradients side by side into `out`; 0 where a loss did not reach one."""
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, own in zip(parameters, out.split(sizes), strict=True):
        if parameter.grad is None:
            own.zero_()
        else:
            own.view_as(parameter).copy_(parameter.grad)


class NativeTower:
    """A tower's products in native code, on weights that it shares with torch; one backward for each forward."""

    def __init__(
        self,
        weights: Tensor,
        sizes: list[int],
        activation: str,
        parameters: list[nn.Parameter],
        hardware: Hardware,
    ) -> None:
        """`weights` are the packed parameters of dense layers of these sizes."""
        self.parameters, self.size, self.outputs = parameters, sizes[0], sizes[-1]
        self.weights = weights
        self.plan = _native.TowerPlan(
            weights.numpy(),
            sizes[0],
            sizes[1:-1],
            sizes[-1],
            activation,
            hardware.num_threads,
            hardware.grad_shards,
            act_block=hardware.act_block,
        )
        self.forwards = 0
        """How often activations were kept: those of the last time are there."""

    def __call__(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        rows = x.reshape(-1, self.size).contiguous()
        trained = x.requires_grad or self.parameters[0].requires_grad
        if torch.is_grad_enabled() and trained:
            run: Any = _Run.apply
            y = run(rows, self, *self.parameters)
        else:
            y = torch.empty(len(rows), self.outputs)
            self.plan.forward(rows.numpy(), y.numpy())
        return y.view(*x.shape[:-1], self.outputs)

    def forward_train(self, rows: Tensor) -> Tensor:
        """[N, inputs] -> [N, outputs]; native code keeps what `backward` needs."""
        y = torch.empty(len(rows), self.outputs)
        self.plan.forward_train(rows.numpy(), None, y.numpy())
        self.forwards += 1
        return y

    def fits(self, x: Tensor) -> bool:
        """Whether native code can take these numbers: float32 on the CPU, and some rows of them."""
        return x.dtype is torch.float32 and x.device.type == "cpu" and x.numel() > 0


class _Run(torch.autograd.Function):
    """A tower forward, and the gradients of its input and its weights from that of its output."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, tower: NativeTower, *_parameters: Tensor
    ) -> Tensor:
        """[N, inputs] -> [N, outputs]."""
        y = tower.forward_train(rows.detach())
        ctx.tower, ctx.number = tower, tower.forwards
        ctx.save_for_backward(rows)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Those that are wanted; the weights' are views of one packed gradient.

        RuntimeError where these should be differentiated again.
        """
        if torch.is_grad_enabled():
            raise RuntimeError(ONCE)
        tower: NativeTower = ctx.tower
        (rows,) = ctx.saved_tensors
        if ctx.number != tower.forwards:  # another forward came in between
            tower.forward_train(rows.detach())
        wanted = ctx.needs_input_grad[0], any(ctx.needs_input_grad[2:])
        below = torch.empty_like(rows) if wanted[0] else None
        packed = torch.empty_like(tower.weights) if wanted[1] else None
        tower.plan.backward(
            gradients[0].contiguous().numpy(),
            None if packed is None else packed.numpy(),
            None if below is None else below.numpy(),
        )
        if packed is None:
            return below, None, *([None] * len(tower.parameters))
        sizes = [p.numel() for p in tower.parameters]
        parts = zip(packed.split(sizes), tower.parameters, strict=True)
        return below, None, *(part.view_as(p) for part, p in parts)


def _lowered(tower: Tower, hardware: Hardware) -> NativeTower | None:
    """Native code for a tower that is as shoal made it, None for another."""
    parameters = list(tower.parameters())
    kind = nn.Tanh if tower.activation == "tanh" else nn.ReLU
    linear = [layer for layer in tower if type(layer) is nn.Linear]
    expected = [nn.Linear, kind] * len(linear)
    if [type(layer) for layer in tower] != expected[:-1] or not linear:
        return None
    if len(linear) > MOST_LAYERS or len(parameters) != 2 * len(linear):
        return None
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    if any(vars(m)[name] for m in tower.modules() for name in hooks):
        return None
    starts = [p.data_ptr() for p in parameters]
    ends = [p.data_ptr() + p.nbytes for p in parameters]
    if any(
        end != start for end, (_, start) in zip(ends, pairwise(starts), strict=False)
    ):
        return None
    total = sum(p.numel() for p in parameters)
    weights = parameters[0].data.as_strided((total,), (1,))
    sizes = [linear[0].in_features, *(layer.out_features for layer in linear)]
    return NativeTower(weights, sizes, tower.activation, parameters, hardware)
