"""SAC with Stable-Baselines3 on Gymnasium's Pendulum: an update for every step after the warm-up."""

from __future__ import annotations

import argparse
import resource
import time

import gymnasium
import torch
from stable_baselines3 import SAC
from torch import nn
from worker import emit, keep_to_cores, seed_list


def train(args: argparse.Namespace) -> dict[str, object]:
    """All steps; what those after the warm-up took."""
    model = SAC(
        "MlpPolicy",
        gymnasium.make("Pendulum-v1"),
        learning_rate=args.learning_rate,
        buffer_size=args.capacity,
        learning_starts=args.warm_up - 1,  # it learns from the step after these on
        batch_size=args.batch_size,
        gamma=0.99,
        tau=0.005,
        train_freq=1,
        gradient_steps=1,
        policy_kwargs={"net_arch": [args.hidden, args.hidden], "activation_fn": nn.ReLU},
        seed=args.seeds[0],
        device="cpu",
    )
    begun, cpu = time.perf_counter(), time.process_time()
    model.learn(args.steps)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    updates = model._n_updates  # pyright: ignore[reportPrivateUsage]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"steps": model.num_timesteps, "updates": updates, "seconds": seconds, "sps": args.steps / seconds,
            "cpu_seconds": cpu, "peak_mib": peak}  # fmt: skip


def main() -> None:
    """Trains with what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--warm-up", type=int, default=257)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--capacity", type=int, default=100_000)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--seeds", type=seed_list, default=[0])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    keep_to_cores(args.threads)
    torch.set_num_threads(args.threads)
    emit(train(args), vars(args), "stable-baselines3", "torch", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
