"""Distributions against torch's own, the normalizer against NumPy, packed weights, and lowering against torch."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import distributions as td
from torch import nn

from shoal.learn.lowering import lower
from shoal.learn.plan import Noise, Plan
from shoal.learn.weights import Snapshot, pack, packing
from shoal.nets.distributions import Categorical, MultiCategorical, Normal, SquashedNormal
from shoal.nets.heads import head, head_size
from shoal.nets.normalizer import Normalizer
from shoal.nets.policy import MlpPolicy, Network, PlainPolicy, make_policy
from shoal.types import ConfigError, Spec

BOX3 = spaces.Box(-1, 1, (3,), np.float32)
ALMOST_ONE = 1 - 2**-24
"""The largest number that Philox gives."""


def float64(*values: float) -> torch.Tensor:
    """A float64 vector."""
    return torch.tensor(values, dtype=torch.float64)


def spec_of(observation: spaces.Space[Any], action: spaces.Space[Any]) -> Spec:
    """A specification of a nameless environment."""
    return Spec.of("Test-v0", observation, action)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def test_categorical_equals_torch() -> None:
    """Log-probabilities of every action and the entropy, with two leading axes."""
    logits = 3 * draws(4, 5, 6)
    ours, theirs = Categorical(logits), td.Categorical(logits=logits)
    for action in range(6):
        chosen = torch.full((4, 5), action)
        torch.testing.assert_close(ours.log_prob(chosen), theirs.log_prob(chosen), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.entropy(), theirs.entropy(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.mode(), theirs.mode)


def test_categorical_samples_by_the_inverse_cdf() -> None:
    """Probabilities 1/4, 1/4, 1/2: the noise falls into [0, 1/4), [1/4, 1/2) or [1/2, 1)."""
    logits = float64(0.25, 0.25, 0.5).log().expand(6, 3)
    noise = float64(0.0, 0.24, 0.26, 0.49, 0.51, ALMOST_ONE).unsqueeze(-1)
    assert Categorical(logits).sample(noise).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("noise", [0.0, 0.5, ALMOST_ONE])
def test_an_impossible_choice_is_never_sampled(noise: float) -> None:
    """Whatever the rounding of the cumulative sum: neither a first nor a last choice of probability 0."""
    logits = draws(5000, 7).float()
    logits[:, 0] = logits[:, -1] = -1e9
    chosen = Categorical(logits).sample(torch.full((5000, 1), noise))
    assert chosen.min() >= 1
    assert chosen.max() <= 5


def test_multi_categorical_equals_a_sum_of_torch() -> None:
    """Three choices of 2, 3 and 4."""
    logits, action = draws(5, 9), torch.tensor([[0, 0, 0], [1, 2, 3], [0, 1, 2], [1, 0, 3], [0, 2, 1]])
    ours = MultiCategorical(logits, [2, 3, 4], start=torch.zeros(3, dtype=torch.int64))
    parts = [td.Categorical(logits=part) for part in logits.split([2, 3, 4], -1)]
    expected = torch.stack([part.log_prob(action[:, k]) for k, part in enumerate(parts)]).sum(0)
    torch.testing.assert_close(ours.log_prob(action), expected, rtol=1e-12, atol=1e-12)
    entropy = torch.stack([part.entropy() for part in parts]).sum(0)
    torch.testing.assert_close(ours.entropy(), entropy, rtol=1e-12, atol=1e-12)
    assert torch.equal(ours.mode(), torch.stack([part.mode for part in parts], -1))


def test_multi_categorical_gives_each_choice_its_own_number() -> None:
    """Probabilities (1/2, 1/2) and (1/4, 1/4, 1/2)."""
    logits = torch.cat([float64(0.5, 0.5).log(), float64(0.25, 0.25, 0.5).log()]).expand(3, 5)
    noise = torch.tensor([[0.0, ALMOST_ONE], [0.51, 0.26], [ALMOST_ONE, 0.0]], dtype=torch.float64)
    ours = MultiCategorical(logits, [2, 3], start=torch.tensor([0, 0]))
    assert ours.sample(noise).tolist() == [[0, 2], [1, 1], [1, 0]]


def test_normal_equals_torch() -> None:
    """A diagonal Gaussian of 3 components."""
    mean, log_std, action = draws(6, 3), draws(3, seed=1), draws(6, 3, seed=2)
    ours = Normal(mean, log_std, -torch.ones(3), torch.ones(3))
    theirs = td.Independent(td.Normal(mean, log_std.exp().expand(6, 3)), 1)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.entropy(), theirs.entropy(), rtol=1e-12, atol=1e-12)
    assert torch.equal(ours.mode(), mean)


def test_normal_samples_mean_plus_std_times_noise() -> None:
    """Means 1 and 10, deviations 2 and 1/2."""
    ours = Normal(float64(1, 10), float64(2, 0.5).log(), float64(-9, -9), float64(9, 9))
    torch.testing.assert_close(ours.sample(float64(-1.5, 4)), float64(-2, 12))


def test_squashed_log_prob_equals_torch() -> None:
    """The density of tanh(x) in [-1, 1] by torch's own change of variables."""
    mean, log_std, x = draws(7, 3), 0.5 * draws(3, seed=1), 2 * draws(7, 3, seed=2)
    ours = SquashedNormal(mean, log_std, -torch.ones(3), torch.ones(3))
    transform = td.TanhTransform(cache_size=1)
    base = td.Normal(mean, log_std.exp().expand(7, 3))
    theirs = td.Independent(td.TransformedDistribution(base, [transform]), 1)
    squashed: Any = transform(x)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(squashed), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("std", "atol"), [(0.1, 1e-9), (0.5, 1e-5), (1.0, 1e-3), (2.0, 0.03)])
