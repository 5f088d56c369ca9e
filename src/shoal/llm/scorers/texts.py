"""Questions as one text, for scorers that read texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.llm.tasks.task import Prompt


def question_text(prompt: Prompt) -> str:
    """What was asked; of a chat all messages, each on lines of its own after its role."""
    if isinstance(prompt.question, str):
        return prompt.question
    lines = (f"{message.role}: {message.content}" for message in prompt.question)
    return "\n".join(lines)
