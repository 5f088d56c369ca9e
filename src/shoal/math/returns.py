"""Advantages and targets over time, computed in C++ on the slab's own memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch

from shoal import _native
from shoal.math.importance import importance_ratio, truncated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.types import Steps

Scalar: TypeAlias = "float | torch.Tensor"


def gae(
    steps: Steps,
    *,
    gamma: Scalar,
    gae_lambda: Scalar,
    reward: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalized advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eq. 16) and its value targets.

    delta_t = r_t + gamma v(s_t+1) (1 - terminated_t) - v(s_t);  A_t = delta_t + gamma lambda (1 - ended_t) A_t+1.
    A truncated episode bootstraps from its final observation, a cut rollout from its next one.

    Args:
        steps: a rollout [..., T, B]; leading axes are a population.
        gamma: discount, a number or [m], one for each member of the leading axis.
        gae_lambda: as gamma.
        reward: used instead of the rollout's own (a normalized one).

    Returns:
        Advantages and targets (A + v), float32, shaped as `steps.reward`. Invalid steps get 0 and v.
    """
    rollout = _arrays(steps, reward)
    members = len(rollout.value)
    advantage = np.empty_like(rollout.value)
    _native.gae(
        rollout.reward,
        rollout.value,
        rollout.next_value,
        rollout.terminated,
        rollout.ended,
        rollout.valid,
        _scalars("gamma", gamma, members),
        _scalars("gae_lambda", gae_lambda, members),
        advantage,
    )
    target = advantage + rollout.value
    return _like(steps.value, advantage), _like(steps.value, target)


