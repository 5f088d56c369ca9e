"""Train a language model with TRL's GRPOTrainer on a task of reasoning-gym, on the CPU in float32.

A line of JSON for each update: wall and processor seconds since the one before, mean reward, mean tokens of an answer.
The last line sums up, with the share of right greedy answers to held-out prompts. Loading and what TRL does once, up to
the beginning of the first update, count apart.

The task's questions are asked as plain text in the order of their numbers, and answers are judged by shoal's own file,
so that both sides are asked and paid alike.
"""

# The peer is not installed where pyright runs: its classes are unknown there.
# pyright: reportUntypedBaseClass=false, reportUnknownParameterType=false, reportMissingTypeStubs=false

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import reasoning_gym
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from worker import emit, keep_to_cores

JUDGE = Path(__file__).resolve().parents[2] / "src" / "shoal" / "llm" / "tasks" / "answers.py"
BLOCK = 500
"""Items of one data set, as shoal makes them."""


def load_judge() -> Any:
    """Shoal's module that compares answers, which needs nothing but Python."""
    spec = importlib.util.spec_from_file_location("judge", JUDGE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_items(args: argparse.Namespace, seed: int, count: int) -> list[dict[str, str]]:
    """The first `count` questions and answers of the task; item i is seeded with seed + i."""
    items: list[dict[str, str]] = []
    while len(items) < count:
        data = reasoning_gym.create_dataset(args.dataset, seed=seed + len(items), size=BLOCK, **args.task_settings)
        items += [{"prompt": item["question"], "answer": item["answer"]} for item in data]
    return items[:count]


class Clock(TrainerCallback):
    """Notes what each update took, and prints it."""

    def __init__(self) -> None:
        """Starts when training does."""
        self.rows: list[dict[str, Any]] = []
        self.answers: dict[str, float] = {}
        self.began = self.last = (0.0, 0.0)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """The first update begins."""
        self.began = self.last = (time.perf_counter(), time.process_time())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """An update is done; the next one begins at once."""
        now = (time.perf_counter(), time.process_time())
        row = {"step": len(self.rows) + 1, "seconds": now[0] - self.last[0], "core_seconds": now[1] - self.last[1]}
        self.rows.append(row | self.answers)
        print(json.dumps(self.rows[-1]), flush=True)
        self.last = now


def make_config(args: argparse.Namespace, folder: str) -> GRPOConfig:
    """TRL's settings: one generation of the whole batch for each update, nothing logged or saved."""
    batch = args.num_prompts * args.num_generations
    return GRPOConfig(
        output_dir=folder,
        seed=args.seed,
        use_cpu=True,
        bf16=False,
        max_steps=args.steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=1,
        steps_per_generation=1,
        num_generations=args.num_generations,
        num_iterations=args.num_iterations,
        max_completion_length=args.max_completion_length,
        shuffle_dataset=False,
        learning_rate=args.learning_rate,
        lr_scheduler_type="constant",
        optim=args.optim,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=args.adam_eps,
        weight_decay=0.0,
        max_grad_norm=args.max_grad_norm,
        beta=args.beta,
        use_bias_correction_kl=False,
        loss_type=args.loss_type,
        epsilon=args.epsilon,
        epsilon_high=args.epsilon_high or None,
        scale_rewards=args.scale_rewards,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        cache_implementation=args.cache or None,
        gradient_checkpointing=bool(args.gradient_checkpointing),
        torch_compile=bool(args.compile),
        use_vllm=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def measure_greedy(
    model: Any, tokenizer: Any, items: list[dict[str, str]], args: argparse.Namespace, judge: Any
) -> float:
    """The share of greedy answers that are right."""
    model.eval()
    asked = tokenizer([item["prompt"] for item in items], return_tensors="pt", padding=True, padding_side="left")
    with torch.no_grad():
        said = model.generate(
            input_ids=asked["input_ids"],
            attention_mask=asked["attention_mask"],
            max_new_tokens=args.max_completion_length,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    texts = tokenizer.batch_decode(said[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)
    right = [is_right(judge, item["answer"], text) for item, text in zip(items, texts, strict=True)]
    return sum(right) / len(right)


def is_right(judge: Any, answer: str, text: str) -> bool:
    """Whether a text is the answer and nothing else, as shoal judges."""
    return judge.same_text(answer, judge.extracted(text, "whole"))


def load_model(args: argparse.Namespace) -> tuple[Any, Any]:
    """The model in float32 and its tokenizer; ValueError for one that adds tokens to a plain text."""
    tokenizer = AutoTokenizer.from_pretrained(args.model, local_files_only=True)
    if tokenizer("1")["input_ids"] != tokenizer("1", add_special_tokens=False)["input_ids"]:
        raise ValueError(f"{args.model}: the tokenizer adds special tokens, and TRL 1.16 cannot be told not to")
    model = AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float32, attn_implementation=args.attention, local_files_only=True
    )
    return model, tokenizer


def train(args: argparse.Namespace) -> dict[str, Any]:
    """One run; the figures of each update stand in `curve`."""
    judge = load_judge()
    begun = time.perf_counter()
    model, tokenizer = load_model(args)
    load_seconds = time.perf_counter() - begun
    batches = -(-args.steps // args.num_iterations)
    prompts = load_items(args, args.task_seed, batches * args.num_prompts)
    clock = Clock()

    def reward(completions: list[str], answer: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        scores = [float(is_right(judge, right, text)) for right, text in zip(answer, completions, strict=True)]
        tokens = sum(map(len, completion_ids)) / len(completion_ids)
        clock.answers = {"reward": sum(scores) / len(scores), "tokens": tokens}
        return scores

    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        trainer = GRPOTrainer(
            model=model,
            args=make_config(args, folder),
            reward_funcs=reward,
            train_dataset=Dataset.from_list(prompts),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.train()
        trained = clock.last[0] - clock.began[0]
        setup_seconds = time.perf_counter() - begun - trained
    if len(clock.rows) != args.steps:
        raise RuntimeError(f"TRL made {len(clock.rows)} updates of {args.steps}")
    held_out = load_items(args, args.held_out_seed, args.held_out)
    return {
        "steps": len(clock.rows),
        "seconds": trained,
        "sps": len(clock.rows) / trained,
        "load_seconds": load_seconds,
        "setup_seconds": setup_seconds,
        "greedy": measure_greedy(model, tokenizer, held_out, args, judge) if held_out else None,
        "curve": clock.rows,
    }


def parse() -> argparse.Namespace:
    """Read the options; where the algorithm has them, with TRL's defaults but for the batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a folder as transformers writes it")
    parser.add_argument("--dataset", default="chain_sum", help="its name in reasoning-gym")
    parser.add_argument("--task_settings", type=json.loads, default={}, help="its keywords, as JSON")
    parser.add_argument("--task_seed", type=int, default=0)
    parser.add_argument("--held_out", type=int, default=200, help="prompts; 0: no evaluation")
    parser.add_argument("--held_out_seed", type=int, default=2**25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_prompts", type=int, default=8)
    parser.add_argument("--num_generations", type=int, default=8)
    parser.add_argument("--num_iterations", type=int, default=1)
    parser.add_argument("--max_completion_length", type=int, default=8)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--adam_eps", type=float, default=1e-8)
    parser.add_argument("--max_grad_norm", type=float, default=1.0)
    parser.add_argument("--beta", type=float, default=0.0)
    parser.add_argument("--loss_type", default="dapo")
    parser.add_argument("--epsilon", type=float, default=0.2)
    parser.add_argument("--epsilon_high", type=float, default=0.0, help="0: as epsilon")
    parser.add_argument("--scale_rewards", default="group")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top_k", type=int, default=0)
    parser.add_argument("--top_p", type=float, default=1.0)
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--cache", default="", help="cache_implementation; empty: transformers' own choice")
    parser.add_argument("--optim", default="adamw_torch_fused")
    parser.add_argument("--gradient_checkpointing", type=int, choices=[0, 1], default=0)
    parser.add_argument("--compile", type=int, choices=[0, 1], default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cores", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Train, and print the result."""
    args = parse()
    args.cores = keep_to_cores(args.cores)
    torch.set_num_threads(args.threads)
    result = train(args)
    packages = ("trl", "transformers", "accelerate", "datasets", "torch", "reasoning-gym", "numpy")
    emit(result, vars(args), *packages)


if __name__ == "__main__":
    sys.exit(main())
