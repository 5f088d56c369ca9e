"""Policies of one signature: memory zeroed at starts, initialization from a seed alone, users' modules wrapped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from shoal.learn.acting import Acting, PlanActor, TorchActor, make_actor
from shoal.nets.encoder import Encoder
from shoal.nets.policy import MlpPolicy, Network, Output, PlainPolicy, RecurrentPolicy, make_policy, wrap
from shoal.types import ConfigError, Spec

BOX3 = spaces.Box(-1, 1, (3,), np.float32)
FOUR = spaces.Discrete(4)
MEMORIES = ["gru", "lstm"]
DISCRETE = Spec.of("Test-v0", BOX3, FOUR)
CONTINUOUS = Spec.of("Test-v0", BOX3, spaces.Box(-2, 2, (2,)))


def recurrent(kind: Any, seed: int = 0) -> RecurrentPolicy:
    """A small policy with memory, its heads made large enough to show every difference."""
    policy = make_policy(DISCRETE, Network(hidden=(8,), recurrent=kind, recurrent_size=5), seed)
    assert isinstance(policy, RecurrentPolicy)
    with torch.no_grad():
        policy.actor.get_parameter("0.weight").mul_(100)
    return policy


def observations(*lead: int, seed: int = 0) -> Tensor:
    """Random observations [*lead, 3]."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((*lead, 3)).astype(np.float32))


def leaves(state: Any) -> list[Tensor]:
    """The tensors of a recurrent state."""
    return list(state) if isinstance(state, tuple) else [state]


def logits(output: Output) -> Tensor:
    """The normalized logits of a categorical output."""
    distribution: Any = output.distribution
    return distribution.log_probs


