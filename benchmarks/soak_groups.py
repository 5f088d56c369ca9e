"""A soak of language models: scorers are slow, samplers are killed; nothing learned may be lost or too old.

    python -m benchmarks.soak_groups [--seed S] [--minutes M] [--staleness K] [--delay-s D]

A small model answers a toy task. Judging an answer takes a random 0 to D seconds, in processes; a thread kills
(SIGKILL) or stops (SIGSTOP) the sampler's process, half of the times at random moments, when it mostly waits, and half
of them while it draws. A fault counts where the process was there and ran. Of each batch the versions of all tokens are
compared with the learner's, and the keys of all groups with those before: each group is learned from once, whole, and
none is left out; answers that another process took over begin with the tokens that were drawn before. Appends a line to
benchmarks/results/soak_groups.jsonl; exits 1, with the mistake, where something is broken, or where no answer was taken
over at all.
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
LETTERS, FAULT_EVERY_S, TIMEOUT_S = "abcdefgh", 4.0, 10.0
RUNS = "RSD"
"""States of a process that runs, or sleeps: neither stopped nor dead."""


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


def runs(pid: int) -> bool:
    """Whether a process is there, and neither stopped nor dead; Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in RUNS
    except OSError:
        return False


def trouble(sampler: Watched, rng: random.Random, over: threading.Event, faults: dict[str, int]) -> None:
    """Kills or stops the sampler's process now and then."""
    while not over.wait(rng.expovariate(1 / FAULT_EVERY_S)):
        kind, drawing = rng.choice(["killed", "stopped", "paused"]), rng.random() < 0.5
        while drawing and not any(one.token for one in list(sampler.book.running.values())):
            if over.wait(0.001):
                return
        pid = sampler.pid
        if not runs(pid):
            continue
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if kind == "killed" else signal.SIGSTOP)
            faults[kind] += 1
            if kind == "paused":
                time.sleep(0.5)
                os.kill(pid, signal.SIGCONT)


class Checks:
    """What must hold of all groups, noted as batches are taken."""

    def __init__(self, stream: Groups, cfg: grpo.GRPO) -> None:
        """Of a stream before its first batch."""
        self.flight: Any = stream.gathering.flight
        self.stream, self.answers = stream, cfg.num_generations
        self.seen: set[int] = set()
        self.begun: dict[tuple[int, int], list[int]] = {}
        """The tokens of answers that another process took over."""
        self.taken_over = self.tokens_kept = 0
        self._take = self.flight.take
        self.flight.take = self.take

    def restarted(self, running: dict[tuple[int, int], Any]) -> None:
        """Notes how far answers under way are."""
        self.begun |= {key: list(one.token) for key, one in running.items() if one.token}

    def take(self, number: int) -> list[Group] | None:
        """As `Flight.take`."""
        found = self._take(number)
        for group in found or ():
            if group.key in self.seen:
                raise SystemExit(f"group {group.key} was learned from twice")
            self.seen.add(group.key)
            if len(group.scored) != self.answers:
                raise SystemExit(f"group {group.key} came with {len(group.scored)} answers of {self.answers}")
            for answer in group.drawn.values():
                begun = self.begun.pop((group.key, answer.number), [])
                if answer.token[: len(begun)].tolist() != begun:
                    raise SystemExit(f"group {group.key}: of an answer {begun} was drawn, and {answer.token} came")
                self.taken_over += bool(begun)
                self.tokens_kept += len(begun)
        return found

    def end(self) -> None:
        """Whether anything was lost, and whether anything was tried."""
        missing = set(range(self.flight.admitted)) - self.seen - set(self.flight.groups)
        if missing:
            raise SystemExit(f"groups {sorted(missing)} are neither learned from nor in flight")
        if self.stream.gathering.num_lost:
            raise SystemExit(f"{self.stream.gathering.num_lost} answers were lost")
        if not self.taken_over:
            raise SystemExit("no answer was taken over by another process: nothing was tried; soak for longer")


class Watched(ProcessSampler):
    """A sampler whose restarts, and answers under way, others see."""

    checks: Checks | None = None

    @property
    def book(self) -> Any:
        """The answers under way, as far as they are known here."""
        return self._book

    def _restart(self, why: str) -> None:
        if self.checks is not None:
            self.checks.restarted(self._book.running)
        super()._restart(why)


def soak(args: argparse.Namespace) -> dict[str, Any]:
    """Learns for a while; what was counted."""
    cfg = grpo.GRPO(num_prompts=4, num_generations=4, max_completion_length=24, learning_rate=1e-4)
    torch.set_num_threads(1)
    task, policy, rng = Slow(args.delay_s), model(), random.Random(args.seed)
    learner = Learner(policy, Adam, lr=cfg.learning_rate, max_grad_norm=1.0)
    drawing = cfg.sampling.drawing(cfg.max_completion_length)
    told: list[str] = []
    sampler = Watched(policy, drawing, slots=16, seed=1, timeout_s=TIMEOUT_S, max_restarts=10**6, tell=told.append)
    scorers = ScorerPool(lambda: task.score, name="slow", workers=6, timeout_s=30.0)
    faults, over = {"killed": 0, "stopped": 0, "paused": 0}, threading.Event()
    worst = batches = 0
    with closing(Groups(task, sampler, scorers, learner, cfg, max_staleness=args.staleness)) as stream:
        checks = sampler.checks = Checks(stream, cfg)
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
        checks.end()
    counted = {"batches": batches, "groups": len(checks.seen), "staleness_max": worst, "restarts": len(told)}
    return counted | faults | {"taken_over": checks.taken_over, "tokens_kept": checks.tokens_kept}


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
