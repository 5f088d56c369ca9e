"""DQN in plain PyTorch on Gymnasium's LunarLander: the experiment of the parallel DQN system, one agent.

One loop as textbooks have it: a step, an update after every `--every` steps, a copy of the target network after every
`--target-every` updates. Its replay memory is arrays of NumPy; terminations end the target, time limits do not.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import nn
from worker import emit, keep_to_cores, seed_list


def make_network() -> nn.Sequential:
    """Two hidden layers of 300."""
    return nn.Sequential(nn.Linear(8, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 4))


class Memory:
    """The last transitions, as five arrays."""

    def __init__(self, capacity: int) -> None:
        """Has room for `capacity` of them."""
        self.obs = np.zeros((capacity, 8), np.float32)
        self.next_obs = np.zeros((capacity, 8), np.float32)
        self.action = np.zeros(capacity, np.int64)
        self.reward = np.zeros(capacity, np.float32)
        self.terminated = np.zeros(capacity, np.float32)
        self.count = 0

    def add(self, obs: Any, action: int, reward: float, next_obs: Any, *, terminated: bool) -> None:
        """One more, in the place of the oldest."""
        at = self.count % len(self.action)
        self.obs[at], self.next_obs[at] = obs, next_obs
        self.action[at], self.reward[at], self.terminated[at] = action, reward, terminated
        self.count += 1

    def sample(self, size: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """So many at random."""
        at = rng.integers(0, min(self.count, len(self.action)), size)
        arrays = (self.obs, self.action, self.reward, self.next_obs, self.terminated)
        return tuple(torch.from_numpy(array[at]) for array in arrays)


def train(args: argparse.Namespace) -> dict[str, object]:
    """All episodes; what they took."""
    torch.manual_seed(args.seeds[0])
    rng = np.random.default_rng(args.seeds[0])
    env = gymnasium.make("LunarLander-v3")
    network, target = make_network(), make_network()
    target.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=args.learning_rate)
    memory = Memory(args.capacity)
    steps = updates = 0
    returns: list[float] = []
    begun, cpu = time.perf_counter(), time.process_time()
    while len(returns) < args.episodes:
        obs, _ = env.reset(seed=args.seeds[0] if not returns else None)
        total, ended = 0.0, False
        while not ended:
            epsilon = max(0.05, 1 - 0.95 * steps / 10_000)
            if rng.random() < epsilon:
                action = int(rng.integers(4))
            else:
                with torch.no_grad():
                    action = int(network(torch.from_numpy(obs)).argmax())
            next_obs, reward, terminated, truncated, _ = env.step(action)
            memory.add(obs, action, float(reward), next_obs, terminated=terminated)
            obs, total, ended = next_obs, total + float(reward), terminated or truncated
            steps += 1
            if steps % args.every == 0 and steps >= args.warm_up:
                seen, chosen, rewards, after, over = memory.sample(args.batch_size, rng)
                with torch.no_grad():
                    learned = rewards + 0.99 * (1 - over) * target(after).amax(1)
                value = network(seen).gather(1, chosen[:, None]).squeeze(1)
                loss = nn.functional.smooth_l1_loss(value, learned)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                updates += 1
                if updates % args.target_every == 0:
                    target.load_state_dict(network.state_dict())
        returns.append(total)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"steps": steps, "updates": updates, "seconds": seconds, "sps": steps / seconds, "cpu_seconds": cpu,
            "peak_mib": peak, "mean_return": float(np.mean(returns[-100:]))}  # fmt: skip


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
    parser.add_argument("--seeds", type=seed_list, default=[0])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    keep_to_cores(args.threads)
    torch.set_num_threads(args.threads)
    emit(train(args), vars(args), "torch", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
