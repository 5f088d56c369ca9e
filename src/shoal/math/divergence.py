"""How far a policy went from a reference: estimates of the KL divergence by token, and what they do to a reward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from shoal.math.losses import approximate_kl
from shoal.math.token_ratios import LARGEST_LOG, log_ratio

if TYPE_CHECKING:
    from torch import Tensor

Estimator: TypeAlias = Literal["k1", "k2", "k3"]


def kl_estimate(
    logprob: Tensor, ref_logprob: Tensor, mask: Tensor, *, estimator: Estimator
) -> Tensor:
    """An estimate of KL(pi, ref) from each token, [S, L]; 0 off the mask.

    With x = log pi - log ref (Schulman 2020): k1 = x, unbiased, of either sign; k2 = x^2 / 2, biased, positive;
    k3 = e^-x - 1 + x, unbiased and positive.

    In a loss, on tokens of pi itself, it is the gradient that matters: k2's is the KL's, k1's is 0 on average, k3's is
    that of KL(ref, pi). Where pi moved since it sampled, pi / pi_old times k3 has the value and, with the gradient of
    the ratio, the gradient of the KL (DeepSeek-AI 2025, arXiv 2512.02556, section 3.1). In a reward it is the value
    that matters: k1 or k3.

    Args:
        logprob: of the policy [S, L].
        ref_logprob: of the reference [S, L], without gradients.
        mask: tokens that the policy sampled, bool [S, L].
        estimator: one of the three.

    Raises:
        ValueError: no such estimator.
    """
    log = log_ratio(logprob, ref_logprob.detach(), mask)
    if estimator == "k1":
        return log
    if estimator == "k2":
        return 0.5 * log.square()
    if estimator == "k3":
        return approximate_kl((-log).clamp(max=LARGEST_LOG), torch.zeros_like(log))
    raise ValueError(f'estimator is "k1", "k2" or "k3", got {estimator!r}')


def penalized_reward(
    reward: Tensor, kl: Tensor, mask: Tensor, *, beta: float
) -> Tensor:
    """Rewards less beta sum_t KL_t, [S], without gradients: a penalty on the sequence (Ouyang et al. 2022, eq. 2).

    Args:
        reward: [S].
        kl: an estimate for each token [S, L].
        mask: tokens that the policy sampled, bool [S, L].
        beta: reward per nat.
    """
    return penalized_return(reward, kl, mask, beta=beta)[:, 0]


def penalized_return(
    reward: Tensor, kl: Tensor, mask: Tensor, *, beta: float
) -> Tensor:
    """Rewards less beta sum_(i >= t) KL_i, [S, L], without gradients: a token answers for itself and what follows.

    Hu et al. 2025, arXiv 2501.03262. Off the mask it is what the next sampled token has.

    Args:
        reward: [S].
        kl: an estimate for each token [S, L].
        mask: tokens that the policy sampled, bool [S, L].
        beta: reward per nat.
    """
    assert kl.shape == mask.shape
    assert reward.shape == mask.shape[:1]
    kl = torch.where(mask, kl, torch.zeros_like(kl)).detach()
    return reward.detach()[:, None] - beta * kl.flip(1).cumsum(1).flip(1)
