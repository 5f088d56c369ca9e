"""Q-networks: dueling, noisy and distributional ones by hand, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from shoal.learn.lowering import lower
from shoal.learn.weights import pack
from shoal.nets.epsilon_greedy import EpsilonGreedy
from shoal.nets.network import QNet
from shoal.nets.noisy import NoisyLinear, draw_noise
from shoal.nets.policy import Output
from shoal.nets.q_network import PlainQNetwork, QNetwork, action_values, make_q_network, values_of
from shoal.types import ConfigError, Layout, Spec


def spec_of(actions: Any = None) -> Spec:
    box = spaces.Box(-9, 9, (3,), np.float32)
    space = spaces.Discrete(4) if actions is None else actions
    return Spec("Made-v0", box, space, Layout.of(box), Layout.of(space))


def made(**settings: Any) -> QNetwork:
    return make_q_network(spec_of(), QNet(hidden=(8,), **settings), seed=1)


def seen(count: int = 6) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32))


def output_of(network: QNetwork) -> Output:
    return network(seen(), None, None)


VARIANTS = [{"dueling": True}, {"noisy": True}, {"quantiles": 5}, {"layer_norm": True}]


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_run_in_torch_alone(variant: dict[str, Any]) -> None:
    network = made(**variant)
    assert lower(network, network.spec, pack(network), num_threads=1, act_block=64, grad_shards=1) is None
    assert action_values(output_of(network)).shape == (6, 4)


def test_dueling_adds_the_advantage_above_its_mean() -> None:
    network = made(dueling=True)
    x = network.body(seen())
    advantage, value = network.advantage(x), network.state_value(x)
    values = action_values(output_of(network))
    torch.testing.assert_close(values, value + advantage - advantage.mean(-1, keepdim=True))
    torch.testing.assert_close(values.mean(-1, keepdim=True), value)


@pytest.mark.parametrize("variant", [{}, {"dueling": True}, {"noisy": True}])
def test_hidden_layers_are_normalized_before_their_activation(variant: dict[str, Any]) -> None:
    """Two of them, each with mean 0 and deviation 1 over its units; the values themselves are not."""
    network = make_q_network(spec_of(), QNet(hidden=(8, 6), layer_norm=True, **variant), seed=1)
    hidden: Any = network.body if variant.get("dueling") else network.q
    kinds = [type(layer).__name__ for layer in hidden][:6]
    assert kinds == ["Linear", "LayerNorm", "ReLU"] * 2
    x = hidden[0](seen())
    centered = x - x.mean(-1, keepdim=True)
    deviation = centered.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(hidden[:2](seen()), centered / deviation, rtol=1e-3, atol=1e-3)
    assert sum(isinstance(layer, torch.nn.LayerNorm) for layer in network.modules()) == 2


@pytest.mark.parametrize("image", ["nature", "impala"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_images_are_normalized_too(image: Any, precision: Any) -> None:
    """Twice the contrast makes no difference behind a norm; weights that were published act as they learn.

    Residual blocks add what was not normalized.
    """
    box, actions = spaces.Box(0, 255, (36, 36, 3), np.uint8), spaces.Discrete(4)
    spec = Spec("Made-v0", box, actions, Layout.of(box), Layout.of(actions))
    pixels = torch.randint(0, 100, (2, 36, 36, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    network = make_q_network(spec, QNet(image=image, precision=precision, layer_norm=True), seed=1)
    values = action_values(network(pixels, None, None))
    near = 0.05 if precision == "bfloat16" else 0.02
    if image == "nature":
        torch.testing.assert_close(action_values(network(2 * pixels, None, None)), values, rtol=0, atol=near)
    encoder: Any = network.encoder
    encoder.freeze()
    with torch.no_grad():
        torch.testing.assert_close(action_values(network(pixels, None, None)), values.detach(), rtol=0, atol=near)


def test_a_norm_without_hidden_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"layer_norm normalizes hidden layers, and hidden=\(\) leaves none"):
        make_q_network(spec_of(), QNet(hidden=(), layer_norm=True), seed=1)


def test_quantiles_are_chosen_by_action_and_their_mean_is_the_value() -> None:
    output = output_of(made(quantiles=5))
    action = torch.tensor([0, 1, 2, 3, 0, 1])
    chosen = values_of(output, action)
    assert chosen.shape == (6, 5)
    torch.testing.assert_close(chosen.mean(-1), action_values(output).gather(-1, action[:, None]).squeeze(-1))
    plain = output_of(made())
    assert values_of(plain, action).tolist() == [action_values(plain)[i, a].item() for i, a in enumerate(action)]


def test_a_noisy_layer_by_hand() -> None:
    """Weight 2 + 0.5 f(9) f(-4) = 2 + 0.5 * 3 * -2 = -1; b = 1 + 0.25 * 3 = 1.75; so x = 10 gives -8.25, without 21."""
    layer = NoisyLinear(1, 1, torch.Generator())
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), (2.0, 1.0, 0.5, 0.25), strict=True):
            parameter.fill_(value)

    class Drawn:
        """Draws -4 for the input, then 9 for the output."""

        numbers = iter([-4.0, 9.0])

        def standard_normal(self, size: int) -> np.ndarray[Any, Any]:
            return np.full(size, next(self.numbers))

    layer.draw(Drawn())  # pyright: ignore[reportArgumentType]
    x = torch.tensor([10.0])
    assert layer(x).item() == pytest.approx(-8.25)
    assert layer.without_noise(x).item() == pytest.approx(21)


def test_noise_chooses_actions_but_not_greedy_ones() -> None:
    network = made(noisy=True)
    greedy = output_of(network).distribution.mode()
    values: list[torch.Tensor] = []
    rng = np.random.default_rng(0)
    for _ in range(20):
        draw_noise(rng, network)
        output = output_of(network)
        values.append(action_values(output).argmax(-1))
        assert output.distribution.mode().tolist() == greedy.tolist()
    assert (torch.stack(values) != values[0]).any()
    last: Any = network.q[-1]
    sigma = last.weight_sigma
    assert sigma.unique().item() == pytest.approx(0.5 / math.sqrt(8))


def test_masks_hold_for_what_is_chosen_with_noise_and_without() -> None:
    network = made(noisy=True)
    draw_noise(np.random.default_rng(3), network)
    mask = torch.tensor([False, True, False, False]).expand(6, 4)
    distribution = output_of(network).distribution
    assert isinstance(distribution, EpsilonGreedy)
    chosen = distribution.masked(mask).exploring(torch.full((6,), 0.5))
    assert chosen.sample(torch.rand(6, 1)).tolist() == [1] * 6
    assert distribution.masked(mask).mode().tolist() == [1] * 6


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)])
def test_other_action_spaces_are_refused(space: Any) -> None:
    with pytest.raises(ConfigError, match=r"Made-v0: a Q-network has one value for each action of a Discrete space"):
        make_q_network(spec_of(space), QNet(), seed=1)


def test_a_policy_without_values_is_refused() -> None:
    output: Any = Output(object(), torch.zeros(1), None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"Q-learning needs a policy whose distribution is .*EpsilonGreedy"):
        action_values(output)


def test_a_plain_module_gives_values() -> None:
    module = torch.nn.Linear(3, 4)
    policy = PlainQNetwork(module, spec_of())
    output = policy(seen().unsqueeze(0), None, None)
    torch.testing.assert_close(action_values(output), module(seen()).unsqueeze(0))
    torch.testing.assert_close(output.value, module(seen()).amax(-1).unsqueeze(0))


@pytest.mark.parametrize(("module", "message"), [
    (torch.nn.Linear(3, 5), r"gave shapes \[\(6, 5\)\] for 6 observations; expected values \[N, 4\]"),
    (torch.nn.LSTM(3, 4), r"returned \(.*\); return the values of the actions"),
])  # fmt: skip
def test_a_plain_module_of_other_outputs_is_refused(module: torch.nn.Module, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PlainQNetwork(module, spec_of())(seen(), None, None)
