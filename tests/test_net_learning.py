"""MlpPlan's gradients and optimizer steps against torch's in float64."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tests.native_plans import KERNELS, SHAPES, Arrays, Case, Shape, act, identical, make, observations


@dataclass(frozen=True)
class LossCase:
    """One setting of the losses."""

    shape: Shape
    size: int
    clip_vloss: bool
    norm_adv: bool
    shards: int = 1
    kernels: str = ""


LOSS_CASES = [
    LossCase(SHAPES[0], 256, clip_vloss=True, norm_adv=True, kernels=KERNELS[0]),
    LossCase(SHAPES[0], 50, clip_vloss=False, norm_adv=False, shards=3, kernels=KERNELS[-1]),
    LossCase(SHAPES[1], 77, clip_vloss=True, norm_adv=False, shards=2),
    LossCase(SHAPES[1], 130, clip_vloss=False, norm_adv=True, kernels=KERNELS[len(KERNELS) // 2]),
    LossCase(SHAPES[2], 64, clip_vloss=True, norm_adv=True),
    LossCase(SHAPES[3], 129, clip_vloss=False, norm_adv=True, shards=4),
    LossCase(SHAPES[4], 3, clip_vloss=True, norm_adv=True, shards=5),
]


def samples(case: Case, count: int) -> Arrays:
    """A rollout chosen by a slightly different policy, so that ratios and values leave the clip range."""
    rng = np.random.default_rng(1)
    obs = observations(case.shape, count)
    rows = np.arange(count, dtype=np.int64)
    chosen = act(case.plan, case.shape, obs, rows=rows, steps=rows)
    return {
        "obs": obs,
        "action": chosen["action"],
        "log_prob": chosen["log_prob"] + rng.normal(0.0, 0.25, count).astype(np.float32),
        "value": chosen["value"] + rng.normal(0.0, 0.25, count).astype(np.float32),
        "advantage": rng.normal(0.3, 2.0, count).astype(np.float32),
        "target": rng.standard_normal(count).astype(np.float32),
    }


PPO = {"clip_coef": 0.2, "ent_coef": 0.02, "vf_coef": 0.7}
A2C = {"ent_coef": 0.02, "vf_coef": 0.7}


def normalised(advantage: torch.Tensor, *, norm_adv: bool) -> torch.Tensor:
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8) if norm_adv else advantage


def ppo_loss(case: Case, batch: Arrays, *, clip_vloss: bool, norm_adv: bool) -> tuple[torch.Tensor, list[float]]:
    """Schulman et al. 2017 as CleanRL writes it, in float64."""
    tensor = {name: torch.from_numpy(array).double() for name, array in batch.items()}
    out, value = case.distribution(tensor["obs"])
    log_prob, entropy = case.log_prob_entropy(out, batch["action"])
    log_ratio = log_prob - tensor["log_prob"]
    ratio = log_ratio.exp()
    advantage = normalised(tensor["advantage"], norm_adv=norm_adv)
    clip = PPO["clip_coef"]
    policy = torch.max(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip)).mean()
    error = (value - tensor["target"]) ** 2
    if clip_vloss:
        near = tensor["value"] + (value - tensor["value"]).clamp(-clip, clip)
        error = torch.max(error, (near - tensor["target"]) ** 2)
    loss = policy - PPO["ent_coef"] * entropy.mean() + PPO["vf_coef"] * 0.5 * error.mean()
    kl = (ratio - 1 - log_ratio).mean()
    clipped = ((ratio - 1).abs() > clip).double().mean()
    return loss, [float(x.detach()) for x in (policy, 0.5 * error.mean(), entropy.mean(), kl, clipped)]


def a2c_loss(case: Case, batch: Arrays, *, norm_adv: bool) -> tuple[torch.Tensor, list[float]]:
    tensor = {name: torch.from_numpy(array).double() for name, array in batch.items()}
    out, value = case.distribution(tensor["obs"])
    log_prob, entropy = case.log_prob_entropy(out, batch["action"])
    policy = -(log_prob * normalised(tensor["advantage"], norm_adv=norm_adv)).mean()
    error = 0.5 * ((value - tensor["target"]) ** 2).mean()
    loss = policy - A2C["ent_coef"] * entropy.mean() + A2C["vf_coef"] * error
    return loss, [float(x.detach()) for x in (policy, error, entropy.mean())] + [0.0, 0.0]


def pick(rollout: Arrays, index: NDArray[np.int32]) -> Arrays:
    return {name: array[index] for name, array in rollout.items()}


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.parametrize("setting", LOSS_CASES)
def test_gradient_equals_autograd(setting: LossCase, algo: str) -> None:
    case = make(setting.shape, shards=setting.shards, kernels=setting.kernels)
    rollout = samples(case, 300)
    index = np.random.default_rng(2).permutation(300)[: setting.size].astype(np.int32)
    batch = pick(rollout, index)
    grad, stats = np.full(setting.shape.num_params, np.nan, np.float32), np.ones(8)
    if algo == "ppo":
        loss, expected = ppo_loss(case, batch, clip_vloss=setting.clip_vloss, norm_adv=setting.norm_adv)
        options = {"clip_vloss": setting.clip_vloss, "norm_adv": setting.norm_adv} | PPO
        case.plan.ppo_gradient(*rollout.values(), index, **options, grad_out=grad, stats=stats)
    else:
        loss, expected = a2c_loss(case, batch, norm_adv=setting.norm_adv)
        arrays = [rollout[name] for name in ("obs", "action", "advantage", "target")]
        case.plan.a2c_gradient(*arrays, index, norm_adv=setting.norm_adv, **A2C, grad_out=grad, stats=stats)
    loss.backward()
    exact = case.flat_grad()
    norm = float(np.linalg.norm(exact))
    assert np.linalg.norm(grad - exact) < 1e-5 * norm
    np.testing.assert_allclose(stats - 1.0, [*expected, norm, 1.0, 0.0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("max_grad_norm", [0.5, math.inf])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3]])
def test_adam_equals_torch(shape: Shape, max_grad_norm: float) -> None:
    case = make(shape, shards=2)
    rollout = samples(case, 200)
    optimizer = torch.optim.Adam(case.leaves, lr=3e-3, eps=1e-5)
    exp_avg, exp_avg_sq = np.zeros_like(case.params), np.zeros_like(case.params)
    for step in range(1, 6):
        index = np.random.default_rng(step).permutation(200)[:100].astype(np.int32)
        loss, _ = ppo_loss(case, pick(rollout, index), clip_vloss=True, norm_adv=True)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(case.leaves, max_grad_norm)
        optimizer.step()
        case.plan.ppo_step(
            *rollout.values(),
            index,
            **PPO,
            clip_vloss=True,
            norm_adv=True,
            max_grad_norm=max_grad_norm,
            learning_rate=3e-3,
            adam_eps=1e-5,
            exp_avg=exp_avg,
            exp_avg_sq=exp_avg_sq,
            step=step,
            stats=np.zeros(8),
        )
    expected = np.concatenate([leaf.detach().numpy().ravel() for leaf in case.leaves])
    np.testing.assert_allclose(case.params, expected, atol=2e-5)


def test_rmsprop_equals_torch() -> None:
    case = make(SHAPES[1], shards=2)
    rollout = samples(case, 200)
    optimizer = torch.optim.RMSprop(case.leaves, lr=1e-3, alpha=0.97, eps=1e-3)
    square_avg = np.zeros_like(case.params)
    index = np.arange(200, dtype=np.int32)
    arrays = [rollout[name] for name in ("obs", "action", "advantage", "target")]
    for _ in range(5):
        loss, _ = a2c_loss(case, rollout, norm_adv=False)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(case.leaves, 0.5)
        optimizer.step()
        options: dict[str, Any] = {"norm_adv": False, "max_grad_norm": 0.5, "learning_rate": 1e-3, "alpha": 0.97}
        case.plan.a2c_step(*arrays, index, **A2C, **options, eps=1e-3, square_avg=square_avg, stats=np.zeros(8))
    expected = np.concatenate([leaf.detach().numpy().ravel() for leaf in case.leaves])
    np.testing.assert_allclose(case.params, expected, atol=2e-5)


def train_step(case: Case, rollout: Arrays, index: NDArray[Any], **changed: Any) -> NDArray[np.float64]:
    stats = np.zeros(8)
    options: dict[str, Any] = {"clip_vloss": True, "norm_adv": True, "max_grad_norm": 0.5, "learning_rate": 1e-3}
    moments = {"exp_avg": np.zeros_like(case.params), "exp_avg_sq": np.zeros_like(case.params)}
    arrays = rollout.values()
    case.plan.ppo_step(
        *arrays, index, **PPO, **options, **moments, **({"adam_eps": 1e-5, "step": 1} | changed), stats=stats
    )
    return stats


def test_step_is_skipped_when_the_gradient_is_not_finite() -> None:
    case = make(SHAPES[0])
    rollout = samples(case, 20)
    rollout["target"][7] = np.nan
    before = case.params.copy()
    stats = train_step(case, rollout, np.arange(20, dtype=np.int32))
    assert stats[7] == 1.0
    identical(case.params, before)


@pytest.mark.parametrize("shards", [1, 3])
def test_steps_do_not_depend_on_threads(shards: int) -> None:
    digests: set[str] = set()
    for threads in (1, 2):
        case = make(SHAPES[0], threads=threads, shards=shards)
        rollout = samples(case, 500)
        for step in range(1, 30):
            index = np.random.default_rng(step).permutation(500)[:200].astype(np.int32)
            train_step(case, rollout, index, step=step)
        digests.add(hashlib.sha256(case.params.tobytes()).hexdigest())
    assert len(digests) == 1


def test_bad_batches_are_refused() -> None:
    case = make(Shape())
    rollout = samples(case, 20)
    index = np.arange(20, dtype=np.int32)
    before = case.params.copy()
    for changed, at, message in (
        ({}, index + 1, r"index\[19\] must lie between 0 and 19, not 20"),
        ({}, index[:1], "index must name at least 2 samples, not 1"),
        ({}, index.astype(np.int64), "index must be an array of int32"),
        ({"target": rollout["target"][:5]}, index, r"target must have shape \(20,\), not \(5,\)"),
        ({"obs": rollout["obs"][:, ::2]}, index, r"obs must have shape \(20, 4\), not \(20, 2\)"),
        ({"action": rollout["action"] + 2}, index, "action of sample 0 is out of the range"),
    ):
        with pytest.raises(ValueError, match=message):
            train_step(case, rollout | changed, at)
    with pytest.raises(ValueError, match="step must be at least 1, not 0"):
        train_step(case, rollout, index, step=0)
    identical(case.params, before)
