"""PPO and A2C: torch against native code, a population against single runs, and what their settings do."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.optim import Adam, RMSprop

from shoal import algos
from shoal.algos import a2c, ppo
from shoal.algos.a2c import A2C
from shoal.algos.ppo import PPO
from shoal.algos.presets import preset, presets
from shoal.envs.registry import make
from shoal.experiment import launch
from shoal.experiment.settings import build
from shoal.learn.acting import Acting
from shoal.learn.lowering import Plan, lower
from shoal.learn.weights import pack
from shoal.math.returns import gae, n_step
from shoal.nets.distributions import Categorical
from shoal.nets.policy import Network, Output, make_policy
from shoal.run.log import read
from shoal.stream.rollouts import Rollouts, rollouts
from shoal.types import ConfigError, Steps
from tests.single_run import SingleRun

ENVS = ["CartPole-v1", "Pendulum-v1"]


def collected(env_id: str, num_steps: int = 32, **network: Any) -> tuple[Any, nn.Module, Steps]:
    """An environment's specification, a policy that has moved since it acted, and the rollout."""
    env = make(env_id, 8)
    policy = make_policy(env.spec, Network(hidden=(16,), **network), 0)
    steps = next(rollouts(env, policy, num_steps=num_steps, acting=Acting(seed=1)))
    with torch.no_grad():
        noise = torch.Generator().manual_seed(0)
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=noise))
    return env.spec, policy, steps


def plan_of(policy: nn.Module, spec: Any, shards: int) -> Plan:
    """The policy's plan on its own packed weights."""
    plan = lower(policy, spec, pack(policy), num_threads=1, act_block=64, grad_shards=shards)
    assert plan is not None
    return plan


