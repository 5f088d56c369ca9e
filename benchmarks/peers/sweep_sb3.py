"""One process of a sweep by Optuna alone over Stable-Baselines3's PPO on LunarLander-v3; several share a journal.

Its trials begin with rl-zoo3's settings; what counts is the seconds of training until the mean return of the last 100
episodes reaches 200. A trial is stopped by the median at equal steps, at so many times the seconds of the best one, and
when the budget is spent.
"""

# The peer is not installed where pyright runs: its classes are unknown there.
# pyright: reportUntypedBaseClass=false, reportUnknownParameterType=false, reportUnknownMemberType=false

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

ENV, BAR, EPISODES = "LunarLander-v3", 200.0, 100
ZOO: dict[str, Any] = {
    "learning_rate": 3e-4,
    "num_envs": 16,
    "n_steps": 1024,
    "batch_size": 64,
    "n_epochs": 4,
    "gamma": 0.999,
    "gae_lambda": 0.98,
    "ent_coef": 0.01,
    "clip_range": 0.2,
    "hidden": 64,
}
"""rl-zoo3 ppo.yml, LunarLander."""
UNSOLVED_S = 1e6


def draw(trial: optuna.Trial) -> dict[str, Any]:
    """The same space as shoal's sweep, in Stable-Baselines3's names."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 2e-4, 4e-3, log=True),
        "num_envs": trial.suggest_categorical("num_envs", [8, 16, 32, 64]),
        "n_steps": trial.suggest_categorical("n_steps", [64, 128, 256, 512, 1024]),
        "batch_size": trial.suggest_categorical("batch_size", [32, 64, 128, 256, 512]),
        "n_epochs": trial.suggest_int("n_epochs", 2, 12, log=True),
        "gamma": 1 - trial.suggest_float("1 - gamma", 0.0005, 0.02, log=True),
        "gae_lambda": 1 - trial.suggest_float("1 - gae_lambda", 0.005, 0.1, log=True),
        "ent_coef": trial.suggest_float("ent_coef", 1e-4, 0.03, log=True),
        "clip_range": trial.suggest_float("clip_range", 0.1, 0.4),
        "hidden": trial.suggest_categorical("hidden", [32, 64]),
    }


def make_model(settings: dict[str, Any], seed: int) -> PPO:
    """A PPO on rows of its own in this process."""
    own = dict(settings)
    env = make_vec_env(ENV, n_envs=own.pop("num_envs"), seed=seed)
    hidden = own.pop("hidden")
    network = {"net_arch": [hidden, hidden]}
    return PPO("MlpPolicy", env, seed=seed, device="cpu", policy_kwargs=network, **own)


class Watch(BaseCallback):
    """Ends training when it is solved, or when it is told to; asked after every rollout."""

    def __init__(self, stop: Callable[[int, float, float], bool]) -> None:
        """`stop` is asked with the steps, the mean return and the seconds."""
        super().__init__()
        self.stop = stop
        self.mean, self.seconds, self.solved = -1e9, 0.0, False
        self.begun = 0.0

    def _on_training_start(self) -> None:
        self.begun = time.perf_counter()

    def _on_rollout_end(self) -> None:
        episodes = self.model.ep_info_buffer or []
        self.seconds = time.perf_counter() - self.begun
        if episodes:
            self.mean = float(np.mean([episode["r"] for episode in episodes]))
        self.solved = len(episodes) >= EPISODES and self.mean >= BAR
        self.over = self.solved or self.stop(self.num_timesteps, self.mean, self.seconds)

    over = False

    def _on_step(self) -> bool:
        return not self.over


def train(settings: dict[str, Any], seed: int, steps: int, stop: Callable[[int, float, float], bool]) -> Watch:
    """Trains until it is solved, stopped or over."""
    watch = Watch(stop)
    make_model(settings, seed).learn(steps, callback=watch)
    return watch


def run_trial(trial: optuna.Trial, args: argparse.Namespace, end: float) -> float:
    """One trial; the seconds that it needed, or more than any where it did not solve."""
    rung, done = args.steps // 20, 0

    def stop(steps: int, mean: float, seconds: float) -> bool:
        nonlocal done
        if time.monotonic() > end:
            trial.set_user_attr("why", "the budget was spent")
            raise optuna.TrialPruned
        if steps // rung > done:
            done = steps // rung
            trial.report(-mean, done * rung)
            if trial.should_prune():
                raise optuna.TrialPruned
        solved = [other.value for other in trial.study.get_trials(deepcopy=False) if other.value is not None]
        best = min(solved, default=UNSOLVED_S)
        if best < UNSOLVED_S and seconds > args.patience * best:
            raise optuna.TrialPruned
        return False

    watch = train(draw(trial), args.seed, args.steps, stop)
    trial.set_user_attr("solved", watch.solved)
    return watch.seconds if watch.solved else UNSOLVED_S + BAR - watch.mean


def search(args: argparse.Namespace) -> None:
    """Trials until the budget is spent."""
    end = time.monotonic() + args.seconds
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(args.journal)),
        study_name="sb3",
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=args.worker),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3 * (args.steps // 20), n_min_trials=5),
        load_if_exists=True,
    )
    if args.worker == 0 and not study.get_trials(deepcopy=False):
        first = {k: v for k, v in ZOO.items() if k not in ("gamma", "gae_lambda")}
        study.enqueue_trial(first | {"1 - gamma": 0.001, "1 - gae_lambda": 0.02})
    study.optimize(lambda trial: run_trial(trial, args, end), timeout=args.seconds)


def go_on(steps: int, mean: float, seconds: float) -> bool:
    """Never stops."""
    del steps, mean, seconds
    return False


def main() -> None:
    """Searches, or trains given settings on one seed and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--journal", default="")
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--steps", type=int, default=600_000)
    parser.add_argument("--patience", type=float, default=1.5)
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settings", type=json.loads, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if args.settings is None:
        search(args)
        return
    watch = train(args.settings, args.seed, args.steps, go_on)
    print(json.dumps({"seed": args.seed, "seconds": watch.seconds, "solved": watch.solved, "return": watch.mean}))


if __name__ == "__main__":
    main()
