"""Tuned settings by algorithm and environment, in one place; named ones stand beside them."""

from __future__ import annotations

from typing import Any

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
            "num_steps": 256,
            "num_minibatches": 16,
            "update_epochs": 8,
            "learning_rate": 5e-4,
            "gae_lambda": 0.98,
            "gamma": 0.995,
            "ent_coef": 0.005,
            "reward_scale": 0.05,
            "total_timesteps": 1_000_000,
        },
    },
}


def preset(algo: str, name: str) -> dict[str, Any]:
    """The settings of an algorithm for an environment or under a name; empty when there are none."""
    return dict(PRESETS.get(algo, {}).get(name, {}))
