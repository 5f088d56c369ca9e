"""What an algorithm says of its groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from shoal.llm.sampler.protocol import Sampling


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
    def sampling(self) -> Sampling:
        """How tokens are drawn."""
        ...

    @property
    def dynamic_sampling(self) -> bool:
        """Whether groups whose answers all earn the same are replaced by others."""
        ...
