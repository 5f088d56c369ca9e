"""The three ways of one gradient step: a fused loss, native code around a loss in torch, torch alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import nn
from torch.optim import Adam

from shoal.algos import ppo
from shoal.algos.ppo import PPO
from shoal.envs.registry import make
from shoal.learn.acting import Acting
from shoal.learn.hardware import Hardware
from shoal.learn.learner import Learner
from shoal.learn.losses import prepare_of, prepared
from shoal.learn.weights import pack
from shoal.nets.policy import Network, make_policy
from shoal.stream.rollouts import rollouts
from shoal.types import Steps

if TYPE_CHECKING:
    from shoal.learn.ranks import Ranks

PATHS = ("fused", "native", "torch")


class Choices(gym.Env[Any, Any]):
    """Sees three numbers, does anything; ends by chance. With `closing`, its infos close some of the options."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, space: spaces.Space[Any], *, closing: bool = False) -> None:
        self.action_space, self.closing = space, closing

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._seen(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        ends = float(self.np_random.random())
        return self._seen(), float(np.sum(action)), ends < 0.15, 0.15 <= ends < 0.25, self._info()

    def _seen(self) -> Any:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def _info(self) -> dict[str, Any]:
        if not self.closing:
            return {}
        space: Any = self.action_space
        sizes: Any = getattr(space, "nvec", getattr(space, "n", 0))
        options = np.atleast_1d(sizes)
        masks = [(self.np_random.random(n) < 0.6).astype(np.int8) for n in options]
        for mask in masks:
            mask[self.np_random.integers(len(mask))] = 1
        return {"action_mask": masks[0] if isinstance(space, spaces.Discrete) else tuple(masks)}


ACTIONS: dict[str, tuple[spaces.Space[Any], bool]] = {
    "categorical": (spaces.Discrete(4), False),
    "multi-discrete": (spaces.MultiDiscrete([2, 3]), False),
    "gaussian": (spaces.Box(-2, 2, (2,), np.float32), False),
    "masked": (spaces.Discrete(5), True),
    "masked multi-discrete": (spaces.MultiDiscrete([2, 4]), True),
}


def rollout_of(kind: str, *, num_steps: int = 12, num_rows: int = 8, **network: Any) -> tuple[nn.Module, Steps]:
    """A policy that has moved since it acted, and what it collected, with made-up advantages and targets."""
    space, closing = ACTIONS[kind]
    env = make(lambda: Choices(space, closing=closing), num_rows)
    policy: Any = make_policy(env.spec, Network(hidden=(8,), normalize_obs=True, **network), 3)
    draws = torch.Generator().manual_seed(4)
    policy.encoder.observe(torch.rand(50, 3, generator=draws))
    steps = next(rollouts(env, policy, num_steps=num_steps, acting=Acting(2)))
    pack(policy).add_(0.05 * torch.randn(len(pack(policy)), generator=draws))
    shape = steps.reward.shape
    advantage, target = torch.randn(shape, generator=draws), torch.randn(shape, generator=draws)
    return policy, replace(steps, advantage=advantage, target=target)


def loss_of(path: str, loss: Any) -> Any:
    """The loss as it is, or, for "native", one that native code does not know."""
    if path != "native":
        return loss

    def in_torch(output: Any, batch: Steps, cfg: Any) -> Any:
        return loss(output, batch, cfg)

    prepare = prepare_of(loss)
    return in_torch if prepare is None else prepared(prepare)(in_torch)


def learner_of(
    path: str, policy: nn.Module, optimizer: Any = Adam, ranks: Ranks | None = None, **settings: Any
) -> Learner:
    """A learner that takes this path; moments are damped, so that rounding does not grow."""
    hardware = Hardware(native=path != "torch", grad_shards=2, ranks=ranks)
    told: dict[str, Any] = {"lr": 1e-2, "eps": 1e-2, "max_grad_norm": 0.5}
    learner = Learner(policy, optimizer, hardware=hardware, **told | settings)
    assert (learner.networks["policy"].plan is None) == (path == "torch")
    return learner


def moments(learner: Learner) -> dict[str, Any]:
    """The optimizer's numbers by parameter and name, as a checkpoint would hold them; copies."""
    saved = learner.state()["networks"]["policy"]["optimizer"]["state"]
    return {f"{index} {name}": torch.as_tensor(x).clone() for index, own in saved.items() for name, x in own.items()}


CFG = PPO(num_steps=12, num_minibatches=2, norm_adv=True, clip_vloss=True, ent_coef=0.05)
ppo_loss = ppo.ppo_loss
