"""A toy conversation: guess a letter, with hints between the guesses."""

from __future__ import annotations

from shoal.llm.tasks.task import Message, Prompt, Reply
from tests.llm.toy import LETTERS


class Guessing:
    """Name the letter that the hint shows: nobody can know it in the first turn."""

    name = "guessing"
    max_turns = 3

    def __init__(self, *, held_out: bool = False) -> None:
        """Its prompts are all that there are, also where they are held out."""

    def prompt(self, index: int) -> Prompt:
        """One of eight, which look alike."""
        return Prompt(index, "?", LETTERS[3 * index % len(LETTERS)])

    def reply(self, prompt: Prompt, turns: tuple[Message, ...]) -> Reply:
        """The letter, unless it was named."""
        if turns[-1].content == prompt.truth:
            return Reply(Message("tool", ""), done=True)
        return Reply(Message("tool", str(prompt.truth)))

    def answer_of(self, prompt: Prompt, turns: tuple[Message, ...]) -> str:
        """What was said last."""
        return turns[-1].content

    def score(self, prompt: Prompt, answer: str) -> float:
        """1 for exactly the letter, 0.5 where more follows it, else 0."""
        if answer == prompt.truth:
            return 1.0
        return 0.5 * answer.startswith(prompt.truth)
