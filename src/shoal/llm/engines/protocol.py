"""What every engine does, in whatever words its server has for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from shoal.llm.engines.calls import Call
    from shoal.llm.sampler.protocol import Drawing


@dataclass(frozen=True, slots=True)
class Served:
    """What a server says of itself."""

    model: str
    """As the server calls it."""
    max_length: int | None
    """Tokens of prompt and answer together; None where it does not say."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Answers to one sequence of tokens."""

    token: tuple[int, ...]
    """The prompt, and what the answers begin with."""
    count: int
    """How many answers."""
    max_tokens: int
    """More tokens of each, at most."""
    drawing: Drawing
    """How tokens are drawn."""
    end: tuple[int, ...]
    """Tokens that end an answer."""
    salt: str
    """What keys and values that the engine kept must have been computed under, to be used again."""


@dataclass(frozen=True, slots=True)
class Piece:
    """n more tokens of one answer."""

    index: int
    """Which of the answers."""
    token: list[int]
    logprob: list[float]
    """Of each, within what was kept, at the temperature."""
    kept: list[list[int]] | None
    """The tokens that each could have been; None where that is not asked for."""
    end: int
    """0 where the answer goes on, else as in `Progress`; BROKEN where the server ended it on its own."""
    versions: list[tuple[str, int, int]] | None = None
    """With the last piece: which tokens of the answer, from and up to, were drawn under which version; None where the
    server does not say."""


BROKEN = 3
"""An end for no reason of the answer's: the server was told to stop, say. It is asked for again."""


class Engine(Protocol):
    """A server that draws answers. Its errors are `EngineError`, and `LostEngineError` where another try may do."""

    name: str
    """As `language.engine` says it."""
    url: str

    def describe(self) -> Served:
        """Asks which model it serves."""
        ...

    def check(self, drawing: Drawing) -> None:
        """ConfigError for a way of drawing whose log-probabilities it cannot give."""
        ...

    def draw(self, wanted: Wanted, call: Call) -> Iterator[Piece]:
        """Asks for answers; their tokens as they are drawn. `call.stop` ends it."""
        ...

    def prefill(self, token: Sequence[int], salt: str) -> list[float]:
        """The log-probability of each token but the first, given those before it, at temperature 1."""
        ...

    def version(self) -> str | None:
        """What `take` said last, as the server has it now; another word where it was started anew."""
        ...

    def pause(self, *, refill: bool) -> None:
        """Draws no more tokens; answers under way stay. `refill`: their keys and values are computed again."""
        ...

    def take(self, version: str, folder: Path) -> None:
        """Takes the weights in a folder, as transformers saves them, while it is paused."""
        ...

    def resume(self) -> None:
        """Goes on."""
        ...
