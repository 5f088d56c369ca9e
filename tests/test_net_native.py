"""MlpPlan against torch in float64, and a whole rollout against a slow loop, bit for bit."""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from shoal import _native

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Shape:
    """A policy's description, as MlpPlan takes it."""

    obs_size: int = 4
    hidden: tuple[int, ...] = (64, 64)
    head: str = "categorical"
    nvec: tuple[int, ...] = (2,)
    activation: str = "tanh"

    @property
    def outputs(self) -> int:
        return sum(self.nvec)

    @property
    def num_params(self) -> int:
        total = self.nvec[0] if self.head == "gaussian" else 0
        for last in (self.outputs, 1):
            sizes = (self.obs_size, *self.hidden, last)
            total += sum(i * o + o for i, o in zip(sizes[:-1], sizes[1:], strict=True))
        return total


@dataclass
class Case:
    """A plan beside the same policy as torch modules in float64."""

    shape: Shape
    params: NDArray[np.float32]
    plan: Any
    actor: nn.Sequential
    critic: nn.Sequential
    log_std: torch.Tensor | None
    leaves: list[torch.Tensor] = field(default_factory=list)

    def distribution(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.actor(obs), self.critic(obs).squeeze(-1)

    def log_prob_entropy(self, out: torch.Tensor, action: NDArray[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        if self.log_std is not None:
            normal = torch.distributions.Normal(out, self.log_std.exp().expand_as(out))
            return normal.log_prob(torch.from_numpy(action).double()).sum(-1), normal.entropy().sum(-1)
        log_prob, entropy = torch.zeros(()), torch.zeros(())
        for k, logits in enumerate(out.split(list(self.shape.nvec), -1)):
            part = torch.distributions.Categorical(logits=logits)
            log_prob = log_prob + part.log_prob(torch.from_numpy(action[:, k]))
            entropy = entropy + part.entropy()
        return log_prob, entropy

    def flat_grad(self) -> NDArray[np.float64]:
        return np.concatenate([leaf.grad.numpy().ravel() for leaf in self.leaves if leaf.grad is not None])


def towers(shape: Shape, params: NDArray[np.float32]) -> tuple[list[nn.Sequential], list[torch.Tensor], int]:
    activation = nn.Tanh if shape.activation == "tanh" else nn.ReLU
    at, leaves, out = 0, list[torch.Tensor](), list[nn.Sequential]()
    for last in (shape.outputs, 1):
        sizes = (shape.obs_size, *shape.hidden, last)
        modules: list[nn.Module] = []
        for i, o in zip(sizes[:-1], sizes[1:], strict=True):
            linear = nn.Linear(i, o, dtype=torch.float64)
            for leaf in (linear.weight, linear.bias):
                leaf.data = torch.from_numpy(params[at : at + leaf.numel()]).double().view_as(leaf)
                at += leaf.numel()
                leaves.append(leaf)
            modules += [linear, activation()]
        out.append(nn.Sequential(*modules[:-1]))
    return out, leaves, at


def make(shape: Shape, *, threads: int = 1, block: int = 64, shards: int = 1, kernels: str = "", scale: float = 1.0) -> Case:
    rng = np.random.default_rng(3)
    params = rng.uniform(-scale, scale, shape.num_params).astype(np.float32)
    params *= np.float32(1.0 / math.sqrt(max(shape.hidden, default=1)))
    plan = _native.MlpPlan(
        params,
        shape.obs_size,
        list(shape.hidden),
        shape.head,
        list(shape.nvec),
        shape.activation,
        threads,
        block,
        shards,
        kernels,
    )
    (actor, critic), leaves, at = towers(shape, params)
    log_std = None
    if shape.head == "gaussian":
        log_std = torch.from_numpy(params[at:]).double().requires_grad_()
        leaves.append(log_std)
    return Case(shape, params, plan, actor, critic, log_std, leaves)


SHAPES = [
    Shape(),
    Shape(obs_size=17, hidden=(33, 21), nvec=(3, 2, 5), activation="relu"),
    Shape(obs_size=3, hidden=(40,), head="gaussian", nvec=(1,)),
    Shape(obs_size=20, hidden=(24, 17, 9), head="gaussian", nvec=(3,), activation="relu"),
    Shape(obs_size=9, hidden=(), nvec=(18,)),
]
KERNELS = _native.kernel_names()


def forward(plan: Any, shape: Shape, obs: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    logits = np.full((len(obs), shape.outputs), np.nan, np.float32)
    value = np.full(len(obs), np.nan, np.float32)
    plan.forward(obs, logits, value)
    return logits, value


def act(plan: Any, shape: Shape, obs: NDArray[np.float32], *, rows: Any, steps: Any, greedy: bool = False) -> Arrays:
    gaussian = shape.head == "gaussian"
    size = shape.nvec[0] if gaussian else len(shape.nvec)
    out: Arrays = {
        "action": np.zeros((len(obs), size), np.float32 if gaussian else np.int64),
        "log_prob": np.full(len(obs), np.nan, np.float32),
        "value": np.full(len(obs), np.nan, np.float32),
    }
    plan.act(obs, 7, 2, rows, steps, greedy, out["action"], out["log_prob"], out["value"])
    return out


def observations(shape: Shape, count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, shape.obs_size)).astype(np.float32)


def identical(left: Any, right: Any) -> None:
    assert left.dtype == right.dtype
    assert left.tobytes() == right.tobytes()


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


def test_normaliser() -> None:
    case = make(Shape())
    obs = observations(case.shape, 50)
    mean, inv_std = np.array([0.5, -1, 0, 2], np.float32), np.array([2, 0.5, 1, 9], np.float32)
    case.plan.set_normaliser(mean, inv_std, 1.5)
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


@dataclass(frozen=True)
class LossCase:
    """One setting of the losses."""

    shape: Shape
    size: int
    clip_vloss: bool
    norm_adv: bool
    shards: int = 1
    kernels: str = ""


LOSS_CASES = [
    LossCase(SHAPES[0], 256, clip_vloss=True, norm_adv=True, kernels=KERNELS[0]),
    LossCase(SHAPES[0], 50, clip_vloss=False, norm_adv=False, shards=3, kernels=KERNELS[-1]),
    LossCase(SHAPES[1], 77, clip_vloss=True, norm_adv=False, shards=2),
    LossCase(SHAPES[1], 130, clip_vloss=False, norm_adv=True, kernels=KERNELS[len(KERNELS) // 2]),
    LossCase(SHAPES[2], 64, clip_vloss=True, norm_adv=True),
    LossCase(SHAPES[3], 129, clip_vloss=False, norm_adv=True, shards=4),
    LossCase(SHAPES[4], 3, clip_vloss=True, norm_adv=True, shards=5),
]


def samples(case: Case, count: int) -> Arrays:
    """A rollout chosen by a slightly different policy, so that ratios and values leave the clip range."""
    rng = np.random.default_rng(1)
    obs = observations(case.shape, count)
    rows = np.arange(count, dtype=np.int64)
    chosen = act(case.plan, case.shape, obs, rows=rows, steps=rows)
    return {
        "obs": obs,
        "action": chosen["action"],
        "log_prob": chosen["log_prob"] + rng.normal(0.0, 0.25, count).astype(np.float32),
        "value": chosen["value"] + rng.normal(0.0, 0.25, count).astype(np.float32),
        "advantage": rng.normal(0.3, 2.0, count).astype(np.float32),
        "target": rng.standard_normal(count).astype(np.float32),
    }


PPO = {"clip_coef": 0.2, "ent_coef": 0.02, "vf_coef": 0.7}
A2C = {"ent_coef": 0.02, "vf_coef": 0.7}


def normalised(advantage: torch.Tensor, *, norm_adv: bool) -> torch.Tensor:
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8) if norm_adv else advantage


def ppo_loss(case: Case, batch: Arrays, *, clip_vloss: bool, norm_adv: bool) -> tuple[torch.Tensor, list[float]]:
    """Schulman et al. 2017 as CleanRL writes it, in float64."""
    tensor = {name: torch.from_numpy(array).double() for name, array in batch.items()}
    out, value = case.distribution(tensor["obs"])
    log_prob, entropy = case.log_prob_entropy(out, batch["action"])
    log_ratio = log_prob - tensor["log_prob"]
    ratio = log_ratio.exp()
    advantage = normalised(tensor["advantage"], norm_adv=norm_adv)
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
    log_prob, entropy = case.log_prob_entropy(out, batch["action"])
    policy = -(log_prob * normalised(tensor["advantage"], norm_adv=norm_adv)).mean()
    error = 0.5 * ((value - tensor["target"]) ** 2).mean()
    loss = policy - A2C["ent_coef"] * entropy.mean() + A2C["vf_coef"] * error
    return loss, [float(x.detach()) for x in (policy, error, entropy.mean())] + [0.0, 0.0]


def pick(rollout: Arrays, index: NDArray[np.int32]) -> Arrays:
    return {name: array[index] for name, array in rollout.items()}


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
@pytest.mark.parametrize("setting", LOSS_CASES)
def test_gradient_equals_autograd(setting: LossCase, algo: str) -> None:
    case = make(setting.shape, shards=setting.shards, kernels=setting.kernels)
    rollout = samples(case, 300)
    index = np.random.default_rng(2).permutation(300)[: setting.size].astype(np.int32)
    batch = pick(rollout, index)
    grad, stats = np.full(setting.shape.num_params, np.nan, np.float32), np.ones(8)
    if algo == "ppo":
        loss, expected = ppo_loss(case, batch, clip_vloss=setting.clip_vloss, norm_adv=setting.norm_adv)
        options = {"clip_vloss": setting.clip_vloss, "norm_adv": setting.norm_adv} | PPO
        case.plan.ppo_gradient(*rollout.values(), index, **options, grad_out=grad, stats=stats)
    else:
        loss, expected = a2c_loss(case, batch, norm_adv=setting.norm_adv)
        arrays = [rollout[name] for name in ("obs", "action", "advantage", "target")]
        case.plan.a2c_gradient(*arrays, index, norm_adv=setting.norm_adv, **A2C, grad_out=grad, stats=stats)
    loss.backward()
    exact = case.flat_grad()
    norm = float(np.linalg.norm(exact))
    assert np.linalg.norm(grad - exact) < 1e-5 * norm
    np.testing.assert_allclose(stats - 1.0, [*expected, norm, 1.0, 0.0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("max_grad_norm", [0.5, math.inf])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3]])
def test_adam_equals_torch(shape: Shape, max_grad_norm: float) -> None:
    case = make(shape, shards=2)
    rollout = samples(case, 200)
    optimizer = torch.optim.Adam(case.leaves, lr=3e-3, eps=1e-5)
    exp_avg, exp_avg_sq = np.zeros_like(case.params), np.zeros_like(case.params)
    for step in range(1, 6):
        index = np.random.default_rng(step).permutation(200)[:100].astype(np.int32)
        loss, _ = ppo_loss(case, pick(rollout, index), clip_vloss=True, norm_adv=True)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(case.leaves, max_grad_norm)
        optimizer.step()
        case.plan.ppo_step(
            *rollout.values(),
            index,
            **PPO,
            clip_vloss=True,
            norm_adv=True,
            max_grad_norm=max_grad_norm,
            learning_rate=3e-3,
            adam_eps=1e-5,
            exp_avg=exp_avg,
            exp_avg_sq=exp_avg_sq,
            step=step,
            stats=np.zeros(8),
        )
    expected = np.concatenate([leaf.detach().numpy().ravel() for leaf in case.leaves])
    np.testing.assert_allclose(case.params, expected, atol=2e-5)


def test_rmsprop_equals_torch() -> None:
    case = make(SHAPES[1], shards=2)
    rollout = samples(case, 200)
    optimizer = torch.optim.RMSprop(case.leaves, lr=1e-3, alpha=0.97, eps=1e-3)
    square_avg = np.zeros_like(case.params)
    index = np.arange(200, dtype=np.int32)
    arrays = [rollout[name] for name in ("obs", "action", "advantage", "target")]
    for _ in range(5):
        loss, _ = a2c_loss(case, rollout, norm_adv=False)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(case.leaves, 0.5)
        optimizer.step()
        options: dict[str, Any] = {"norm_adv": False, "max_grad_norm": 0.5, "learning_rate": 1e-3, "alpha": 0.97}
        case.plan.a2c_step(*arrays, index, **A2C, **options, eps=1e-3, square_avg=square_avg, stats=np.zeros(8))
    expected = np.concatenate([leaf.detach().numpy().ravel() for leaf in case.leaves])
    np.testing.assert_allclose(case.params, expected, atol=2e-5)


def train_step(case: Case, rollout: Arrays, index: NDArray[np.int32], **changed: Any) -> NDArray[np.float64]:
    stats = np.zeros(8)
    options: dict[str, Any] = {"clip_vloss": True, "norm_adv": True, "max_grad_norm": 0.5, "learning_rate": 1e-3}
    moments = {"exp_avg": np.zeros_like(case.params), "exp_avg_sq": np.zeros_like(case.params)}
    arrays = rollout.values()
    case.plan.ppo_step(*arrays, index, **PPO, **options, **moments, **({"adam_eps": 1e-5, "step": 1} | changed), stats=stats)
    return stats


def test_step_is_skipped_when_the_gradient_is_not_finite() -> None:
    case = make(SHAPES[0])
    rollout = samples(case, 20)
    rollout["target"][7] = np.nan
    before = case.params.copy()
    stats = train_step(case, rollout, np.arange(20, dtype=np.int32))
    assert stats[7] == 1.0
    identical(case.params, before)


@pytest.mark.parametrize("shards", [1, 3])
def test_steps_do_not_depend_on_threads(shards: int) -> None:
    digests: set[str] = set()
    for threads in (1, 2):
        case = make(SHAPES[0], threads=threads, shards=shards)
        rollout = samples(case, 500)
        for step in range(1, 30):
            index = np.random.default_rng(step).permutation(500)[:200].astype(np.int32)
            train_step(case, rollout, index, step=step)
        digests.add(hashlib.sha256(case.params.tobytes()).hexdigest())
    assert len(digests) == 1


# Episodes of at most 17 steps: some rows end by termination, others by truncation, in the same step too.
ROLLOUTS = [
    ("CartPole-v1", {"max_episode_steps": 17.0}, Shape(), 40),
    ("MountainCar-v0", {}, Shape(obs_size=2, hidden=(20,), nvec=(3,), activation="relu"), 70),
    ("Pendulum-v1", {}, Shape(obs_size=3, hidden=(16, 8), head="gaussian", nvec=(1,)), 70),
]


@dataclass
class World:
    """A pool with its attached arrays, and what a rollout carries from one call to the next."""

    pool: Any
    arrays: Arrays
    start: NDArray[np.uint8]
    row_step: NDArray[np.int64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]


def make_world(env: str, rows: int, params: dict[str, float] | None = None) -> World:
    info = _native.env_info(env)
    pool = _native.Pool(env, rows, 1, params or {})
    size = len(info["obs_low"])
    arrays: Arrays = {
        "obs": np.zeros((rows, size), np.float32),
        "reward": np.zeros(rows),
        "terminated": np.zeros(rows, np.uint8),
        "truncated": np.zeros(rows, np.uint8),
        "final_obs": np.zeros((rows, size), np.float32),
        "episode_return": np.zeros(rows),
        "episode_length": np.zeros(rows, np.int64),
    }
    pool.attach(**arrays)
    pool.reset(np.arange(rows, dtype=np.uint64) + np.uint64(50))
    bounds = [np.array(info.get(name, [0.0]), np.float32) for name in ("action_low", "action_high")]
    return World(pool, arrays, np.ones(rows, np.uint8), np.zeros(rows, np.int64), *bounds)


def make_slab(world: World, shape: Shape, steps: int) -> Arrays:
    rows, size = world.arrays["obs"].shape
    gaussian = shape.head == "gaussian"
    action = np.zeros((steps, rows, 1), np.float32 if gaussian else np.int64)
    return {
        "obs": np.zeros((steps, rows, size), np.float32),
        "start": np.full((steps, rows), 9, np.uint8),
        "action": action,
        **{name: np.zeros((steps, rows), np.float32) for name in ("log_prob", "value", "next_value", "reward")},
        **{name: np.full((steps, rows), 9, np.uint8) for name in ("terminated", "truncated")},
        "final_index": np.full((steps, rows), 9, np.int32),
        "final_obs": np.zeros((steps * rows, size), np.float32),
        "episode_return": np.zeros((steps, rows)),
        "episode_length": np.zeros((steps, rows), np.int64),
    }


def fused_rollout(plan: Any, world: World, slab: Arrays) -> None:
    plan.set_action_bounds(world.low, world.high) if slab["action"].dtype == np.float32 else None
    plan.rollout(world.pool, world.arrays["obs"], world.start, world.row_step, *slab.values(), 7, 2)


def slow_rollout(plan: Any, shape: Shape, world: World, slab: Arrays) -> Arrays:
    """Step by step through Pool and act; the final observations are kept whole, [T, B, D]."""
    steps, rows = slab["reward"].shape
    finals = np.zeros_like(slab["obs"])
    now = world.arrays
    for t in range(steps):
        slab["obs"][t], slab["start"][t] = now["obs"], world.start
        chosen = act(plan, shape, slab["obs"][t], rows=np.arange(rows), steps=world.row_step)
        for name in chosen:
            slab[name][t] = chosen[name]
        sent = chosen["action"][:, 0] if world.pool.discrete else np.clip(chosen["action"], world.low, world.high)
        world.pool.send(0, 0, rows, sent)
        world.pool.recv(0)
        world.row_step += 1
        ended = (now["terminated"] | now["truncated"]).astype(bool)
        slab["reward"][t] = now["reward"]
        for name in ("terminated", "truncated"):
            slab[name][t] = now[name]
        for name in ("episode_return", "episode_length"):
            slab[name][t, ended] = now[name][ended]
        finals[t, ended] = now["final_obs"][ended]
        world.start[...] = ended
        next_value = forward(plan, shape, np.where(ended[:, None], now["final_obs"], now["obs"]))[1]
        slab["next_value"][t] = np.where(now["terminated"], np.float32(0), next_value)
        slab["final_index"][t] = np.where(ended, 0, -1)
    return slab | {"final_obs": finals}


def with_whole_finals(slab: Arrays) -> Arrays:
    """The compact final observations put back to [T, B, D], their index reduced to its sign."""
    finals = np.zeros_like(slab["obs"])
    ended = slab["final_index"] >= 0
    finals[ended] = slab["final_obs"][slab["final_index"][ended]]
    return slab | {"final_obs": finals, "final_index": np.where(ended, 0, -1).astype(np.int32)}


@pytest.mark.parametrize(("env", "params", "shape", "steps"), ROLLOUTS)
@pytest.mark.parametrize(("threads", "block"), [(1, 64), (2, 5)])
def test_rollout_equals_a_slow_loop(
    env: str, params: dict[str, float], shape: Shape, steps: int, threads: int, block: int
) -> None:
    rows = 19
    slow, fast = make_world(env, rows, params), make_world(env, rows, params)
    reference, plan = make(shape).plan, make(shape, threads=threads, block=block).plan
    ends = 0
    for _ in range(3):
        expected = slow_rollout(reference, shape, slow, make_slab(slow, shape, steps))
        slab = make_slab(fast, shape, steps)
        fused_rollout(plan, fast, slab)
        got = with_whole_finals(slab)
        for name in expected:
            identical(got[name], expected[name])
        ends += int((expected["final_index"] == 0).sum())
        identical(fast.arrays["obs"], slow.arrays["obs"])
        identical(fast.start, slow.start)
        identical(fast.row_step, slow.row_step)
    assert ends >= rows


def test_final_observations_lie_in_their_block_s_region() -> None:
    world = make_world("CartPole-v1", 10)
    slab = make_slab(world, Shape(), 50)
    fused_rollout(make(Shape(), block=4).plan, world, slab)
    for first in (0, 4, 8):
        index = slab["final_index"][:, first : first + 4]
        places = index[index >= 0]
        np.testing.assert_array_equal(places, first * 50 + np.arange(len(places)))


def test_rollout_refuses_what_does_not_fit() -> None:
    world = make_world("CartPole-v1", 3)
    three = Shape(nvec=(3,))
    with pytest.raises(ValueError, match="its rows refuse action 2, which the plan can choose"):
        fused_rollout(make(three).plan, world, make_slab(world, three, 2))
    wide = Shape(obs_size=5)
    slab = make_slab(world, Shape(), 2)
    with pytest.raises(ValueError, match=r"current_obs must have shape \(3, 5\), not \(3, 4\)"):
        fused_rollout(make(wide).plan, world, slab)
    with pytest.raises(ValueError, match=r"action must be an array of int64"):
        fused_rollout(make(Shape()).plan, world, slab | {"action": np.zeros((2, 3, 1), np.int32)})
    pendulum = make_world("Pendulum-v1", 3)
    shape = ROLLOUTS[2][2]
    case = make(shape)
    case.params[...] = np.nan
    with pytest.raises(ValueError, match="row 0: the policy chose an action that is not a number"):
        fused_rollout(case.plan, pendulum, make_slab(pendulum, shape, 2))


def test_bad_plans_are_refused() -> None:
    params = np.zeros(Shape().num_params, np.float32)

    def plan(**changed: Any) -> Any:
        options: dict[str, Any] = {"obs_size": 4, "hidden": [64, 64], "head": "categorical", "action_nvec": [2]}
        options |= {"activation": "tanh", "num_threads": 1, "act_block": 8, "grad_shards": 1}
        return _native.MlpPlan(params, **(options | changed))

    for changed, message in (
        ({"hidden": [64]}, r"params must have shape \(835,\), not \(9155,\)"),
        ({"head": "beta"}, "head must be 'categorical' or 'gaussian', not 'beta'"),
        ({"activation": "gelu"}, "activation must be 'tanh' or 'relu', not 'gelu'"),
        ({"hidden": [64, 0]}, "hidden must hold at most 15 positive sizes"),
        ({"head": "gaussian", "action_nvec": [1, 1]}, r"must be \[dim\], not 2 sizes"),
        ({"num_threads": 0}, "num_threads must be between 1"),
        ({"act_block": 0}, "act_block must be at least 1, not 0"),
        ({"grad_shards": 0}, "grad_shards must be at least 1, not 0"),
        ({"kernels": "mmx"}, "kernels must be one of .* not 'mmx'"),
    ):
        with pytest.raises(ValueError, match=message):
            plan(**changed)


def test_bad_batches_are_refused() -> None:
    case = make(Shape())
    rollout = samples(case, 20)
    index = np.arange(20, dtype=np.int32)
    before = case.params.copy()
    for changed, at, message in (
        ({}, index + 1, r"index\[19\] must lie between 0 and 19, not 20"),
        ({}, index[:1], "index must name at least 2 samples, not 1"),
        ({}, index.astype(np.int64), "index must be an array of int32"),
        ({"target": rollout["target"][:5]}, index, r"target must have shape \(20,\), not \(5,\)"),
        ({"obs": rollout["obs"][:, ::2]}, index, r"obs must have shape \(20, 4\), not \(20, 2\)"),
        ({"action": rollout["action"] + 2}, index, "action of sample 0 is out of the range"),
    ):
        with pytest.raises(ValueError, match=message):
            train_step(case, rollout | changed, at)
    with pytest.raises(ValueError, match="step must be at least 1, not 0"):
        train_step(case, rollout, index, step=0)
    identical(case.params, before)
