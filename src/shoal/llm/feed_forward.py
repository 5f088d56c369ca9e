"""What follows attention in a layer: one gated network for all tokens, or a mixture of experts, few of them for each.

Fedus et al. 2021, arXiv 2101.03961; the router as in Qwen3-MoE (arXiv 2505.09388).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from shoal.llm.architecture import Architecture

NOT_KNOWN = -1
"""In a routing: the router chooses, as nothing is known of that token."""


class FeedForward(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, hidden: int, inner: int) -> None:
        """Of so many inputs and units."""
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor, routing: Tensor | None = None) -> Tensor:
        """[N, hidden_size] to the same; there is nothing to be routed."""
        del routing
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Experts(nn.Module):
    """The sum over the experts that a router chooses for a token, each weighted by its probability."""

    def __init__(self, a: Architecture) -> None:
        """As many as the architecture says."""
        super().__init__()
        self.per_token, self.normalize = a.experts_per_token, a.normalize_experts
        self.gate = nn.Linear(a.hidden_size, a.num_experts, bias=False)
        self.experts = nn.ModuleList(
            FeedForward(a.hidden_size, a.expert_size) for _ in range(a.num_experts)
        )

    def forward(self, x: Tensor, routing: Tensor | None = None) -> Tensor:
        """[N, hidden_size] to the same.

        Every expert takes part in the gradient, with zeros where no token came to it, so that an optimizer moves the
        same parameters however a batch is cut into parts.

        Args:
            x: the tokens.
            routing: experts that are taken in place of the most probable ones [N, per_token]; NOT_KNOWN: those.
        """
        chosen, share = route(
            self.gate(x), self.per_token, normalize=self.normalize, replayed=routing
        )
        return mixed(x, chosen, share, cast("Sequence[FeedForward]", self.experts))


def route(
    logits: Tensor, count: int, *, normalize: bool, replayed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The experts of each token [N, count], int64, and what they count [N, count].

    What they count is always that of the router as it is now: a gradient goes through it, also where the choice is
    replayed (Ma et al. 2025, arXiv 2510.11370).

    Args:
        logits: of the router [N, experts].
        count: experts for each token.
        normalize: whether their shares sum to 1.
        replayed: a choice that is taken in place of the most probable ones [N, count]; NOT_KNOWN: those.
    """
    probability = logits.softmax(-1, dtype=torch.float32)
    chosen = probability.topk(count, dim=-1).indices
    if replayed is not None:
        chosen = torch.where(replayed == NOT_KNOWN, chosen, replayed.long())
    share = probability.gather(1, chosen)
    if normalize:
        share = share / share.sum(-1, keepdim=True)
    return chosen, share.to(logits.dtype)


def mixed(
    x: Tensor,
    chosen: Tensor,
    share: Tensor,
    experts: Sequence[Callable[[Tensor], Tensor]],
) -> Tensor:
    """The weighted sum of what the chosen experts make of each token, [N, hidden_size].

    Tokens are sorted by their expert, of which each sees its own at once. The sum goes over a token's experts in the
    order of `chosen`: no other token changes it.

    Args:
        x: [N, hidden_size].
        chosen: [N, count].
        share: [N, count].
        experts: each from [n, hidden_size] to the same.
    """
    n, count = chosen.shape
    order = chosen.flatten().argsort(stable=True)
    counts = chosen.flatten().bincount(minlength=len(experts)).tolist()
    sorted_ = x[order // count]
    made = [
        expert(part)
        for expert, part in zip(experts, sorted_.split(counts), strict=True)
    ]
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    whole = torch.cat(made)[back].unflatten(0, (n, count))
    total = whole[:, 0] * share[:, :1]
    for number in range(1, count):
        total = total + whole[:, number] * share[:, number : number + 1]
    return total
