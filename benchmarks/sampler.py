"""The sampler of language models beside `generate` of transformers: tokens per second of one core, in one run.

python -m benchmarks.sampler                          the tiny model, 64 and 256 sequences
python -m benchmarks.sampler --model smollm2          a model of SmolLM2-135M's sizes, 16 sequences
python -m benchmarks.sampler --device cuda --sequences 64 512

Both have the same random weights in float32 and draw the same number of tokens at temperature 1 on one thread, with all
tokens and with top-p; no token ends an answer. Shoal's sampler returns a log-probability for each token, and with top-p
the set that it was drawn from; transformers returns tokens only. Prompts all differ; with `--group 8` each has eight
answers, as in GRPO: shoal's sampler reads it once, `generate` takes it eight times. They take turns, and seconds are
those of the process; a ratio is the median over the rounds. Appended to benchmarks/results/sampler.jsonl.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import torch
import transformers

from benchmarks import machine
from shoal.llm.architecture import Architecture
from shoal.llm.model import LanguageModel
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.protocol import Drawing, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RESULT = Path(__file__).parent / "results" / "sampler.jsonl"
TINY = Architecture(
    vocab_size=128,
    hidden_size=192,
    intermediate_size=512,
    num_layers=4,
    num_heads=6,
    num_kv_heads=2,
    head_dim=32,
    max_length=256,
    norm_eps=1e-6,
    qk_norm=True,
    model_type="qwen3",
)
SMOLLM2 = Architecture(
    vocab_size=49_152,
    hidden_size=576,
    intermediate_size=1536,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    max_length=8192,
    rope_theta=100_000.0,
)
MODELS = {"tiny": (TINY, (64, 256), 9, 64), "smollm2": (SMOLLM2, (16,), 38, 24)}
"""Sizes, sequences at once, tokens of a prompt, tokens drawn."""
TOP_P = 0.9


class NoEnd:
    """A tokenizer whose end is never drawn."""

    end = (2**40,)
    size = 0


def make_models(architecture: Architecture, device: str) -> tuple[LanguageModel, Any]:
    """Shoal's and transformers', with the same weights."""
    torch.manual_seed(0)
    ours = LanguageModel(architecture, cast("Any", NoEnd()))
    config = transformers.AutoConfig.for_model(**architecture.to_transformers())
    config.eos_token_id = config.pad_token_id = None
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    weights = ours.state_dict()
    theirs.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
    return ours.to(device), theirs.to(device)


def make_contestants(
    architecture: Architecture, sequences: int, prompt: int, tokens: int, *, top_p: float, group: int, device: str
) -> dict[str, Callable[[], int]]:
    """What draws `sequences` x `tokens` tokens, and says how many it was; each prompt is answered `group` times."""
    model, theirs = make_models(architecture, device)
    different = torch.randint(0, architecture.vocab_size, (sequences // group, prompt))
    prompts = different.repeat_interleave(group, dim=0).to(device)
    drawing = Drawing(max_tokens=tokens, top_p=top_p)
    sampler = LocalSampler(model, drawing, slots=sequences, seed=0)
    numbers = tuple(range(group))
    requests = [Request(key, tuple(row), numbers) for key, row in enumerate(different.tolist())]

    def shoal() -> int:
        sampler.submit(requests)
        count = 0
        while sampler.pending:
            count += sum(len(drawn.token) for drawn in sampler.poll())
        return count

    def generate(**settings: Any) -> int:
        sampling = {"do_sample": True, "top_k": 0, "top_p": top_p, "temperature": 1.0}
        mask = torch.ones_like(prompts)
        with torch.inference_mode():
            ids = theirs.generate(
                prompts, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=None, **sampling, **settings
            )
        return ids[:, prompt:].numel()

    found: dict[str, Callable[[], int]] = {"shoal": shoal, "transformers": generate}
    if architecture is TINY and sequences == 64:
        found["transformers, static cache"] = lambda: generate(cache_implementation="static", disable_compile=True)
    return found


def measure(contestants: dict[str, Callable[[], int]], rounds: int, device: str) -> dict[str, list[float]]:
    """Tokens per second of each, round by round: of the process on a CPU, of the wall on a device."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    clock = time.process_time if device == "cpu" else time.perf_counter
    for number in range(rounds + 1):
        for name, contestant in contestants.items():
            start = clock()
            count = contestant()
            if number:  # the first round warms up
                rates[name].append(count / (clock() - start))
    return rates


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and appends to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sequences", type=int, nargs="*")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--group", type=int, default=1, help="answers to one prompt")
    parser.add_argument("--no-record", action="store_true")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    architecture, sequences, prompt, tokens = MODELS[given.model]
    for count in given.sequences or sequences:
        for top_p in (1.0, TOP_P):
            contestants = make_contestants(
                architecture, count, prompt, tokens, top_p=top_p, group=given.group, device=given.device
            )
            rates = measure(contestants, given.rounds, given.device)
            ours = rates.pop("shoal")
            row: dict[str, Any] = {"model": given.model, "device": given.device, "sequences": count}
            row |= {"group": given.group, "top_p": top_p}
            row["shoal"] = round(median(ours))
            for name, of_peer in rates.items():
                ratio = median(one / other for one, other in zip(ours, of_peer, strict=True))
                row[name] = {"rate": round(median(of_peer)), "ratio": round(ratio, 3)}
            print(json.dumps(row), flush=True)
            if not given.no_record:
                row |= {
                    "prompt": prompt,
                    "tokens": tokens,
                    "rounds": given.rounds,
                    "architecture": asdict(architecture),
                }
                row |= {"machine": machine.describe(), "transformers": transformers.__version__} | machine.versions()
                with RESULT.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