@pytest.mark.parametrize("mean", [0.0, -0.5, 2.0])
def test_squashed_entropy_equals_an_integral(mean: float, std: float, atol: float) -> None:
    """-log p(tanh x) averaged over x by the trapezoidal rule on 200,001 points."""
    x = torch.linspace(mean - 12 * std, mean + 12 * std, 200_001, dtype=torch.float64)
    log_density = td.Normal(float64(mean), float64(std)).log_prob(x)
    log_squashed = log_density - td.TanhTransform().log_abs_det_jacobian(x, x.tanh())
    expected = torch.trapezoid(-log_density.exp() * log_squashed, x)
    ours = SquashedNormal(float64(mean), float64(std).log(), float64(-1), float64(1)).entropy()
    assert float(ours) == pytest.approx(float(expected), abs=atol)


@pytest.mark.parametrize("x", [0.0, -30.0, 100.0, -1e4])
def test_gradients_are_finite_far_out(x: float) -> None:
    """Log-probability and entropy of a squashed Gaussian, and of logits that far apart."""
    mean, log_std = torch.tensor([x], requires_grad=True), torch.zeros(1, requires_grad=True)
    squashed = SquashedNormal(mean, log_std, torch.tensor([-2.0]), torch.tensor([2.0]))
    (squashed.log_prob(torch.tensor([x + 1.0])) + squashed.entropy()).sum().backward()
    logits = torch.tensor([x, 0.0, -x], requires_grad=True)
    choice = Categorical(logits)
    (choice.log_prob(torch.tensor(1)) + choice.entropy()).backward()
    for leaf in (mean, log_std, logits):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_to_env_offsets_clips_and_scales() -> None:
    """Discrete counts from its start; a Gaussian is clipped; a squashed one is scaled to the Box."""
    box = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))
    one = head(spaces.Discrete(3, start=5), squash=False)(torch.zeros(3), None)
    assert int(one.to_env(torch.tensor(2))) == 7
    many = head(spaces.MultiDiscrete([2, 3], start=[1, -4]), squash=False)(torch.zeros(5), None)
    assert many.to_env(torch.tensor([[1, 2], [0, 0]])).tolist() == [[2, -2], [1, -4]]
    plain = head(box, squash=False)(torch.zeros(2), torch.zeros(2))
    assert plain.to_env(torch.tensor([[-3.0, 4.5], [1.0, 11.0]])).tolist() == [[-2.0, 4.5], [1.0, 10.0]]
    squashed = head(box, squash=True)(torch.zeros(2), torch.zeros(2))
    assert squashed.to_env(torch.tensor([[0.0, 0.0], [50.0, -50.0]])).tolist() == [[0.0, 5.0], [2.0, 0.0]]
    assert squashed.to_env(torch.tensor([math.atanh(0.5), 0.0])).tolist() == pytest.approx([1.0, 5.0])


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (spaces.Discrete(4, start=2), 4),
        (spaces.MultiDiscrete([2, 3, 4]), 9),
        (BOX3, 3),
        (spaces.MultiBinary(3), 6),
        (spaces.Box(-1, 1, (2, 2)), 4),
        (spaces.MultiDiscrete(np.array([[2, 2]])), 4),
        (spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Tuple((BOX3, spaces.Discrete(5)))}), 10),
    ],
)
def test_head_sizes(space: spaces.Space[Any], size: int) -> None:
    """One number a choice, or a mean a component."""
    assert head_size(space) == size


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(3),
        spaces.Box(0, 255, (3,), np.uint8),
        spaces.Dict({"a": spaces.Box(0, 9, (2,), np.int64)}),
    ],
)
def test_spaces_without_a_head_are_refused(space: spaces.Space[Any]) -> None:
    """The message names the space and what would work."""
    with pytest.raises(ConfigError, match="use Discrete, MultiDiscrete, MultiBinary, a Box of floats"):
        head_size(space)


