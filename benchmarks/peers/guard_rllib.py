"""The failures of benchmarks/guard.py in RLlib's PPO: what it says, does and leaves.

As guard_sb3.py has it: trained until it is good, saved, and restored for each failure. On CartPole its settings are
those of its own example (rllib/examples/algorithms/ppo/cartpole_ppo.py); it has none for LunarLander, where they are
rl-zoo's. The environments are in this process, or with `--runners 4` in four others and its learner in a fifth, as in
the example. What Tune would keep as its best checkpoint (`checkpoint_score_attribute` is the mean return of training)
is kept by Tune's own class.
"""

# The peer is not installed where pyright runs: its classes are unknown there.
# pyright: reportUntypedBaseClass=false, reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import ray
import torch
from broken_env import IN_ENV, Breakable, breakable, fault
from greedy import play_together
from guard_failures import BEFORE, EPISODES, TIMES, Listener, about, corrupt, figure, parser, plain, write
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.train import Checkpoint, CheckpointConfig
from ray.train._internal.checkpoint_manager import _CheckpointManager as CheckpointManager
from ray.train._internal.session import _TrainingResult as TrainingResult
from ray.tune.registry import register_env
from worker import seed_list

PACKAGES = ("ray", "torch", "gymnasium", "numpy")
RUNNERS = 4
SCORE = "env_runners/episode_return_mean"
MODULE = Path("learner_group") / "learner" / "rl_module" / "default_policy"


