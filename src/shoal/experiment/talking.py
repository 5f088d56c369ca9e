"""Talking to a language model: questions and answers, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.experiment.agent import load
from shoal.llm.model import LanguageModel
from shoal.llm.sampler.local import LocalSampler
from shoal.llm.sampler.protocol import Request
from shoal.llm.tasks.task import Message, Prompt
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.llm.sampler.protocol import Drawing


def model_of(run: str, run_dir: str) -> LanguageModel:
    """The language model that a run trained; ConfigError where it trained none."""
    policy = load(run, run_dir=run_dir).policy
    if not isinstance(policy, LanguageModel):
        raise ConfigError(
            f"{run} trained a policy for an environment, not a language model; `shoal eval {run}` plays it"
        )
    return policy


class Talk:
    """A conversation, where the model has a template for chats; else every question stands alone, as plain text."""

    def __init__(
        self, model: LanguageModel, drawing: Drawing, *, seed: int = 0
    ) -> None:
        """Nothing was said yet."""
        self.model, self.turns = model, list[Message]()
        self._sampler = LocalSampler(model, drawing, slots=1, seed=seed)
        self._asked = 0

    def answer(self, question: str) -> Iterator[str]:
        """The parts of the answer, as they are drawn; ConfigError where there is no room for one."""
        tokenizer = self.model.tokenizer
        chat = tokenizer.chat_template is not None
        self.turns.append(Message("user", question))
        asked = Prompt(self._asked, tuple(self.turns) if chat else question)
        token = tuple(tokenizer.encode_prompt(asked))
        self._sampler.submit([Request(self._asked, token, (0,))])
        self._asked += 1
        drawn: list[int] = []
        shown = ""
        while self._sampler.pending:
            self._sampler.poll(max_steps=1)
            progress = self._sampler.progress
            if progress is not None:
                drawn += progress.token.tolist()
            text = tokenizer.decode(drawn)
            if not text.endswith("\ufffd"):  # else a letter is not whole yet
                yield text[len(shown) :]
                shown = text
        self.turns.append(Message("assistant", shown))
