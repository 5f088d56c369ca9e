"""A reward model: any function from texts to numbers, called with many texts at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.llm.scorers.texts import question_text
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.llm.tasks.task import Prompt

    Texts = Callable[[Sequence[str]], Any]
    Render = Callable[[Prompt, str], str]


def plain_text(prompt: Prompt, answer: str) -> str:
    """The question with the answer behind it; after a chat, the answer as the assistant's message."""
    question = question_text(prompt)
    if isinstance(prompt.question, str):
        return question + answer
    return f"{question}\nassistant: {answer}"


class RewardModel:
    """Scores texts in batches. Where it runs, which device it takes and how it is loaded is the function's business."""

    def __init__(
        self, rewards: Texts, *, batch_size: int = 16, render: Render = plain_text
    ) -> None:
        """Takes a function that is there already; in a pool `make_scorer` makes both in each process.

        Args:
            rewards: from N texts to N numbers: a list, an array or a tensor [N] or [N, 1].
            batch_size: texts at once, at most.
            render: from a prompt and an answer to the text that the model reads, such as its chat template.

        Raises:
            ConfigError: batch_size is no count.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        self._rewards, self._render, self.batch_size = rewards, render, batch_size

    def __call__(self, prompt: Prompt, answer: str) -> float:
        """The reward of one answer."""
        [value] = self.score_batch([(prompt, answer)])
        return value

    def score_batch(self, pairs: Sequence[tuple[Prompt, str]]) -> list[float]:
        """The rewards of up to `batch_size` answers.

        Raises:
            ValueError: there is not one number for each text.
        """
        texts = [self._render(prompt, answer) for prompt, answer in pairs]
        given: Any = self._rewards(texts)
        if hasattr(given, "tolist"):
            given = given.tolist()
        values = [_only(value) for value in given]
        if len(values) != len(texts):
            raise ValueError(
                f"the reward model gave {len(values)} numbers for {len(texts)} texts"
            )
        return values


def _only(value: Any) -> float:
    """The number of a row [1]."""
    if isinstance(value, list):
        [value] = value
    return value
