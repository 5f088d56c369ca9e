"""The sizes of the model `tiny`, and how it is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoal.llm.architecture import Architecture
from shoal.llm.pretraining import Pretraining

if TYPE_CHECKING:
    from shoal.llm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Tiny:
    """The sizes of the model and how it is made."""

    hidden_size: int = 128
    intermediate_size: int = 384
    num_layers: int = 3
    num_heads: int = 4
    max_length: int = 1024
    seed: int = 0
    pretraining: Pretraining = field(default_factory=Pretraining)


def architecture_of(settings: Tiny, tokenizer: Tokenizer) -> Architecture:
    """The sizes of the model for a tokenizer."""
    return Architecture(
        vocab_size=-(-tokenizer.size // 32) * 32,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_layers=settings.num_layers,
        num_heads=settings.num_heads,
        num_kv_heads=settings.num_heads,
        head_dim=settings.hidden_size // settings.num_heads,
        max_length=settings.max_length,
    )
