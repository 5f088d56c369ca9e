"""A tokenizer for one task: bytes, and the pieces of text that the task repeats."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from shoal.llm.chat import MISSING
from shoal.llm.tokenizer import Tokenizer
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer as Backend

END, PAD = "<|end|>", "<|pad|>"
MOST = 512
"""Tokens at most."""
COMMON = 0.2
"""The share of texts that a piece must stand in."""


def make_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """A tokenizer that knows the pieces that the texts repeat; what varies is read byte by byte, digits one by one.

    A template of many words is then a token or two, and letters and digits, which the task is about, are seen as such.
    Byte-pair merging finds the pieces; those that it only passes through (`wh` on the way to `what is `) are no tokens.
    Equal texts give equal tokenizers.

    Raises:
        ConfigError: `tokenizers` is not installed.
    """
    try:
        from tokenizers import AddedToken
    except ImportError as error:
        raise ConfigError(MISSING.format("tokenizers")) from error
    backend = _bytes()
    backend.add_special_tokens([END, PAD])
    room = MOST - backend.get_vocab_size()
    pieces = _pieces(texts)[:room]
    backend.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    end = backend.token_to_id(END)
    assert end is not None
    return Tokenizer(backend, end=[end], config={"pad_token": PAD})


def _bytes() -> Backend:
    """A byte-pair tokenizer without merges."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {byte: number for number, byte in enumerate(alphabet)}
    backend = Backend(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _pieces(texts: Sequence[str]) -> list[str]:
    """What merging of pairs ends with, in a share of the texts, the most frequent first."""
    least = max(2, round(COMMON * len(texts)))
    words = [_words(text) for text in texts]
    count = Counter(word for text in words for word in text)
    symbols = {word: list(word) for word in count}
    while True:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in symbols.items():
            for pair in pairwise(parts):
                pairs[pair] += count[word]
        pair, times = min(
            pairs.items(), key=lambda one: (-one[1], one[0]), default=(("", ""), 0)
        )
        if times < least:
            break
        symbols = {word: _merged(parts, pair) for word, parts in symbols.items()}
    found = Counter(part for text in words for word in text for part in symbols[word])
    kept = [(-n, part) for part, n in found.items() if len(part) > 1 and n >= least]
    return [part for _, part in sorted(kept)]


def _words(text: str) -> list[str]:
    """Runs of characters without digits, which are never merged; only ASCII, which tokens can hold as it is."""
    spaced = "".join(c if c.isascii() and not c.isdigit() else "\0" for c in text)
    return [word for word in spaced.split("\0") if len(word) > 1]


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    first, second = pair
    merged: list[str] = []
    for part in parts:
        if merged and merged[-1] == first and part == second:
            merged[-1] = first + second
        else:
            merged.append(part)
    return merged
