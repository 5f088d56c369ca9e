"""Train PPO with Stable-Baselines3 on a MuJoCo environment as rl-zoo3 does, and play greedy episodes.

As there: VecNormalize for observations and rewards (with PPO's gamma), DummyVecEnv, the whole budget of steps.
"""

# The peer is not installed where pyright runs: its classes are unknown there.
# pyright: reportUntypedBaseClass=false, reportUnknownParameterType=false

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import numpy as np
import torch
from greedy import play
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn
from worker import emit, keep_to_cores, seed_list

EVERY = 10_000
ZOO_NETWORK = {
    "log_std_init": -2,
    "ortho_init": False,
    "activation_fn": nn.ReLU,
    "net_arch": {"pi": [256, 256], "vf": [256, 256]},
}
"""The policy_kwargs of rl-zoo3's HalfCheetah and Hopper; elsewhere it leaves the default, 64 x 64 tanh."""


class Curve(BaseCallback):
    """Notes the mean return of the last 100 episodes every EVERY steps; ends training that takes too long."""

    def __init__(self, most_seconds: float) -> None:
        """Nothing yet."""
        super().__init__()
        self.points: list[tuple[int, float]] = []
        self.until = time.perf_counter() + most_seconds

    def _on_step(self) -> bool:
        if self.num_timesteps % EVERY == 0 and self.model.ep_info_buffer:
            mean = float(np.mean([episode["r"] for episode in self.model.ep_info_buffer]))
            self.points.append((self.num_timesteps, round(mean, 2)))
        return time.perf_counter() < self.until


def train(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One run: its seconds, those of the processor, its curve, and the returns of its greedy episodes."""
    env = VecNormalize(make_vec_env(args.env, n_envs=args.num_envs, seed=seed), gamma=args.gamma)
    model = PPO(
        "MlpPolicy",
        env,
        seed=seed,
        device="cpu",
        policy_kwargs=ZOO_NETWORK if args.zoo_network else None,
        n_steps=args.n_steps,
        batch_size=args.batch_size,
        n_epochs=args.n_epochs,
        learning_rate=args.learning_rate,
        gamma=args.gamma,
        gae_lambda=args.gae_lambda,
        ent_coef=args.ent_coef,
        vf_coef=args.vf_coef,
        clip_range=args.clip_range,
        max_grad_norm=args.max_grad_norm,
    )
    curve = Curve(args.most_seconds)
    begun, cpu_begun = time.perf_counter(), time.process_time()
    model.learn(args.steps, callback=curve)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
    env.training = False

    def act(obs: Any) -> Any:
        return model.predict(env.normalize_obs(obs), deterministic=True)[0]

    returns = play(args.env, act, args.episodes)
    return {
        "seed": seed,
        "steps": model.num_timesteps,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "greedy_returns": returns,
        "curve": curve.points,
    }


def parse() -> argparse.Namespace:
    """Read the options; those of PPO have its own defaults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", required=True)
    parser.add_argument("--num_envs", type=int, default=1)
    parser.add_argument("--n_steps", type=int, default=2048)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--n_epochs", type=int, default=10)
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    parser.add_argument("--gamma", type=float, default=0.99)
    parser.add_argument("--gae_lambda", type=float, default=0.95)
    parser.add_argument("--ent_coef", type=float, default=0.0)
    parser.add_argument("--vf_coef", type=float, default=0.5)
    parser.add_argument("--clip_range", type=float, default=0.2)
    parser.add_argument("--max_grad_norm", type=float, default=0.5)
    parser.add_argument("--zoo_network", type=int, choices=[0, 1], default=0)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--most_seconds", type=float, default=math.inf, help="training ends then, with fewer steps")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--seeds", type=seed_list, default=[0])
    return parser.parse_args()


def main() -> None:
    """Run the seeds and print the result."""
    args = parse()
    args.cores = keep_to_cores(args.cores)
    torch.set_num_threads(args.threads)
    runs = [train(args, seed) for seed in args.seeds]
    steps, seconds = sum(run["steps"] for run in runs), sum(run["seconds"] for run in runs)
    result = {"steps": steps, "seconds": seconds, "sps": steps / seconds, "seeds": runs}
    emit(result, vars(args), "stable-baselines3", "torch", "gymnasium", "mujoco", "numpy")


if __name__ == "__main__":
    main()
