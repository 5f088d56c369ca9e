"""EngineSampler: answers that a server draws, with the weights that it is given between two tokens."""

from __future__ import annotations

import queue
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from shoal.llm.engines.connection import EngineError, LostEngineError
from shoal.llm.engines.protocol import BROKEN
from shoal.llm.sampler.book import Book
from shoal.llm.sampler.progress import Progress, packed_answers, unpacked_answers
from shoal.llm.sampler.requests import answers_of
from shoal.llm.sampler.stopping import ended_by_text, ends_of
from shoal.stream.ending import Ending
from shoal.stream.groups.asking import Asking
from shoal.stream.groups.draws import Draws
from shoal.stream.groups.failures import Failures
from shoal.stream.groups.pushing import Pushes, Terms
from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shoal.llm.engines.prefill import PrefillCheck
    from shoal.llm.engines.protocol import Engine, Piece
    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.protocol import Drawing, Drawn, Request
    from shoal.stream.groups.draws import Draw, Said

LOOK_S = 0.05


class EngineSampler:
    """Answers drawn by an engine. Where that breaks off, it is asked for the rest of every answer, token by token."""

    apart = True
    """It draws while the learner learns."""

    def __init__(
        self,
        engine: Engine,
        model: LanguageModel,
        drawing: Drawing,
        terms: Terms | None = None,
        *,
        tell: Callable[[str], None] | None = None,
        revive: Callable[[], None] | None = None,
    ) -> None:
        """Asks the server what it serves; it draws when weights were loaded.

        Args:
            engine: the server.
            model: whose sizes and tokens it must have; `load` sends weights.
            drawing: how tokens are drawn.
            terms: what is expected of it.
            tell: told of each failure that it goes on after.
            revive: starts the server where it has ended, and waits for it; None: that is another's business.

        Raises:
            ConfigError: it cannot give what is needed.
            EnvError: it is not there.
        """
        engine.check(drawing)
        try:
            served = engine.describe()
        except EngineError as error:
            raise EnvError(
                f"no {engine.name} answers: {error}; start it, or name another language.engine_url"
            ) from error
        self.architecture, self.drawing = model.architecture, drawing
        self._terms = terms or Terms()
        self._book = Book(model.architecture, drawing)
        self._draws = Draws(engine)
        self._asking = Asking(self._book, self._draws, model, drawing, served)
        self._pushes = Pushes(
            engine, model, self._terms, hear=self._hear_all, revive=revive
        )
        self._ending = Ending()
        self._ends = ends_of(model, drawing)
        self._failures = Failures(self.check.engine, self._terms.max_failures, tell)

    @property
    def version(self) -> int:
        """Of the weights that it draws with; -1 before any were sent."""
        return self._pushes.version

    @property
    def check(self) -> PrefillCheck:
        """How far it was off after each push."""
        return self._pushes.check

    @property
    def pending(self) -> int:
        """Answers that were asked for and not handed over yet."""
        return len(self._book.running) + len(self._book.finished)

    def submit(self, requests: Sequence[Request]) -> None:
        """Takes requests in; ConfigError as of `LocalSampler.submit`, and where one is longer than the engine reads."""
        new = [answers_of(one, self.drawing, self.architecture) for one in requests]
        for answers in new:
            self._asking.check_room(answers)
        for answers in new:
            self._book.add(answers)
            self._ask([(one.key, one.number) for one in answers])

    def follow(self, ending: Ending) -> None:
        """Waits no longer than a run does, and stands still when that does."""
        self._ending = ending
        ending.halt.parties.append(self)

    def stand(self) -> None:
        """Has it draw nothing for now; where it is away, that shows when it is waited for."""
        with suppress(EngineError):
            self._pushes.engine.pause(refill=False)

    def attend(self) -> None:
        """It draws nothing yet."""

    def go_on(self) -> None:
        """Has it draw again."""
        with suppress(EngineError):
            self._pushes.engine.resume()

    def poll(self, max_steps: int | None = None) -> list[Drawn]:
        """Waits until an answer is finished, if any is pending, and hands over those that are.

        `max_steps=0` waits for nothing. EndingError where nobody waits any longer; nothing is lost.

        Raises:
            EnvError: the engine is gone, or what it says cannot be used.
        """
        book, limit_s = self._book, self._terms.timeout_s
        self._hear_all()
        since = time.monotonic()
        while max_steps != 0 and book.running and not book.finished:
            before = time.monotonic()
            if self._hear(LOOK_S):
                since = time.monotonic()
            else:
                self._ending.check()
                since += max(0.0, time.monotonic() - before - 2 * LOOK_S)
            if time.monotonic() - since > limit_s:
                self._draws.stop()
                self._failures.lost.clear()
                self._failures.add(book.running, f"it said nothing for {limit_s:g} s")
                since = time.monotonic()
            if self._failures.lost:
                lost = self._failures.taken()
                self._pushes.renew()
                self._ask(lost)
        return book.hand_over()

    def load(self, version: int, model: LanguageModel) -> None:
        """Gives it the weights that `model` has now, a LoRA merged in; answers under way go on with them.

        Raises:
            EnvError: it does not take them, or computes with others (see `PrefillCheck`).
        """
        self._hear_all()
        self._pushes.push(version, model)

    def state(self) -> dict[str, Any]:
        """Every answer under way, to the token that was heard of last; those that are finished wait for `poll`."""
        return packed_answers(self._book.answers())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from there; what is under way is forgotten."""
        self._draws.stop()
        self._failures.lost.clear()
        self._book.clear()
        self._book.add(unpacked_answers(state))
        self._ask(list(self._book.running))

    def close(self) -> None:
        """Ends what it has asked for; the server goes on without it."""
        self._draws.close()
        self._pushes.close()

    def _ask(self, keys: Sequence[tuple[int, int]]) -> None:
        self._asking.rest(keys, salt=self._pushes.label(self.version))

    def _hear_all(self) -> None:
        while self._hear(0.0):
            pass

    def _hear(self, wait_s: float) -> bool:
        """Takes in what is said within so many seconds; whether anything was."""
        try:
            said = self._draws.heard.get(block=wait_s > 0, timeout=wait_s or None)
        except queue.Empty:
            return False
        if said.piece is not None:
            self._take(said.draw, said.piece)
        else:
            self._end_of(said)
        return True

    def _take(self, draw: Draw, piece: Piece) -> None:
        """Enters tokens in the book."""
        if piece.index in draw.cut:
            return
        key = draw.key_of(piece, self.architecture.vocab_size, self.check.engine)
        said = ended_by_text(self._ends, self._book.running[key].token, piece)
        self._book.extend(key, said, self.version)
        self._failures.heard()
        if not said.end:
            return
        draw.end(piece.index, told=bool(piece.end))
        if said.end == BROKEN:
            self._failures.add([key], "it ended an answer on its own")
            return
        spans = [
            (self._pushes.number(label), start, end)
            for label, start, end in piece.versions or ()
        ]
        self._book.set_versions(key, draw.begun[piece.index], spans)
        self._book.finish(key, truncated=said.end == Progress.CUT)

    def _end_of(self, said: Said) -> None:
        """A request has ended, with its answers or without them."""
        draw, error = said.draw, said.error
        if draw.call.stopped.is_set():
            return
        if error is not None and not isinstance(error, LostEngineError):
            raise EnvError(str(error)) from error
        if draw.open:
            keys = [draw.keys[index] for index in sorted(draw.open)]
            why = str(error or "its reply ended before the answers did")
            self._failures.add(keys, why)
            draw.open.clear()
