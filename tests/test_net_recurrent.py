"""RecurrentPlan against torch's RecurrentPolicy in float64: forward, acting, gradients through time."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from shoal import _native
from shoal.algos.ppo import PPO, ppo_loss
from shoal.learn.losses import prepare_of
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
        version=fill.int(),
        advantage=tensors["advantage"],
        target=tensors["target"],
        action_mask=None if mask is None else torch.from_numpy(mask[:, index]),
    )
    cfg = PPO(clip_coef=0.2, ent_coef=0.02, vf_coef=0.7, clip_vloss=setting.clip_vloss, norm_adv=setting.norm_adv)
    prepare = prepare_of(ppo_loss)
    assert prepare is not None
    reference: Any = case.reference(given, index)
    loss, stats = ppo_loss(reference, prepare(batch, cfg), cfg)
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


def test_a_step_moves_the_weights_and_a_gradient_that_is_not_finite_changes_nothing() -> None:
    shape = SHAPES[1]
    case = make(shape, shards=2)
    given = sequences(shape, 8, 6)
    size = len(case.params)
    moments = [np.zeros(size, np.float32) for _ in range(2)]
    optimizer = _native.Adam(*moments, learning_rate=0.01)
    stats, index = np.zeros(6), np.arange(6, dtype=np.int32)
    settings = settings_of(LossCase(shape, 8, 6))
    assert case.plan.loss_step("ppo_loss", native(shape, given), index, settings, optimizer, 0.5, stats)
    assert optimizer.step == 1
    # Adam's first step is the learning rate in the gradient's direction, up to eps.
    assert (np.abs(case.params - make(shape).params) < 0.01001).all()
    before = case.params.copy()
    given["target"][3, 2] = np.inf
    assert not case.plan.loss_step("ppo_loss", native(shape, given), index, settings, optimizer, 0.5, stats)
    assert optimizer.step == 1
    assert not math.isfinite(stats[5])
    identical(case.params, before)
    given["target"][3, 2] = 0.0
    assert case.plan.loss_step("ppo_loss", native(shape, given), index, settings, optimizer, 0.5, stats)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_threads_change_no_bit(shape: Shape) -> None:
    results = []
    for threads in (1, 2, 5):
        case = make(shape, threads=threads, shards=3, block=4 * threads)
        given = sequences(shape, 20, 40)
        _, value = forward_train(case, given)
        grad, stats = np.zeros(len(case.params), np.float32), np.zeros(6)
        settings = settings_of(LossCase(shape, 20, 40))
        case.plan.loss_gradient("ppo_loss", native(shape, given), np.arange(40, dtype=np.int32), settings, grad, stats)
        memory = [given["h"].copy(), given["c"].copy()]
        acted = act(case, given["obs"][0], given["start"][0], memory, step=3)
        results.append((value, grad, stats, *memory, *acted.values()))
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            identical(mine, theirs)


def test_normalized_observations_and_greedy_masked_actions() -> None:
    shape = Shape("gru", obs_size=3, hidden=(8,), size=5, nvec=(4,))
    case = make(shape)
    given = sequences(shape, 1, 5)
    given["obs"][0, 0, 0] = 1e6
    mean, inv_std = np.array([0.5, -1.0, 2.0], np.float32), np.array([2.0, 0.5, 1.0], np.float32)
    case.plan.set_normalizer(mean, inv_std, 5.0)
    _, value = forward_train(case, given)
    seen = dict(given, obs=np.clip((given["obs"] - mean) * inv_std, -5, 5))
    expected = case.reference(seen)
    np.testing.assert_allclose(value, expected.value.detach().numpy(), rtol=1e-5, atol=2e-6)
    logits = expected.logits.detach().numpy()[0]
    best = logits.argmax(1)
    mask = np.ones((5, 4), np.bool_)
    mask[np.arange(5), best] = False
    out = {"action": np.zeros((5, 1), np.int64), "log_prob": np.zeros(5, np.float32), "value": np.zeros(5, np.float32)}
    numbers = np.arange(5, dtype=np.int64)
    memory = given["h"].copy()
    case.plan.act(
        given["obs"][0], given["start"][0], memory, None, 7, 0, numbers, numbers, True, *out.values(), mask=mask
    )
    second = np.where(mask, logits, -np.inf).argmax(1)
    np.testing.assert_array_equal(out["action"][:, 0], second)


def test_bad_arguments_are_named() -> None:
    gru, lstm = SHAPES[0], SHAPES[1]
    case, other = make(gru), make(lstm)
    given = sequences(gru, 3, 4)
    values: Any = np.zeros((4, 2), np.float32), np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="c must be None: a GRU's memory is h alone"):
        case.plan.forward(given["obs"][0], given["start"][0], given["h"], given["c"], *values)
    with pytest.raises(ValueError, match="c is missing: an LSTM's memory is h and c"):
        other.plan.forward(given["obs"][0], given["start"][0], given["h"], None, *values)
    with pytest.raises(ValueError, match=r"h must have shape \(4, 64\), not \(3, 64\)"):
        case.plan.forward(given["obs"][0], given["start"][0], given["h"][:3].copy(), None, *values)
    samples = _native.Samples(given["obs"].reshape(12, 4), given["action"].reshape(12, 1), {})
    with pytest.raises(ValueError, match="start has 2 steps of 4 rows, samples hold 12"):
        _native.Sequences(samples, given["start"][:2], given["h"])
    with pytest.raises(ValueError, match="backward needs the activations of forward_train, once each"):
        case.plan.backward(np.zeros((3, 4, 2), np.float32), np.zeros((3, 4), np.float32), case.params.copy())
    taken = native(gru, given)
    grad, stats = np.zeros(len(case.params), np.float32), np.zeros(6)
    settings = settings_of(LossCase(gru, 3, 4))
    with pytest.raises(ValueError, match=r"index\[1\] must lie between 0 and 3, not 4"):
        case.plan.loss_gradient("ppo_loss", taken, np.array([0, 4], np.int32), settings, grad, stats)
    with pytest.raises(ValueError, match="index must name rows of at least 2 steps, not 0"):
        case.plan.loss_gradient("ppo_loss", taken, np.zeros(0, np.int32), settings, grad, stats)
    logits, value = forward_train(case, given)
    case.plan.loss_gradient("ppo_loss", taken, np.zeros(1, np.int32), settings, grad, stats)
    with pytest.raises(ValueError, match="backward needs the activations of forward_train, once each"):
        case.plan.backward(logits, value, grad)
    small = make(Shape(size=8))
    with pytest.raises(ValueError, match="sequences: the memory has 64 numbers, the plan's has 8"):
        small.plan.loss_gradient("ppo_loss", taken, np.zeros(1, np.int32), settings, grad, stats)
    make_plan = _native.RecurrentPlan
    with pytest.raises(ValueError, match="cell must be 'gru' or 'lstm', not 'rnn'"):
        make_plan(case.params, 4, [64, 64], "rnn", 64, "categorical", [2], "tanh", 1, 64, 1)
