"""RecurrentPlan against torch's RecurrentPolicy in float64: forward, acting, gradients through time."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from shoal import _native
from shoal.algos.ppo import PPO, ppo_loss
from shoal.types import Steps
from tests.native_sequences import (
    KERNELS,
    SHAPES,
    Arrays,
    Case,
    Shape,
    act,
    forward_train,
    identical,
    make,
    native,
    sequences,
)

LENGTHS = [(1, 1), (1, 70), (9, 1), (5, 3), (70, 17)]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_is_torchs(shape: Shape, kernels: str) -> None:
    case = make(shape, kernels=kernels, shards=2)
    for steps, rows in LENGTHS:
        given = sequences(shape, steps, rows)
        logits, value = forward_train(case, given)
        output = case.reference(given)
        np.testing.assert_allclose(value, output.value.detach().numpy(), rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(logits, output.logits.detach().numpy(), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_forward_is_the_policys_own(shape: Shape) -> None:
    case = make(shape)
    given = sequences(shape, 20, 6)
    _, value = forward_train(case, given)
    policy = case.policy.float()
    memory = [torch.from_numpy(given[name]) for name in "hc"]
    state = tuple(memory) if shape.cell == "lstm" else memory[0]
    output = policy(torch.from_numpy(given["obs"]), state, torch.from_numpy(given["start"]))
    np.testing.assert_allclose(value, output.value.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_of_any_output_gradient_is_torchs(shape: Shape, kernels: str) -> None:
    case = make(shape, kernels=kernels, shards=2)
    for steps, rows in LENGTHS:
        given = sequences(shape, steps, rows)
        rng = np.random.default_rng(5)
        index = rng.permutation(rows)[: max(1, rows - 2)].astype(np.int32)
        logits, value = forward_train(case, given, index)
        d_logits = rng.standard_normal(logits.shape).astype(np.float32)
        d_value = rng.standard_normal(value.shape).astype(np.float32)
        grad = np.full(len(case.params), np.nan, np.float32)
        case.plan.backward(d_logits, d_value, grad)
        output = case.reference(given, index)
        loss = (output.logits * torch.from_numpy(d_logits)).sum() + (output.value * torch.from_numpy(d_value)).sum()
        case.policy.zero_grad()
        loss.backward()
        np.testing.assert_allclose(logits, output.logits.detach().numpy(), rtol=1e-5, atol=2e-6)
        close(grad, case.flat_grad())


def close(grad: Any, expected: Any) -> None:
    """Equal within float32's rounding of sums as large as the largest gradient."""
    scale = float(np.abs(expected).max()) + 1e-3
    np.testing.assert_allclose(grad / scale, expected / scale, rtol=2e-5, atol=3e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_acting_step_by_step_is_forward(shape: Shape) -> None:
    case = make(shape, threads=2, block=4)
    given = sequences(shape, 12, 11)
    logits, value = forward_train(case, given)
    memory = [given["h"].copy(), given["c"].copy()]
    for t in range(12):
        acted = act(case, given["obs"][t], given["start"][t], memory, step=t)
        np.testing.assert_allclose(acted["value"], value[t], rtol=1e-5, atol=2e-6)
        if len(shape.nvec) == 1 and not shape.gaussian:
            log_probs = torch.log_softmax(torch.from_numpy(logits[t]), -1)
            chosen = log_probs.gather(1, torch.from_numpy(acted["action"])).squeeze(1)
            np.testing.assert_allclose(acted["log_prob"], chosen.numpy(), rtol=1e-5, atol=2e-6)
    state = case.reference(given).state
    expected = state if shape.cell == "lstm" else (state,)
    for mine, theirs in zip(memory, expected, strict=False):
        np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=1e-5, atol=2e-6)
    if shape.cell == "gru":
        identical(memory[1], given["c"])


def test_values_after_a_memory_advance_nothing() -> None:
    shape = SHAPES[1]
    case = make(shape)
    given = sequences(shape, 1, 9, starts=0.5)
    h, c = given["h"].copy(), given["c"].copy()
    logits, value = np.empty((9, 2), np.float32), np.empty(9, np.float32)
    case.plan.forward(given["obs"][0], given["start"][0], h, c, logits, value)
    np.testing.assert_allclose(value, case.reference(given).value[0].detach().numpy(), rtol=1e-5, atol=2e-6)
    identical(h, given["h"])
    identical(c, given["c"])


