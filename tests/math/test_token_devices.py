"""No equation of tokens asks for a number, or for a shape that depends on numbers: on a GPU that is a wait."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from shoal.math import divergence, group_advantages, kept_sets, overlong, staleness
from shoal.math import token_corrections as corrections
from shoal.math import token_losses as losses
from shoal.math import token_ratios as ratios
from shoal.math.token_weights import token_weights, weighted_sum

if TYPE_CHECKING:
    from collections.abc import Iterator


WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class NoWaits(TorchDispatchMode):
    """Refuses operators whose result, as a number or in its shape, must be known to go on."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not WAITS & set(func.tags), f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


def every_equation() -> Iterator[torch.Tensor]:
    """Of four sequences of six tokens out of a vocabulary of eight."""
    log, old, ref = (torch.zeros(4, 6, requires_grad=True) for _ in range(3))
    mask = torch.ones(4, 6, dtype=torch.bool)
    reward, group = torch.zeros(4), torch.zeros(4, dtype=torch.int32)
    yield group_advantages.has_signal(reward, group)
    yield group_advantages.group_advantage(reward, group)
    yield group_advantages.group_advantage(reward, group, scale="batch")
    yield group_advantages.leave_one_out(reward, group)
    yield group_advantages.whitened_advantage(reward, mask)
    truncated = torch.zeros(4, dtype=torch.bool)
    yield token_weights(mask, normalize="sequence", truncated=truncated)
    yield token_weights(mask, normalize="token", total=mask.sum())
    weight = token_weights(mask, normalize="constant", max_length=9)
    ratio = ratios.token_ratio(log, old, mask)
    yield ratios.sequence_ratio(log, old, mask)
    advantage = losses.over_tokens(reward, mask)
    yield weighted_sum(losses.clipped_surrogate(ratio, advantage, eps_low=0.2, eps_high=0.3, delta=4), weight)
    yield losses.soft_gated_surrogate(ratio, advantage)
    yield losses.weighted_policy_gradient(log, reward, ratio, mask)
    yield corrections.importance_weights(log, old, mask, most=2, outside="mask", level="mean")
    yield corrections.off_policy_mask(log, old, reward, mask, bound=0.1)
    yield corrections.decoupled_surrogate(log, ref, old, reward, mask, eps_low=0.2, eps_high=0.2, most=math.inf)
    version = torch.zeros(4, 6, dtype=torch.int32)
    yield staleness.version_mask(version, 3, max_staleness=1)
    yield staleness.version_weight(version, 3, decay=0.5)
    kl = divergence.kl_estimate(log, ref, mask, estimator="k3")
    yield kl
    yield divergence.penalized_reward(reward, kl, mask, beta=0.1)
    yield overlong.overlong_penalty(mask.sum(1), max_length=6, cache=2)
    logits = torch.zeros(4, 8, requires_grad=True)
    within = kept_sets.kept_log_softmax(logits, logits > 1, temperature=0.5)
    yield kept_sets.token_logprob(within, group)
    yield kept_sets.token_entropy(within)


def test_no_equation_waits_for_the_device() -> None:
    with NoWaits():
        for found in every_equation():
            if found.requires_grad:
                found.sum().backward(retain_graph=True)


def test_what_waits_is_seen() -> None:
    with NoWaits():
        for wait in (torch.Tensor.item, torch.Tensor.nonzero, torch.unique, bool):
            with pytest.raises(AssertionError, match="waits for the device"):
                wait(torch.zeros(1))