def test_impossible_gaussians_are_refused() -> None:
    """Squashing into an unbounded Box; a Box without a deviation."""
    with pytest.raises(ConfigError, match=r"squashing needs a bounded Box.*set squash=False"):
        head(spaces.Box(-np.inf, 1, (2,)), squash=True)
    with pytest.raises(ConfigError, match=r"must give \(mean, log_std, value\)"):
        head(BOX3, squash=False)(torch.zeros(3), None)


def test_normalizer_is_frozen_until_merged_and_then_equals_numpy() -> None:
    """Three merges of unequal size; mean and variance of all 60 rows."""
    data = np.random.default_rng(0).normal([5.0, -1e3, 0.0], [2.0, 1e2, 1e-3], (60, 3))
    layer, x = Normalizer(3), torch.tensor([[1.0, -20.0, 3.0]])
    assert layer(x).tolist() == [[1.0, -10.0, 3.0]]
    for part in (data[:7], data[7:8], data[8:]):
        layer.merge(torch.from_numpy(part))
    layer.merge(torch.zeros(0, 3))
    np.testing.assert_allclose(layer.total_mean.numpy(), data.mean(0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(layer.total_m2.numpy() / 60, data.var(0), rtol=1e-10)
    expected = np.clip((data - data.mean(0)) / np.sqrt(data.var(0) + 1e-8), -10, 10)
    np.testing.assert_allclose(layer(torch.from_numpy(data).float()).numpy(), expected, atol=2e-4)


def test_normalizer_does_not_depend_on_threads() -> None:
    """The statistics of 100,000 rows have the same bits with one intra-op thread and with two."""
    data = draws(100_000, 5).float()
    layers = [Normalizer(5), Normalizer(5)]
    try:
        for threads, layer in enumerate(layers, start=1):
            torch.set_num_threads(threads)
            layer.merge(data)
    finally:
        torch.set_num_threads(1)
    for name, buffer in layers[0].named_buffers():
        assert torch.equal(buffer, dict(layers[1].named_buffers())[name]), name


def test_pack_shares_memory_and_is_idempotent() -> None:
    """Writing to the flat buffer writes the parameters; a second call gives the same memory."""
    policy = make_policy(spec_of(BOX3, BOX3), Network(hidden=(8,)), 0)
    before = [p.detach().clone() for p in packing(policy)]
    flat = pack(policy)
    assert flat.tolist() == torch.cat([p.reshape(-1) for p in before]).tolist()
    assert packing(policy)[-1] is policy.get_parameter("log_std")
    assert pack(policy).data_ptr() == flat.data_ptr()
    flat.fill_(2.0)
    assert all(bool((p == 2).all()) for p in policy.parameters())
    policy.load_state_dict({name: torch.full_like(x, 3.0) for name, x in policy.state_dict().items()})
    assert bool((flat == 3).all())
    torch.optim.SGD(policy.parameters(), lr=1.0)
    assert pack(policy).data_ptr() == flat.data_ptr()


def test_pack_counts_tied_weights_once() -> None:
    """Two layers of one weight: 4 + 2 + 2 numbers, and they stay tied; a copy packs the same."""
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    module = nn.Sequential(first, second)
    flat = pack(module)
    assert flat.shape == (8,)
    first.weight.data.fill_(7.0)
    assert torch.equal(second.weight, first.weight)
    snapshot = Snapshot(module)
    assert torch.equal(snapshot.flat, flat)
    assert snapshot.flat.data_ptr() != flat.data_ptr()


def test_pack_refuses_mixed_dtypes_and_packs_nothing() -> None:
    """One buffer has one dtype; a module without parameters has an empty one."""
    with pytest.raises(ValueError, match="must share one dtype and device"):
        pack(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, dtype=torch.float64)))
    assert pack(nn.Tanh()).shape == (0,)


