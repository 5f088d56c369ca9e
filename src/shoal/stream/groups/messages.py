"""What a learner and its sampler in another process say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.llm.architecture import Architecture
    from shoal.llm.engines.inside import VllmInside
    from shoal.llm.sampler.protocol import Drawing
    from shoal.llm.tokenizer import Tokenizer

WORD = "sampler"
"""What the process is called in messages."""


class Op(IntEnum):
    """What a learner sends; the answers are the tokens, step by step, and LOADED for each version of weights."""

    LOAD = 1
    SUBMIT = 2
    RESTORE = 3
    CLOSE = 4
    PAUSE = 5
    GO_ON = 6


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a new process is told; weights follow."""

    architecture: Architecture
    tokenizer: Tokenizer
    temperature: float
    drawing: Drawing
    slots: int
    seed: int
    num_threads: int
    refill: bool
    exact: bool
    device: str
    """Where it draws."""
    sizes: tuple[int, ...]
    """Of the regions of the memory that weights cross in."""
    inside: VllmInside | None = None
    """Where vLLM draws in the place of shoal's sampler."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version of weights was copied: its region may be written again."""

    version: int
