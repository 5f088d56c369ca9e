"""Train PufferLib 3.0's PPO on its own C CartPole, in process, on the CPU.

Its episodes end at 200 steps, so the bar of `solve` is 95 % of its best: a mean length of 190 over
100 fresh greedy episodes, twice. With `use_rnn` its LSTMWrapper stands around the policy: its trainer
keeps the memory across the ends of episodes and begins every rollout at zero. Everything that is not
an option here is read from its own config/default.ini and config/ocean/cartpole.ini.
"""

# The peer is not installed where pyright runs: its classes are unknown there.
# pyright: reportUntypedBaseClass=false, reportUnknownParameterType=false

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from typing import Any

import numpy as np
import torch
from worker import emit, keep_to_cores, seed_list

with contextlib.redirect_stdout(io.StringIO()):
    import pufferlib.vector
    from pufferlib import pufferl
    from pufferlib.ocean.cartpole.cartpole import Cartpole
    from pufferlib.ocean.torch import Policy, Recurrent

BEST_LENGTH = 200
BAR = 0.95 * BEST_LENGTH
EVAL_ROWS = 100


class Silent(pufferl.PuffeRL):
    """Its trainer without the dashboard and without checkpoint files."""

    def print_dashboard(self, *args: object, **kwargs: object) -> None:
        """Print nothing."""

    def save_checkpoint(self) -> str:
        """Write nothing."""
        return ""


def load_train_config(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Return its own training configuration with the options of this run in place."""
    argv, sys.argv = sys.argv, sys.argv[:1]
    try:
        config = pufferl.load_config("puffer_cartpole")["train"]
    finally:
        sys.argv = argv
    return config | {
        "env": "puffer_cartpole",
        "device": "cpu",
        "use_rnn": bool(args.use_rnn),
        "seed": seed,
        "total_timesteps": args.steps,
        "minibatch_size": args.minibatch_size,
        "bptt_horizon": args.bptt_horizon,
        "update_epochs": args.update_epochs,
        "optimizer": args.optimizer,
        "compile": bool(args.compile),
        "compile_mode": "default",
    }


def make_trainer(args: argparse.Namespace, seed: int) -> Silent:
    """Return a trainer over its native, in-process vector of environments."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002, its trainer draws from the global generator
    env_kwargs = {"num_envs": args.num_envs, "report_interval": args.report_interval, "seed": seed}
    vecenv: Any = pufferlib.vector.make(Cartpole, env_kwargs=env_kwargs, backend="PufferEnv")
    policy: Any = Policy(vecenv.driver_env, hidden_size=args.hidden_size)
    if args.use_rnn:
        # Its trainer asks for this name with a memory, and an environment in process has none: a batch is all rows.
        vecenv.agents_per_batch = vecenv.num_agents
        policy = Recurrent(vecenv.driver_env, policy, input_size=args.hidden_size, hidden_size=args.hidden_size)
    return Silent(load_train_config(args, seed), vecenv, policy)


def greedy_length(policy: Any, seed: int) -> float:
    """Return the mean length of 100 fresh greedy episodes; it shows an end only by a reward of zero."""
    env = Cartpole(num_envs=EVAL_ROWS, report_interval=BEST_LENGTH + 1, seed=seed)
    obs, _ = env.reset(seed=seed)
    lengths = np.zeros(EVAL_ROWS)
    running = np.ones(EVAL_ROWS, dtype=bool)
    memory: dict[str, Any] = {"lstm_h": None, "lstm_c": None}
    while running.any():
        with torch.no_grad():
            logits, _ = policy.forward_eval(torch.as_tensor(obs), memory)
        obs, reward, *_ = env.step(logits.argmax(dim=1).numpy())
        lengths += running
        running &= reward != 0
    env.close()
    return float(lengths.mean())


def speed(args: argparse.Namespace) -> dict[str, Any]:
    """Time whole iterations for `steps` environment steps after three of warm-up."""
    trainer = make_trainer(args, args.seeds[0])
    for _ in range(3):
        trainer.evaluate()
        trainer.train()
    before = trainer.global_step
    start = time.perf_counter()
    while trainer.global_step - before < args.steps:
        trainer.evaluate()
        trainer.train()
    seconds = time.perf_counter() - start
    trainer.utilization.stop()
    steps = trainer.global_step - before
    return {"steps": steps, "seconds": seconds, "sps": steps / seconds}


def solve(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train one seed until two greedy evaluations in a row reach the bar, or to the step budget."""
    trainer = make_trainer(args, seed)
    evaluations: list[tuple[int, float]] = []
    solved = False
    start = time.perf_counter()
    while not solved and trainer.global_step < args.steps:
        trainer.evaluate()
        trainer.train()
        for repeat in range(2):
            length = greedy_length(trainer.uncompiled_policy, 1_000_000 + 1_000 * seed + 2 * trainer.epoch + repeat)
            evaluations.append((trainer.global_step, round(length, 1)))
            solved = length >= BAR and repeat == 1
            if length < BAR:
                break
    seconds = time.perf_counter() - start
    trainer.utilization.stop()
    steps = trainer.global_step
    outcome = {"seed": seed, "steps": steps, "seconds": seconds, "sps": steps / seconds}
    return outcome | {"solved": solved, "evaluations": evaluations}


def main() -> None:
    """Run one mode and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=["sps", "solve"], default="sps")
    parser.add_argument("--num_envs", type=int, default=1024)
    parser.add_argument("--hidden_size", type=int, default=128)
    parser.add_argument("--use_rnn", type=int, choices=[0, 1], default=0)
    parser.add_argument("--optimizer", choices=["muon", "adam"], default="muon")
    parser.add_argument("--minibatch_size", type=int, default=8192)
    parser.add_argument("--bptt_horizon", type=int, default=64)
    parser.add_argument("--update_epochs", type=int, default=1)
    parser.add_argument("--compile", type=int, choices=[0, 1], default=0)
    parser.add_argument("--report_interval", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4_000_000)
    parser.add_argument("--seeds", type=seed_list, default=[0])
    args = parser.parse_args()
    args.cores = keep_to_cores(args.cores)
    torch.set_num_threads(args.threads)
    if args.mode == "sps":
        result = speed(args)
    else:
        runs = [solve(args, seed) for seed in args.seeds]
        steps, seconds = sum(run["steps"] for run in runs), sum(run["seconds"] for run in runs)
        note = f"its episodes end at {BEST_LENGTH} steps; solved means a greedy mean length of {BAR:g}, 95 % of that"
        result = {"steps": steps, "seconds": seconds, "sps": steps / seconds, "note": note, "seeds": runs}
    emit(result, vars(args), "pufferlib", "heavyball", "torch", "gymnasium", "numpy")


if __name__ == "__main__":
    main()
