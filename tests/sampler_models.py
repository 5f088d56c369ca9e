"""Tiny random models, a tokenizer of one letter a token, and slow references for the sampler's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from shoal.llm.architecture import Architecture
from shoal.llm.logprobs import packed
from shoal.llm.model import LanguageModel
from shoal.types import Answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.llm.sampler.local import LocalSampler
    from shoal.llm.sampler.protocol import Drawn

VOCAB = 61
END = 0
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 16,
    "max_length": 128,
}


class Letters:
    """Token i is the letter with the code 64 + i."""

    def __init__(self, *end: int) -> None:
        self.end = end or (END,)
        self.size = VOCAB

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(chr(64 + token) for token in tokens if token not in self.end)


def make_model(
    seed: int = 0, *, std: float = 0.2, temperature: float = 1.0, end: int = END, exact: bool = False, **sizes: Any
) -> LanguageModel:
    """A model with weights large enough that its tokens differ much in their probability."""
    generator = torch.Generator().manual_seed(seed)
    settings: dict[str, Any] = SIZES | {"model_type": "qwen3", "qk_norm": True} | sizes
    architecture = Architecture(**settings)
    model = LanguageModel(architecture, cast("Any", Letters(end)), temperature, exact=exact)
    for name, parameter in model.named_parameters():
        mean = 1.0 if "norm" in name else 0.0
        torch.nn.init.normal_(parameter, mean, std, generator=generator)
    return model


def make_prompt(seed: int, length: int) -> tuple[int, ...]:
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(1, VOCAB, length).tolist())


def run(sampler: LocalSampler) -> dict[tuple[int, int], Drawn]:
    """Everything that is pending."""
    found: dict[tuple[int, int], Drawn] = {}
    while sampler.pending:
        for drawn in sampler.poll():
            assert (drawn.key, drawn.number) not in found
            found[drawn.key, drawn.number] = drawn
    return found


def as_answers(drawn: Drawn, prompt: Sequence[int], begun: Sequence[int] = ()) -> Answers:
    """One answer as a batch for the learner."""
    first = len(begun)
    token = torch.tensor([*begun, *drawn.token.tolist()])[None]
    mask = torch.ones_like(token, dtype=torch.bool)
    mask[:, :first] = False
    kept = None
    if drawn.kept is not None:
        everything = packed(torch.ones(first, VOCAB, dtype=torch.bool))
        kept = torch.cat([everything, torch.from_numpy(drawn.kept)])[None]
    nothing = torch.zeros(token.shape)
    return Answers(
        prompt=torch.tensor([list(prompt)]),
        prompt_length=torch.tensor([len(prompt)]),
        prompt_of=torch.zeros(1, dtype=torch.int64),
        token=token,
        mask=mask,
        logprob=nothing,
        version=nothing.long(),
        reward=torch.zeros(1),
        truncated=torch.zeros(1, dtype=torch.bool),
        kept=kept,
    )


def learner_logprobs(
    model: LanguageModel, drawn: Drawn, prompt: Sequence[int], begun: Sequence[int] = ()
) -> NDArray[np.float32]:
    """What the learner's forward pass says of the drawn tokens [n]."""
    with torch.no_grad():
        output = model(as_answers(drawn, prompt, begun))
    return output.logprob[0, len(begun) :].numpy()


def slow_kept(logits: NDArray[np.float64], top_k: int, top_p: float, min_p: float) -> set[int]:
    """The set that a token is drawn from, token by token, in double precision."""
    order = sorted(range(len(logits)), key=lambda token: -logits[token])
    if top_k:
        order = order[:top_k]
    weight = np.exp(logits[order] - logits[order[0]])
    weight /= weight.sum()
    kept: list[int] = []
    reached = 0.0
    for token, share in zip(order, weight, strict=True):
        if kept and reached >= top_p:
            break
        kept.append(token)
        reached += share
    most = np.exp(logits[kept] - logits[kept[0]])
    return {token for token, share in zip(kept, most, strict=True) if share >= min_p}
