"""Tasks of the toy language with one thing wrong each, from which runs of the doctor's collection were trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.llm.model_folder import save_model
from shoal.llm.tasks.task import Prompt
from tests.llm.toy import LETTERS, Successor, toy_model

if TYPE_CHECKING:
    from pathlib import Path


class Constant(Successor):
    """Whatever is answered earns the same."""

    def score(self, prompt: Prompt, answer: str) -> float:
        """Nothing."""
        return 0.0


class Four(Successor):
    """The next four letters, of which each counts."""

    def prompt(self, index: int) -> Prompt:
        """One of eight."""
        at = index % len(LETTERS)
        truth = "".join(LETTERS[(at + more) % len(LETTERS)] for more in range(1, 5))
        return Prompt(index, f"{LETTERS[at]}?", truth)

    def score(self, prompt: Prompt, answer: str) -> float:
        """The share of the letters that are right, from the first on."""
        right = 0
        for one, other in zip(answer, prompt.truth, strict=False):
            if one != other:
                break
            right += 1
        return right / 4


def save_toy(folder: Path) -> str:
    """Writes the toy model into a folder, as `model` names it."""
    save_model(toy_model(), folder)
    return str(folder)
