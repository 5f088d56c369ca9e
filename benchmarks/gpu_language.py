"""Language models on a GPU: tokens per second of sampler and learner, and the learner's idle share, beside TRL.

    python -m benchmarks.gpu_language [--device cuda] [--size small|135m] [--updates N] [--sides sync async trl]

Every side trains one model of random weights on one task on the same card, with the same batch, loss, optimizer and
number of updates: prompts of some ten tokens, answers of exactly as many tokens as are allowed (no token ends one), and
a reward that any answer can have. The first updates warm up and do not count. Prints a line of JSON for each side and
appends them to benchmarks/results/gpu_language.jsonl. TRL must be importable for its side.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from shoal.llm.architecture import Architecture
from shoal.llm.model import LanguageModel
from shoal.llm.model_folder import save_model
from shoal.llm.pieces import make_tokenizer
from shoal.llm.tasks.task import Prompt

RESULT = Path(__file__).parent / "results" / "gpu_language.jsonl"
SIZES = {"small": (256, 768, 4, 8, 4), "135m": (576, 1536, 30, 9, 3)}
"""Hidden size, feed-forward size, layers, heads and heads of keys; the second are SmolLM2-135M's."""
WARM = 3


class Digits:
    """A task whose answers earn the share of their letters that are digits."""

    name = "digits"

    def __init__(self, *, held_out: bool = False) -> None:
        """Prompts are numbers."""

    def prompt(self, index: int) -> Prompt:
        """A sum."""
        return Prompt(index, f"{index % 97} + {index % 89} = ", "")

    def score(self, prompt: Prompt, answer: str) -> float:
        """From 0 to 1."""
        return sum(letter.isdigit() for letter in answer) / max(1, len(answer))


def make_folder(size: str, folder: Path) -> None:
    """Saves a model of random weights."""
    hidden, inner, layers, heads, shared = SIZES[size]
    texts = [Digits().prompt(index).question for index in range(100)]
    tokenizer = make_tokenizer([str(text) for text in texts])
    torch.manual_seed(0)
    architecture = Architecture(49_152, hidden, inner, layers, heads, shared, hidden // heads, 2048)
    save_model(LanguageModel(architecture, tokenizer), folder)


class Clock:
    """When each update ended."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.times: list[float] = []

    def note(self) -> None:
        """One more."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Of an update, the median of those after the warm ones."""
        pairs = zip(self.times[WARM:], self.times[WARM + 1 :], strict=False)
        return statistics.median(b - a for a, b in pairs)


def shoal_side(args: argparse.Namespace, folder: Path, *, asynchronous: bool) -> dict[str, Any]:
    """Seconds of an update, and where they go."""
    import shoal
    from shoal.run.log import read

    clock = Clock()

    class Timer:
        episodes = False

        def __call__(self, run: Any, record: Any) -> None:
            clock.note()

    with tempfile.TemporaryDirectory() as runs:
        result = shoal.train(
            Digits, algo="grpo", model=str(folder), device=args.device, num_prompts=args.prompts,
            num_generations=args.generations, max_completion_length=args.tokens, learning_rate=1e-5,
            total_timesteps=args.updates * args.prompts * args.generations, final_episodes=0, panel="none",
            stop_at=float("inf"), schedule="async" if asynchronous else "sync",
            language={"slots": args.prompts * args.generations, "micro_tokens": 65_536},
            checkpoint_every=10**9, run_dir=runs, callbacks=[Timer()],
        )  # fmt: skip
        lines = list(read(result.path / "metrics.jsonl"))
    first, last = lines[WARM], lines[-1]
    spent = {
        name.removeprefix("time/"): last[name] - first[name]
        for name in last
        if name.startswith("time/") and name in first
    }
    whole = spent.pop("elapsed")
    updates = last["update"] - first["update"]
    tokens = args.prompts * args.generations * args.tokens * updates
    return {
        "seconds": clock.seconds,
        "idle": (spent["waiting"] + spent["acting"]) / whole,
        "sampled_per_s": tokens / spent["acting"] if spent["acting"] else None,
        "learned_per_s": tokens / spent["learning"],
        "tokens_per_s": tokens / whole,
        "memory_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None,
    }


def trl_side(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds of an update of GRPOTrainer, its own generation, everything in float32 as shoal's."""
    transformers, trl = import_module("transformers"), import_module("trl")
    dataset = import_module("datasets").Dataset
    clock, task = Clock(), Digits()

    class Timer(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.note()

    def rewards(completions: list[str], **_: Any) -> list[float]:
        return [task.score(task.prompt(0), text) for text in completions]

    rows = [{"prompt": task.prompt(i).question} for i in range(args.prompts * args.updates)]
    with tempfile.TemporaryDirectory() as out:
        config = trl.GRPOConfig(
            output_dir=out, per_device_train_batch_size=args.prompts * args.generations,
            num_generations=args.generations, max_completion_length=args.tokens, max_steps=args.updates,
            learning_rate=1e-5, lr_scheduler_type="constant", beta=0.0, loss_type="dapo", bf16=False,
            gradient_checkpointing=False, report_to=[], save_strategy="no", logging_steps=10**6, max_grad_norm=1.0,
            disable_dropout=True, use_cpu=args.device == "cpu", generation_kwargs={"min_new_tokens": args.tokens},
        )  # fmt: skip
        trainer = trl.GRPOTrainer(
            model=transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            processing_class=transformers.AutoTokenizer.from_pretrained(folder),
            reward_funcs=rewards,
            args=config,
            train_dataset=dataset.from_list(rows),
            callbacks=[Timer()],
        )
        trainer.train()
    tokens = args.prompts * args.generations * args.tokens
    return {"seconds": clock.seconds, "tokens_per_s": tokens / clock.seconds}


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", choices=list(SIZES), default="135m")
    parser.add_argument("--updates", type=int, default=13)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--generations", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--sides", nargs="+", choices=["sync", "async", "trl"], default=["sync", "async", "trl"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as draft:
        folder = Path(draft) / "model"
        make_folder(args.size, folder)
        for side in args.sides:
            if side == "trl":
                found = trl_side(args, folder)
            else:
                found = shoal_side(args, folder, asynchronous=side == "async")
            gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
            row = {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe(), "gpu": gpu, "side": side}
            row |= vars(args) | found
            print(json.dumps(row), flush=True)
            with RESULT.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
