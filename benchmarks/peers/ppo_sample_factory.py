"""Train CartPole-v1, or another of Gymnasium's, with Sample Factory's APPO and time it after its processes are warm.

Collection, inference and learning run in processes of their own (`serial` puts them into one). An
observer of its runner notes the steps learned and the clock after every training iteration; with
`until` it ends the training once the last 100 episodes have had that mean return.
"""

# The peer is not installed where pyright runs: its classes are unknown there.
# pyright: reportUntypedBaseClass=false, reportUnknownParameterType=false

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from typing import Any

import gymnasium
from sample_factory.algo.runners.runner import AlgoObserver, Runner
from sample_factory.algo.utils.misc import ExperimentStatus
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
from sample_factory.envs.env_utils import register_env
from sample_factory.train import make_runner
from worker import emit, keep_to_cores

EPISODES = 100
"""Sample Factory's own `stats_avg`: so many episodes are in its mean return."""


class Clock(AlgoObserver):
    """Note (steps, time) after each training iteration; end the training at a mean return of the last 100 episodes."""

    def __init__(self, until: float) -> None:
        """Start with no marks."""
        self.marks: list[tuple[int, float]] = []
        self.until = until
        self.mean_return = -math.inf

    def on_training_step(self, runner: Runner, training_iteration_since_resume: int) -> None:
        """Add a mark; the first message of an iteration may precede the first count."""
        if runner.env_steps:
            self.marks.append((sum(runner.env_steps.values()), time.perf_counter()))
        returns = runner.policy_avg_stats.get("reward", [[]])[0]
        if len(returns) >= EPISODES:
            self.mean_return = statistics.fmean(returns)
            if self.mean_return >= self.until:
                runner.cfg.train_for_env_steps = 0  # read by the runner before it goes on

    def rate(self, warmup_steps: int) -> dict[str, Any]:
        """Return the steps and seconds after the first mark beyond the warm-up."""
        warm = [mark for mark in self.marks if mark[0] >= warmup_steps]
        if len(warm) < 2:
            raise RuntimeError(f"only {len(warm)} training iterations after {warmup_steps} steps of warm-up")
        steps, seconds = warm[-1][0] - warm[0][0], warm[-1][1] - warm[0][1]
        return {"steps": steps, "seconds": seconds, "sps": steps / seconds, "warmup_steps": warm[0][0]}

    def race(self) -> dict[str, Any]:
        """Return the steps and seconds since the first training iteration, and whether the return was reached."""
        steps, seconds = self.marks[-1][0], self.marks[-1][1] - self.marks[0][1]
        reached = {"mean_return": self.mean_return, "reached": self.mean_return >= self.until}
        return {"steps": steps, "seconds": seconds, "sps": steps / seconds, **reached}


def make_env(name: str, cfg: object, env_config: object, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """Make the Gymnasium environment of that name; its configuration says nothing more."""
    return gymnasium.make(name, render_mode=render_mode)


def options(args: argparse.Namespace, folder: str) -> list[str]:
    """Return its command line."""
    return [
        f"--env={args.env}",
        "--algo=APPO",
        "--device=cpu",
        f"--train_dir={folder}",
        "--experiment=peer",
        f"--seed={args.seed}",
        f"--serial_mode={bool(args.serial)}",
        f"--async_rl={bool(args.async_rl)}",
        f"--num_workers={args.num_workers}",
        f"--num_envs_per_worker={args.num_envs_per_worker}",
        f"--policy_workers_per_policy={args.policy_workers}",
        f"--batch_size={args.batch_size}",
        f"--use_rnn={bool(args.use_rnn)}",
        f"--recurrence={args.recurrence}",
        f"--with_vtrace={bool(args.with_vtrace)}",
        f"--reward_scale={args.reward_scale}",
        f"--rollout={args.rollout}",
        "--encoder_mlp_layers",
        *args.hidden.split(","),
        f"--train_for_env_steps={args.warmup_steps + args.steps}",
        f"--train_for_seconds={args.most_seconds}",
    ]


def main() -> None:
    """Train for the steps given and print the rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--serial", type=int, choices=[0, 1], default=0)
    parser.add_argument("--async_rl", type=int, choices=[0, 1], default=1)
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--num_envs_per_worker", type=int, default=20)
    parser.add_argument("--policy_workers", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=512)
    parser.add_argument("--use_rnn", type=int, choices=[0, 1], default=0)
    parser.add_argument("--recurrence", type=int, default=1)
    parser.add_argument("--with_vtrace", type=int, choices=[0, 1], default=0)
    parser.add_argument("--reward_scale", type=float, default=0.1)
    parser.add_argument("--rollout", type=int, default=32)
    parser.add_argument("--hidden", default="512,512")
    parser.add_argument("--until", type=float, default=math.inf, help="the mean return of 100 episodes that ends it")
    parser.add_argument("--most_seconds", type=int, default=10_000_000)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--warmup_steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    args.cores = keep_to_cores(args.cores)
    register_env(args.env, make_env)
    clock = Clock(args.until)
    with tempfile.TemporaryDirectory() as folder:
        argv = options(args, folder)
        cfg = parse_full_cfg(parse_sf_args(argv=argv)[0], argv)
        _, runner = make_runner(cfg)
        runner.register_observer(clock)
        status = runner.init()
        if status == ExperimentStatus.SUCCESS:
            status = runner.run()
    if status != ExperimentStatus.SUCCESS:
        raise RuntimeError(f"Sample Factory ended with status {status}")
    races = not math.isinf(args.until)
    settings = vars(args) | {"until": args.until if races else None}
    found = clock.race() if races else clock.rate(args.warmup_steps)
    emit(found, settings, "sample-factory", "torch", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