def close(left: Output, right: Output) -> None:
    """Two outputs agree in logits, values and state."""
    torch.testing.assert_close(logits(left), logits(right), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(left.value, right.value, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(leaves(left.state), leaves(right.state), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", MEMORIES)
def test_a_start_inside_equals_two_sequences_apart(kind: str) -> None:
    """Row 0 starts anew at step 3; row 1 goes on: as a run of 3 steps and one of 4 with row 0 zeroed by hand."""
    policy, obs = recurrent(kind), observations(7, 2)
    start = torch.zeros(7, 2, dtype=torch.bool)
    start[3, 0] = True
    whole = policy(obs, policy.initial_state(2), start)
    no_start = torch.zeros(4, 2, dtype=torch.bool)
    first = policy(obs[:3], policy.initial_state(2), no_start[:3])
    for leaf in leaves(first.state):
        assert leaf[0].abs().min() > 0
        leaf[0] = 0
    second = policy(obs[3:], first.state, no_start)
    torch.testing.assert_close(whole.value, torch.cat([first.value, second.value]))
    torch.testing.assert_close(logits(whole), torch.cat([logits(first), logits(second)]))
    fresh = policy(obs[3:, :1], policy.initial_state(1), no_start[:, :1])
    torch.testing.assert_close(whole.value[3:, :1], fresh.value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", MEMORIES)
def test_steps_at_once_equal_single_steps(kind: str) -> None:
    """Six steps in one call and in six calls, with starts among them; the state matters."""
    policy, obs = recurrent(kind), observations(6, 3)
    start = torch.tensor([[1, 1, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.bool)
    whole = policy(obs, policy.initial_state(3), start)
    state, outputs = policy.initial_state(3), list[Output]()
    for t in range(6):
        outputs.append(policy(obs[t : t + 1], state, start[t : t + 1]))
        state = outputs[-1].state
    joined = torch.cat([output.value for output in outputs])
    torch.testing.assert_close(whole.value, joined, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits(whole), torch.cat([logits(x) for x in outputs]), rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(leaves(whole.state), leaves(state), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    memoryless = policy(obs, policy.initial_state(3), torch.ones_like(start))
    assert (memoryless.value - whole.value).abs().max() > 1e-2


@pytest.mark.parametrize("kind", MEMORIES)
def test_memory_equals_torch_s_sequence_module(kind: str) -> None:
    """The cell's weights in torch.nn.GRU or LSTM give the same hidden states."""
    policy, obs = recurrent(kind), observations(5, 2)
    whole = (nn.LSTM if kind == "lstm" else nn.GRU)(8, 5)
    whole.load_state_dict({f"{name}_l0": value for name, value in policy.cell.state_dict().items()})
    hidden, _ = whole(policy.body(obs))
    ours = policy(obs, policy.initial_state(2), torch.zeros(5, 2))
    torch.testing.assert_close(ours.value, policy.critic(hidden).squeeze(-1), rtol=1e-5, atol=1e-6)


def test_mlp_has_any_leading_axes_and_no_memory() -> None:
    """[T, B], [m, T, B] and nested observations give shapes to match; the state stays None."""
    policy = make_policy(CONTINUOUS, Network(hidden=(8,), log_std_init=-0.5), 0)
    assert isinstance(policy, MlpPolicy)
    assert policy.initial_state(3) is None
    flat = policy(observations(6, 1), None, torch.zeros(6, 1))
    deep = policy(observations(6, 1).reshape(2, 3, 1, 3), None, torch.zeros(2, 3, 1))
    assert deep.value.shape == (2, 3, 1)
    assert deep.state is None
    torch.testing.assert_close(deep.value.reshape(6, 1), flat.value)
    assert flat.distribution.entropy()[0, 0].item() == pytest.approx(2 * (-0.5 + 0.5 * np.log(2 * np.pi * np.e)))


def test_discrete_observations_are_one_hot() -> None:
    """Discrete counts from its start; MultiDiscrete lays its parts side by side."""
    one = Encoder(Spec.of("Test-v0", spaces.Discrete(3, start=4), FOUR), normalize=True)
    assert one(torch.tensor([[4, 6]])).tolist() == [[[1, 0, 0], [0, 0, 1]]]
    assert one.normalizer is None
    many = Encoder(Spec.of("Test-v0", spaces.MultiDiscrete([2, 3], start=[0, 1]), FOUR), normalize=False)
    assert many(torch.tensor([[1, 1], [0, 3]])).tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]


def test_initial_weights_are_orthogonal_with_their_gains() -> None:
    """Hidden layers sqrt(2), the actor's last 0.01, the critic's last 1; biases 0."""
    policy = make_policy(DISCRETE, Network(hidden=(16, 8)), 0)
    assert isinstance(policy, MlpPolicy)
    for last, tower in ((0.01, policy.actor), (1.0, policy.critic)):
        linears = [layer for layer in tower if isinstance(layer, nn.Linear)]
        for gain, linear in zip((2**0.5, 2**0.5, last), linears, strict=True):
            weight = linear.weight.detach()
            small = weight if weight.shape[0] <= weight.shape[1] else weight.T
            torch.testing.assert_close(small @ small.T, gain**2 * torch.eye(len(small)), rtol=1e-4, atol=1e-5)
            assert not linear.bias.any()


@pytest.mark.parametrize("kind", MEMORIES)
def test_initial_memories_are_orthogonal(kind: str) -> None:
    """The columns of both matrices of the cell are orthonormal, the biases 0."""
    cell = recurrent(kind).cell
    for weight in (cell.weight_ih, cell.weight_hh):
        torch.testing.assert_close(weight.T @ weight, torch.eye(weight.shape[1]), rtol=1e-4, atol=1e-5)
    assert not cell.bias_ih.any()
    assert not cell.bias_hh.any()


@pytest.mark.parametrize("kind", ["none", "gru", "lstm"])
@pytest.mark.parametrize("action", [FOUR, spaces.Box(-2, 2, (2,))])
def test_weights_come_from_the_seed_alone(kind: Any, action: spaces.Space[Any]) -> None:
    """Same seed, same weights; another seed, others; torch's global generator is neither read nor moved."""
    spec, network = Spec.of("Test-v0", BOX3, action), Network(hidden=(8,), recurrent=kind)
    before = torch.get_rng_state()
    first = make_policy(spec, network, 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again, other = make_policy(spec, network, 5), make_policy(spec, network, 6)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
        if "weight" in name:
            assert not torch.equal(weight, other.state_dict()[name]), name


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS])
@pytest.mark.parametrize("kind", ["none", "gru"])
@pytest.mark.parametrize("native", [True, False])
def test_acting_draws_nothing_from_torch(spec: Spec, kind: Any, *, native: bool) -> None:
    """The noise is a function of (seed, stream, row, row's step): the same again, whatever torch's generator."""
    policy = make_policy(spec, Network(hidden=(8,), recurrent=kind), 0)
    obs, start = observations(4).numpy(), np.zeros(4, np.bool_)
    chosen: list[Any] = []
    for torch_seed in (1, 2):
        torch.manual_seed(torch_seed)
        before = torch.get_rng_state()
        actor = make_actor(policy, spec, 4, Acting(seed=3, native=native))
        assert isinstance(actor, PlanActor if native else TorchActor)
        chosen.append(np.stack([actor.act(obs, start, slice(0, 4)).action for _ in range(12)]))
        assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(chosen[0], chosen[1])
    for row in range(4):
        assert len(np.unique(chosen[0][:, row])) > 1
    actor = make_actor(policy, spec, 4, Acting(seed=4, native=native))
    assert not np.array_equal(np.stack([actor.act(obs, start, slice(0, 4)).action for _ in range(12)]), chosen[0])


@pytest.mark.parametrize("native", [True, False])
def test_rows_in_halves_and_blocks_act_as_all_at_once(*, native: bool) -> None:
    """Actions do not depend on which rows act together, nor on the block; greedy ones are the mode."""
    policy = make_policy(DISCRETE, Network(hidden=(8,)), 0)
    obs, start = observations(6).numpy(), np.zeros(6, np.bool_)
    whole = make_actor(policy, DISCRETE, 6, Acting(seed=3, native=native))
    parts = make_actor(policy, DISCRETE, 6, Acting(seed=3, native=native, act_block=2))
    for _ in range(10):
        all_at_once: Any = whole.act(obs, start, slice(0, 6))
        halves: list[Any] = [parts.act(obs[at], start[at], at) for at in (slice(0, 5), slice(5, 6))]
        np.testing.assert_array_equal(np.concatenate([half.action for half in halves]), all_at_once.action)
        log_prob = np.concatenate([half.log_prob for half in halves])
        np.testing.assert_allclose(log_prob, all_at_once.log_prob, rtol=1e-5)
    greedy = whole.act(obs, start, slice(0, 6), greedy=True)
    mode = policy(torch.from_numpy(obs), None, torch.zeros(6)).distribution.mode()
    np.testing.assert_array_equal(greedy.env_action, mode.numpy())


class Plain(nn.Module):
    """A user's module: logits of `out` numbers, and values that `shape` turns."""

    def __init__(self, out: int, shape: Any, *, log_std: bool = False) -> None:
        super().__init__()
        self.actor, self.critic, self.shape = nn.Linear(3, out), nn.Linear(3, 1), shape
        self.log_std = nn.Parameter(torch.zeros(out)) if log_std else None

    def forward(self, obs: Tensor) -> tuple[Tensor, ...]:
        """[N, 3] -> (logits, value), or (mean, log_std, value)."""
        assert obs.dim() == 2
        value = self.shape(self.critic(obs))
        return (self.actor(obs), value) if self.log_std is None else (self.actor(obs), self.log_std, value)


@pytest.mark.parametrize("shape", [lambda v: v, lambda v: v.squeeze(-1)], ids=["column", "vector"])
def test_a_plain_module_is_wrapped(shape: Any) -> None:
    """Values [N, 1] or [N]; the module sees a flat batch, the output has [T, B]."""
    module, obs = Plain(4, shape), observations(5, 2)
    policy: Any = wrap(module, DISCRETE)
    assert isinstance(policy, PlainPolicy)
    output = policy(obs, policy.initial_state(2), torch.zeros(5, 2))
    torch.testing.assert_close(output.value, module.critic(obs).squeeze(-1))
    torch.testing.assert_close(logits(output), module.actor(obs).log_softmax(-1))
    assert output.state is None


def test_a_plain_module_sees_floats_of_its_own_kind() -> None:
    """Float64 observations, as MuJoCo's, fit float32 weights; whole numbers stay as they are."""
    obs = observations(5, 2)
    policy = wrap(Plain(4, lambda v: v), DISCRETE)
    zeros = torch.zeros(5, 2)
    assert torch.equal(policy(obs.double(), None, zeros).value, policy(obs, None, zeros).value)

    class Whole(nn.Module):
        """Takes bytes."""

        def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
            """Values from the bytes."""
            assert seen.dtype == torch.uint8
            return torch.zeros(len(seen), 4), seen[:, 0].float()

    images = Spec.of("Test-v0", spaces.Box(0, 255, (3,), np.uint8), FOUR)
    assert wrap(Whole(), images)(torch.full((5, 2, 3), 7, dtype=torch.uint8), None, zeros).value[0, 0] == 7


def test_a_plain_gaussian_is_wrapped() -> None:
    """Mean, one log_std for all rows, and value."""
    module, obs = Plain(2, lambda v: v, log_std=True), observations(5, 2)
    output = wrap(module, CONTINUOUS)(obs, None, torch.zeros(5, 2))
    expected = torch.distributions.Normal(module.actor(obs), 1.0)
    action = observations(5, 2)[..., :2]
    torch.testing.assert_close(output.distribution.log_prob(action), expected.log_prob(action).sum(-1))


@pytest.mark.parametrize(
    ("module", "spec"),
    [
        (Plain(3, lambda v: v), DISCRETE),
        (Plain(4, lambda v: v.expand(-1, 2)), DISCRETE),
        (Plain(4, lambda v: v[:1]), DISCRETE),
        (Plain(2, lambda v: v), CONTINUOUS),
        (nn.Linear(3, 4), DISCRETE),
        (nn.Linear(3, 2), CONTINUOUS),
    ],
)
def test_wrong_shapes_are_refused(module: nn.Module, spec: Spec) -> None:
    """Too few logits, too many or too few values, no deviation for a Box, no value at all."""
    with pytest.raises(ConfigError, match=r"\(mean, log_std, value"):
        wrap(module, spec)(observations(2, 2), None, torch.zeros(2, 2))


class Own(nn.Module):
    """A user's policy in shoal's own signature, made from the specification."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.size = spec.observation.single.shape[0]

    def initial_state(self, num_rows: int) -> Tensor:
        """Counts steps."""
        return torch.zeros(num_rows)

    def forward(self, obs: Tensor, state: Tensor, start: Tensor) -> Output:
        """Not used here."""
        raise NotImplementedError


def test_a_user_s_class_is_made_from_the_spec() -> None:
    """A class, or a function, of the specification; one in shoal's signature stays as it is."""
    own = wrap(Own, DISCRETE)
    assert isinstance(own, Own)
    assert own.size == 3
    made = wrap(lambda _: Plain(4, lambda v: v), DISCRETE)
    assert isinstance(made, PlainPolicy)
    with pytest.raises(ConfigError, match=r"the policy gave shapes \[\(2, 1\)\] for 2 observations"):
        wrap(lambda spec: nn.Linear(spec.observation.single.shape[0], 1), DISCRETE)
    with pytest.raises(ConfigError, match=r"returned int, expected a torch\.nn\.Module"):
        wrap(lambda _: 3, DISCRETE)
