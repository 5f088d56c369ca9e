"""DQN with Stable-Baselines3 on Gymnasium's LunarLander: the experiment of the parallel DQN system, one agent."""

# The peer is not installed where pyright runs: its classes are unknown there.
# pyright: reportUntypedBaseClass=false, reportUnknownParameterType=false

from __future__ import annotations

import argparse
import math
import resource
import time

import gymnasium
import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from torch import nn
from worker import emit, keep_to_cores, seed_list


class Episodes(BaseCallback):
    """Ends training after so many episodes."""

    def __init__(self, episodes: int) -> None:
        """Nothing yet."""
        super().__init__()
        self.left, self.returns = episodes, list[float]()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.returns.append(float(info["episode"]["r"]))
        return len(self.returns) < self.left


def train(args: argparse.Namespace) -> dict[str, object]:
    """All episodes; what they took."""
    model = DQN(
        "MlpPolicy",
        Monitor(gymnasium.make("LunarLander-v3")),
        learning_rate=args.learning_rate,
        buffer_size=args.capacity,
        learning_starts=args.warm_up - 1,  # it learns from the step after these on
        batch_size=args.batch_size,
        gamma=0.99,
        train_freq=args.every,
        gradient_steps=1,
        target_update_interval=args.target_every * args.every,
        max_grad_norm=math.inf,
        exploration_initial_eps=1.0,
        exploration_final_eps=0.05,
        exploration_fraction=10_000 / args.most_steps,
        policy_kwargs={"net_arch": [300, 300], "activation_fn": nn.ReLU},
        seed=args.seeds[0],
        device="cpu",
    )
    watch = Episodes(args.episodes)
    begun, cpu = time.perf_counter(), time.process_time()
    model.learn(args.most_steps, callback=watch)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    steps = model.num_timesteps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"steps": steps, "updates": model._n_updates,  # pyright: ignore[reportPrivateUsage]
            "seconds": seconds, "sps": steps / seconds, "cpu_seconds": cpu,
            "peak_mib": peak, "mean_return": float(np.mean(watch.returns[-100:]))}  # fmt: skip


def main() -> None:
    """Trains with what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--target-every", type=int, default=6)
    parser.add_argument("--warm-up", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--capacity", type=int, default=4_000)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--most-steps", type=int, default=300_000)
    parser.add_argument("--seeds", type=seed_list, default=[0])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    keep_to_cores(args.threads)
    torch.set_num_threads(args.threads)
    emit(train(args), vars(args), "stable-baselines3", "torch", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
