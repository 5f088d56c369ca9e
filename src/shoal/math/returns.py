"""Advantages and targets over time, computed in C++ on the slab's own memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from shoal import _native

if TYPE_CHECKING:
    from shoal.types import Steps

Scalar: TypeAlias = "float | torch.Tensor"


def gae(
    steps: Steps,
    *,
    gamma: Scalar,
    gae_lambda: Scalar,
    reward: torch.Tensor | None = None,
) -> tuple[Any, Any]:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eq. 16) and its value targets.

    delta_t = r_t + gamma v(s_t+1) (1 - terminated_t) - v(s_t);  A_t = delta_t + gamma lambda (1 - ended_t) A_t+1.
    A truncated episode bootstraps from its final observation, a cut rollout from its next one.

    Args:
        steps: a rollout [..., T, B]; leading axes are a population.
        gamma: discount, a number or [m], one for each member of the leading axis.
        gae_lambda: as gamma.
        reward: used instead of the rollout's own (a normalised one).

    Returns:
        Advantages and targets (A + v), float32, shaped as `steps.reward`. Invalid steps get 0 and v.
    """
    reward_, value, next_value, terminated, ended, valid = _arrays(steps, reward)
    members = value.shape[0]
    gammas, lambdas = _scalars(gamma, members), _scalars(gae_lambda, members)
    advantage = np.empty_like(value)
    _native.gae(
        reward_, value, next_value, terminated, ended, valid, gammas, lambdas, advantage
    )
    result = (
        torch.from_numpy(advantage).reshape(steps.value.shape).to(steps.value.device)
    )
    return result, result + steps.value


def n_step(
    steps: Steps, *, gamma: Scalar, n: int, reward: torch.Tensor | None = None
) -> torch.Tensor:
    """Returns of up to n steps, then the value: R_t = sum_k<n gamma^k r_t+k + gamma^n v(s_t+n).

    Cut at an episode's end (bootstrapping where it was truncated) and at the end of the rollout (Sutton & Barto 2018,
    eq. 7.1; Mnih et al. 2016, arXiv 1602.01783, algorithm S3).

    Args:
        steps: a rollout [..., T, B]; leading axes are a population.
        gamma: discount, a number or [m].
        n: steps at most, at least 1.
        reward: used instead of the rollout's own.

    Returns:
        Targets, float32, shaped as `steps.reward`; an invalid step's target is its own value.
    """
    reward_, value, next_value, terminated, ended, valid = _arrays(steps, reward)
    target = np.empty_like(value)
    _native.n_step(
        reward_,
        next_value,
        terminated,
        ended,
        valid,
        _scalars(gamma, value.shape[0]),
        n,
        target,
    )
    target = np.where(valid != 0, target, value)
    return torch.from_numpy(target).reshape(steps.value.shape).to(steps.value.device)


def _arrays(steps: Steps, reward: torch.Tensor | None) -> list[Any]:
    floats = [steps.reward if reward is None else reward, steps.value, steps.next_value]
    flags = [steps.terminated, steps.terminated | steps.truncated, steps.valid]
    shape = (-1, *steps.reward.shape[-2:])
    return [
        *(_numpy(x, torch.float32).reshape(shape) for x in floats),
        *(_numpy(x, torch.bool).reshape(shape).view(np.uint8) for x in flags),
    ]


def _numpy(x: torch.Tensor, dtype: torch.dtype) -> Any:
    return np.ascontiguousarray(x.detach().to("cpu", dtype).numpy())


def _scalars(value: Any, members: int) -> Any:
    array = np.asarray(value, np.float64).reshape(-1)
    return np.ascontiguousarray(np.broadcast_to(array, (members,)))
