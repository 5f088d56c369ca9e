"""The sampler of language models beside `generate` of transformers: tokens per second of one core, in one run.

python -m benchmarks.sampler                          the tiny model, 64 and 256 sequences
python -m benchmarks.sampler --model smollm2          a model of SmolLM2-135M's sizes, 16 sequences
python -m benchmarks.sampler --device cuda --sequences 64 512
python -m benchmarks.sampler --vllm                   vLLM too, after python benchmarks/peers/setup_peers.py vllm

All have the same random weights in float32 and draw the same number of tokens at temperature 1 on one thread, with all
tokens and with top-p; no token ends an answer. Shoal's sampler returns a log-probability for each token, and with top-p
the set that it was drawn from; transformers returns tokens only, vLLM log-probabilities too. Prompts all differ;
with `--group 8` each has eight answers, as in GRPO: shoal's sampler and vLLM read it once, `generate` eight times.
They take turns, and seconds are those of the process, of which vLLM has one of its own with the engine in it; a ratio
is the median over the rounds. Appended to benchmarks/results/sampler.jsonl.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import torch
import transformers
from safetensors.torch import save_file

from benchmarks import machine
from shoal.llm.architecture import Architecture
from shoal.llm.model import LanguageModel
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.protocol import Drawing, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULT = Path(__file__).parent / "results" / "sampler.jsonl"
PEERS = Path(__file__).parent / "peers"
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


Contestant = Callable[[], tuple[int, float]]
"""Draws; tokens, and seconds."""


@dataclass(frozen=True)
class Given:
    """How all draw."""

    top_p: float
    group: int
    device: str


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
    architecture: Architecture, sequences: int, prompt: int, tokens: int, *, given: Given, vllm: Vllm | None
) -> dict[str, Contestant]:
    """What draws `sequences` x `tokens` tokens, and says how many it was; each prompt is answered `group` times."""
    top_p, group, device = given.top_p, given.group, given.device
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

    clock = time.process_time if device == "cpu" else time.perf_counter
    found = {"shoal": clocked(shoal, clock), "transformers": clocked(generate, clock)}
    if architecture is TINY and sequences == 64:
        static = partial(generate, cache_implementation="static", disable_compile=True)
        found["transformers, static cache"] = clocked(static, clock)
    if vllm is not None:
        vllm.start(model, different.tolist(), tokens=tokens, top_p=top_p, group=group)
        found["vllm-cpu"] = vllm.draw
    return found


def clocked(draws: Callable[[], int], clock: Callable[[], float]) -> Contestant:
    """What draws, and says how many tokens it was in how many seconds: of the process on a CPU, of the wall else."""

    def draw() -> tuple[int, float]:
        start = clock()
        count = draws()
        return count, clock() - start

    return draw


class Vllm:
    """vLLM in a process of its own, one for each setting; it ends with the next one, or with `close`."""

    def __init__(self) -> None:
        """None has started."""
        self.version = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self, model: LanguageModel, prompts: list[list[int]], *, tokens: int, top_p: float, group: int) -> None:
        """Loads a model's weights, and waits until it can draw."""
        self.close()
        self._folder = tempfile.TemporaryDirectory(prefix="shoal-vllm-")
        folder = Path(self._folder.name)
        save_weights(model, folder)
        (folder / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
        command = [str(PEERS / ".venvs" / "vllm" / "bin" / "python"), str(PEERS / "sample_vllm.py")]
        command += ["--model", str(folder), "--prompts", str(folder / "prompts.json"), "--tokens", str(tokens)]
        command += ["--top-p", str(top_p), "--group", str(group)]
        with (folder / "log").open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.version = self._answer()["vllm"]

    def draw(self) -> tuple[int, float]:
        """Has it draw once."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write("draw\n")
        self._process.stdin.flush()
        said = self._answer()
        return said["tokens"], said["seconds"]

    def close(self) -> None:
        """Ends it."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None
        self._folder.cleanup()

    def _answer(self) -> dict[str, Any]:
        """The next line of JSON; other lines are the engine's own."""
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        log = (Path(self._folder.name) / "log").read_text(encoding="utf-8")
        raise RuntimeError(f"vLLM ended:\n{log[-3000:]}")


def save_weights(model: LanguageModel, folder: Path) -> None:
    """As transformers reads them, without a tokenizer."""
    config = model.architecture.to_transformers()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")


def measure(contestants: dict[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Tokens per second of each, round by round."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, contestant in contestants.items():
            count, seconds = contestant()
            if number:  # the first round warms up
                rates[name].append(count / seconds)
    return rates


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and appends to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sequences", type=int, nargs="*")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--group", type=int, default=1, help="answers to one prompt")
    parser.add_argument("--vllm", action="store_true", help="vLLM too, on a CPU")
    parser.add_argument("--no-record", action="store_true")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    architecture, sequences, prompt, tokens = MODELS[given.model]
    vllm = Vllm() if given.vllm else None
    for count in given.sequences or sequences:
        for top_p in (1.0, TOP_P):
            how = Given(top_p, given.group, given.device)
            contestants = make_contestants(architecture, count, prompt, tokens, given=how, vllm=vllm)
            rates = measure(contestants, given.rounds)
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
                row |= {} if vllm is None else {"vllm": vllm.version}
                with RESULT.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    if vllm is not None:
        vllm.close()


if __name__ == "__main__":
    main()
