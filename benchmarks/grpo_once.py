"""One GRPO run of shoal in a process of its own, as peers/grpo_trl.py is one of TRL: the same options and results.

python -m benchmarks.grpo_once --model FOLDER --schedule async --max_staleness 1

The last line of the output is JSON. `curve` has for each update the wall and processor seconds since the one before,
those of the sampler's process included, and the mean reward and tokens of the answers that it learned from. The first
update's contain whatever began with it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shoal
from benchmarks.peers.worker import emit, keep_to_cores

if TYPE_CHECKING:
    from collections.abc import Iterable

SETTLED = 3
"""Updates after which no process is started any more."""
TICKS = os.sysconf("SC_CLK_TCK")


def ticks_of(pid: int) -> tuple[int, float]:
    """The parent of a process, and the seconds of the processor of it and of those it has waited for; Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, 0.0
    return int(fields[1]), sum(map(int, fields[11:15])) / TICKS


def descendants() -> list[int]:
    """The living processes that this one has started, and those that they have."""
    parents = {int(entry.name): ticks_of(int(entry.name))[0] for entry in Path("/proc").glob("[0-9]*")}
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def core_seconds(others: Iterable[int]) -> float:
    """Seconds of the processor, of this process with all its threads, those that ended, and `others`."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(ticks_of(pid)[1] for pid in others)


class Clock:
    """Notes what each update took, and what its answers earned; ends the run after so many updates."""

    def __init__(self, updates: int) -> None:
        """Starts with the run; the first update counts from the run's own beginning."""
        self.updates = updates
        self.rows: list[dict[str, Any]] = []
        self.line: dict[str, float] = {}
        self.settled: dict[str, float] = {}
        """The line after which nothing starts any more."""
        self._rewards: list[float] = []
        self._tokens: list[float] = []
        self._others: list[int] = []
        self._last = (0.0, time.process_time())

    def __call__(self, run: Any, record: Any) -> None:
        """Takes an answer, or the line of an update."""
        if not isinstance(record, dict):
            self._rewards.append(record.episode_return)
            self._tokens.append(record.length)
            return
        if not self._rewards:  # the line that ends the run
            return
        if len(self.rows) < SETTLED:
            self._others = descendants()
            self.settled = record
        now = (record["time/elapsed"], core_seconds(self._others))
        count = len(self._rewards)
        self.rows.append(
            {
                "step": len(self.rows) + 1,
                "seconds": now[0] - self._last[0],
                "core_seconds": now[1] - self._last[1],
                "reward": sum(self._rewards) / count,
                "tokens": sum(self._tokens) / count,
            }
        )
        self._last, self.line = now, record
        self._rewards, self._tokens = [], []
        if len(self.rows) == self.updates:
            run.stop("all updates")


def train(args: argparse.Namespace) -> dict[str, Any]:
    """One run; nothing is saved before its end, as TRL saves nothing."""
    clock = Clock(args.steps)
    batch = args.num_prompts * args.num_generations
    answers = (args.steps + args.max_staleness) * batch  # some are drawn ahead, and count
    settings = {name: getattr(args, name) for name in ALGORITHM}
    scale = settings.pop("scale_rewards")
    settings |= {"advantage": "centered" if scale == "none" else scale}
    settings |= {"correction": {"outside": settings["correction"]}}
    settings |= {"loss_normalization": LOSSES[args.loss_type]}
    settings |= {"sampling": {name: getattr(args, name) for name in SAMPLING}}
    settings["epsilon_high"] = args.epsilon_high or args.epsilon
    if args.schedule == "async":
        settings["max_staleness"] = args.max_staleness
    with tempfile.TemporaryDirectory() as folder:
        result = shoal.train(
            f"reasoning-gym:{args.dataset}",
            algo="grpo",
            model=args.model,
            env_kwargs=args.task_settings,
            seed=args.seed,
            total_timesteps=answers,
            schedule=args.schedule,
            num_threads=args.threads,
            stop_at=math.inf,
            final_episodes=args.held_out,
            checkpoint_every=2 * answers,
            panel="none",
            run_dir=folder,
            callbacks=[clock],
            **settings,
        )
    trained = sum(row["seconds"] for row in clock.rows)
    line, first = clock.line, clock.settled
    return {
        "steps": len(clock.rows),
        "seconds": trained,
        "sps": len(clock.rows) / trained,
        "greedy": result.greedy_return if args.held_out else None,
        "idle": (line.get("time/waiting", 0.0) - first.get("time/waiting", 0.0))
        / (line["time/elapsed"] - first["time/elapsed"]),
        "staleness": line.get("groups/staleness", 0.0),
        "curve": clock.rows,
    }


ALGORITHM = {
    "num_prompts": 8,
    "num_generations": 8,
    "num_iterations": 1,
    "max_completion_length": 8,
    "learning_rate": 1e-4,
    "max_grad_norm": 1.0,
    "beta": 0.0,
    "epsilon": 0.2,
    "scale_rewards": "group",
    "correction": "truncate",
}
"""GRPO's settings and what they are unless given."""
SAMPLING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
LOSSES = {"grpo": "sequence", "dapo": "token", "dr_grpo": "constant"}
"""TRL's words for what shoal says of the loss: what counts the same in it."""


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder as transformers writes it")
    parser.add_argument("--dataset", default="chain_sum", help="its name in reasoning-gym")
    parser.add_argument("--task_settings", type=json.loads, default={}, help="its keywords, as JSON")
    parser.add_argument("--held_out", type=int, default=200, help="prompts; 0: no evaluation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=50, help="updates")
    parser.add_argument("--epsilon_high", type=float, default=0.0, help="0: as epsilon")
    parser.add_argument("--schedule", choices=["sync", "async"], default="sync")
    parser.add_argument("--max_staleness", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--loss_type", choices=LOSSES, default="dapo")
    for name, value in (ALGORITHM | SAMPLING).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    return parser.parse_args()


def main() -> None:
    """Train, and print the result."""
    args = parse()
    args.cores = keep_to_cores(args.cores)
    emit(train(args), vars(args), "shoal-rl", "torch", "tokenizers", "safetensors", "reasoning-gym", "numpy")


if __name__ == "__main__":
    main()
