"""What an algorithm says of its groups, and what is done with those that teach nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from shoal.llm.sampler.protocol import Drawing

if TYPE_CHECKING:
    from collections.abc import Callable


class DrawsGroups(Protocol):
    """The settings of an algorithm that decide how groups come to be."""

    @property
    def num_prompts(self) -> int:
        """Groups of a batch."""
        ...

    @property
    def num_generations(self) -> int:
        """Answers of a group."""
        ...

    @property
    def max_completion_length(self) -> int:
        """Tokens of an answer at most."""
        ...

    @property
    def temperature(self) -> float:
        """What logits are divided by."""
        ...

    @property
    def top_k(self) -> int:
        """Draw among so many tokens; 0: among all."""
        ...

    @property
    def top_p(self) -> float:
        """Draw among those that together have this probability."""
        ...

    @property
    def min_p(self) -> float:
        """Draw among those that have this share of the most probable one's."""
        ...

    @property
    def dynamic_sampling(self) -> bool:
        """Whether groups whose answers all earn the same are replaced by others."""
        ...


def drawing_of(cfg: DrawsGroups) -> Drawing:
    """How the sampler draws for an algorithm."""
    return Drawing(
        max_tokens=cfg.max_completion_length,
        temperature=cfg.temperature,
        top_k=cfg.top_k,
        top_p=cfg.top_p,
        min_p=cfg.min_p,
    )


def unwanted(cfg: DrawsGroups) -> Callable[[list[float]], bool]:
    """Whether a group of these rewards is to be replaced."""

    def equal(rewards: list[float]) -> bool:
        return cfg.dynamic_sampling and max(rewards) == min(rewards)

    return equal
