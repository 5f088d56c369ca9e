"""A soak of language models: scorers are slow, samplers are killed; nothing learned may be lost or too old.

    python -m benchmarks.soak_groups [--seed S] [--minutes M] [--staleness K] [--delay-s D]

A small model answers a toy task. Judging an answer takes a random 0 to D seconds, in processes; a thread kills
(SIGKILL) or stops (SIGSTOP) the sampler's process at random moments. Of each batch the versions of all tokens are
compared with the learner's, and the keys of all groups with those before: each group is learned from once, and none is
left out. Appends a line to benchmarks/results/soak_groups.jsonl; exits 1, with the mistake, where something is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from torch.optim import Adam

from benchmarks import machine
from shoal.algos import grpo
from shoal.learn.learner import Learner
from shoal.llm.architecture import Architecture
from shoal.llm.model import LanguageModel
from shoal.llm.scorers.pool import ScorerPool
from shoal.llm.tasks.task import Prompt
from shoal.llm.tokenizer import Tokenizer
from shoal.stream.groups.groups import Groups
from shoal.stream.groups.process import ProcessSampler

if TYPE_CHECKING:
    from shoal.stream.groups.flight import Group

RESULT = Path(__file__).parent / "results" / "soak_groups.jsonl"
LETTERS, FAULT_EVERY_S, TIMEOUT_S = "abcdefgh", 4.0, 3.0


class Slow:
    """Which letter comes next; judging takes a while."""

    name = "slow"

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s

    def prompt(self, index: int) -> Prompt:
        """One of eight."""
        at = index % len(LETTERS)
        return Prompt(index, LETTERS[at], LETTERS[(at + 1) % len(LETTERS)])

    def score(self, prompt: Prompt, answer: str) -> float:
        """1 where the answer begins with the letter."""
        time.sleep(random.uniform(0, self.delay_s))
        return float(answer.startswith(prompt.truth))


def model() -> LanguageModel:
    """A model of some 400 k weights, so that a token takes a while."""
    vocab = {letter: number for number, letter in enumerate([".", *LETTERS])}
    backend = Backend(WordLevel(vocab, unk_token="."))
    backend.pre_tokenizer = Split("", "isolated")
    backend.add_special_tokens(["."])
    architecture = Architecture(len(vocab), 128, 256, 4, 4, 4, 32, 256)
    torch.manual_seed(0)
    return LanguageModel(architecture, Tokenizer(backend, end=[0]))


def trouble(sampler: ProcessSampler, rng: random.Random, over: threading.Event, faults: dict[str, int]) -> None:
    """Kills or stops the sampler's process now and then."""
    while not over.wait(rng.expovariate(1 / FAULT_EVERY_S)):
        kind = rng.choice(["killed", "stopped", "paused"])
        with suppress(ProcessLookupError):
            pid = sampler.pid
            os.kill(pid, signal.SIGKILL if kind == "killed" else signal.SIGSTOP)
            if kind == "paused":
                time.sleep(0.5)
                os.kill(pid, signal.SIGCONT)
        faults[kind] += 1


def soak(args: argparse.Namespace) -> dict[str, Any]:
    """Learns for a while; what was counted."""
    cfg = grpo.GRPO(num_prompts=4, num_generations=4, max_completion_length=24, learning_rate=1e-4)
    torch.set_num_threads(1)
    task, policy, rng = Slow(args.delay_s), model(), random.Random(args.seed)
    learner = Learner(policy, Adam, lr=cfg.learning_rate, max_grad_norm=1.0)
    drawing = cfg.sampling.drawing(cfg.max_completion_length)
    told: list[str] = []
    sampler = ProcessSampler(
        policy, drawing, slots=16, seed=1, timeout_s=TIMEOUT_S, max_restarts=10**6, tell=told.append
    )
    scorers = ScorerPool(lambda: task.score, name="slow", workers=6, timeout_s=30.0)
    faults, over = {"killed": 0, "stopped": 0, "paused": 0}, threading.Event()
    seen: set[int] = set()
    worst = batches = 0
    with closing(Groups(task, sampler, scorers, learner, cfg, max_staleness=args.staleness)) as stream:
        flight: Any = stream.gathering.flight
        take = flight.take

        def noted(number: int) -> list[Group] | None:
            found = take(number)
            for group in found or ():
                if group.key in seen:
                    raise SystemExit(f"group {group.key} was learned from twice")
                seen.add(group.key)
            return found

        flight.take = noted
        thread = threading.Thread(target=trouble, args=(sampler, rng, over, faults), daemon=True)
        thread.start()
        end = time.monotonic() + 60 * args.minutes
        while time.monotonic() < end:
            batch = next(stream)
            late = int((stream.version - batch.version)[batch.mask].max())
            if late > args.staleness:
                raise SystemExit(f"batch {batches}: a token of {late} versions before was learned from")
            worst, batches = max(worst, late), batches + 1
            learner.step(grpo.grpo_loss, grpo.weighted(grpo.judged(batch, cfg), cfg), cfg)
            stream.publish()
        over.set()
        thread.join()
        missing = set(range(max(seen))) - seen - set(flight.groups)
        if missing:
            raise SystemExit(f"groups {sorted(missing)} are neither learned from nor in flight")
    return {"batches": batches, "groups": len(seen), "staleness_max": worst, "restarts": len(told), **faults}


def main() -> None:
    """Soaks as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--staleness", type=int, default=1)
    parser.add_argument("--delay-s", type=float, default=5.0)
    args = parser.parse_args()
    row = {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe(), **vars(args), **soak(args)}
    print(row)
    with RESULT.open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
