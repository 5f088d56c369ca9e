"""How much more likely a policy makes tokens, and sequences, than the one that sampled them: tensors [S, L].

S sequences of at most L tokens; `mask`, bool [S, L], says which tokens the policy sampled. What stands elsewhere, in
prompts, outputs of tools and padding, is not looked at: it may be infinite or not a number, also in gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_LOG = 20.0
"""Ratios are cut at e^20, half a thousand million, without a gradient beyond: float32 ends at e^88."""


def log_ratio(logprob: Tensor, old_logprob: Tensor, mask: Tensor) -> Tensor:
    """The difference log pi(token) - log pi_old(token), [S, L]; 0 off the mask."""
    assert mask.dim() == 2
    assert mask.dtype == torch.bool
    assert logprob.shape == old_logprob.shape == mask.shape
    return torch.where(mask, logprob - old_logprob, torch.zeros_like(logprob))


def bounded_exp(log: Tensor) -> Tensor:
    """exp(min(x, 20)) elementwise: finite, and so are its gradients."""
    return log.clamp(max=LARGEST_LOG).exp()


def over_sequence(log: Tensor, mask: Tensor, *, mean: bool) -> Tensor:
    """The sum of tokens' log-ratios, or their mean, [S]; 0 for a sequence without any.

    The exponential of the sum is the ratio of the sequence's probabilities, which grows and shrinks exponentially with
    its length; that of the mean is the geometric mean of its tokens' ratios.
    """
    assert log.shape == mask.shape
    total = torch.where(mask, log, torch.zeros_like(log)).sum(1)
    return total / mask.sum(1).clamp(min=1) if mean else total


def token_ratio(logprob: Tensor, old_logprob: Tensor, mask: Tensor) -> Tensor:
    """pi(token) / pi_old(token), [S, L]; 1 off the mask.

    Args:
        logprob: of the policy that learns [S, L].
        old_logprob: of the one that it is compared with [S, L].
        mask: bool [S, L].
    """
    return bounded_exp(log_ratio(logprob, old_logprob, mask))


def sequence_ratio(logprob: Tensor, old_logprob: Tensor, mask: Tensor) -> Tensor:
    """sg[s] pi(token) / sg[pi(token)], [S, L], with s the geometric mean of the sequence's ratios; 1 off the mask.

    sg stops gradients. In value each token has s, so that a sequence is clipped as a whole; in gradient each has its
    own, so that it may have an advantage of its own (Zheng et al. 2025, arXiv 2507.18071, eq. 7 and 14). Averaged over
    the sequence with one advantage, the gradient is that of s.

    Args:
        logprob: of the policy that learns [S, L].
        old_logprob: of the one that it is compared with [S, L].
        mask: bool [S, L].
    """
    log = log_ratio(logprob, old_logprob, mask)
    held = log.detach()
    whole = over_sequence(held, mask, mean=True)[:, None]
    log = whole + (log - held)
    return bounded_exp(torch.where(mask, log, torch.zeros_like(log)))
