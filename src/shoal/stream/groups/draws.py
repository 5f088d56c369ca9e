"""Requests to an engine, each in a thread that waits for its tokens."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoal.llm.engines.calls import Call
from shoal.llm.engines.connection import EngineError
from shoal.types import EnvError

if TYPE_CHECKING:
    from shoal.llm.engines.protocol import Engine, Piece, Wanted

AT_ONCE = 256
"""Requests at most; others wait their turn here."""


@dataclass(slots=True)
class Draw:
    """Some answers that were asked for together."""

    keys: list[tuple[int, int]]
    """Whose they are."""
    wanted: Wanted
    begun: list[int]
    """How many tokens of each were drawn before, by another request."""
    open: set[int] = field(default_factory=set)
    """Those that have not ended, by their place in `keys`."""
    cut: set[int] = field(default_factory=set)
    """Those that were ended here, by a text; what the server says of them later is not heard."""
    call: Call = field(default_factory=Call)

    def key_of(self, piece: Piece, vocab_size: int, engine: str) -> tuple[int, int]:
        """Whose a piece is.

        Raises:
            EnvError: nobody's, or with a token that the model does not have.
        """
        if piece.index not in self.open:
            raise EnvError(
                f"{engine} speaks of an answer that has ended, or was not asked for"
            )
        if piece.token and max(piece.token) >= vocab_size:
            raise EnvError(
                f"{engine} drew token {max(piece.token)}, and the model has {vocab_size}: it serves another model"
            )
        return self.keys[piece.index]

    def end(self, index: int, *, told: bool) -> None:
        """An answer has ended; not `told`: here, in the middle of what the server says of it."""
        self.open.discard(index)
        if told:
            return
        self.cut.add(index)
        if not self.open:
            self.call.stop()


@dataclass(frozen=True, slots=True)
class Said:
    """What a thread heard: a piece, or that there will be no more of them, and why."""

    draw: Draw
    piece: Piece | None = None
    error: EngineError | None = None


class Draws:
    """Asks an engine, and hands over what it says in the order in which it came."""

    def __init__(self, engine: Engine) -> None:
        """Nothing is asked yet."""
        self._engine = engine
        self._waiting: queue.SimpleQueue[Draw | None] = queue.SimpleQueue()
        self.heard: queue.SimpleQueue[Said] = queue.SimpleQueue()
        self._under_way: list[Draw] = []
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._lock = threading.Lock()

    def begin(self, draw: Draw) -> None:
        """Asks for answers."""
        draw.open = set(range(len(draw.keys)))
        with self._lock:
            self._under_way.append(draw)
            waits = self._waiting.qsize() + 1
            if self._idle < waits and len(self._threads) < AT_ONCE:
                thread = threading.Thread(target=self._work, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._waiting.put(draw)

    def stop(self) -> None:
        """Ends every request that is under way or waits; what they have said and nobody has heard is forgotten."""
        with self._lock:
            for draw in self._under_way:
                draw.call.stop()
            self._under_way.clear()
        self.heard = queue.SimpleQueue()

    def close(self) -> None:
        """Ends the threads."""
        self.stop()
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join(1.0)

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            draw = self._waiting.get()
            with self._lock:
                self._idle -= 1
            if draw is None:
                return
            heard = self.heard
            error = None if draw.call.stopped.is_set() else self._hear(draw, heard)
            with self._lock:
                if draw in self._under_way:
                    self._under_way.remove(draw)
            heard.put(Said(draw, error=error))

    def _hear(self, draw: Draw, heard: queue.SimpleQueue[Said]) -> EngineError | None:
        try:
            for piece in self._engine.draw(draw.wanted, draw.call):
                heard.put(Said(draw, piece))
        except EngineError as error:
            return error
        except Exception as error:  # whatever it is, the learner raises it
            return EngineError(f"{self._engine.url}: {type(error).__name__}: {error}")
        return None
