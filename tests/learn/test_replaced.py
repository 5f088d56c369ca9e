"""What the owner of a module puts in the place of its tensors, layers or optimizer is seen by all who act and learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam

import shoal
from shoal.envs.registry import make
from shoal.experiment.training import resume, train
from shoal.learn.acting import Acting, PlanActor
from shoal.learn.hardware import Hardware
from shoal.learn.learner import Learner
from shoal.learn.lowering import lower
from shoal.learn.weights import Snapshot, pack
from shoal.nets.network import Network
from shoal.nets.policy import MlpPolicy, make_policy, wrap
from shoal.stream.rollouts import rollouts
from shoal.types import ConfigError
from tests.inside import inside

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.types import Spec

SHORT: dict[str, Any] = {
    "num_envs": 2,
    "num_steps": 8,
    "num_minibatches": 2,
    "total_timesteps": 64,
    "panel": "none",
}


class Moved(nn.Module):
    """Assigns a buffer and a parameter's data in each forward."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.mean, self.critic = nn.Linear(3, 1), nn.Linear(3, 1)
        self.log_std = nn.Parameter(torch.zeros(1))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.log_std.data = self.log_std.data.clamp(-2, 2)
        self.count = self.count + self.training
        return self.mean(obs), self.log_std, self.critic(obs)


class Lazy(nn.Module):
    """Layers without shapes, and a buffer made in the first forward."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.actor, self.critic = nn.LazyLinear(2), nn.LazyLinear(1)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        if not hasattr(self, "seen"):
            self.register_buffer("seen", torch.zeros(obs.shape[-1]))
        self.seen = self.seen + 1.0 * self.training
        return self.actor(obs), self.critic(obs)


class Loose(nn.Module):
    """A running mean, and a number that stays, that are no buffers."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.actor, self.critic = nn.Linear(4, 2), nn.Linear(4, 1)
        self.running, self.scale = torch.zeros(4), torch.ones(4)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            self.changes(obs.detach().mean(0))
        x = (obs - self.running) * self.scale
        return self.actor(x), self.critic(x)

    def changes(self, mean: Tensor) -> None:
        self.running = 0.9 * self.running + 0.1 * mean


class LooseInPlace(Loose):
    """The same, written in place."""

    def changes(self, mean: Tensor) -> None:
        self.running.mul_(0.9).add_(0.1 * mean)


class Value(NamedTuple):
    value: Tensor


def squares(networks: dict[str, nn.Module], batch: Any, cfg: Any) -> tuple[Tensor, Value]:
    total = sum((p.square().sum() for p in networks["policy"].parameters()), torch.zeros(()))
    return total, Value(total.detach())


@pytest.mark.parametrize("policy", [Loose, LooseInPlace])
def test_a_tensor_that_is_no_buffer_is_warned_of(policy: Any, tmp_path: Path) -> None:
    """Once, by its name; one that stays the same is not."""
    with pytest.warns(UserWarning, match="running") as warned:
        train("CartPole-v1", policy=policy, run_dir=str(tmp_path), final_episodes=0, **SHORT)
    (said,) = [str(one.message) for one in warned]
    assert said.startswith(f"{policy.__name__}.running is a tensor that training changes, but neither")
    assert 'self.register_buffer("running", ...)' in said


def test_an_assigned_buffer_and_a_parameter_s_data_act() -> None:
    env = make("Pendulum-v1", 2)
    policy = wrap(Moved(env.spec), env.spec)
    stream = rollouts(env, policy, num_steps=4, acting=Acting(0))
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    inner: Any = policy
    for _, steps in zip(range(3), stream, strict=False):
        policy(steps.obs, None, steps.start).distribution.log_std.sum().backward()
        optimizer.step()
        stream.publish()
        role = inside(stream).roles[0]
        role.refresh()
        acting: Any = role.actor
        copied = acting.snapshot.policy.module
        assert int(copied.count) == int(inner.module.count) > 0
        assert copied.log_std.item() == inner.module.log_std.item() < 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Moved, Lazy])
def test_such_modules_are_trained_resumed_and_loaded(kind: type[nn.Module], tmp_path: Path) -> None:
    env = "Pendulum-v1" if kind is Moved else "CartPole-v1"
    # Each step of the policy counts, so equal buffers mean equal updates.
    whole = train(env, policy=kind, run_dir=str(tmp_path / "a"), **SHORT)
    half: dict[str, Any] = {**SHORT, "total_timesteps": 32}
    part = train(env, policy=kind, run_dir=str(tmp_path / "b"), **half)
    rest = resume(part.path, policy=kind, panel="none", total_timesteps=64)
    loaded = shoal.load(part.path, policy=kind).policy.state_dict()
    expected = whole.policy.state_dict()
    assert expected.keys() == loaded.keys()
    for name, saved in expected.items():
        assert torch.equal(saved, rest.policy.state_dict()[name]), name
        assert torch.equal(saved, loaded[name]), name
    counted = "module.count" if kind is Moved else "module.seen"
    assert expected[counted].max() >= 8


def test_lazy_layers_are_drawn_from_the_seed(tmp_path: Path) -> None:
    runs = [train("CartPole-v1", policy=Lazy, run_dir=str(tmp_path / name), **SHORT) for name in "ab"]
    assert torch.equal(pack(runs[0].policy), pack(runs[1].policy))


