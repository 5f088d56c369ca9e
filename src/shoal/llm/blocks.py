"""Products whose rows have the same bits however many rows there are: always so many at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 64
"""Rows of a product. Libraries choose their order of summation by the shape; with one shape there is one order."""


def block_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product x w^T + b, BLOCK rows at a time; the last block is filled up with zeros.

    Args:
        x: [n, in].
        weight: [out, in].
        bias: [out].
    """
    return _BlockProduct.apply(x, weight, bias)


class _BlockProduct(torch.autograd.Function):
    """Only the forward pass is done by blocks: nobody compares gradients bit by bit."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        n = len(x)
        padded = F.pad(x, (0, 0, 0, -n % BLOCK))
        out = x.new_empty(len(padded), len(weight))
        for first in range(0, n, BLOCK):
            rows = slice(first, first + BLOCK)
            out[rows] = F.linear(padded[rows], weight, bias)
        return out[:n]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grads[0]
        of_bias = grad.sum(0) if ctx.has_bias else None
        return grad @ weight, grad.T @ x, of_bias
