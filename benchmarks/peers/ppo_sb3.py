"""Train PPO with Stable-Baselines3: steps per second, seconds to solve CartPole, LunarLander.

Its network is its default: separate 64x64 tanh towers for policy and value. `sps` times CartPole-v1;
`pong` times Pong with its NatureCNN and its own Atari wrappers; `solve` trains CartPole until two greedy
evaluations in a row reach the bar; `lunarlander` spends the whole step budget on LunarLander-v3 and
evaluates once at the end.
"""

# The peer is not installed where pyright runs: its classes are unknown there.
# pyright: reportUntypedBaseClass=false, reportUnknownParameterType=false

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack
from worker import emit, keep_to_cores, seed_list

THRESHOLD = {"CartPole-v1": 475.0, "LunarLander-v3": 200.0}
PONG = "PongNoFrameskip-v4"
EVAL_ROWS = 100
EVAL_SEED = 10_000_000


def schedule(start: float, *, linear: bool) -> float | Callable[[float], float]:
    """Return `start`, or a function that falls from it to zero with what remains of the budget."""

    def fall(remaining: float) -> float:
        return remaining * start

    return fall if linear else start


def hyperparameters(args: argparse.Namespace) -> dict[str, Any]:
    """Return PPO's arguments; with `linear` the learning rate and the clip range fall to zero over the budget."""
    return {
        "n_steps": args.n_steps,
        "batch_size": args.batch_size,
        "n_epochs": args.n_epochs,
        "gamma": args.gamma,
        "gae_lambda": args.gae_lambda,
        "ent_coef": args.ent_coef,
        "learning_rate": schedule(args.learning_rate, linear=args.linear),
        "clip_range": schedule(args.clip_range, linear=args.linear),
    }


def make_model(env_id: str, args: argparse.Namespace, seed: int) -> PPO:
    """Return a PPO with its own in-process vector environment."""
    if env_id == PONG:
        import ale_py

        gymnasium.register_envs(ale_py)
        env: VecEnv = VecFrameStack(make_atari_env(env_id, n_envs=args.num_envs, seed=seed), n_stack=4)
        return PPO("CnnPolicy", env, seed=seed, device="cpu", **hyperparameters(args))
    env = make_vec_env(env_id, n_envs=args.num_envs, seed=seed)
    return PPO("MlpPolicy", env, seed=seed, device="cpu", **hyperparameters(args))


def greedy_mean(model: BaseAlgorithm, env: VecEnv) -> float:
    """Return the mean return of 100 fresh greedy episodes, one in each row."""
    mean, _ = evaluate_policy(model, env, n_eval_episodes=EVAL_ROWS, deterministic=True)
    return float(np.mean(mean))


class Watch(BaseCallback):
    """Stop when two greedy evaluations in a row reach the bar; note when the training mean first did."""

    def __init__(self, env_id: str, *, eval_every: int, seed: int) -> None:
        """Evaluate every `eval_every` steps; 0 means never."""
        super().__init__()
        self.bar = THRESHOLD[env_id]
        self.eval_every = eval_every
        self.eval_env = make_vec_env(env_id, n_envs=EVAL_ROWS, seed=EVAL_SEED + 1000 * seed) if eval_every else None
        self.next_eval = eval_every
        self.evaluations: list[tuple[int, float]] = []
        self.solved = False
        self.training_reached: dict[str, float] | None = None
        self.start = 0.0

    def _on_training_start(self) -> None:
        self.start = time.perf_counter()

    def _on_rollout_end(self) -> None:
        episodes = self.model.ep_info_buffer or []
        if self.training_reached is not None or len(episodes) < 100:
            return
        if np.mean([episode["r"] for episode in episodes]) >= self.bar:
            spent = time.perf_counter() - self.start
            self.training_reached = {"steps": self.num_timesteps, "seconds": round(spent, 3)}

    def _on_step(self) -> bool:
        if self.eval_env is None or self.num_timesteps < self.next_eval:
            return True
        self.next_eval += self.eval_every
        for _ in range(2):
            mean = greedy_mean(self.model, self.eval_env)
            self.evaluations.append((self.num_timesteps, round(mean, 1)))
            if mean < self.bar:
                return True
        self.solved = True
        return False


def speed(env_id: str, args: argparse.Namespace) -> dict[str, Any]:
    """Time `steps` environment steps of training after three rollouts of warm-up."""
    model = make_model(env_id, args, seed=args.seeds[0])
    model.learn(3 * args.num_envs * args.n_steps)
    before = model.num_timesteps
    start = time.perf_counter()
    model.learn(args.steps, reset_num_timesteps=False)
    seconds = time.perf_counter() - start
    steps = model.num_timesteps - before
    return {"steps": steps, "seconds": seconds, "sps": steps / seconds}


def train(env_id: str, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train one seed; the seconds run from the first environment step to the confirmed evaluation or the end."""
    model = make_model(env_id, args, seed)
    eval_every = args.eval_every if args.mode == "solve" else 0
    watch = Watch(env_id, eval_every=eval_every, seed=seed)
    model.learn(args.steps, callback=watch)
    seconds = time.perf_counter() - watch.start
    done = model.num_timesteps
    outcome: dict[str, Any] = {"seed": seed, "steps": done, "seconds": seconds, "sps": done / seconds}
    outcome["training_mean_reached"] = watch.training_reached
    if args.mode == "solve":
        return outcome | {"solved": watch.solved, "evaluations": watch.evaluations}
    episodes = [episode["r"] for episode in model.ep_info_buffer or []]
    final = greedy_mean(model, make_vec_env(env_id, n_envs=EVAL_ROWS, seed=EVAL_SEED + 1000 * seed))
    outcome |= {"greedy_mean": final, "solved": final >= THRESHOLD[env_id]}
    return outcome | {"training_mean": float(np.mean(episodes)) if episodes else None}


def parse() -> argparse.Namespace:
    """Read the options; those of PPO have its own defaults but for 4 epochs and the rollout's shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=["sps", "solve", "lunarlander", "pong"], default="sps")
    parser.add_argument("--num_envs", type=int, default=8)
    parser.add_argument("--n_steps", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--n_epochs", type=int, default=4)
    parser.add_argument("--gamma", type=float, default=0.99)
    parser.add_argument("--gae_lambda", type=float, default=0.95)
    parser.add_argument("--ent_coef", type=float, default=0.0)
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    parser.add_argument("--clip_range", type=float, default=0.2)
    parser.add_argument("--linear", type=int, choices=[0, 1], default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--steps", type=int, default=65_536)
    parser.add_argument("--eval_every", type=int, default=5_120)
    parser.add_argument("--seeds", type=seed_list, default=[0])
    return parser.parse_args()


def main() -> None:
    """Run one mode and print the result."""
    args = parse()
    args.cores = keep_to_cores(args.cores)
    torch.set_num_threads(args.threads)
    env_id = {"lunarlander": "LunarLander-v3", "pong": PONG}.get(args.mode, "CartPole-v1")
    if args.mode in ("sps", "pong"):
        result = speed(env_id, args)
    else:
        runs = [train(env_id, args, seed) for seed in args.seeds]
        steps, seconds = sum(run["steps"] for run in runs), sum(run["seconds"] for run in runs)
        result = {"steps": steps, "seconds": seconds, "sps": steps / seconds, "seeds": runs}
    emit(result, vars(args), "stable-baselines3", "torch", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