def compare(left: nn.Module, right: nn.Module, runs: list[Any]) -> None:
    """Weights and logged numbers agree within 1e-5."""
    for name, value in left.state_dict().items():
        torch.testing.assert_close(value, right.state_dict()[name], rtol=1e-5, atol=1e-5)
    assert runs[0].logged.keys() == runs[1].logged.keys()
    for name, values in runs[0].logged.items():
        np.testing.assert_allclose(values, runs[1].logged[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("env_id", ENVS)
@pytest.mark.parametrize("changes", [{}, {"clip_vloss": True, "norm_adv": False, "ent_coef": 0.1}])
def test_ppo_in_torch_equals_native(env_id: str, changes: dict[str, Any]) -> None:
    """Two passes over the same minibatches, from the same weights and moments."""
    settings: dict[str, Any] = {"num_envs": 8, "num_steps": 32, "num_minibatches": 2, "adam_eps": 1e-3} | changes
    cfg = PPO(**settings)
    spec, policy, steps = collected(env_id, normalise_obs=True)
    advantage, target = gae(steps, gamma=0.9, gae_lambda=0.9)
    twin = copy.deepcopy(policy)
    runs: list[Any] = [SingleRun(), SingleRun()]
    optimizers = [Adam(p.parameters(), lr=1e-3, eps=cfg.adam_eps) for p in (policy, twin)]
    in_torch = ppo.torch_update(policy, optimizers[0], cfg, runs[0])
    native = ppo.native_update(plan_of(twin, spec, 2), optimizers[1], cfg, runs[1])
    kls = [list(islice(update(steps, advantage, target), 2)) for update in (in_torch, native)]
    np.testing.assert_allclose(kls[0], kls[1], rtol=1e-3, atol=1e-6)
    # Torch logs every minibatch, native code the mean of a pass.
    runs[0].logged = {name: np.mean(np.reshape(x, (2, 2)), 1).tolist() for name, x in runs[0].logged.items()}
    compare(policy, twin, runs)


@pytest.mark.parametrize("env_id", ENVS)
@pytest.mark.parametrize("norm_adv", [True, False])
def test_a2c_in_torch_equals_native(env_id: str, *, norm_adv: bool) -> None:
    """Two updates on one rollout, with entropy."""
    cfg = A2C(num_envs=8, num_steps=32, norm_adv=norm_adv, ent_coef=0.05)
    spec, policy, steps = collected(env_id, normalise_obs=True)
    target = n_step(steps, gamma=0.9, n=5)
    twin = copy.deepcopy(policy)
    runs: list[Any] = [SingleRun(), SingleRun()]
    optimizers = [RMSprop(p.parameters(), lr=1e-3, alpha=0.9, eps=0.1) for p in (policy, twin)]
    cfg = replace(cfg, alpha=0.9, rmsprop_eps=0.1)
    in_torch = a2c.torch_update(policy, optimizers[0], cfg, runs[0])
    native = a2c.native_update(plan_of(twin, spec, 3), optimizers[1], cfg, runs[1])
    for _ in range(2):
        in_torch(steps, target)
        native(steps, target)
    compare(policy, twin, runs)


MEMBERS: dict[str, tuple[float, float]] = {
    "gamma": (0.9, 0.99),
    "ent_coef": (0.0, 0.05),
    "vf_coef": (0.5, 1.0),
    "learning_rate": (1e-3, 5e-3),
}


def member(seed: int) -> tuple[Rollouts, nn.Module]:
    """One member's rows and policy."""
    env = make("CartPole-v1", 4)
    policy = make_policy(env.spec, Network(hidden=(16,)), seed)
    return rollouts(env, policy, num_steps=5, acting=Acting(seed)), policy


def train_alone(seed: int, updates: int) -> nn.Module:
    """A2C's own update, with this member's settings."""
    own: dict[str, Any] = {name: values[seed] for name, values in MEMBERS.items()}
    cfg = A2C(num_envs=4, num_steps=5, **own)
    stream, policy = member(seed)
    optimizer = RMSprop(policy.parameters(), lr=cfg.learning_rate, alpha=cfg.alpha, eps=cfg.rmsprop_eps)
    run: Any = SingleRun()
    update = a2c.torch_update(policy, optimizer, cfg, run)
    for _ in range(updates):
        steps = next(stream)
        update(steps, n_step(steps, gamma=cfg.gamma, n=cfg.num_steps))
        stream.publish(policy)
    return policy


def stacked(rolled: list[Steps]) -> Steps:
    """Steps [m, T, B]."""
    whole = {field.name: getattr(rolled[0], field.name) for field in fields(Steps)}
    whole |= {name: torch.stack([getattr(x, name) for x in rolled]) for name in ("obs", *ppo.STEP_ARRAYS)}
    return Steps(**whole)


def train_together(updates: int) -> dict[str, Tensor]:
    """Both members as one axis: one forward, one loss, one backward, one RMSProp with a rate for each."""
    coefficient = {name: torch.tensor(values) for name, values in MEMBERS.items()}
    streams, policies = zip(*(member(seed) for seed in range(2)), strict=True)
    weights, _ = stack_module_state(list(policies))
    squares = {name: torch.zeros_like(w) for name, w in weights.items()}

    def forward(one: dict[str, Tensor], obs: Tensor) -> tuple[Tensor, Tensor]:
        output: Any = functional_call(policies[0], one, (obs, None, None))
        return output.distribution.log_probs, output.value

    for _ in range(updates):
        steps = stacked([next(stream) for stream in streams])
        target = n_step(steps, gamma=coefficient["gamma"], n=5)
        log_probs, value = vmap(forward)(weights, steps.obs)
        output = Output(Categorical(log_probs), value, None)
        loss, _ = a2c.a2c_loss(output, steps, target, ent_coef=coefficient["ent_coef"], vf_coef=coefficient["vf_coef"])
        assert loss.shape == (2,)
        gradients = dict(zip(weights, torch.autograd.grad(loss.sum(), list(weights.values())), strict=True))
        norm = torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()]).sum(0).sqrt()
        scale = (0.5 / (norm + 1e-6)).clamp(max=1.0)
        for name, weight in weights.items():
            each = (2, *[1] * (weight.dim() - 1))
            g = gradients[name] * scale.view(each)
            squares[name] = 0.99 * squares[name] + 0.01 * g.square()
            weight.data -= coefficient["learning_rate"].view(each) * g / (squares[name].sqrt() + 1e-5)
            for m, policy in enumerate(policies):
                policy.get_parameter(name).data.copy_(weight[m])
        for stream, policy in zip(streams, policies, strict=True):
            stream.publish(policy)
    return weights


