"""Steps per second of shoal: environments, acting, learning, the whole."""

from __future__ import annotations

import math
import tempfile
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces

import shoal
from shoal import _native
from shoal.envs.registry import make
from shoal.learn.lowering import lower
from shoal.learn.plan import Noise
from shoal.learn.weights import pack
from shoal.nets.policy import Network, make_policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from shoal.envs.vec_env import VecEnv

ROWS = 4096


def rate(work: Callable[[], int], *, seconds: float = 1.0, repeats: int = 3) -> float:
    """Units per second of `work` (which returns how many it did): the median of `repeats` timings."""
    work()
    rates: list[float] = []
    for _ in range(repeats):
        done, begun = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - begun) < seconds:
            done += work()
        rates.append(done / elapsed)
    return float(np.median(rates))


def random_actions(env: VecEnv, rng: np.random.Generator) -> NDArray[Any]:
    """A batch of uniform random actions."""
    space: Any = env.spec.action_space
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.start, space.start + space.n, env.num_rows)
    size = (env.num_rows, *space.shape)
    return rng.uniform(space.low, space.high, size).astype(space.dtype)


def stepping(env_id: str, *, num_envs: int = ROWS, num_threads: int = 1, backend: str = "auto") -> float:
    """Rows stepped per second, all agents counted, under random actions made beforehand."""
    env = make(env_id, num_envs, num_threads=num_threads, backend=backend)
    rng = np.random.default_rng(0)
    batches = [random_actions(env, rng) for _ in range(64)]
    rows = slice(0, env.num_rows)
    env.reset(0)
    env.recv()

    def work() -> int:
        for action in batches:
            env.send(rows, action)
            env.recv()
        return env.num_rows * len(batches)

    result = rate(work)
    env.close()
    return result


def forward_flops(hidden: tuple[int, ...] = (64, 64), obs: int = 4, actions: int = 2) -> int:
    """Operations of one forward of both towers."""
    sizes = [obs, *hidden]
    body = sum(2 * a * b for a, b in pairwise(sizes))
    return 2 * body + 2 * hidden[-1] * (actions + 1)


def acting(*, num_envs: int = 1024, num_threads: int = 1) -> float:
    """Actions per second of the lowered 64x64 policy: forward, sample, log-probability, value."""
    env = make("CartPole-v1", num_envs)
    plan = _plan(env, num_threads)
    obs = np.random.default_rng(0).normal(size=(num_envs, 4)).astype(np.float32)
    noise = Noise(0, 0, np.arange(num_envs), np.zeros(num_envs, np.int64))
    start = np.zeros(num_envs, np.bool_)

    def work() -> int:
        plan.act(obs, start, {}, noise, greedy=False)
        return num_envs

    return rate(work)


def learning(*, minibatch: int = 256, num_threads: int = 1) -> float:
    """Samples per second through PPO's gradient, clipping and Adam, 64x64, in minibatches."""
    env = make("CartPole-v1", 8)
    plan = _plan(env, num_threads)
    rng = np.random.default_rng(0)
    n = 16 * minibatch
    columns = {name: rng.normal(size=n).astype(np.float32) for name in ("value", "advantage", "target")}
    columns["log_prob"] = np.full(n, -0.69, np.float32)
    obs = rng.normal(size=(n, 4)).astype(np.float32)
    samples = _native.Samples(obs, rng.integers(0, 2, (n, 1)), columns)
    moments = [np.zeros(plan.native.num_params, np.float32) for _ in range(2)]
    adam = _native.Adam(*moments, learning_rate=1e-6, eps=1e-5)
    settings = {"clip_coef": 0.2, "clip_vloss": False, "ent_coef": 0.0, "vf_coef": 0.5, "norm_adv": True}
    stats = np.zeros(6)
    parts = np.split(rng.permutation(n).astype(np.int32), 16)

    def work() -> int:
        for index in parts:
            plan.native.loss_step("ppo_loss", samples, index, settings, adam, 0.5, stats)
        return n

    return rate(work)


def ppo(
    *,
    num_envs: int,
    num_steps: int,
    num_minibatches: int,
    num_threads: int,
    steps: int,
    update_epochs: int = 4,
    network: Network | None = None,
) -> dict[str, Any]:
    """The whole PPO run on CartPole, two 64x64 towers or `network`: logging and checkpoints included."""
    settings: dict[str, Any] = {
        "num_envs": num_envs,
        "num_steps": num_steps,
        "num_minibatches": num_minibatches,
        "num_threads": num_threads,
        "update_epochs": update_epochs,
        "learning_rate": 3e-4,
        "network": network or Network(),
    }
    with tempfile.TemporaryDirectory() as folder:
        common: dict[str, Any] = {"panel": "none", "run_dir": folder, "stop_at": math.inf}
        shoal.train("CartPole-v1", total_timesteps=4 * num_envs * num_steps, **common, **settings)
        result = shoal.train("CartPole-v1", total_timesteps=steps, **common, **settings)
    minibatch = num_envs * num_steps // num_minibatches
    return {**settings, "minibatch": minibatch, "steps": result.steps, "sps": result.steps / result.seconds}


def _plan(env: VecEnv, num_threads: int) -> Any:
    torch.set_num_threads(1)
    policy = make_policy(env.spec, Network(), 0)
    plan = lower(policy, env.spec, pack(policy), num_threads=num_threads, act_block=64, grad_shards=2)
    assert plan is not None
    return plan
