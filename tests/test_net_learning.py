"""Fused losses: their gradients, statistics and optimizer steps against torch's in float64."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from shoal import _native
from tests.native_plans import KERNELS, SHAPES, Arrays, Case, Shape, act, identical, make, masks, observations


@dataclass(frozen=True)
class LossCase:
    """One setting of the losses."""

    shape: Shape
    size: int
    clip_vloss: bool
    norm_adv: bool
    shards: int = 1
    kernels: str = ""
    masked: bool = False


LOSS_CASES = [
    LossCase(SHAPES[0], 256, clip_vloss=True, norm_adv=True, kernels=KERNELS[0]),
    LossCase(SHAPES[0], 50, clip_vloss=False, norm_adv=False, shards=3, kernels=KERNELS[-1]),
    LossCase(SHAPES[1], 77, clip_vloss=True, norm_adv=False, shards=2),
    LossCase(SHAPES[1], 130, clip_vloss=False, norm_adv=True, kernels=KERNELS[len(KERNELS) // 2]),
    LossCase(SHAPES[2], 64, clip_vloss=True, norm_adv=True),
    LossCase(SHAPES[3], 129, clip_vloss=False, norm_adv=True, shards=4),
    LossCase(SHAPES[4], 3, clip_vloss=True, norm_adv=True, shards=5),
    LossCase(SHAPES[1], 130, clip_vloss=False, norm_adv=True, shards=2, masked=True),
    LossCase(SHAPES[4], 77, clip_vloss=True, norm_adv=False, kernels=KERNELS[-1], masked=True),
]
COLUMNS = ("log_prob", "value", "advantage", "target")


def rollout_of(case: Case, count: int, *, masked: bool = False) -> Arrays:
    """A rollout chosen by a slightly different policy, so that ratios and values leave the clip range."""
    rng = np.random.default_rng(1)
    obs = observations(case.shape, count)
    rows = np.arange(count, dtype=np.int64)
    mask = masks(case.shape, count) if masked else None
    chosen = act(case.plan, case.shape, obs, rows=rows, steps=rows, mask=mask)
    arrays: Arrays = {
        "obs": obs,
        "action": chosen["action"],
        "log_prob": chosen["log_prob"] + rng.normal(0.0, 0.25, count).astype(np.float32),
        "value": chosen["value"] + rng.normal(0.0, 0.25, count).astype(np.float32),
        "advantage": rng.normal(0.3, 2.0, count).astype(np.float32),
        "target": rng.standard_normal(count).astype(np.float32),
    }
    return arrays if mask is None else arrays | {"mask": mask}


def samples_of(rollout: Arrays) -> _native.Samples:
    columns = {name: rollout[name] for name in COLUMNS if name in rollout}
    return _native.Samples(rollout["obs"], rollout["action"], columns, mask=rollout.get("mask"))


PPO: dict[str, float] = {"clip_coef": 0.2, "ent_coef": 0.02, "vf_coef": 0.7}
A2C: dict[str, float] = {"ent_coef": 0.02, "vf_coef": 0.7}


def normalized(advantage: torch.Tensor, *, norm_adv: bool) -> torch.Tensor:
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8) if norm_adv else advantage


def ppo_loss(case: Case, batch: Arrays, *, clip_vloss: bool, norm_adv: bool) -> tuple[torch.Tensor, list[float]]:
    """Schulman et al. 2017 as CleanRL writes it, in float64."""
    tensor = {name: torch.from_numpy(array).double() for name, array in batch.items()}
    out, value = case.distribution(tensor["obs"])
    log_prob, entropy = case.log_prob_entropy(out, batch["action"], batch.get("mask"))
    log_ratio = log_prob - tensor["log_prob"]
    ratio = log_ratio.exp()
    advantage = normalized(tensor["advantage"], norm_adv=norm_adv)
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
    log_prob, entropy = case.log_prob_entropy(out, batch["action"], batch.get("mask"))
    policy = -(log_prob * normalized(tensor["advantage"], norm_adv=norm_adv)).mean()
    error = 0.5 * ((value - tensor["target"]) ** 2).mean()
    loss = policy - A2C["ent_coef"] * entropy.mean() + A2C["vf_coef"] * error
    return loss, [float(x.detach()) for x in (policy, error, entropy.mean())]


def pick(rollout: Arrays, index: NDArray[np.int32]) -> Arrays:
    return {name: array[index] for name, array in rollout.items()}


def test_fused_losses_say_what_they_read() -> None:
    losses = _native.fused_losses()
    assert losses["ppo_loss"] == (
        ["log_prob", "value", "advantage", "target"],
        ["clip_coef", "clip_vloss", "ent_coef", "vf_coef", "norm_adv"],
        ["policy", "value", "entropy", "approx_kl", "clip_fraction"],
        False,
    )
    assert losses["a2c_loss"] == (
        ["advantage", "target"],
        ["ent_coef", "vf_coef", "norm_adv"],
        ["policy", "value", "entropy"],
        False,
    )
    assert losses["impala_loss"] == losses["a2c_loss"]
    assert losses["dqn_loss"] == (["target", "weight"], ["huber"], ["value", "q"], True)


@pytest.mark.parametrize("name", ["ppo_loss", "a2c_loss"])
@pytest.mark.parametrize("setting", LOSS_CASES)
def test_gradient_equals_autograd(setting: LossCase, name: str) -> None:
    case = make(setting.shape, shards=setting.shards, kernels=setting.kernels)
    rollout = rollout_of(case, 300, masked=setting.masked)
    index = np.random.default_rng(2).permutation(300)[: setting.size].astype(np.int32)
    batch = pick(rollout, index)
    if name == "ppo_loss":
        options = {"clip_vloss": setting.clip_vloss, "norm_adv": setting.norm_adv}
        loss, expected = ppo_loss(case, batch, **options)
        settings = PPO | options
    else:
        loss, expected = a2c_loss(case, batch, norm_adv=setting.norm_adv)
        settings = A2C | {"norm_adv": setting.norm_adv}
    grad = np.full(setting.shape.num_params, np.nan, np.float32)
    stats = np.full(len(expected) + 1, np.nan)
    case.plan.loss_gradient(name, samples_of(rollout), index, settings, grad, stats)
    loss.backward()
    exact = case.flat_grad()
    norm = float(np.linalg.norm(exact))
    assert np.linalg.norm(grad - exact) < 1e-5 * norm
    np.testing.assert_allclose(stats, [*expected, norm], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("max_grad_norm", [0.5, math.inf])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3]])
def test_adam_equals_torch(shape: Shape, max_grad_norm: float) -> None:
    case = make(shape, shards=2)
    rollout = rollout_of(case, 200)
    samples = samples_of(rollout)
    optimizer = torch.optim.Adam(case.leaves, lr=3e-3, eps=1e-5)
    adam = adam_of(case, learning_rate=3e-3)
    settings = PPO | {"clip_vloss": True, "norm_adv": True}
    for step in range(1, 6):
        index = np.random.default_rng(step).permutation(200)[:100].astype(np.int32)
        loss, _ = ppo_loss(case, pick(rollout, index), clip_vloss=True, norm_adv=True)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(case.leaves, max_grad_norm)
        optimizer.step()
        assert case.plan.loss_step("ppo_loss", samples, index, settings, adam, max_grad_norm, np.zeros(6))
        assert adam.step == step
    expected = np.concatenate([leaf.detach().numpy().ravel() for leaf in case.leaves])
    np.testing.assert_allclose(case.params, expected, atol=2e-5)


def test_rmsprop_equals_torch() -> None:
    case = make(SHAPES[1], shards=2)
    rollout = rollout_of(case, 200)
    samples = samples_of(rollout)
    optimizer = torch.optim.RMSprop(case.leaves, lr=1e-3, alpha=0.97, eps=1e-3)
    rmsprop = _native.RMSProp(np.zeros_like(case.params), learning_rate=1e-3, alpha=0.97, eps=1e-3)
    index = np.arange(200, dtype=np.int32)
    settings = A2C | {"norm_adv": False}
    for _ in range(5):
        loss, _ = a2c_loss(case, rollout, norm_adv=False)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(case.leaves, 0.5)
        optimizer.step()
        assert case.plan.loss_step("a2c_loss", samples, index, settings, rmsprop, 0.5, np.zeros(4))
    expected = np.concatenate([leaf.detach().numpy().ravel() for leaf in case.leaves])
    np.testing.assert_allclose(case.params, expected, atol=2e-5)


def adam_of(case: Case, **settings: Any) -> _native.Adam:
    moments = [np.zeros_like(case.params) for _ in range(2)]
    return _native.Adam(*moments, **({"learning_rate": 1e-3, "eps": 1e-5} | settings))


SETTINGS = PPO | {"clip_vloss": True, "norm_adv": True}


def train_step(case: Case, rollout: Arrays, index: NDArray[Any], **changed: Any) -> None:
    given: dict[str, Any] = {"name": "ppo_loss", "settings": SETTINGS, "optimizer": adam_of(case)}
    given |= {"max_grad_norm": 0.5, "stats_out": np.zeros(6)} | changed
    assert case.plan.loss_step(samples=samples_of(rollout), index=index, **given)


def test_step_is_skipped_when_the_gradient_is_not_finite() -> None:
    case = make(SHAPES[0])
    rollout = rollout_of(case, 20)
    adam, stats = adam_of(case, step=4), np.zeros(6)
    moments = [np.full_like(case.params, 0.25) for _ in range(2)]
    adam = _native.Adam(*moments, learning_rate=1e-3, step=4)
    rollout["target"][7] = np.nan
    before = [case.params.copy(), *(m.copy() for m in moments)]
    index = np.arange(20, dtype=np.int32)
    assert case.plan.loss_step("ppo_loss", samples_of(rollout), index, SETTINGS, adam, 0.5, stats) is False
    assert adam.step == 4
    assert not np.isfinite(stats[5])
    for array, old in zip([case.params, *moments], before, strict=True):
        identical(array, old)


@pytest.mark.parametrize("shards", [1, 3])
def test_steps_do_not_depend_on_threads(shards: int) -> None:
    digests: set[str] = set()
    for threads in (1, 2):
        case = make(SHAPES[0], threads=threads, shards=shards)
        rollout = rollout_of(case, 500)
        adam = adam_of(case)
        for step in range(1, 30):
            index = np.random.default_rng(step).permutation(500)[:200].astype(np.int32)
            train_step(case, rollout, index, optimizer=adam)
        digests.add(hashlib.sha256(case.params.tobytes()).hexdigest())
    assert len(digests) == 1


def test_samples_beyond_the_last_change_nothing() -> None:
    """A Gaussian so narrow that its density at 0 would overflow in lanes that hold no sample."""
    shape = Shape(obs_size=3, hidden=(8,), head="gaussian", nvec=(6,))
    case = make(shape)
    case.params[-6:] = -20.0
    rollout = rollout_of(case, 5)
    rollout["log_prob"] = np.full(5, 120.0, np.float32)
    mean = np.zeros((5, 6), np.float32)
    case.plan.forward(rollout["obs"], mean, np.zeros(5, np.float32))
    rollout["action"] = mean.copy()
    grad, stats = np.zeros(shape.num_params, np.float32), np.zeros(6)
    settings = SETTINGS | {"norm_adv": False}
    case.plan.loss_gradient("ppo_loss", samples_of(rollout), np.arange(5, dtype=np.int32), settings, grad, stats)
    assert np.isfinite(stats).all()
    assert np.isfinite(grad).all()


def test_bad_batches_are_refused() -> None:
    case = make(Shape())
    rollout = rollout_of(case, 20)
    index = np.arange(20, dtype=np.int32)
    before = case.params.copy()
    for changed, at, message in (
        ({}, index + 1, r"index\[19\] must lie between 0 and 19, not 20"),
        ({}, index - 1, r"index\[0\] must lie between 0 and 19, not -1"),
        ({}, index[:1], "index must name at least 2 samples, not 1"),
        ({}, index.astype(np.int64), "index must be an array of int32"),
        ({"target": rollout["target"][:5]}, index, r"target must have shape \(20,\), not \(5,\)"),
        ({"obs": rollout["obs"][:, ::2]}, index, "obs must be contiguous"),
        ({"obs": rollout["obs"][:, ::2].copy()}, index, "samples: obs has 2 numbers, the plan takes 4"),
        ({"action": rollout["action"] + 2}, index, "action of sample 0 is out of the range"),
        ({"action": rollout["action"] - 2}, index, "action of sample 0 is out of the range"),
        ({"action": rollout["action"].astype(np.int32)}, index, "action must be an array of int64"),
        ({"action": rollout["action"].astype(np.float32)}, index, "action must be an array of int64, as the plan"),
        ({"action": np.zeros((20, 2), np.int64)}, index, "action has 2 parts, the plan gives 1"),
        ({"mask": np.ones((20, 3), bool)}, index, "mask has 3 options, the plan chooses among 2"),
        ({"mask": np.ones((19, 2), bool)}, index, r"mask must have shape \(20, 2\), not \(19, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            train_step(case, rollout | changed, at)
    identical(case.params, before)


def test_bad_steps_are_refused() -> None:
    case = make(Shape())
    rollout = rollout_of(case, 20)
    index = np.arange(20, dtype=np.int32)
    before = case.params.copy()
    small = _native.RMSProp(np.zeros(3, np.float32), learning_rate=0.1)
    for changed, message in (
        ({"name": "c51_loss"}, "there is no fused loss 'c51_loss'; there are: .*ppo_loss"),
        ({"settings": PPO}, "ppo_loss needs the setting 'clip_vloss'; it takes: clip_coef, "),
        ({"settings": SETTINGS | {"gamma": 1.0}}, "ppo_loss has no setting 'gamma'; it takes: clip_coef, "),
        ({"settings": SETTINGS | {"clip_coef": math.nan}}, "setting 'clip_coef' of ppo_loss must be a number"),
        ({"settings": SETTINGS | {"clip_coef": "0.2"}}, "setting 'clip_coef' of ppo_loss must be a number"),
        ({"stats_out": np.zeros(8)}, r"stats_out must have shape \(6,\), not \(8,\)"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be greater than 0"),
        ({"max_grad_norm": math.nan}, "max_grad_norm must be greater than 0"),
        ({"optimizer": small}, "its moments hold 3 numbers, the plan has 9155 parameters"),
    ):
        with pytest.raises(ValueError, match=message):
            train_step(case, rollout, index, **changed)
    rollout.pop("advantage")
    with pytest.raises(ValueError, match="no column 'advantage', which ppo_loss reads; they have: log_prob, value, t"):
        train_step(case, rollout, index)
    with pytest.raises(ValueError, match="target must be an array of float32"):
        _native.Samples(rollout["obs"], rollout["action"], {"target": [1.0]})  # pyright: ignore[reportArgumentType]
    identical(case.params, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": math.nan}, "learning_rate must be a finite number"),
        ({"learning_rate": -1.0}, "learning_rate must be a finite number"),
        ({"eps": math.inf}, "eps must be a finite number"),
        ({"step": -1}, "step must lie between 0 and 2..53, not -1"),
        ({"step": 2**63 - 1}, "step must lie between 0 and 2..53, not 9223372036854775807"),
        ({"betas": (0.9, 1.0)}, "betas must lie between 0 and 1, 1 left out, not 1.0"),
    ],
)
def test_bad_optimizers_are_refused(settings: dict[str, Any], message: str) -> None:
    case = make(Shape())
    with pytest.raises(ValueError, match=message):
        adam_of(case, **settings)
    adam = adam_of(case)
    for name, value in settings.items():
        before = getattr(adam, name)
        with pytest.raises(ValueError, match=message):
            setattr(adam, name, value)
        assert getattr(adam, name) == before


MakeOptimizers = Callable[[Any, NDArray[np.float32]], tuple[Any, Any]]


def adams(leaf: Any, zeros: NDArray[np.float32]) -> tuple[Any, Any]:
    settings: dict[str, Any] = {"betas": (0.8, 0.99), "eps": 1e-6}
    native = _native.Adam(zeros.copy(), zeros.copy(), learning_rate=0.01, **settings)
    return torch.optim.Adam([leaf], lr=0.01, **settings), native


def rmsprops(leaf: Any, zeros: NDArray[np.float32]) -> tuple[Any, Any]:
    settings: dict[str, Any] = {"alpha": 0.9, "eps": 1e-6}
    return torch.optim.RMSprop([leaf], lr=0.01, **settings), _native.RMSProp(zeros, learning_rate=0.01, **settings)


@pytest.mark.parametrize("make_optimizers", [adams, rmsprops])
def test_a_gradient_from_elsewhere(make_optimizers: MakeOptimizers) -> None:
    """Three steps on gradients of norm above and below the limit; one that is not finite changes nothing."""
    rng = np.random.default_rng(0)
    params = rng.standard_normal(37).astype(np.float32)
    leaf = torch.from_numpy(params.copy()).double().requires_grad_()
    theirs, ours = make_optimizers(leaf, np.zeros_like(params))
    for scale in (0.01, 1.0, 30.0):
        grad = (scale * rng.standard_normal(37)).astype(np.float32)
        leaf.grad = torch.from_numpy(grad).double()
        expected = nn.utils.clip_grad_norm_([leaf], 0.5)
        theirs.step()
        assert ours.apply(params, grad, 0.5) == pytest.approx(float(expected), rel=1e-6)
        np.testing.assert_allclose(params, leaf.detach().numpy(), atol=1e-6)
        before, steps = params.copy(), ours.step
        grad[5] = np.inf
        assert not math.isfinite(ours.apply(params, grad, 0.5))
        identical(params, before)
        assert ours.step == steps
    with pytest.raises(ValueError, match=r"grad must have shape \(37,\), not \(36,\)"):
        ours.apply(params, params[:36], 0.5)