def test_a_lazy_network_beside_the_policy_is_refused() -> None:
    env = make("CartPole-v1", 2)
    learner = Learner(make_policy(env.spec, Network(), 0), Adam, lr=0.1)
    with pytest.raises(ConfigError, match=r"parameter weight of a lazy layer has no shape yet; call the network once"):
        learner.add("critic", nn.LazyLinear(1), Adam)


@pytest.mark.parametrize("native", [True, False])
def test_the_data_of_a_native_policy_s_parameter(*, native: bool) -> None:
    env = make("Pendulum-v1", 2)
    policy = make_policy(env.spec, Network(), 0)
    learner = Learner(policy, Adam, hardware=Hardware(native=native), lr=0.1)
    stream = rollouts(env, learner, num_steps=4, acting=Acting(0, native=native))
    next(stream)
    assert isinstance(policy, MlpPolicy)
    assert policy.log_std is not None
    policy.log_std.data = policy.log_std.data - 20
    policy.critic[0].bias.data = torch.ones(64)
    stream.publish()
    steps = next(stream)
    # A deviation of exp(-20): the actions are the means, as the policy says them now.
    output = policy(steps.obs, None, steps.start)
    torch.testing.assert_close(steps.action, output.distribution.mode(), atol=1e-4, rtol=0)
    torch.testing.assert_close(steps.value, output.value, atol=1e-4, rtol=1e-4)


def test_replaced_parameters_and_layers_are_refused() -> None:
    env = make("CartPole-v1", 2)
    cases: list[tuple[str, Any]] = [("bias", nn.Parameter(torch.zeros(1))), ("layer", nn.ELU())]
    for name, other in cases:
        policy = make_policy(env.spec, Network(), 0)
        assert isinstance(policy, MlpPolicy)
        learner = Learner(policy, Adam, lr=0.1)
        stream = rollouts(env, learner, num_steps=4, acting=Acting(0))
        next(stream)
        if name == "bias":
            policy.critic[-1].bias = other
        else:
            policy.critic[1] = other
        stream.publish()
        with pytest.raises(ConfigError, match="layers or parameters were replaced"):
            next(stream)
        with pytest.raises(ConfigError, match="layers or parameters were replaced"):
            learner.state()


def test_a_target_network_may_get_other_layers() -> None:
    env = make("CartPole-v1", 2)
    learner = Learner(make_policy(env.spec, Network(), 0), Adam, lr=0.1)
    target = nn.Sequential(nn.Linear(2, 2))
    network = learner.add("target", target)
    target[0] = nn.Linear(2, 3)
    assert len(network.flat) == 9
    assert learner.state()["networks"]["target"]["module"]["0.weight"].shape == (3, 2)


def test_layers_that_native_code_does_not_know_stay_in_torch() -> None:
    spec = make("CartPole-v1", 1).spec
    shards: dict[str, Any] = {"num_threads": 1, "act_block": 64, "grad_shards": 1}
    for change in ("none", "layer", "hook"):
        policy = make_policy(spec, Network(), 0)
        assert isinstance(policy, MlpPolicy)
        if change == "layer":
            policy.actor[1] = nn.ELU()
        if change == "hook":
            policy.actor[0].register_forward_hook(lambda *_: None)
        lowered = lower(policy, spec, pack(policy), **shards)
        assert (lowered is None) is (change != "none"), change


@pytest.mark.parametrize("how", ["another", "loaded"])
def test_another_optimizer_takes_the_next_step(how: str) -> None:
    env = make("CartPole-v1", 2)
    learner = Learner(make_policy(env.spec, Network(), 0), Adam, lr=0.01)
    network = learner.networks["policy"]
    for _ in range(3):
        learner.update(squares, None, None, of="policy")
    before = network.flat.clone()
    if how == "another":
        network.optimizer = Adam(network.module.parameters(), lr=0.01)
        again = Adam([twin := before.clone().requires_grad_()], lr=0.01)
    else:
        empty = Adam(network.module.parameters(), lr=0.01).state_dict()
        assert network.optimizer is not None
        network.optimizer.load_state_dict(empty)
        again = Adam([twin := before.clone().requires_grad_()], lr=0.01)
    learner.update(squares, None, None, of="policy")
    twin.square().sum().backward()
    again.step()
    torch.testing.assert_close(network.flat, twin.detach())


def test_a_buffer_that_carries_gradients_is_named() -> None:
    policy = nn.BatchNorm1d(2)
    policy.running_mean = policy.weight * 2
    with pytest.raises(ConfigError, match=r"buffer running_mean carries gradients.*running_mean = \.\.\. \.detach"):
        Snapshot(policy)


def test_a_loaded_policy_acts_as_it_is_now(tmp_path: Path) -> None:
    run = train("CartPole-v1", run_dir=str(tmp_path), **SHORT)
    agent = shoal.load(run.path)
    obs = np.zeros((1, 4), np.float32)
    agent.act(obs)
    assert isinstance(agent._actor, PlanActor)
    policy: Any = agent.policy
    for action in (0, 1):
        with torch.no_grad():
            policy.actor[-1].bias.copy_(torch.eye(2)[action] * 100)
        assert agent.act(obs).tolist() == [action]
    policy.actor[-1].bias.data = torch.tensor([100.0, 0.0])
    assert agent.act(obs).tolist() == [0]
    other: Any = make_policy(agent.spec, Network(hidden=(8,)), 0)
    with torch.no_grad():
        other.actor[-1].bias.copy_(torch.tensor([0.0, 100.0]))
    agent.policy = other
    assert agent.act(obs).tolist() == [1]
