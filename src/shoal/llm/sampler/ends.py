"""Where answers end: tokens that end them, and texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.llm.tokenizer import Tokenizer

BEFORE = 4
"""Tokens before a stop text that are decoded with it: some tokenizers write a token by those around it."""


class Ends:
    """Which tokens end an answer, and which may complete a text that does."""

    def __init__(
        self, tokenizer: Tokenizer, vocab_size: int, stop: Sequence[str]
    ) -> None:
        """Of a model's tokenizer; `stop` are the texts, which `check_stop` has let through."""
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        self.ends = np.zeros(vocab_size, np.bool_)
        self.ends[[token for token in tokenizer.end if token < vocab_size]] = True
        self.completes = np.zeros(vocab_size, np.bool_)
        # A letter may be as many tokens as it has bytes.
        longest = max((len(text.encode()) for text in self.stop), default=0)
        self._width = BEFORE + longest
        if not self.stop:
            return
        last = {text[-1] for text in self.stop}
        blank = any(letter.isspace() for letter in last)
        for token in range(min(vocab_size, tokenizer.size)):
            text = tokenizer.decode([token])
            # Alone, a token may be a part of a letter, or lose the blanks at its ends.
            unclear = blank or not text or "\ufffd" in text
            self.completes[token] = unclear or bool(last & set(text))

    def stopped(
        self,
        token: NDArray[np.int64],
        answers: NDArray[np.int64],
        start: NDArray[np.int64],
        length: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Which answers [n] end in a stop text or at a token that ends them.

        Args:
            token: [n], the last one of each.
            answers: all tokens of each [n, capacity].
            start: where the answers begin in them [n].
            length: where they end [n].
        """
        ended = self.ends[token]
        if self.stop:
            for slot in np.flatnonzero(self.completes[token] & ~ended):
                tail = answers[
                    slot, max(start[slot], length[slot] - self._width) : length[slot]
                ]
                ended[slot] = self._completed(tail.tolist())
        return ended

    def first(self, token: Sequence[int], since: int) -> int | None:
        """How many of these tokens there are up to the first stop text that one from `since` on completes.

        None where none does. `token` is all that was drawn of an answer.
        """
        for end in range(since + 1, len(token) + 1):
            if self.completes[token[end - 1]]:
                tail = list(token[max(0, end - self._width) : end])
                if self._completed(tail):
                    return end
        return None

    def _completed(self, tail: list[int]) -> bool:
        """Whether the last of these tokens completes a stop text."""
        text = self.tokenizer.decode(tail)
        before = self.tokenizer.decode(tail[:-1])
        return any(text.count(one) > before.count(one) for one in self.stop)


def check_stop(tokenizer: Tokenizer, stop: Sequence[str]) -> None:
    """ConfigError for a stop text that no answer of this model could ever hold: its tokens are not that text."""
    for text in stop:
        if text.strip() not in tokenizer.decode(tokenizer.encode(text)):
            raise ConfigError(
                f"sampling.stop has {text!r}, which this model's tokens do not write: it is a special token, or has "
                "letters that the tokenizer lacks; name text that an answer may hold (answers end at the model's own "
                "end tokens anyway)"
            )