def test_a_start_forgets_the_memory() -> None:
    shape = SHAPES[1]
    case = make(shape)
    given = sequences(shape, 6, 3, starts=0.0)
    given["start"][2, 1] = True
    other = dict(given, obs=given["obs"].copy(), h=-given["h"], c=given["c"] + 1.0)
    other["obs"][:2] += 0.5
    _, value = forward_train(case, given)
    _, changed = forward_train(case, other)
    identical(value[2:, 1], changed[2:, 1])
    assert (np.abs(value[2:, [0, 2]] - changed[2:, [0, 2]]) > 1e-4).all()


@dataclass(frozen=True)
class LossCase:
    """One setting of a fused loss."""

    shape: Shape
    steps: int
    rows: int
    clip_vloss: bool = False
    norm_adv: bool = True
    shards: int = 1
    valid: float = 1.0
    masked: bool = False


LOSS_CASES = [
    LossCase(SHAPES[0], 16, 24, shards=2),
    LossCase(SHAPES[1], 64, 9, clip_vloss=True, norm_adv=False, shards=2),
    LossCase(SHAPES[2], 5, 13, clip_vloss=True, shards=3, valid=0.7, masked=True),
    LossCase(SHAPES[3], 7, 10, valid=0.6),
    LossCase(SHAPES[4], 3, 2, shards=5),
    LossCase(SHAPES[5], 2, 1, masked=True),
    LossCase(SHAPES[6], 130, 3, clip_vloss=True),
]


def reference_gradient(
    case: Case, setting: LossCase, given: Arrays, index: Any, valid: Any, mask: Any
) -> tuple[Any, list[float]]:
    """The gradient of `shoal.algos`' own ppo_loss on the float64 policy, and its statistics."""
    tensors = {}
    for name in ("obs", "start", "action", "log_prob", "value", "advantage", "target"):
        x = torch.from_numpy(given[name][:, index])
        tensors[name] = x.double() if x.is_floating_point() else x
    fill = torch.zeros_like(tensors["log_prob"])
    batch = Steps(
        obs=tensors["obs"],
        start=tensors["start"],
        action=tensors["action"],
        log_prob=tensors["log_prob"],
        value=tensors["value"],
        next_value=fill,
        reward=fill,
        terminated=fill.bool(),
        truncated=fill.bool(),
        valid=torch.from_numpy(valid[:, index]),
        final_index=fill.int(),
        final_obs=None,
        state=None,
        version=0,
        action_mask=None if mask is None else torch.from_numpy(mask[:, index]),
    )
    cfg = PPO(clip_coef=0.2, ent_coef=0.02, vf_coef=0.7, clip_vloss=setting.clip_vloss, norm_adv=setting.norm_adv)
    loss, stats = ppo_loss(case.reference(given, index), batch, tensors["advantage"], tensors["target"], cfg)
    case.policy.zero_grad()
    loss.backward()
    return case.flat_grad(), [float(x.detach()) for x in stats]


def options(setting: LossCase, given: Arrays) -> Any:
    """A random mask that leaves every chosen action."""
    if not setting.masked:
        return None
    rng = np.random.default_rng(9)
    parts = []
    for k, n in enumerate(setting.shape.nvec):
        part = rng.random((*given["start"].shape, n)) < 0.6
        np.put_along_axis(part, given["action"][..., k : k + 1], values=True, axis=-1)
        parts.append(part)
    return np.concatenate(parts, axis=-1)


def settings_of(setting: LossCase) -> dict[str, float | bool]:
    return {
        "clip_coef": 0.2,
        "clip_vloss": setting.clip_vloss,
        "ent_coef": 0.02,
        "vf_coef": 0.7,
        "norm_adv": setting.norm_adv,
    }


@pytest.mark.parametrize("setting", LOSS_CASES)
def test_fused_loss_is_torchs(setting: LossCase) -> None:
    case = make(setting.shape, shards=setting.shards, scale=2.0)
    given = sequences(setting.shape, setting.steps, setting.rows)
    rng = np.random.default_rng(4)
    index = rng.permutation(setting.rows)[: max(1, setting.rows - 1)].astype(np.int32)
    valid = rng.random(given["start"].shape) < setting.valid
    mask = options(setting, given)
    expected, means = reference_gradient(case, setting, given, index, valid, mask)
    grad, stats = np.full(len(case.params), np.nan, np.float32), np.full(6, np.nan)
    taken = native(setting.shape, given, mask=mask, valid=None if setting.valid == 1.0 else valid)
    case.plan.loss_gradient("ppo_loss", taken, index, settings_of(setting), grad, stats)
    close(grad, expected)
    np.testing.assert_allclose(stats[:5], means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats[5], np.sqrt((expected**2).sum()), rtol=1e-4)
