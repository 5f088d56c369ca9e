"""Tuned settings by algorithm and environment, in one place; named ones stand beside them."""

from __future__ import annotations

from typing import Any

from shoal.types import ConfigError

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "ppo": {
        "CartPole-v1": {
            "num_envs": 32,
            "num_steps": 64,
            "num_minibatches": 8,
            "update_epochs": 10,
            "learning_rate": 2e-3,
            "gae_lambda": 0.95,
            "gamma": 0.99,
            "ent_coef": 0.0,
            "total_timesteps": 500_000,
        },
        "LunarLander-v3": {
            "num_envs": 16,
            "num_steps": 512,
            "num_minibatches": 32,
            "update_epochs": 8,
            "learning_rate": 5e-4,
            "gae_lambda": 0.98,
            "gamma": 0.995,
            "ent_coef": 0.005,
            "reward_scale": 0.05,
            "total_timesteps": 1_000_000,
        },
        "Acrobot-v1": {
            "num_envs": 32,
            "num_steps": 128,
            "num_minibatches": 8,
            "update_epochs": 4,
            "learning_rate": 1e-3,
            "ent_coef": 0.01,
            "total_timesteps": 500_000,
        },
        "MountainCar-v0": {
            "num_envs": 256,
            "num_steps": 64,
            "num_minibatches": 16,
            "update_epochs": 8,
            "learning_rate": 1e-3,
            "gae_lambda": 0.98,
            "ent_coef": 0.01,
            "reward_scale": 0.1,
            "total_timesteps": 2_000_000,
            "network": {"normalise_obs": True},
        },
        "MountainCarContinuous-v0": {
            "num_envs": 64,
            "num_steps": 128,
            "num_minibatches": 8,
            "update_epochs": 10,
            "learning_rate": 5e-4,
            "gamma": 0.999,
            "reward_scale": 0.1,
            "total_timesteps": 1_000_000,
            "network": {"normalise_obs": True, "log_std_init": 0.5},
        },
        "Pendulum-v1": {
            "num_envs": 16,
            "num_steps": 128,
            "num_minibatches": 16,
            "update_epochs": 10,
            "learning_rate": 1e-3,
            "gamma": 0.95,
            "reward_scale": 0.05,
            "total_timesteps": 300_000,
            "network": {"log_std_init": -0.5},
        },
        "mpe2.simple_spread_v3:parallel_env": {
            "num_envs": 32,
            "num_steps": 25,
            "num_minibatches": 4,
            "update_epochs": 10,
            "learning_rate": 1e-3,
            "anneal": "linear",
            "gamma": 0.95,
            "ent_coef": 0.01,
            "reward_scale": 0.1,
            "total_timesteps": 900_000,
            "network": {"hidden": [128, 128]},
        },
        "shoal.envs.noughts:Noughts": {
            "num_envs": 128,
            "num_steps": 16,
            "num_minibatches": 8,
            "update_epochs": 6,
            "learning_rate": 1e-3,
            "anneal": "linear",
            "gamma": 0.98,
            "gae_lambda": 0.8,
            "ent_coef": 0.1,
            "total_timesteps": 800_000,
            "network": {"hidden": [128, 128], "activation": "relu"},
            "self_play": {"every": 5, "pool": 8, "latest": 0.7, "opponents": 4},
        },
        "ALE/Pong-v5": {
            "num_envs": 8,
            "num_steps": 128,
            "num_minibatches": 4,
            "update_epochs": 4,
            "learning_rate": 5e-4,
            "anneal": "linear",
            "clip_coef": 0.1,
            "ent_coef": 0.01,
            "total_timesteps": 5_000_000,
            "network": {"image": "nature", "precision": "bfloat16", "normalise_obs": True},
        },
        "ALE/*": {
            "num_envs": 8,
            "num_steps": 128,
            "num_minibatches": 4,
            "update_epochs": 4,
            "learning_rate": 2.5e-4,
            "anneal": "linear",
            "clip_coef": 0.1,
            "ent_coef": 0.01,
            "total_timesteps": 10_000_000,
            "network": {"image": "nature", "precision": "bfloat16", "normalise_obs": True},
        },
        "shoal/Breakout-v0": {
            "num_envs": 64,
            "num_steps": 128,
            "num_minibatches": 8,
            "update_epochs": 4,
            "learning_rate": 1e-3,
            "ent_coef": 0.01,
            "total_timesteps": 5_000_000,
        },
        "shoal/Pong-v0": {
            "num_envs": 128,
            "num_steps": 64,
            "num_minibatches": 8,
            "update_epochs": 8,
            "learning_rate": 1e-3,
            "anneal": "linear",
            "gamma": 0.97,
            "ent_coef": 0.003,
            "total_timesteps": 3_000_000,
            "network": {"activation": "relu"},
        },
        "shoal/Snake-v0": {
            "num_envs": 64,
            "num_steps": 128,
            "num_minibatches": 8,
            "update_epochs": 4,
            "learning_rate": 1e-3,
            "anneal": "linear",
            "gamma": 0.98,
            "ent_coef": 0.003,
            "total_timesteps": 3_000_000,
        },
    },
    "a2c": {
        "paac": {
            "num_envs": 32,
            "num_steps": 5,
            "learning_rate": 0.0224,
            "anneal": "linear",
            "alpha": 0.99,
            "rmsprop_eps": 0.1,
            "gamma": 0.99,
            "ent_coef": 0.01,
            "max_grad_norm": 40.0,
        },
        "ALE/*": {
            "num_envs": 32,
            "num_steps": 5,
            "learning_rate": 7e-4,
            "anneal": "linear",
            "ent_coef": 0.01,
            "total_timesteps": 10_000_000,
            "network": {"image": "nips", "precision": "bfloat16"},
        },
        "CartPole-v1": {
            "num_envs": 32,
            "num_steps": 16,
            "learning_rate": 3e-3,
            "ent_coef": 0.0,
            "total_timesteps": 1_000_000,
        },
    },
}


def preset(algo: str, name: str | None, env: str) -> dict[str, Any]:
    """The settings under `name`, else those for the environment or its family (such as ALE/*); else none.

    Raises:
        ConfigError: there is no preset of that name.
    """
    known = PRESETS.get(algo, {})
    if name is not None and name not in known:
        raise ConfigError(f"{algo} has no preset {name!r}; it has {', '.join(known) or 'none'}")
    if name is None and env not in known:
        name = next((family for family in known if family.endswith("*") and env.startswith(family[:-1])), env)
    return dict(known.get(name or env, {}))