def test_a_population_of_two_equals_two_single_runs() -> None:
    """Each with its own discount, coefficients and learning rate, over 8 updates."""
    together = train_together(8)
    for seed in range(2):
        untrained = member(seed)[1].state_dict()
        for name, weight in train_alone(seed, 8).state_dict().items():
            torch.testing.assert_close(together[name][seed].detach(), weight, rtol=1e-4, atol=2e-6)
            assert not torch.equal(weight, untrained[name])


@pytest.mark.parametrize("norm_adv", [True, False])
def test_the_loss_of_a_population_is_each_member_s_own(*, norm_adv: bool) -> None:
    """Two rollouts with invalid steps in them: the loss and its parts are [2], each as if alone."""
    rolled: list[Steps] = []
    for seed in range(2):
        steps = next(member(seed)[0])
        rolled.append(replace(steps, valid=torch.arange(20).reshape(5, 4) % (seed + 3) != 0))
    policy = member(0)[1]
    whole = stacked(rolled)
    own: list[dict[str, Any]] = [{"ent_coef": 0.1, "vf_coef": 0.5}, {"ent_coef": 0.2, "vf_coef": 1.0}]
    both = {name: torch.tensor([one[name] for one in own]) for name in own[0]}
    target = n_step(whole, gamma=0.9, n=5)
    loss, parts = a2c.a2c_loss(policy(whole.obs, None, whole.start), whole, target, norm_adv=norm_adv, **both)
    for m, steps in enumerate(rolled):
        output = policy(steps.obs, None, steps.start)
        alone, its_parts = a2c.a2c_loss(output, steps, target[m], norm_adv=norm_adv, **own[m])
        torch.testing.assert_close(loss[m], alone)
        torch.testing.assert_close(torch.stack(parts)[:, m], torch.stack(its_parts))


def test_minibatches_hold_every_valid_step_once() -> None:
    """Seven valid steps in three parts; whole rows in two; another generator, another order."""
    valid = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 1]], dtype=torch.bool)
    parts = list(ppo.minibatches(np.random.default_rng(0), valid, 3, rows=False))
    assert sorted(len(part) for part in parts) == [2, 2, 3]
    assert sorted(np.concatenate(parts).tolist()) == [0, 1, 3, 4, 5, 6, 8]
    rows = list(ppo.minibatches(np.random.default_rng(0), torch.ones(5, 6, dtype=torch.bool), 2, rows=True))
    assert [len(part) for part in rows] == [3, 3]
    assert sorted(np.concatenate(rows).tolist()) == [0, 1, 2, 3, 4, 5]
    other = list(ppo.minibatches(np.random.default_rng(1), torch.ones(5, 6, dtype=torch.bool), 2, rows=True))
    assert [part.tolist() for part in other] != [part.tolist() for part in rows]


def test_take_picks_steps_or_whole_rows() -> None:
    """Step t * B + b, as [1, M]; or rows with all their steps and their state."""
    _, _, steps = collected("CartPole-v1", num_steps=3)
    some = ppo.take(steps, torch.tensor([9, 0]), rows=False)
    assert torch.equal(some.obs, torch.stack([steps.obs[1, 1], steps.obs[0, 0]]).unsqueeze(0))
    assert some.reward.shape == (1, 2)
    rows = ppo.take(replace(steps, state=torch.arange(8)), torch.tensor([5, 2]), rows=True)
    assert torch.equal(rows.action, torch.stack([steps.action[:, 5], steps.action[:, 2]], 1))
    assert rows.state.tolist() == [5, 2]


def ppo_run(updates: int, *, native: bool = True, **settings: Any) -> Any:
    """PPO for so many updates on 4 rows of CartPole."""
    shape: dict[str, Any] = {
        "num_envs": 4,
        "num_steps": 8,
        "num_minibatches": 2,
        "update_epochs": 3,
        "total_timesteps": 128,
    }
    run: Any = SingleRun(updates, native=native)
    ppo.train(PPO(**(shape | settings)), make("CartPole-v1", 4), run)
    return run


