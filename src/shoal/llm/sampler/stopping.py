"""Texts that end answers which others draw: found here, token by token, whatever the engine makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from shoal.llm.sampler.ends import Ends
from shoal.llm.sampler.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.llm.engines.protocol import Piece
    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.book import Book
    from shoal.llm.sampler.protocol import Drawing


def ends_of(model: LanguageModel, drawing: Drawing) -> Ends | None:
    """Where answers of an engine end in a text; None where no text ends one."""
    if not drawing.stop:
        return None
    return Ends(model.tokenizer, model.architecture.vocab_size, drawing.stop)


def ended_by_text(ends: Ends | None, before: Sequence[int], piece: Piece) -> Piece:
    """A piece of an answer up to where a text ends it; as it is where none does.

    An engine that was asked for the rest of an answer does not see a text that began before it.

    Args:
        ends: the texts.
        before: what was drawn of the answer before.
        piece: what came now.
    """
    if ends is None:
        return piece
    length = ends.first([*before, *piece.token], len(before))
    if length is None:
        return piece
    count = length - len(before)
    return replace(
        piece,
        token=piece.token[:count],
        logprob=piece.logprob[:count],
        kept=None if piece.kept is None else piece.kept[:count],
        end=Progress.ENDED,
    )


def ended_by_texts(ends: Ends, book: Book, said: Progress) -> Progress:
    """One token of each of n answers with the ends that texts make; without those of answers that ended before."""
    keys = list(zip(said.key.tolist(), said.number.tolist(), strict=True))
    open_ones = np.array([key in book.running for key in keys], np.bool_)
    end = said.end.copy()
    for row in np.flatnonzero(open_ones):
        before = book.running[keys[row]].token
        token = [*before, int(said.token[row])]
        if ends.first(token, len(before)) is not None:
            end[row] = Progress.ENDED
    return _rows(replace(said, end=end), open_ones)


def _rows(said: Progress, chosen: NDArray[np.bool_]) -> Progress:
    """Some of the answers of a step of an engine, which tells no routing."""
    return replace(
        said,
        key=said.key[chosen],
        number=said.number[chosen],
        token=said.token[chosen],
        logprob=said.logprob[chosen],
        kept=None if said.kept is None else said.kept[chosen],
        end=said.end[chosen],
    )
