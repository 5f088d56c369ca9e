"""Small models for tests: tokenizers, and random weights of each family by transformers."""

from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from shoal.llm.architecture import Architecture
from shoal.llm.model import LanguageModel
from shoal.llm.tokenizer import Tokenizer
from shoal.types import Answers

TEXTS = ["What is 3 + 14 =", "the answer, of course, is 42", "No: it's naïve — 15 % of ½"]
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITH_SYSTEM = (
    "{%- if tools %}\n    {{- '# Tools' + (tools | tojson) }}\n{%- endif %}\n{{- bos_token }}\n"
    "{%- if messages[0].role != 'system' %}\n    {{- '<|im_start|>system\nYou help.<|im_end|>\n' }}\n{%- endif %}\n"
    "{%- for message in messages %}\n    {%- if message.role == 'tool' %}{% continue %}{% endif %}\n"
    "    {{- '<|im_start|>' + message.role + '\n' + message.content | trim + '<|im_end|>\n' }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\n' }}\n{%- endif %}"
)


def make_backend() -> tokenizers.Tokenizer:
    """A byte-level BPE of 300 tokens: <|im_end|> and <s> are the first.

    It cuts text as Qwen's does, since transformers takes that for Qwen's models whatever the file says.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|im_end|>", "<s>", "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS * 5, trainer)
    return backend


def make_tokenizer(chat_template: str | None = CHATML) -> Tokenizer:
    return Tokenizer(
        make_backend(),
        end=[0],
        chat_template=chat_template,
        config={"bos_token": "<s>", "sep_token": {"content": "<s>"}},
    )


def make_architecture(**changed: Any) -> Architecture:
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
    }
    sizes |= {"vocab_size": 300, "head_dim": 8, "max_length": 64}
    return Architecture(**sizes | changed)


def make_model(seed: int = 0, **changed: Any) -> LanguageModel:
    """Random weights, larger than those that training begins with, so that differences show."""
    torch.manual_seed(seed)
    model = LanguageModel(make_architecture(**changed), make_tokenizer())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def make_answer(prompt: list[int], answer: list[int]) -> Answers:
    """One answer to one prompt."""
    token = torch.tensor([answer])
    zeros = torch.zeros(token.shape)
    return Answers(
        prompt=torch.tensor([prompt]),
        prompt_length=torch.tensor([len(prompt)]),
        prompt_of=torch.tensor([0]),
        token=token,
        mask=torch.ones(token.shape, dtype=torch.bool),
        logprob=zeros,
        version=zeros.long(),
        reward=torch.zeros(1),
        truncated=torch.zeros(1, dtype=torch.bool),
    )


def make_folder(folder: Path, **changed: Any) -> Path:
    from shoal.llm.loading import save_model

    save_model(make_model(**changed), folder)
    return folder