def test_learning_rates_follow_their_plan() -> None:
    """Constant; linear to 0 over 4 updates of 32 steps; adapted to a KL that is far under its target."""
    rates = "train/learning_rate"
    assert ppo_run(2, learning_rate=1e-3).logged[rates] == [1e-3, 1e-3]
    linear = ppo_run(4, learning_rate=1e-3, anneal="linear").logged[rates]
    assert linear == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    low = ppo_run(3, learning_rate=1e-6, anneal="kl", target_kl=1e3).logged[rates]
    assert low == pytest.approx([1.5e-6, 2.25e-6, 3.375e-6])
    high = ppo_run(3, learning_rate=1e-3, anneal="kl", target_kl=1e-12).logged[rates]
    assert high == pytest.approx([1e-3 / 1.5, 1e-3 / 2.25, 1e-3 / 3.375])


@pytest.mark.parametrize("native", [True, False])
def test_a_large_kl_stops_the_update(*, native: bool) -> None:
    """Epochs count passes over the rollout: all three, or only as many as it takes to exceed target_kl."""
    per_epoch = 1 if native else 2
    assert len(ppo_run(2, native=native).logged["loss/approx_kl"]) == 2 * 3 * per_epoch
    stopped = ppo_run(2, native=native, target_kl=1e-9, learning_rate=0.1)
    assert len(stopped.logged["loss/approx_kl"]) <= 2 * 2 * per_epoch


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_minibatches": 7}, r"= 2048 steps do not split into 7 minibatches; num_minibatches=4 would"),
        ({"num_envs": 0}, "must be >= 1"),
        ({"num_envs": 2, "num_steps": 4, "num_minibatches": 8}, "use fewer num_minibatches or norm_adv=False"),
        ({"num_envs": 4, "network": Network(recurrent="gru")}, "num_minibatches=8 must divide num_envs=4"),
        ({"anneal": "kl"}, "needs target_kl; 0.01 is a usual value"),
    ],
)
def test_ppo_refuses_what_cannot_work(settings: dict[str, Any], message: str) -> None:
    """The message says what would."""
    with pytest.raises(ConfigError, match=message):
        PPO(**settings)


def test_a2c_refuses_what_cannot_work() -> None:
    """No steps; one step to normalise."""
    with pytest.raises(ConfigError, match="must be >= 1"):
        A2C(num_steps=0)
    with pytest.raises(ConfigError, match="use norm_adv=False or more num_envs"):
        A2C(num_envs=1, num_steps=1, norm_adv=True)


def test_algorithms_and_presets_are_found_by_name() -> None:
    """Every preset builds its algorithm's config; wrong names raise with the near ones."""
    assert set(algos.summaries()) >= {"ppo", "a2c"}
    with pytest.raises(ConfigError, match="did you mean ppo"):
        algos.load("pop")
    with pytest.raises(ConfigError, match="a2c has no preset 'pac'; it has"):
        preset("a2c", "pac", "CartPole-v1")
    assert preset("ppo", None, "Unheard-v0") == {}
    for algo in algos.summaries():
        for values in presets(algo).values():
            assert build(algos.load(algo).Config, values).total_timesteps >= 1


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.parametrize("recurrent", ["none", "gru"])
def test_evaluation_beside_training_changes_no_bit(algo: str, recurrent: Any, tmp_path: Path) -> None:
    """Weights, normalisation statistics and training metrics are the same with and without it."""
    network = Network(hidden=(8,), recurrent=recurrent, normalise_obs=True)
    settings: dict[str, Any] = {"num_envs": 4, "num_steps": 8, "total_timesteps": 4 * 8 * 12, "network": network}
    settings |= {"num_minibatches": 2} if algo == "ppo" else {}
    found: list[nn.Module] = []
    metrics: list[Any] = []
    for every in (0, 64):
        path = tmp_path / str(every)
        options: dict[str, Any] = {
            "run_dir": str(path),
            "eval_every": every,
            "eval_episodes": 3,
            "stop_at": float("inf"),
        }
        result = launch.train("CartPole-v1", algo=algo, seed=2, panel="none", **settings, **options)
        lines = list(read(result.path / "metrics.jsonl"))
        assert sum("eval/return" in line for line in lines) == (6 if every else 0)
        apart = ("eval/", "time/", "speed/")
        metrics.append([{name: x for name, x in line.items() if not name.startswith(apart)} for line in lines])
        found.append(result.policy)
    assert metrics[0] == metrics[1]
    for name, value in found[0].state_dict().items():
        assert torch.equal(value, found[1].state_dict()[name]), name
