"""Gradients of any output gradient: a policy's two towers, and towers of one's own, against torch in float64."""

import itertools
import threading
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from shoal import _native
from tests.native_plans import KERNELS, SHAPES, Case, Shape, forward, identical, make, observations

Floats = NDArray[np.float32]


def any_loss(logits: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A loss that no fused kernel knows."""
    return (logits.sin() * logits.exp()).sum() / len(value) + (value**3).mean() + (logits.mean(-1) * value).sum()


def slopes_of(case: Case, logits: Floats, value: Floats) -> tuple[Floats, Floats]:
    """The gradients of `any_loss` with respect to what native code gave."""
    leaves = [torch.from_numpy(x).requires_grad_() for x in (logits, value)]
    any_loss(leaves[0], leaves[1]).backward()
    return tuple(leaf.grad.numpy() for leaf in leaves if leaf.grad is not None)  # pyright: ignore[reportReturnType]


def outputs(shape: Shape, count: int) -> tuple[Floats, Floats]:
    return np.full((count, shape.outputs), np.nan, np.float32), np.full(count, np.nan, np.float32)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("size", "shards"), [(130, 1), (77, 3), (1, 2)])
def test_backward_equals_autograd(shape: Shape, size: int, shards: int, kernels: str) -> None:
    case = make(shape, shards=shards, threads=2, kernels=kernels)
    obs = observations(shape, 200)
    index = np.random.default_rng(2).permutation(200)[:size].astype(np.int32)
    logits, value = outputs(shape, size)
    case.plan.forward_train(obs, index, logits, value)
    seen = forward(case.plan, shape, np.ascontiguousarray(obs[index]))
    identical(logits, seen[0])
    identical(value, seen[1])
    grad, obs_grad = np.full(shape.num_params, np.nan, np.float32), np.full((size, shape.obs_size), np.nan, np.float32)
    case.plan.backward(*slopes_of(case, logits, value), grad, obs_grad)
    exact_obs = torch.from_numpy(obs[index]).double().requires_grad_()
    any_loss(*case.distribution(exact_obs)).backward()
    exact = case.flat_grad()
    if shape.head == "gaussian":
        exact = np.concatenate([exact, np.zeros(shape.nvec[0])])
    assert np.linalg.norm(grad - exact) < 1e-5 * np.linalg.norm(exact)
    assert exact_obs.grad is not None
    np.testing.assert_allclose(obs_grad, exact_obs.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_backward_gives_the_fused_gradient() -> None:
    """-mean(log_prob * advantage) + 0.5 * mean((value - target)^2) / 2, written by hand for two logits."""
    shape = SHAPES[0]
    case = make(shape, shards=2)
    rng = np.random.default_rng(4)
    obs, n = observations(shape, 100), 100
    action = rng.integers(0, 2, (n, 1))
    advantage, target = rng.standard_normal((2, n)).astype(np.float32)
    samples = _native.Samples(obs, action, {"advantage": advantage, "target": target})
    index = np.arange(n, dtype=np.int32)
    fused, stats = np.zeros(shape.num_params, np.float32), np.zeros(4)
    settings = {"ent_coef": 0.0, "vf_coef": 0.5, "norm_adv": False}
    case.plan.loss_gradient("a2c_loss", samples, index, settings, fused, stats)
    logits, value = outputs(shape, n)
    case.plan.forward_train(samples, None, logits, value)
    p = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    pull = -advantage / n * (action[:, 0] - p)
    grad = np.zeros_like(fused)
    case.plan.backward(np.stack([-pull, pull], 1).astype(np.float32), 0.5 * (value - target) / np.float32(n), grad)
    np.testing.assert_allclose(grad, fused, rtol=1e-3, atol=1e-6)
    assert stats[3] == pytest.approx(np.linalg.norm(grad), rel=1e-5)


def test_backward_through_the_normalizer() -> None:
    """d/d obs is scaled by inv_std, and 0 where the normalized observation is clipped."""
    case = make(Shape())
    mean, inv_std = np.array([0.5, -1, 0, 2], np.float32), np.array([2, 0.5, 1, 9], np.float32)
    case.plan.set_normalizer(mean, inv_std, 1.5)
    obs = observations(case.shape, 50)
    logits, value = outputs(case.shape, 50)
    case.plan.forward_train(obs, None, logits, value)
    grad, obs_grad = np.zeros(case.shape.num_params, np.float32), np.zeros((50, 4), np.float32)
    case.plan.backward(*slopes_of(case, logits, value), grad, obs_grad)
    exact_obs = torch.from_numpy(obs).double().requires_grad_()
    scaled = (exact_obs - torch.from_numpy(mean)) * torch.from_numpy(inv_std)
    any_loss(*case.distribution(scaled.clamp(-1.5, 1.5))).backward()
    assert exact_obs.grad is not None
    np.testing.assert_allclose(obs_grad, exact_obs.grad.numpy(), rtol=1e-4, atol=1e-5)
    assert (obs_grad == 0).any()


def test_a_bigger_minibatch_after_a_smaller_one() -> None:
    """Room for activations grows, and a smaller minibatch leaves no traces of a bigger one."""
    shape = SHAPES[1]
    case = make(shape, shards=2)
    grads: list[Floats] = []
    for size in (10, 300, 10):
        obs = observations(shape, size)
        logits, value = outputs(shape, size)
        case.plan.forward_train(obs, None, logits, value)
        grads.append(np.zeros(shape.num_params, np.float32))
        case.plan.backward(*slopes_of(case, logits, value), grads[-1])
    identical(grads[0], grads[2])
    assert not np.array_equal(grads[0], grads[1])


def test_two_threads_on_one_plan() -> None:
    """What is kept changes while another thread calls backward: a right gradient or a refusal; `make sanitize` too."""
    shape = SHAPES[0]
    case = make(shape, threads=1)
    obs = observations(shape, 500)
    few, many = outputs(shape, 2), outputs(shape, 500)
    slopes = np.ones_like(few[0]), np.ones_like(few[1])
    right, grad = np.zeros(shape.num_params, np.float32), np.zeros(shape.num_params, np.float32)
    case.plan.forward_train(obs[:2], None, *few)
    case.plan.backward(*slopes, right)

    def keep_on() -> None:
        for _ in range(200):
            case.plan.forward_train(obs, None, *many)
            case.plan.forward_train(obs[:2], None, *few)

    other = threading.Thread(target=keep_on)
    other.start()
    refused = 0
    while other.is_alive():
        try:
            case.plan.backward(*slopes, grad)
        except ValueError:
            refused += 1
        else:
            identical(grad, right)
    assert refused > 0


def test_bad_gradients_are_refused() -> None:
    case = make(Shape())
    obs, (logits, value) = observations(case.shape, 20), outputs(case.shape, 20)
    grad = np.zeros(case.shape.num_params, np.float32)
    with pytest.raises(ValueError, match="backward needs the activations of forward_train: call that first"):
        case.plan.backward(logits, value, grad)
    with pytest.raises(ValueError, match=r"value_out must have shape \(20,\), not \(5,\)"):
        case.plan.forward_train(obs, None, logits, value[:5])
    with pytest.raises(ValueError, match=r"index\[1\] must lie between 0 and 19, not 20"):
        case.plan.forward_train(obs, np.array([0, 20], np.int32), logits[:2], value[:2])
    with pytest.raises(ValueError, match="forward_train needs at least 1 sample"):
        case.plan.forward_train(obs[:0], None, logits[:0], value[:0])
    case.plan.forward_train(obs, None, logits, value)
    with pytest.raises(ValueError, match=r"logits_grad must have shape \(20, 2\), not \(19, 2\)"):
        case.plan.backward(logits[:19], value, grad)
    with pytest.raises(ValueError, match=r"grad_out must have shape \(9155,\), not \(3,\)"):
        case.plan.backward(logits, value, grad[:3])
    with pytest.raises(ValueError, match=r"obs_grad_out must have shape \(20, 4\), not \(20, 3\)"):
        case.plan.backward(logits, value, grad, np.zeros((20, 3), np.float32))


def tower(sizes: list[int], activation: str, seed: int) -> tuple[Floats, nn.Sequential]:
    """Random parameters and the same tower in torch."""
    rng = np.random.default_rng(seed)
    flats: list[Floats] = []
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out, dtype=torch.float64)
        for leaf in (linear.weight, linear.bias):
            flats.append((rng.standard_normal(tuple(leaf.shape)) / np.sqrt(fan_in)).astype(np.float32))
            leaf.data = torch.from_numpy(flats[-1]).double()
        layers += [linear, nn.Tanh() if activation == "tanh" else nn.ReLU()]
    return np.concatenate([x.ravel() for x in flats]), nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(
    ("sizes", "activation"), [([5, 32, 17, 3], "relu"), ([21, 6], "tanh"), ([4, 64, 64, 1], "tanh")]
)
def test_a_tower_equals_torch(sizes: list[int], activation: str, kernels: str) -> None:
    params, module = tower(sizes, activation, 1)
    arguments: dict[str, Any] = {"num_threads": 2, "grad_shards": 2, "kernels": kernels}
    plan = _native.TowerPlan(params, sizes[0], sizes[1:-1], sizes[-1], activation, **arguments)
    assert plan.num_params == len(params)
    obs = np.random.default_rng(0).standard_normal((150, sizes[0])).astype(np.float32)
    out = np.full((150, sizes[-1]), np.nan, np.float32)
    plan.forward(obs, out)
    exact_obs = torch.from_numpy(obs).double().requires_grad_()
    expected = module(exact_obs)
    np.testing.assert_allclose(out, expected.detach(), rtol=1e-4, atol=1e-5)
    kept = np.full_like(out, np.nan)
    plan.forward_train(obs, None, kept)
    identical(kept, out)
    slopes = np.random.default_rng(3).standard_normal(out.shape).astype(np.float32)
    grad, obs_grad = np.zeros_like(params), np.zeros_like(obs)
    plan.backward(slopes, grad, obs_grad)
    expected.backward(torch.from_numpy(slopes).double())
    exact = np.concatenate([p.grad.numpy().ravel() for p in module.parameters() if p.grad is not None])
    assert np.linalg.norm(grad - exact) < 1e-5 * np.linalg.norm(exact)
    assert exact_obs.grad is not None
    np.testing.assert_allclose(obs_grad, exact_obs.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_two_towers_and_one_optimizer() -> None:
    """Twin critics and their target: three plans, of which one follows the other's parameters."""
    params, _ = tower([3, 8, 1], "relu", 1)
    second = params[::-1].copy()
    shape: Any = (3, [8], 1, "relu", 1, 1)
    critics = [_native.TowerPlan(flat, *shape) for flat in (params, second)]
    target = _native.TowerPlan(params.copy(), *shape)
    obs, outs = np.ones((4, 3), np.float32), [np.zeros((4, 1), np.float32) for _ in range(3)]
    grad = np.zeros_like(params)
    adam = _native.Adam(np.zeros_like(params), np.zeros_like(params), learning_rate=0.1)
    for plan, out in zip([*critics, target], outs, strict=True):
        plan.forward(obs, out)
    identical(outs[0], outs[2])
    critics[0].forward_train(obs, None, outs[0])
    critics[0].backward(outs[0], grad)
    adam.apply(params, grad, 10.0)
    after = np.zeros((4, 1), np.float32)
    target.forward(obs, after)
    identical(after, outs[2])
    critics[0].forward(obs, after)
    assert (after != outs[2]).all()
    critics[1].forward(obs, after)
    identical(after, outs[1])


def test_bad_towers_are_refused() -> None:
    params, _ = tower([3, 8, 1], "relu", 1)
    for changed, message in (
        ((2, [8], 1, "relu"), r"params must have shape \(33,\), not \(41,\)"),
        ((3, [8], 0, "relu"), "outputs must be at least 1, not 0"),
        ((3, [0], 1, "relu"), "hidden must hold at most 15 positive sizes"),
        ((0, [8], 1, "relu"), "obs_size must be at least 1, not 0"),
        ((3, [8], 1, "elu"), "activation must be 'tanh' or 'relu', not 'elu'"),
    ):
        with pytest.raises(ValueError, match=message):
            _native.TowerPlan(params, *changed, num_threads=1, grad_shards=1)


@pytest.mark.parametrize("threads", [1, 2])
def test_what_shares_threads_and_memory_learns_the_same(threads: int) -> None:
    """Two learners of one shape, in turn, beside one that is alone: the same bits, and each keeps its own forward."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal(3 * 40 + 40 + 40 * 4 + 4).astype(np.float32)
    weights = [first.copy(), first.copy(), first + np.float32(0.1)]
    shape: Any = (3, [40], "q_values", [4], "relu")
    sizes: Any = {"act_block": 64, "grad_shards": 2}
    plans = [_native.MlpPlan(weights[0], *shape, num_threads=1, **sizes)]
    plans += [_native.MlpPlan(own, *shape, num_threads=threads, shared=True, **sizes) for own in weights[1:]]
    obs, index = rng.standard_normal((20, 3)).astype(np.float32), np.arange(20, dtype=np.int32)
    columns = {"target": np.linspace(-2, 2, 20, dtype=np.float32), "weight": np.ones(20, np.float32)}
    samples = _native.Samples(obs, np.arange(20).reshape(20, 1) % 4, columns, error=np.zeros(20, np.float32))
    logits, value = np.zeros((20, 4), np.float32), np.zeros(20, np.float32)
    grads = np.zeros((3, first.size), np.float32)
    for plan in plans:
        plan.forward_train(samples, index, logits, value)
    for plan, grad in zip(plans, grads, strict=True):
        plan.backward(logits, value, grad)
    identical(grads[0], grads[1])
    assert not np.array_equal(grads[1], grads[2])
    for plan in (plans[2], plans[0], plans[1]):
        adam = _native.Adam(np.zeros_like(first), np.zeros_like(first), learning_rate=0.1)
        plan.loss_step("dqn_loss", samples, index, {"huber": 1.0}, adam, 10.0, np.zeros(3))
    identical(weights[0], weights[1])
    assert not np.array_equal(weights[0], first)
