"""MlpPlan's forward passes and actions against torch in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from shoal import _native
from shoal.nets.distributions import MultiCategorical, masked
from tests.native_plans import KERNELS, SHAPES, Shape, act, forward, identical, make, masks, observations


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 8, 130])
def test_forward_and_log_prob_equal_torch(shape: Shape, count: int, kernels: str) -> None:
    case = make(shape, kernels=kernels, scale=2.0)
    obs = observations(shape, count)
    logits, value = forward(case.plan, shape, obs)
    with torch.no_grad():
        expected, expected_value = case.distribution(torch.from_numpy(obs).double())
    np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(value, expected_value, atol=1e-5, rtol=1e-5)
    rows = np.arange(count, dtype=np.int64)
    for greedy in (False, True):
        got = act(case.plan, shape, obs, rows=rows, steps=rows, greedy=greedy)
        identical(got["value"], value)
        with torch.no_grad():
            log_prob, _ = case.log_prob_entropy(expected, got["action"])
        np.testing.assert_allclose(got["log_prob"], log_prob, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kernels", KERNELS)
def test_tanh_is_accurate_everywhere(kernels: str) -> None:
    """The identity through one tanh unit: weight 1, bias 0, read out by the critic."""
    shape = Shape(obs_size=1, hidden=(1,), nvec=(1,))
    params = np.array([1, 0, 0, 0, 1, 0, 1, 0], np.float32)
    plan = _native.MlpPlan(params, 1, [1], "categorical", [1], "tanh", 1, 4096, 1, kernels)
    x = np.concatenate([np.linspace(-12, 12, 40_001), np.logspace(-30, 30, 1000)]).astype(np.float32)
    _, value = forward(plan, shape, x[:, None])
    np.testing.assert_allclose(value, np.tanh(x.astype(np.float64)), rtol=4e-7, atol=0)
    assert np.abs(value).max() <= 1.0
    assert np.isnan(forward(plan, shape, np.full((1, 1), np.nan, np.float32))[1]).all()


def test_normalizer() -> None:
    case = make(Shape())
    obs = observations(case.shape, 50)
    mean, inv_std = np.array([0.5, -1, 0, 2], np.float32), np.array([2, 0.5, 1, 9], np.float32)
    case.plan.set_normalizer(mean, inv_std, 1.5)
    logits, value = forward(case.plan, case.shape, obs)
    clipped = np.clip((obs.astype(np.float64) - mean) * inv_std, -1.5, 1.5)
    with torch.no_grad():
        expected, expected_value = case.distribution(torch.from_numpy(clipped))
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_allclose(value, expected_value, atol=1e-5)


def test_plan_sees_the_learner_s_parameters() -> None:
    case = make(Shape())
    obs = observations(case.shape, 3)
    case.params[...] = 0.0
    logits, value = forward(case.plan, case.shape, obs)
    assert not logits.any()
    assert not value.any()


def test_sampled_frequencies() -> None:
    """Each probability p is met within five standard deviations, sqrt(p (1 - p) / n)."""
    shape = Shape(nvec=(3, 2))
    case = make(shape, scale=3.0)
    count = 40_000
    obs = np.repeat(observations(shape, 1), count, axis=0)
    rows = np.arange(count, dtype=np.int64)
    action = act(case.plan, shape, obs, rows=rows, steps=np.full(count, 11))["action"]
    logits = torch.from_numpy(forward(case.plan, shape, obs[:1])[0][0])
    for k, part in enumerate(logits.split(list(shape.nvec))):
        p = part.softmax(-1).double().numpy()
        got = np.bincount(action[:, k], minlength=len(p)) / count
        assert (np.abs(got - p) < 5.0 * np.sqrt(p * (1.0 - p) / count)).all()


def test_choice_is_the_first_cumulative_probability_above_the_uniform() -> None:
    shape = Shape(nvec=(5, 3))
    case = make(shape, scale=2.0)
    rows = np.arange(300, dtype=np.int64)
    obs = observations(shape, 300)
    got = act(case.plan, shape, obs, rows=rows, steps=rows + 5)
    uniform = _native.philox_uniform(7, 2, rows, rows + 5, 2).astype(np.float64)
    logits = torch.from_numpy(forward(case.plan, shape, obs)[0]).double()
    for k, part in enumerate(logits.split(list(shape.nvec), -1)):
        above = part.softmax(-1).cumsum(-1).numpy() > uniform[:, k : k + 1]
        above[:, -1] = True
        np.testing.assert_array_equal(got["action"][:, k], above.argmax(-1))
        greedy = act(case.plan, shape, obs, rows=rows, steps=rows, greedy=True)["action"][:, k]
        np.testing.assert_array_equal(greedy, part.numpy().argmax(-1))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[4]])
def test_masked_actions_equal_torch(shape: Shape, kernels: str) -> None:
    """The masked distributions of torch policies, on the same noise and the same logits."""
    case = make(shape, kernels=kernels, threads=2, scale=2.0)
    rows = np.arange(300, dtype=np.int64)
    obs, mask = observations(shape, 300), masks(shape, 300)
    logits = torch.from_numpy(forward(case.plan, shape, obs)[0])
    start = torch.zeros(len(shape.nvec), dtype=torch.int64)
    distribution = masked(MultiCategorical(logits, list(shape.nvec), start=start), torch.from_numpy(mask))
    noise = torch.from_numpy(_native.philox_uniform(7, 2, rows, rows + 5, len(shape.nvec)))
    for greedy in (False, True):
        got = act(case.plan, shape, obs, rows=rows, steps=rows + 5, greedy=greedy, mask=mask)
        expected = distribution.mode() if greedy else distribution.sample(noise)
        np.testing.assert_array_equal(got["action"], expected)
        log_prob = distribution.log_prob(torch.from_numpy(got["action"]))
        np.testing.assert_allclose(got["log_prob"], log_prob, atol=2e-5, rtol=1e-5)
        allowed = [part[np.arange(300), got["action"][:, k]] for k, part in enumerate(split(mask, shape))]
        assert np.all(allowed)


def split(mask: NDArray[np.bool_], shape: Shape) -> list[NDArray[np.bool_]]:
    return np.split(mask, np.cumsum(shape.nvec)[:-1], axis=1)


def test_a_mask_that_forbids_nothing_changes_no_bit() -> None:
    shape = SHAPES[1]
    case = make(shape)
    rows = np.arange(100, dtype=np.int64)
    obs = observations(shape, 100)
    free = act(case.plan, shape, obs, rows=rows, steps=rows)
    whole = act(case.plan, shape, obs, rows=rows, steps=rows, mask=np.ones((100, shape.outputs), bool))
    for name, array in free.items():
        identical(whole[name], array)


def test_bad_masks_are_refused() -> None:
    rows = np.arange(3, dtype=np.int64)
    shape = Shape()
    plan, obs = make(shape).plan, observations(shape, 3)
    with pytest.raises(ValueError, match=r"mask must have shape \(3, 2\), not \(3, 1\)"):
        act(plan, shape, obs, rows=rows, steps=rows, mask=np.ones((3, 1), bool))
    gaussian = SHAPES[3]
    plan, obs = make(gaussian).plan, observations(gaussian, 3)
    with pytest.raises(ValueError, match="mask: a gaussian head has no options"):
        act(plan, gaussian, obs, rows=rows, steps=rows, mask=np.ones((3, 3), bool))


def test_gaussian_action_is_mean_plus_std_times_noise() -> None:
    shape = Shape(head="gaussian", nvec=(3,))
    case = make(shape)
    rows = np.arange(100, dtype=np.int64)
    obs = observations(shape, 100)
    got = act(case.plan, shape, obs, rows=rows, steps=rows * 3)["action"]
    mean, _ = forward(case.plan, shape, obs)
    noise = _native.philox_normal(7, 2, rows, rows * 3, 3)
    np.testing.assert_allclose(got, mean + np.exp(case.params[-3:]) * noise, atol=1e-5)
    identical(act(case.plan, shape, obs, rows=rows, steps=rows, greedy=True)["action"], mean)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3]])
def test_a_sample_does_not_depend_on_its_batch(shape: Shape, kernels: str) -> None:
    rows = np.arange(203, dtype=np.int64)
    obs = observations(shape, 203)
    whole = act(make(shape, block=64, kernels=kernels).plan, shape, obs, rows=rows, steps=rows)
    for threads, block in ((2, 17), (2, 1000), (1, 1)):
        plan = make(shape, threads=threads, block=block, kernels=kernels).plan
        got = act(plan, shape, obs, rows=rows, steps=rows)
        for name in whole:
            identical(got[name], whole[name])
    plan = make(shape, kernels=kernels).plan
    for first, last in ((0, 1), (1, 9), (9, 70), (70, 203)):
        part = act(plan, shape, obs[first:last], rows=rows[first:last], steps=rows[first:last])
        for name in whole:
            identical(part[name], whole[name][first:last])


def test_bad_plans_are_refused() -> None:
    params = np.zeros(Shape().num_params, np.float32)

    def plan(**changed: Any) -> Any:
        options: dict[str, Any] = {"obs_size": 4, "hidden": [64, 64], "head": "categorical", "action_nvec": [2]}
        options |= {"activation": "tanh", "num_threads": 1, "act_block": 8, "grad_shards": 1}
        return _native.MlpPlan(params, **(options | changed))

    for changed, message in (
        ({"hidden": [64]}, r"params must have shape \(835,\), not \(9155,\)"),
        ({"head": "beta"}, "head must be 'categorical', 'gaussian' or 'q_values', not 'beta'"),
        ({"activation": "gelu"}, "activation must be 'tanh' or 'relu', not 'gelu'"),
        ({"hidden": [64, 0]}, "hidden must hold at most 15 positive sizes"),
        ({"head": "gaussian", "action_nvec": [1, 1]}, "must be one number, not 2 sizes"),
        ({"num_threads": 0}, "num_threads must be between 1"),
        ({"act_block": 0}, "act_block must be at least 1, not 0"),
        ({"grad_shards": 0}, "grad_shards must be at least 1, not 0"),
        ({"kernels": "mmx"}, "kernels must be one of .* not 'mmx'"),
    ):
        with pytest.raises(ValueError, match=message):
            plan(**changed)