def training(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of learning; what is not given is RLlib's default."""
    given = {
        "train_batch_size_per_learner": args.batch,
        "minibatch_size": args.minibatch,
        "num_epochs": args.epochs,
        "gamma": args.gamma,
        "lambda_": args.gae_lambda,
        "entropy_coeff": args.entropy,
        "clip_param": args.clip,
        "vf_clip_param": args.value_clip,
    }
    known = {name: value for name, value in given.items() if value is not None}
    return known | {"lr": 0.0003, "vf_loss_coeff": args.value_coeff}


def network(args: argparse.Namespace) -> DefaultModelConfig:
    """The example's layer, which is linear and shared, or layers with tanh, the values' apart."""
    if args.linear:
        return DefaultModelConfig(fcnet_hiddens=args.hidden, fcnet_activation="linear", vf_share_layers=True)
    return DefaultModelConfig(fcnet_hiddens=args.hidden, fcnet_activation="tanh", vf_share_layers=False)


def make(args: argparse.Namespace, seed: int, *, runners: int, slow_after: int = 0) -> Any:
    """The example's algorithm; `slow_after`: steps after which the first runner is slow."""

    def env(context: Any) -> gymnasium.Env[Any, Any]:
        made = breakable(args.env)
        assert isinstance(made, Breakable)
        made.slow_after = slow_after
        made.slow_below = 10**12 if context.worker_index == 1 else 0
        return made

    register_env("breakable", env)
    config = (
        PPOConfig()
        .environment("breakable")
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=args.rows // max(runners, 1))
        .learners(num_learners=1 if runners else 0)
        .training(**training(args))
        .rl_module(model_config=network(args))
        .debugging(seed=seed)
    )
    return config.build_algo()


def reach(env: str, checkpoint: Path) -> float:
    """The greedy return of a checkpoint's policy in an environment that is sound."""
    module: Any = RLModule.from_checkpoint(checkpoint / MODULE)

    def act(obs: Any) -> Any:
        with torch.no_grad():
            out = module.forward_inference({"obs": torch.from_numpy(np.array(obs))})
        return out["action_dist_inputs"].argmax(-1).tolist()

    return play_together(env, act, EPISODES)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint's policy."""
    module: Any = RLModule.from_checkpoint(checkpoint / MODULE)
    return dict(module.state_dict())


def save(algo: Any, there: Path) -> Path:
    """A checkpoint in a new folder."""
    algo.save_to_path(there)
    return there


class Best:
    """What Tune keeps: the checkpoint of the best score."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        """A checkpoint every `every` updates."""
        self.folder, self.every, self.count = folder, args.every, 0
        config = CheckpointConfig(num_to_keep=1, checkpoint_score_attribute=SCORE)
        self.manager = CheckpointManager(config)

    def see(self, algo: Any, result: dict[str, Any]) -> None:
        """An update's result."""
        self.count += 1
        if self.count % self.every == 0:
            self.add(save(algo, self.folder / f"kept-{self.count}"), result["env_runners"].get("episode_return_mean"))

    def add(self, there: Path, score: float | None) -> None:
        """A checkpoint and its score."""
        score = math.nan if score is None else float(score)
        result = {"env_runners": {"episode_return_mean": score}, SCORE: score}
        self.manager.register_checkpoint(TrainingResult(Checkpoint.from_directory(str(there)), result))

    @property
    def best(self) -> tuple[Path, float]:
        """The best checkpoint and its score."""
        found: Any = self.manager.best_checkpoint_result
        return Path(found.checkpoint.path), found.metrics[SCORE]


def prepare(args: argparse.Namespace, seed: int, folder: Path) -> tuple[dict[str, Any], Best]:
    """Trains until it is good, and saves that."""
    fault.name = ""
    algo, best = make(args, seed, runners=args.runners), Best(folder, args)
    begun, above, updates, reached = time.perf_counter(), 0, 0, math.nan
    while above < args.looks and updates < args.most:
        best.see(algo, algo.train())
        updates += 1
        if updates % args.every == 0:
            there = folder / "look"
            reached = reach(args.env, save(algo, there))
            shutil.rmtree(there)
            above = above + 1 if reached >= args.bar else 0
    save(algo, folder / "good")
    algo.stop()
    seconds = round(time.perf_counter() - begun, 1)
    return {"good_at": updates, "good_greedy": reached, "training_seconds": seconds}, best


def break_learner(name: str, learner: Any) -> None:
    """A failure inside a learner."""
    module = learner.module["default_policy"]
    optimizer = learner.get_optimizers_for_module("default_policy")[0][1]
    if name == "learning_rate":
        set_rate = learner._set_optimizer_lr  # it sets the same rate again after each update

        def set_larger(optimizer: Any, lr: float) -> None:
            set_rate(optimizer, TIMES * lr)

        learner._set_optimizer_lr = set_larger
        for group in optimizer.param_groups:
            group["lr"] *= TIMES
    corrupt(name, list(module.parameters()), list(module.pi.parameters())[-2:], optimizer)


def break_env(name: str, runner: Any) -> None:
    """A failure in the environments of a process, whose own module has it."""
    import broken_env

    del runner
    broken_env.fault.name = name


def begin(algo: Any, name: str) -> None:
    """What goes wrong; RLlib's default cuts no gradient, so that there is nothing to switch off."""
    if name in IN_ENV:
        algo.env_runner_group.foreach_env_runner(partial(break_env, name))
        return
    algo.learner_group.foreach_learner(partial(break_learner, name))
    algo.env_runner_group.sync_weights(from_worker_or_learner_group=algo.learner_group, inference_only=True)


def endure(args: argparse.Namespace, seed: int, folder: Path, name: str, before: Best) -> dict[str, Any]:
    """One failure in the good policy."""
    fault.name = ""
    there = folder / name
    there.mkdir()
    raised, done, logged = "", 0, []
    best = Best(there, args)
    kept, score = before.best
    best.add(Path(shutil.copytree(kept, there / "before")), score)
    begun = time.perf_counter()
    with Listener() as listener:
        algo = make(args, seed + 1000, runners=args.runners)
        algo.restore_from_path(str(folder / "good"))
        try:
            for number in range(BEFORE + args.updates):
                if number == BEFORE:
                    save(algo, there / "begun")
                    begin(algo, name)
                result = algo.train()
                best.see(algo, result)
                if number % args.every == 0:
                    logged.append(round(float(result["env_runners"].get("episode_return_mean", math.nan)), 2))
                done = number + 1 - BEFORE
                if time.perf_counter() - begun > args.most_seconds:
                    break
        except Exception as error:  # whatever a failure raises
            raised = plain(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
        fault.name = ""
        save(algo, there / "last")
        algo.stop()
        time.sleep(2 * bool(args.runners))  # until what other processes said is here
    seconds = round(time.perf_counter() - begun, 1)
    last = weights(there / "last")
    row = {
        "raised": raised,
        "lines": listener.lines,
        "updates": done,
        "finite": all(bool(torch.isfinite(value).all()) for value in last.values()),
        "last": figure(partial(reach, args.env, there / "last")),
        "logged_return": logged,
        "begun": figure(partial(reach, args.env, there / "begun")),
        "best_alike": figure(partial(reach, args.env, best.best[0])),
        "best_score": best.best[1],
        "went_back": all(torch.equal(value, last[key]) for key, value in weights(there / "begun").items()),
        "seconds": seconds,
    }
    shutil.rmtree(there)
    return row


def slow_worker(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One of four processes takes ten times as long for each step after some updates."""
    healthy, more, raised = 5, 10, ""
    seconds: list[float] = []
    with Listener() as listener:
        algo = make(args, seed, runners=RUNNERS, slow_after=healthy * (args.batch or 4000) // args.rows)
        try:
            for _ in range(healthy + more):
                begun = time.perf_counter()
                algo.train()
                seconds.append(round(time.perf_counter() - begun, 3))
        except Exception as error:  # whatever a failure raises
            raised = plain(f"{type(error).__name__}: {error}")
        algo.stop()
    return {"raised": raised, "lines": listener.lines, "updates": more, "rollout_seconds": seconds}


def main() -> None:
    """All seeds and failures."""
    made = parser(__doc__)
    made.add_argument("--runners", type=int, default=0, help="processes of environments; 0: in this one")
    made.add_argument("--rows", type=int, default=64, help="environments")
    made.add_argument("--linear", type=int, default=1, help="1: the example's network")
    made.add_argument("--hidden", type=seed_list, default=[32], help="units of each layer")
    made.add_argument("--epochs", type=int, default=6)
    made.add_argument("--value_coeff", type=float, default=0.01)
    for name in ("batch", "minibatch"):
        made.add_argument(f"--{name}", type=int, help="samples; else RLlib's default")
    for name in ("gamma", "gae_lambda", "entropy", "clip", "value_clip"):
        made.add_argument(f"--{name}", type=float, help="else RLlib's default")
    made.add_argument("--most", type=int, default=200, help="updates until it is good, the example's")
    made.add_argument("--most_seconds", type=float, default=600.0, help="of a failure")
    args = made.parse_args()
    torch.set_num_threads(args.threads)
    ray.init(num_cpus=RUNNERS + 2, include_dashboard=False)
    for seed in args.seeds:
        known: set[str] = set()
        with tempfile.TemporaryDirectory() as name:
            trained, best = prepare(args, seed, Path(name))
            for failure in args.failures:
                told = {"env": args.env, "seed": seed, "failure": failure, "runners": args.runners}
                if failure == "slow_worker":
                    row = slow_worker(args, seed)
                else:
                    row = endure(args, seed, Path(name), failure, best)
                lines = row.pop("lines")
                known |= set(lines) if failure == "none" else set()
                write(told | trained | {"said": about(lines, known)} | row, *PACKAGES)
    ray.shutdown()


if __name__ == "__main__":
    main()