def test_snapshot_is_apart_until_updated() -> None:
    """Weights and normalization statistics come over with `update`, and only then."""
    policy = make_policy(spec_of(BOX3, BOX3), Network(hidden=(8,), normalize_obs=True), 0)
    snapshot, flat = Snapshot(policy), pack(policy)
    flat.add_(1.0)
    assert isinstance(policy, MlpPolicy)
    policy.encoder.observe(draws(9, 3))
    assert not torch.equal(snapshot.flat, flat)
    snapshot.update(policy, flat)
    for name, value in policy.state_dict().items():
        assert torch.equal(snapshot.policy.state_dict()[name], value), name
    assert not any(p.requires_grad for p in snapshot.policy.parameters())


SETTINGS: dict[str, Any] = {"num_threads": 1, "act_block": 64, "grad_shards": 1}
LOWERED = [
    (spaces.Box(-9, 9, (2, 3)), spaces.Discrete(4, start=1), Network(hidden=(16, 16))),
    (BOX3, spaces.MultiDiscrete([2, 5]), Network(hidden=(33,), activation="relu", normalize_obs=True)),
    (BOX3, spaces.Box(-2, 2, (2,)), Network(hidden=(8, 8, 8), normalize_obs=True)),
    (spaces.Box(0, 255, (5,), np.uint8), spaces.Discrete(2), Network(hidden=())),
]


def lowered(policy: nn.Module, spec: Spec) -> Plan:
    """The plan of a policy that can be lowered."""
    plan = lower(policy, spec, pack(policy), **SETTINGS)
    assert plan is not None
    return plan


@pytest.mark.parametrize(("observation", "action", "network"), LOWERED)
def test_lowered_forward_equals_torch(
    observation: spaces.Space[Any], action: spaces.Space[Any], network: Network
) -> None:
    """Values and greedy actions, before and after the weights and the statistics change."""
    spec = spec_of(observation, action)
    policy = make_policy(spec, network, 3)
    assert isinstance(policy, MlpPolicy)
    plan = lowered(policy, spec)
    observation.seed(1)
    obs = np.stack([observation.sample() for _ in range(37)])
    rows = np.arange(37, dtype=np.int64)
    start = np.ones(37, np.bool_)
    for _ in range(2):
        with torch.no_grad():
            output = policy(torch.from_numpy(obs), None, torch.zeros(37))
        np.testing.assert_allclose(plan.value(obs, start, None), output.value.numpy(), rtol=1e-5, atol=1e-5)
        chosen, log_prob, _ = plan.act(obs, start, None, Noise(1, 0, rows, rows), greedy=True)
        mode = output.distribution.mode()
        np.testing.assert_allclose(chosen, mode.numpy(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(log_prob, output.distribution.log_prob(mode).detach(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(plan.to_env(chosen), output.distribution.to_env(mode).numpy(), rtol=1e-5, atol=1e-5)
        pack(policy).add_(torch.linspace(-0.1, 0.1, len(pack(policy))))
        policy.encoder.observe(torch.from_numpy(obs))
        plan.refresh_normalizer()


def test_which_policies_are_lowered() -> None:
    """Only shoal's own policies themselves, with a Box to see, float32, and a head that native code has."""
    spec, net = spec_of(BOX3, BOX3), Network(hidden=(4,))

    class Mine(MlpPolicy):
        """A subclass may change anything."""

    policy = make_policy(spec, net, 0)
    recurrent = make_policy(spec, Network(hidden=(4,), recurrent="gru"), 0)
    for ours in (policy, recurrent):
        assert lower(ours, spec, pack(ours), **SETTINGS) is not None
    discrete = spec_of(spaces.Discrete(4), BOX3)
    others = [
        (spec, make_policy(spec, Network(hidden=(4,), squash=True), 0)),
        (discrete, make_policy(discrete, net, 0)),
        (spec, Mine(spec, net, torch.Generator())),
        (spec, copy.deepcopy(policy).double()),
        (spec, PlainPolicy(nn.Linear(3, 4), spec)),
    ]
    for their_spec, other in others:
        assert lower(other, their_spec, pack(other), **SETTINGS) is None
