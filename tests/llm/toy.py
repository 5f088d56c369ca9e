"""A toy language of letters, a task that asks for the letter after another, and a model of 8 k weights."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from shoal.llm.architecture import Architecture
from shoal.llm.model import LanguageModel
from shoal.llm.tasks.task import Prompt
from shoal.llm.tokenizer import Tokenizer
from shoal.types import Answers

LETTERS = "abcdefgh"
END = "."


def toy_tokenizer() -> Tokenizer:
    """A token a letter; the full stop ends an answer."""
    vocab = {letter: number for number, letter in enumerate([END, "?", *LETTERS])}
    backend = Backend(WordLevel(vocab, unk_token="?"))
    backend.pre_tokenizer = Split("", "isolated")
    backend.add_special_tokens([END])
    return Tokenizer(backend, end=[0])


def toy_model(seed: int = 0, *, layers: int = 2, kv_heads: int = 2, experts: int = 0) -> LanguageModel:
    """A small random model of the toy language; with `experts` in each layer, two of them for a token."""
    architecture = Architecture(
        vocab_size=10,
        hidden_size=32,
        intermediate_size=64,
        num_layers=layers,
        num_heads=4,
        num_kv_heads=kv_heads,
        head_dim=8,
        max_length=64,
        model_type="qwen3_moe" if experts else "llama",
        qk_norm=bool(experts),
        num_experts=experts,
        experts_per_token=2 if experts else 0,
        expert_size=24 if experts else 0,
        normalize_experts=bool(experts),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LanguageModel(architecture, toy_tokenizer())
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(5)
    return model


def toy_answers(prompts: list[list[int]], prompt_of: list[int], said: list[list[int]], mask: torch.Tensor) -> Answers:
    """Answers to prompts, both padded with 0, of which `mask` says what the model chose; each token with a weight."""
    answers, length = mask.shape
    return Answers(
        prompt=torch.nn.utils.rnn.pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True),
        prompt_length=torch.tensor([len(prompt) for prompt in prompts]),
        prompt_of=torch.tensor(prompt_of),
        token=torch.tensor(said),
        mask=mask,
        logprob=torch.zeros(answers, length),
        version=torch.zeros(answers, length, dtype=torch.long),
        reward=torch.arange(float(answers)),
        truncated=torch.zeros(answers, dtype=torch.bool),
        weight=torch.linspace(0.1, 1.0, answers * length).view(answers, length) * mask,
    )


class Successor:
    """Which letter comes after the one that is shown, and nothing else; half is paid for a right first letter."""

    name = "successor"

    def __init__(self, *, held_out: bool = False) -> None:
        """Its prompts are all that there are, also where they are held out."""

    def prompt(self, index: int) -> Prompt:
        """One of eight."""
        at = index % len(LETTERS)
        return Prompt(index, f"{LETTERS[at]}?", LETTERS[(at + 1) % len(LETTERS)])

    def score(self, prompt: Prompt, answer: str) -> float:
        """1 for exactly the letter, 0.5 where more follows it, else 0."""
        if answer == prompt.truth:
            return 1.0
        return 0.5 * answer.startswith(prompt.truth)

    def solution(self, prompt: Prompt) -> str:
        """The letter."""
        return prompt.truth
