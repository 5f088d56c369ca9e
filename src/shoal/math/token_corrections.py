"""Corrections for tokens that another policy sampled, or the same one on another engine: weights and masks [S, L].

The behavior policy sampled, the proximal one is where the update began, the current one is being updated; `mask` is of
sampled tokens. Weights have no gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from shoal.math.importance import truncated, within
from shoal.math.token_losses import clipped_surrogate, over_tokens
from shoal.math.token_ratios import bounded_exp, log_ratio, over_sequence, token_ratio

if TYPE_CHECKING:
    from torch import Tensor

Level: TypeAlias = Literal["token", "sequence", "mean"]
Outside: TypeAlias = Literal["truncate", "mask"]


@torch.no_grad()
def importance_weights(
    logprob: Tensor,
    old_logprob: Tensor,
    mask: Tensor,
    *,
    level: Level = "token",
    outside: Outside = "truncate",
    most: float,
    least: float | None = None,
) -> Tensor:
    """Bounded ratios of probabilities, [S, L], 0 off the mask.

    Of each token; of its sequence, the product, which alone is unbiased where nothing is bounded; or their geometric
    mean. "truncate" gives min(w, most) (Ionides 2008). "mask" gives w from `least` to `most` and 0 elsewhere
    (Ling team 2025, arXiv 2510.18855, with 0.5 and 5 for tokens).

    Args:
        logprob: of the policy whose samples they should be, the proximal or the current one [S, L].
        old_logprob: of the behavior policy [S, L].
        mask: bool [S, L].
        level: what the ratio is of.
        outside: what becomes of ratios outside the limits.
        most: the greatest that is left as it is; `math.inf` bounds nothing.
        least: the least that is left by "mask"; 1 / most unless given.

    Raises:
        ValueError: no such level or way, or limits that 1 does not lie within.
    """
    log = log_ratio(logprob, old_logprob, mask)
    if level in ("sequence", "mean"):
        log = over_sequence(log, mask, mean=level == "mean")[:, None].expand(mask.shape)
    elif level != "token":
        raise ValueError(f'level is "token", "sequence" or "mean", got {level!r}')
    weight = bounded_exp(log)
    if outside == "truncate":
        weight = truncated(weight, most)
    elif outside == "mask":
        weight = within(weight, most, least=least)
    else:
        raise ValueError(f'outside is "truncate" or "mask", got {outside!r}')
    return torch.where(mask, weight, torch.zeros_like(weight))


@torch.no_grad()
def off_policy_mask(
    logprob: Tensor,
    old_logprob: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    bound: float,
) -> Tensor:
    """The tokens that still teach, bool [S, L]: not those with A < 0 in sequences that became much less likely.

    Much is mean_t log(pi_old / pi) > bound, an estimate of KL(pi_old, pi) per token. A bad answer that the policy
    would hardly give any more has little to say of it; a good one has (DeepSeek-AI 2025, arXiv 2512.02556, section
    3.1). Multiply weights by it: what is left out still counts in means.

    Args:
        logprob: of the current policy [S, L].
        old_logprob: of the behavior policy [S, L].
        advantage: [S] or [S, L].
        mask: bool [S, L].
        bound: nats per token.
    """
    log = log_ratio(logprob, old_logprob, mask)
    far = -over_sequence(log, mask, mean=True) > bound
    return mask & ~(far[:, None] & (over_tokens(advantage, mask) < 0))


def decoupled_surrogate(
    logprob: Tensor,
    proximal_logprob: Tensor,
    old_logprob: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    eps_low: float,
    eps_high: float,
    most: float,
) -> Tensor:
    """-min(pi_prox / pi_old, most) min(r A, clip(r) A) with r = pi / pi_prox, [S, L]; 0 off the mask.

    The clip holds the policy near the one that the update began with, not near the older one that sampled
    (Hilton et al. 2021, arXiv 2110.00641, eq. 4; Fu et al. 2025, arXiv 2505.24298).

    Args:
        logprob: of the current policy [S, L].
        proximal_logprob: of the proximal policy [S, L], without gradients.
        old_logprob: of the behavior policy [S, L].
        advantage: [S] or [S, L].
        mask: bool [S, L].
        eps_low: see `clipped_surrogate`.
        eps_high: see there.
        most: the greatest weight; `math.inf` bounds nothing.
    """
    ratio = token_ratio(logprob, proximal_logprob.detach(), mask)
    loss = clipped_surrogate(
        ratio, over_tokens(advantage, mask), eps_low=eps_low, eps_high=eps_high
    )
    return loss * importance_weights(proximal_logprob, old_logprob, mask, most=most)
