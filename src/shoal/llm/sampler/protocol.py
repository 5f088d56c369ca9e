"""What every sampler does: take prompts, hand over finished answers, change weights between two tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from shoal.types import ConfigError, check_ranges

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from shoal.llm.model import LanguageModel


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn."""

    temperature: float = 1.0
    """What logits are divided by, when answers are drawn and when they are learned; more try more."""
    top_k: int = 0
    """Draw among so many most probable tokens; 0: among all."""
    top_p: float = 1.0
    """Draw among the most probable tokens that together have this probability."""
    min_p: float = 0.0
    """Draw among tokens that are at least so probable, as a share of the most probable one."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer, or a turn of a conversation, beside the model's own end; they stay part of it."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        self.drawing(1)
        if self.temperature == 0:
            raise ConfigError(
                "temperature must be above 0: with 0 all answers to a prompt are one"
            )
        if self.top_k == 1:
            raise ConfigError(
                "top_k must be 0 (all tokens) or at least 2: with 1 all answers to a prompt are one"
            )

    def drawing(self, max_tokens: int) -> Drawing:
        """The same for answers of at most so many tokens."""
        return Drawing(
            max_tokens,
            self.temperature,
            self.top_k,
            self.top_p,
            self.min_p,
            self.stop,
        )


@dataclass(frozen=True, slots=True)
class Drawing:
    """How tokens are drawn, and where an answer ends."""

    max_tokens: int
    """Tokens of an answer at most; the token that ends it counts."""
    temperature: float = 1.0
    """What logits are divided by; 0 draws the most probable token."""
    top_k: int = 0
    """Draw among so many most probable tokens; 0: among all."""
    top_p: float = 1.0
    """Draw among the most probable tokens that together have this probability."""
    min_p: float = 0.0
    """Draw among tokens that are at least so probable, as a share of the most probable one."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer; they stay part of it."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        check_ranges(self, max_tokens=(1, 2**20), top_k=(0, 2**20))
        if not 0 <= self.temperature < 1e3:
            raise ConfigError(f"temperature must be at least 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if not 0 <= self.min_p < 1:
            raise ConfigError(f"min_p must be at least 0 and below 1, got {self.min_p}")
        if "" in self.stop:
            raise ConfigError(
                "stop has an empty text, which would end every answer before it begins; leave it out"
            )

    @property
    def cuts(self) -> bool:
        """Whether some tokens cannot be drawn, so that a set of those that can is kept."""
        return bool(self.top_k) or self.top_p < 1 or self.min_p > 0


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt that is to be answered, once or several times."""

    key: int
    """The caller's: no two answers of a sampler's life share it and a number, but for the turns of one conversation,
    which follow each other. Noise is of (seed, key, number, position)."""
    prompt: tuple[int, ...]
    """Its tokens."""
    numbers: tuple[int, ...]
    """A number for each answer, unlike each other; the answers share the reading of the prompt."""
    begun: tuple[tuple[int, ...], ...] = ()
    """What each answer begins with already, in tokens: a turn that came before, or an answer forked at a pivot."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A finished answer, n tokens: what was drawn for a request, without what it had begun with.

    Where turns of a conversation are put together, so are their tokens and those of the replies between them.
    """

    key: int
    number: int
    token: NDArray[np.int64]
    """[n]; the one that ends it is the last, unless it was cut."""
    logprob: NDArray[np.float32]
    """[n]: within what was kept, at the temperature."""
    version: NDArray[np.int64]
    """[n]: the weights that chose each."""
    truncated: bool
    """Whether `max_tokens` cut it."""
    kept: NDArray[np.uint8] | None = None
    """[n, ceil(V / 8)]: bits of what could be drawn, lowest first; None where that was everything."""
    learned: NDArray[np.bool_] | None = None
    """[n]: which tokens the model chose itself, whose other numbers are 0 elsewhere; None where it chose all."""
    routing: NDArray[np.int16] | None = None
    """[n, layers, experts_per_token]: of a mixture of experts those that chose each, where the token before it went."""
    prefix: NDArray[np.int16] | None = None
    """[prompt - 1, layers, experts_per_token], or more: where the prompt's tokens but the last went when it was
    read."""

    @property
    def chosen(self) -> NDArray[np.bool_]:
        """[n]: `learned`, all where that is None."""
        if self.learned is None:
            return np.ones(len(self.token), np.bool_)
        return self.learned


class Sampler(Protocol):
    """Answers many requests at once."""

    @property
    def version(self) -> int:
        """Of the weights that it draws with."""
        ...

    @property
    def pending(self) -> int:
        """Answers that were asked for and not handed over yet."""
        ...

    def submit(self, requests: Sequence[Request]) -> None:
        """Takes requests in, in order; ConfigError for a prompt that leaves no room for an answer."""
        ...

    def poll(self, max_steps: int | None = None) -> list[Drawn]:
        """Goes on until an answer is finished, if any is pending, and hands over those that are.

        Of each answer it draws at most `max_steps` more tokens; with 0 it hands over what is finished already.
        """
        ...

    def load(self, version: int, model: LanguageModel) -> None:
        """Draws from now on with a copy of the weights that `model` has now; answers under way go on."""
        ...

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on with every answer under way, to the token: lists and arrays."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from there; what is under way is forgotten. Prompts and tokens are read anew by the weights."""
        ...

    def close(self) -> None:
        """Ends what it has started."""
        ...
