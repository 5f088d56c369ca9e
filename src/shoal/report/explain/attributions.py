"""Integrated gradients: how much each feature brought a function from what it gives at a baseline to what it gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def integrated_gradients(
    function: Callable[[Tensor], Tensor], x: Tensor, baseline: Tensor, *, steps: int
) -> Tensor:
    """Attributions [N, K, F] of the outputs [N, K] to the features x [N, F].

    (x - b) times the mean gradient on the straight line from b to x (Sundararajan, Taly and Yan 2017, arXiv
    1703.01365, eq. 1), by the midpoint rule. Over the features they sum to f(x) - f(b), but for the rule's error.

    Args:
        function: [N, F] -> [N, K], differentiable; each row by itself.
        x: [N, F].
        baseline: [F] or [N, F].
        steps: points on the line.
    """
    total: Tensor | None = None
    for number in range(steps):
        share = (number + 0.5) / steps
        point = (baseline + share * (x - baseline)).detach().requires_grad_()
        outputs = function(point)
        columns: list[Tensor] = []
        for column in range(outputs.shape[1]):
            last = column + 1 == outputs.shape[1]
            (gradient,) = torch.autograd.grad(
                outputs[:, column].sum(), point, retain_graph=not last
            )
            columns.append(gradient)
        gradients = torch.stack(columns, 1)
        total = gradients if total is None else total + gradients
    assert total is not None
    return (x - baseline).unsqueeze(1) * total / steps
