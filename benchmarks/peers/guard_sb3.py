"""The failures of benchmarks/guard.py in Stable-Baselines3's PPO: what it says, does and leaves.

A policy is trained until it is good: its greedy return is above the bar twice in a row. It is saved, and loaded again
for each failure: one update, then the failure, then so many updates with it. Its own EvalCallback keeps the best model
all the time, once by an environment of its own that stays sound, once by one that fails alike. A line of JSON each.
"""

# The peer is not installed where pyright runs: its classes are unknown there.
# pyright: reportUntypedBaseClass=false, reportUnknownParameterType=false

from __future__ import annotations

import argparse
import copy
import math
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from broken_env import IN_ENV, Breakable, breakable, fault
from greedy import play_together
from guard_failures import BEFORE, EPISODES, TIMES, Listener, about, corrupt, figure, parser, plain, write
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecCheckNan, VecEnv

PACKAGES = ("stable-baselines3", "torch", "gymnasium", "numpy")
EVALUATED = 5
"""Episodes of an evaluation, EvalCallback's default."""


def rows(args: argparse.Namespace, seed: int) -> VecEnv:
    """The rows of training, which can be broken."""
    made: VecEnv = make_vec_env(partial(breakable, args.env), n_envs=args.num_envs, seed=seed)
    return VecCheckNan(made, raise_exception=True) if args.check_nan else made


def make_model(args: argparse.Namespace, seed: int) -> PPO:
    """A PPO with the zoo's settings."""

    def schedule(start: float) -> float | Callable[[float], float]:
        return (lambda remaining: remaining * start) if args.linear else start

    return PPO(
        "MlpPolicy",
        rows(args, seed),
        n_steps=args.n_steps,
        batch_size=args.batch_size,
        n_epochs=args.n_epochs,
        gamma=args.gamma,
        gae_lambda=args.gae_lambda,
        ent_coef=args.ent_coef,
        learning_rate=schedule(args.learning_rate),
        clip_range=schedule(args.clip_range),
        seed=seed,
        device="cpu",
    )


def reach(model: Any, env: str) -> float:
    """Its greedy return in an environment that is sound."""
    return play_together(env, lambda obs: model.predict(np.array(obs), deterministic=True)[0], EPISODES)


class Keepers:
    """EvalCallback twice: evaluated where nothing fails, and where all fails as in training."""

    def __init__(self, args: argparse.Namespace, folder: Path, seed: int) -> None:
        """Their best models lie in `folder`, in `sound` and `alike`."""
        made = {"sound": args.env, "alike": partial(breakable, args.env)}
        self.callbacks = {
            name: EvalCallback(
                make_vec_env(env, n_envs=EVALUATED, seed=10_000_000 + 1000 * seed),
                n_eval_episodes=EVALUATED,
                eval_freq=args.every * args.n_steps,
                best_model_save_path=str(folder / name),
                verbose=0,
            )
            for name, env in made.items()
        }

    def go_on(self, before: Keepers) -> None:
        """The best so far is that of others."""
        for name, callback in self.callbacks.items():
            callback.best_mean_reward = before.callbacks[name].best_mean_reward


class UntilGood(BaseCallback):
    """Ends training once so many greedy returns in a row were above the bar."""

    def __init__(self, args: argparse.Namespace) -> None:
        """A look after every `every` updates."""
        super().__init__()
        self.args, self.rollouts, self.above, self.reached = args, 0, 0, math.nan

    def _on_rollout_start(self) -> None:
        if self.rollouts and self.rollouts % self.args.every == 0:
            self.reached = reach(self.model, self.args.env)
            self.above = self.above + 1 if self.reached >= self.args.bar else 0
        self.rollouts += 1

    def _on_step(self) -> bool:
        return self.above < self.args.looks


class Failing(BaseCallback):
    """Lets a failure happen after the first update, and ends training after so many more."""

    def __init__(self, name: str, updates: int) -> None:
        """`name`: of the failure."""
        super().__init__()
        self.name, self.updates, self.rollouts = name, updates, 0
        self.begun: dict[str, torch.Tensor] = {}
        self.logged: list[float] = []

    def _on_rollout_start(self) -> None:
        self.rollouts += 1
        self.logged.append(float(np.mean([episode["r"] for episode in self.model.ep_info_buffer or []] or [math.nan])))
        if self.rollouts == BEFORE + 1:
            self.begun = copy.deepcopy(self.model.policy.state_dict())
            self.begin()

    def begin(self) -> None:
        """What goes wrong."""
        name = self.name
        model: Any = self.model
        if name in IN_ENV:
            fault.name = name
        if name == "learning_rate":
            before = model.lr_schedule

            def larger(remaining: float) -> float:
                return TIMES * before(remaining)

            model.lr_schedule = larger
        if name == "gradient":
            model.max_grad_norm = math.inf
        head = model.policy.action_net.parameters()
        corrupt(name, list(model.policy.parameters()), head, model.policy.optimizer)

    def _on_step(self) -> bool:
        return self.rollouts <= BEFORE + self.updates