def n_step(
    steps: Steps,
    *,
    gamma: Scalar,
    n: int,
    reward: torch.Tensor | None = None,
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
    rollout = _arrays(steps, reward)
    target = np.empty_like(rollout.value)
    _native.n_step(
        rollout.reward,
        rollout.next_value,
        rollout.terminated,
        rollout.ended,
        rollout.valid,
        _scalars("gamma", gamma, len(rollout.value)),
        n,
        target,
    )
    target = np.where(rollout.valid != 0, target, rollout.value)
    return _like(steps.value, target)


def q_lambda(
    steps: Steps,
    *,
    gamma: Scalar,
    q_lambda: Scalar,
    reward: torch.Tensor | None = None,
) -> torch.Tensor:
    """Q(lambda) returns after Peng & Williams (1996): R_t = r_t + gamma ((1 - lambda) v(s_t+1) + lambda R_t+1).

    v is the value of the best action. What was explored cuts nothing; an episode's end does, bootstrapping where it was
    truncated, and so does the end of the rollout (Gallici et al. 2024, arXiv 2407.04811, section 4).

    Args:
        steps: a rollout [..., T, B] of a Q-network; leading axes are a population.
        gamma: discount, a number or [m].
        q_lambda: as gamma; 0 looks one step ahead, 1 as far as the rollout goes.
        reward: used instead of the rollout's own.

    Returns:
        Targets, float32, shaped as `steps.reward`; an invalid step's target is its own value.
    """
    rollout = _arrays(steps, reward)
    members = len(rollout.value)
    target = np.empty_like(rollout.value)
    _native.q_lambda(
        rollout.reward,
        rollout.next_value,
        rollout.terminated,
        rollout.ended,
        rollout.valid,
        _scalars("gamma", gamma, members),
        _scalars("q_lambda", q_lambda, members),
        target,
    )
    target = np.where(rollout.valid != 0, target, rollout.value)
    return _like(steps.value, target)


def vtrace(
    steps: Steps,
    log_prob: torch.Tensor,
    value: torch.Tensor,
    *,
    gamma: Scalar,
    vtrace_lambda: Scalar = 1.0,
    clip_rho: float = 1.0,
    clip_c: float = 1.0,
    next_value: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """V-trace: advantages and value targets of the policy that learns, from steps that an older one chose.

    With rho_t = min(clip_rho, pi(a_t|s_t) / mu(a_t|s_t)) and c_t likewise, of v as it is now
    (Espeholt et al. 2018, arXiv 1802.01561, eq. 1 and remark 2):
    target_t = v(s_t) + e_t;  e_t = rho_t (r_t + gamma v(s_t+1) - v(s_t)) + gamma lambda c_t e_t+1;
    A_t = rho_t (r_t + gamma (v(s_t+1) + lambda e_t+1) - v(s_t)), which for pi = mu is `gae`.
    An episode's end cuts, as does the end of the rollout. What was truncated or cut there bootstraps from `next_value`.

    Args:
        steps: a rollout [..., T, B]; leading axes are a population. `steps.log_prob` is of the policy that acted.
        log_prob: of the same actions under the policy that learns, shaped as `steps.reward`.
        value: v(s_t) as the policy that learns has it, likewise.
        gamma: discount, a number or [m], one for each member of the leading axis.
        vtrace_lambda: as gamma; 0 looks one step ahead, 1 as far as the rollout goes.
        clip_rho: cuts the weight of a step's own error: what v comes to is the value of a policy between mu and pi.
        clip_c: cuts the weight of the errors that follow: less variance, and slower.
        next_value: of what follows each step as the policy that learns has it, likewise; the rollout's own, which the
            weights that acted gave, where it is None.

    Returns:
        Advantages and targets, float32, shaped as `steps.reward`. Invalid steps get 0 and `value`.
    """
    ratio = importance_ratio(log_prob, steps.log_prob)
    rollout = _arrays(steps, None)
    now = _array(value, torch.float32)
    members = len(now)
    follows = rollout.next_value
    if next_value is not None:
        follows = _array(next_value, torch.float32)
    advantage, error = np.empty_like(now), np.empty_like(now)
    _native.vtrace(
        rollout.reward,
        now,
        follows,
        rollout.terminated,
        rollout.ended,
        rollout.valid,
        _array(truncated(ratio, clip_rho), torch.float32),
        _array(truncated(ratio, clip_c), torch.float32),
        _scalars("gamma", gamma, members),
        _scalars("vtrace_lambda", vtrace_lambda, members),
        advantage,
        error,
    )
    return _like(steps.value, advantage), _like(steps.value, now + error)


class _Arrays(NamedTuple):
    """What the C++ functions take of a rollout: [M, T, B], contiguous, on the CPU."""

    reward: NDArray[np.float32]
    value: NDArray[np.float32]
    next_value: NDArray[np.float32]
    terminated: NDArray[np.uint8]
    ended: NDArray[np.uint8]
    valid: NDArray[np.uint8]


def _arrays(steps: Steps, reward: torch.Tensor | None) -> _Arrays:
    terminated = _array(steps.terminated, torch.bool)
    if steps.reward.ndim < 2 or not steps.reward.numel():
        raise ValueError(
            f"a rollout [T, B] has at least one step and row, got {tuple(steps.reward.shape)}"
        )
    ended = terminated | _array(steps.truncated, torch.bool)
    return _Arrays(
        reward=_array(steps.reward if reward is None else reward, torch.float32),
        value=_array(steps.value, torch.float32),
        next_value=_array(steps.next_value, torch.float32),
        terminated=terminated.view(np.uint8),
        ended=ended.view(np.uint8),
        valid=_array(steps.valid, torch.bool).view(np.uint8),
    )


def _array(x: torch.Tensor, dtype: torch.dtype) -> NDArray[Any]:
    """[..., T, B] -> [M, T, B]; nothing is copied of what is as it must be."""
    if x.requires_grad or x.dtype is not dtype or not x.is_cpu:
        x = x.detach().to("cpu", dtype)
    array = np.ascontiguousarray(x.numpy())
    return array[None] if array.ndim == 2 else array.reshape(-1, *array.shape[-2:])


def _scalars(name: str, value: Scalar, members: int) -> NDArray[np.float64]:
    """One number for each member; ValueError unless each lies between 0 and 1."""
    if isinstance(value, int | float):
        array = np.array([value] * members, np.float64)
    else:
        given = np.asarray(value)
        if given.dtype.kind not in "fiu":
            raise ValueError(f"{name} must be a number between 0 and 1, got {value!r}")
        wide = given.astype(np.float64).reshape(-1)
        array = np.ascontiguousarray(np.broadcast_to(wide, (members,)))
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"{name} must lie between 0 and 1, got {value!r}")
    return array


def _like(x: torch.Tensor, array: NDArray[np.float32]) -> torch.Tensor:
    """The array as a tensor of the shape and on the device of `x`."""
    made = torch.from_numpy(array.reshape(x.shape))
    return made if x.is_cpu else made.to(x.device)
