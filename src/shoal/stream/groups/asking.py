"""What an engine is asked for: the rest of answers, from the tokens that they have so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.llm.engines.protocol import Wanted
from shoal.stream.groups.draws import Draw
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.llm.engines.protocol import Served
    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.book import Book
    from shoal.llm.sampler.protocol import Drawing
    from shoal.llm.sampler.slots import Answer
    from shoal.stream.groups.draws import Draws

TOGETHER = 16
"""Answers of one request at most: a server takes no more than it draws at once."""


class Asking:
    """Token in, token out: nothing is written as text on the way, and no token is drawn twice."""

    def __init__(
        self,
        book: Book,
        draws: Draws,
        model: LanguageModel,
        drawing: Drawing,
        served: Served,
    ) -> None:
        """For answers in a book, of a model, as the engine serves it."""
        self._book, self._draws = book, draws
        self._drawing, self._served = drawing, served
        self._end = model.tokenizer.end
        length = model.architecture.max_length
        self._most = min(length, served.max_length or length)

    def check_room(self, answers: Sequence[Answer]) -> None:
        """ConfigError where the engine reads less than an answer begins with, though the model would not."""
        for one in answers:
            if len(one.token) >= self._most:
                raise ConfigError(
                    f"request {one.key} has {len(one.token)} tokens, and the engine reads {self._most} at most, its "
                    "answer included; start it for longer ones (--max-model-len), or shorten the prompt"
                )

    def rest(self, keys: Sequence[tuple[int, int]], *, salt: str) -> None:
        """Asks for the rest of answers, each as far as it has come; those of one prompt that begin alike together."""
        alike: dict[tuple[int, tuple[int, ...]], list[tuple[int, int]]] = {}
        for key in keys:
            running = self._book.running.get(key)
            if running is None:
                continue
            token = *running.given, *running.token
            if running.token and running.token[-1] in self._end:
                self._book.finish(key, truncated=False)
            elif len(token) >= self._room(running.prompt):
                self._book.finish(key, truncated=True)
            else:
                alike.setdefault((key[0], token), []).append(key)
        for (_, token), group in alike.items():
            for first in range(0, len(group), TOGETHER):
                self._ask(token, group[first : first + TOGETHER], salt)

    def _ask(
        self, token: tuple[int, ...], keys: list[tuple[int, int]], salt: str
    ) -> None:
        running = [self._book.running[key] for key in keys]
        wanted = Wanted(
            token=token,
            count=len(keys),
            max_tokens=self._room(running[0].prompt) - len(token),
            drawing=self._drawing,
            end=self._end,
            salt=salt,
        )
        self._draws.begin(Draw(keys, wanted, [len(one.token) for one in running]))

    def _room(self, prompt: int) -> int:
        """The length at which an answer to so long a prompt is cut."""
        return min(prompt + self._drawing.max_tokens, self._most)