def prepare(args: argparse.Namespace, seed: int, folder: Path) -> tuple[dict[str, Any], Keepers]:
    """Trains until it is good, and saves that."""
    fault.name = ""
    model, keepers, good = make_model(args, seed), Keepers(args, folder / "best", seed), UntilGood(args)
    begun = time.perf_counter()
    model.learn(args.steps, callback=[good, *keepers.callbacks.values()])
    model.save(folder / "good.zip")
    seconds = round(time.perf_counter() - begun, 1)
    return {"good_at": model.num_timesteps, "good_greedy": good.reached, "training_seconds": seconds}, keepers


def endure(args: argparse.Namespace, seed: int, folder: Path, name: str, before: Keepers) -> dict[str, Any]:
    """One failure in the good policy."""
    fault.name = ""
    there = folder / name
    shutil.copytree(folder / "best", there)
    model = PPO.load(folder / "good.zip", env=rows(args, seed + 1000), device="cpu")
    model.set_random_seed(seed + 1000)
    keepers, failing = Keepers(args, there, seed), Failing(name, args.updates)
    keepers.go_on(before)
    wanted = (BEFORE + args.updates + 1) * args.n_steps * args.num_envs
    begun, raised = time.perf_counter(), ""
    with Listener() as listener:
        try:
            left = max(args.steps - model.num_timesteps, wanted)
            model.learn(left, callback=[failing, *keepers.callbacks.values()], reset_num_timesteps=False)
        except Exception as error:  # whatever a failure raises
            raised = plain(f"{type(error).__name__}: {str(error).splitlines()[0]}")
    fault.name = ""
    seconds = round(time.perf_counter() - begun, 1)
    start = copy.deepcopy(model.policy.state_dict())
    row = {
        "raised": raised,
        "lines": listener.lines,
        "updates": failing.rollouts - BEFORE - 1,
        "finite": all(bool(torch.isfinite(value).all()) for value in start.values()),
        "last": figure(lambda: reach(model, args.env)),
        "logged_return": [round(value, 2) for value in failing.logged[BEFORE :: args.every]],
    }
    model.policy.load_state_dict(failing.begun)
    row["begun"] = figure(lambda: reach(model, args.env))
    for kind in keepers.callbacks:
        kept = PPO.load(there / kind / "best_model.zip", device="cpu")
        row[f"best_{kind}"] = figure(partial(reach, kept, args.env))
    return row | {"went_back": same(start, failing.begun), "seconds": seconds}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two policies are one."""
    return all(torch.equal(value, other[name]) for name, value in one.items())


class Clock(BaseCallback):
    """The seconds of each rollout."""

    def __init__(self) -> None:
        """None yet."""
        super().__init__()
        self.seconds: list[float] = []

    def _on_rollout_start(self) -> None:
        self.begun = time.perf_counter()

    def _on_rollout_end(self) -> None:
        self.seconds.append(round(time.perf_counter() - self.begun, 3))

    def _on_step(self) -> bool:
        return True


def slow(env: str, after: int, below: int) -> Breakable:
    """An environment whose steps become slow where its seed is below another."""
    made = breakable(env)
    assert isinstance(made, Breakable)
    made.slow_after, made.slow_below = after, below
    return made


def slow_worker(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One of four processes takes ten times as long for each step after some updates."""
    healthy, more, steps = 5, 10, args.n_steps
    env = partial(slow, args.env, healthy * steps, seed + 1)
    made = make_vec_env(env, n_envs=4, seed=seed, vec_env_cls=SubprocVecEnv)
    clock, raised = Clock(), ""
    model = PPO("MlpPolicy", made, n_steps=steps, batch_size=4 * steps, seed=seed, device="cpu")
    with Listener() as listener:
        try:
            model.learn(4 * steps * (healthy + more), callback=clock)
        except Exception as error:  # whatever a failure raises
            raised = plain(f"{type(error).__name__}: {error}")
    made.close()
    return {"raised": raised, "lines": listener.lines, "updates": more, "rollout_seconds": clock.seconds}


def main() -> None:
    """All seeds and failures."""
    made = parser(__doc__)
    for name, default in (("num_envs", 8), ("n_steps", 32), ("batch_size", 256), ("n_epochs", 20), ("linear", 1)):
        made.add_argument(f"--{name}", type=int, default=default)
    for name, value in (("gamma", 0.98), ("gae_lambda", 0.8), ("ent_coef", 0.0), ("learning_rate", 0.001)):
        made.add_argument(f"--{name}", type=float, default=value)
    made.add_argument("--clip_range", type=float, default=0.2)
    made.add_argument("--steps", type=int, default=100_000, help="the zoo's budget")
    made.add_argument("--check_nan", type=int, choices=[0, 1], default=0, help="with its VecCheckNan, which raises")
    args = made.parse_args()
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        known: set[str] = set()
        with tempfile.TemporaryDirectory() as name:
            trained, keepers = prepare(args, seed, Path(name))
            for failure in args.failures:
                told = {"env": args.env, "seed": seed, "failure": failure, "check_nan": bool(args.check_nan)}
                if failure == "slow_worker":
                    row = slow_worker(args, seed)
                else:
                    row = endure(args, seed, Path(name), failure, keepers)
                lines = row.pop("lines")
                known |= set(lines) if failure == "none" else set()
                write(told | trained | {"said": about(lines, known)} | row, *PACKAGES)


if __name__ == "__main__":
    main()
