"""Weights pushed to an engine while it draws, and whether it computes with them."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.llm.engines.connection import EngineError, LostEngineError
from shoal.llm.engines.prefill import PrefillCheck, prefill_logprobs, probe_tokens
from shoal.llm.engines.weights_folder import WeightsFolder
from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoal.llm.engines.protocol import Engine
    from shoal.llm.model import LanguageModel

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 10.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What is expected of an engine, and how long."""

    refill: bool = False
    """Whether answers under way are read anew when weights change."""
    tolerance: float = 0.1
    """Nats by which its log-probabilities may be off on average, after a push."""
    timeout_s: float = 120.0
    """How long it may be away, or say nothing, while answers are awaited."""
    max_failures: int = 5
    """How often in a row it may break off without a token in between."""
    folder: str = ""
    """Where weights are put for it; empty: in memory."""


class Pushes:
    """The versions that an engine was given; each has a label that says which run gave it."""

    def __init__(
        self,
        engine: Engine,
        model: LanguageModel,
        terms: Terms,
        *,
        hear: Callable[[], None],
        revive: Callable[[], None] | None,
    ) -> None:
        """None was given yet.

        Args:
            engine: the server.
            model: whose weights it gets.
            terms: what is expected of it.
            hear: takes in what it has drawn, while it is paused.
            revive: starts it where it has ended, and waits for it; None: that is another's business.
        """
        self.version = -1
        """The newest that it has; -1: none of this run."""
        self.check = PrefillCheck(f"{engine.name} ({engine.url})", terms.tolerance)
        """How far it was off after each push."""
        self.engine, self._terms = engine, terms
        self._hear, self._revive = hear, revive
        self._folder = WeightsFolder(terms.folder)
        self._nonce = secrets.token_hex(4)
        self._probe = probe_tokens(model)
        self._newest: tuple[int, Path, list[float]] | None = None

    def push(self, version: int, model: LanguageModel) -> None:
        """Has it take the weights that a model has now, between two tokens.

        Raises:
            EnvError: it does not take them, or computes with others.
        """
        folder = self._folder.write(model)
        self._newest = version, folder, prefill_logprobs(model, self._probe)
        self._keep_trying(self._give)

    def renew(self) -> None:
        """Gives a server the weights again where it was started anew, and waits for it where it is away."""
        self._keep_trying(self._give_again)

    def label(self, version: int) -> str:
        """A version as the engine is told it."""
        return f"{self._nonce}-{version}"

    def number(self, label: str) -> int:
        """Which version it is.

        Raises:
            EnvError: another run's.
        """
        nonce, _, version = label.rpartition("-")
        if nonce != self._nonce:
            raise EnvError(
                f"{self.check.engine} drew tokens with weights {label!r}, which this run did not push; does another "
                "one use the same server?"
            )
        return int(version)

    def close(self) -> None:
        """Deletes the weights' files."""
        self._folder.close()

    def _give(self) -> None:
        assert self._newest is not None
        version, folder, ours = self._newest
        label, engine = self.label(version), self.engine
        engine.pause(refill=self._terms.refill)
        try:
            self._take(label, folder)
            # What was drawn before the pause has come by now, and counts for the version before.
            self._hear()
            self.version = version
        finally:
            engine.resume()
        theirs = engine.prefill(self._probe, f"{label}-{secrets.token_hex(4)}")
        self.check.compare(version, theirs, ours)

    def _take(self, label: str, folder: Path) -> None:
        try:
            self.engine.take(label, folder)
        except LostEngineError as error:
            if error.status is None:
                raise
            raise EnvError(
                f"{self.check.engine} did not take weights: {error}. Does it serve a model of the same sizes, does it "
                "see the folder that they are in (language.engine_folder), and was it started for this (docs: Engines)?"
            ) from error

    def _give_again(self) -> None:
        if self._newest is None or self.engine.version() == self.label(self.version):
            return
        self._give()

    def _keep_trying(self, what: Callable[[], None]) -> None:
        """Does something with the server, again where it is away, with growing pauses."""
        limit_s = self._terms.timeout_s
        deadline, pause_s = time.monotonic() + limit_s, FIRST_PAUSE_S
        while True:
            try:
                what()
                return
            except LostEngineError as error:
                if error.status is not None:
                    raise EnvError(str(error)) from error
                if time.monotonic() > deadline:
                    raise EnvError(
                        f"{self.check.engine} is away for {limit_s:g} s: {error}"
                    ) from error
            except EngineError as error:
                raise EnvError(str(error)) from error
            if self._revive is not None:
                self._revive()
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
