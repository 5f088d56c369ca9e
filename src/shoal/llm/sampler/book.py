"""The book of a sampler in another process: every answer that it draws, as far as it is known here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from shoal.llm.sampler.progress import Progress
from shoal.llm.sampler.protocol import Drawn
from shoal.llm.sampler.slots import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from shoal.llm.architecture import Architecture
    from shoal.llm.engines.protocol import Piece
    from shoal.llm.sampler.protocol import Drawing


@dataclass(slots=True)
class Running:
    """An answer that is being drawn elsewhere, as far as it is known here."""

    prompt: int
    """Tokens of the prompt."""
    given: tuple[int, ...]
    """The prompt, and what the answer began with."""
    token: list[int] = field(default_factory=list)
    logprob: list[float] = field(default_factory=list)
    version: list[int] = field(default_factory=list)
    kept: list[NDArray[np.uint8]] = field(default_factory=list)
    routing: list[NDArray[np.int16]] = field(default_factory=list)
    prefix: NDArray[np.int16] | None = None

    @classmethod
    def of(cls, answer: Answer) -> Running:
        """An answer, with what was drawn of it."""
        return cls(
            answer.prompt,
            answer.token[: answer.given],
            list(answer.token[answer.given :]),
            answer.logprob.tolist(),
            answer.version.tolist(),
            [] if answer.kept is None else list(answer.kept),
            [] if answer.routing is None else list(answer.routing),
        )


class Book:
    """Answers that were asked for and not handed over yet, by key and number."""

    def __init__(self, architecture: Architecture, drawing: Drawing) -> None:
        """Empty; of a sampler of such a model."""
        self.running: dict[tuple[int, int], Running] = {}
        """Those that are not finished, in the order in which they were asked for."""
        self.finished: deque[Drawn] = deque()
        self._kept_bytes = -(-architecture.vocab_size // 8) if drawing.cuts else 0

    def add(self, answers: Iterable[Answer]) -> None:
        """Takes answers in, begun or not."""
        for one in answers:
            self.running[one.key, one.number] = Running.of(one)

    def clear(self) -> None:
        """Forgets all."""
        self.running.clear()
        self.finished.clear()

    def take(self, said: Progress) -> None:
        """Takes in what was drawn in one step."""
        whose = zip(said.key.tolist(), said.number.tolist(), strict=True)
        kept = [None] * len(said.token) if said.kept is None else list(said.kept)
        for place, (key, token, logprob, bits, end) in enumerate(
            zip(
                whose,
                said.token.tolist(),
                said.logprob.tolist(),
                kept,
                said.end.tolist(),
                strict=True,
            )
        ):
            running = self.running[key]
            running.prefix = said.prefix.get(place, running.prefix)
            if said.routing is not None:
                running.routing.append(said.routing[place])
            running.token.append(token)
            running.logprob.append(logprob)
            running.version.append(said.version)
            if bits is not None:
                running.kept.append(bits)
            if end:
                cut = end == Progress.CUT
                self.finished.append(self._drawn(key, running, truncated=cut))
                del self.running[key]

    def extend(self, key: tuple[int, int], piece: Piece, version: int) -> None:
        """Takes in more tokens of one answer, drawn by so old weights as far as is known."""
        running = self.running[key]
        running.token += piece.token
        running.logprob += piece.logprob
        running.version += [version] * len(piece.token)
        if self._kept_bytes and piece.token:
            running.kept += list(bits_of_sets(piece.kept or [], self._kept_bytes))

    def set_versions(
        self, key: tuple[int, int], begun: int, spans: Sequence[tuple[int, int, int]]
    ) -> None:
        """Says which version drew the tokens of an answer from `begun` on: (version, from, up to)."""
        version = self.running[key].version
        for number, start, end in spans:
            last = min(begun + end, len(version))
            version[begun + start : last] = [number] * max(0, last - begun - start)

    def finish(self, key: tuple[int, int], *, truncated: bool) -> None:
        """An answer has ended."""
        running = self.running.pop(key)
        self.finished.append(self._drawn(key, running, truncated=truncated))

    def hand_over(self) -> list[Drawn]:
        """The answers that are finished, which are forgotten."""
        found = list(self.finished)
        self.finished.clear()
        return found

    def answers(self) -> list[Answer]:
        """Those that are not finished."""
        return [
            Answer(
                *key,
                token=(*one.given, *one.token),
                prompt=one.prompt,
                given=len(one.given),
                logprob=np.array(one.logprob, np.float32),
                version=np.array(one.version, np.int64),
                kept=self._kept(one),
                routing=self._routing(one),
            )
            for key, one in self.running.items()
        ]

    def _drawn(self, key: tuple[int, int], one: Running, *, truncated: bool) -> Drawn:
        return Drawn(
            *key,
            np.array(one.token, np.int64),
            np.array(one.logprob, np.float32),
            np.array(one.version, np.int64),
            truncated,
            self._kept(one),
            routing=self._routing(one),
            prefix=one.prefix,
        )

    def _kept(self, one: Running) -> NDArray[np.uint8] | None:
        """Bits [n, ceil(V / 8)]; None where every token could be drawn."""
        if not self._kept_bytes:
            return None
        if not one.kept:
            return np.zeros((0, self._kept_bytes), np.uint8)
        return np.stack(one.kept)

    def _routing(self, one: Running) -> NDArray[np.int16] | None:
        """[n, layers, experts_per_token]; None where the model, or who draws, has none."""
        if len(one.routing) < max(1, len(one.token)):
            return None
        return np.stack(one.routing)


def bits_of_sets(sets: Sequence[Sequence[int]], width: int) -> NDArray[np.uint8]:
    """Sets of tokens as bits [n, width], lowest first."""
    members = np.zeros((len(sets), width * 8), np.bool_)
    for row, tokens in zip(members, sets, strict=True):
        row[list(tokens)] = True
    return np.packbits(members, axis=1, bitorder="little")
