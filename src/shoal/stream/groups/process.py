"""ProcessSampler: a sampler on a core of its own, whose tokens are known here as soon as they are drawn."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shoal.envs.workers.pipe import unpack
from shoal.envs.workers.processes import LOOK_S, Worker
from shoal.llm.engines.inside import START_S
from shoal.llm.engines.weights_folder import delete_abandoned
from shoal.llm.lora import LEARNED, flat_weights
from shoal.llm.sampler.book import Book
from shoal.llm.sampler.progress import packed_answers, unpacked_answers
from shoal.llm.sampler.requests import answers_of
from shoal.stream.ending import Ending
from shoal.stream.groups.crossing import Crossing
from shoal.stream.groups.messages import WORD, Beginning, Loaded, Op
from shoal.types import EnvError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from shoal.llm.engines.inside import VllmInside
    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.protocol import Drawing, Drawn, Request


class ProcessSampler:
    """A `LocalSampler` in another process. Where that is killed, another goes on with every token that was drawn."""

    apart = True
    """It draws while the learner learns."""

    def __init__(  # noqa: PLR0913 (each is a choice of its own)
        self,
        model: LanguageModel,
        drawing: Drawing,
        *,
        slots: int,
        seed: int,
        refill: bool = False,
        timeout_s: float = 60.0,
        max_restarts: int = 3,
        tell: Callable[[str], None] | None = None,
        inside: VllmInside | None = None,
    ) -> None:
        """Starts the process; it draws when weights were loaded.

        Args:
            model: its sizes and tokenizer, and whether log-probabilities are exact; `load` sends weights.
            drawing: how tokens are drawn.
            slots: answers that are drawn at once.
            seed: of the noise.
            refill: whether answers under way are read anew when weights change.
            timeout_s: how long a step may take.
            max_restarts: how often it is started again after it died or hung.
            tell: told of each restart.
            inside: draws there in the place of shoal's sampler.
        """
        self.architecture, self.drawing = model.architecture, drawing
        self._crossing = Crossing(numbers_sent(model))
        sizes = self._crossing.sizes
        said = beginning_of(model, drawing, slots, seed, sizes, refill=refill)
        self._said = replace(said, inside=inside)
        timeout_s = timeout_s if inside is None else START_S
        self._timeout_s, self._left, self._tell = timeout_s, max_restarts, tell
        self.ending = Ending()
        """Whether anybody waits any longer."""
        self._book = Book(model.architecture, drawing)
        self._weights: tuple[int, NDArray[np.float32]] | None = None
        self._start()

    @property
    def version(self) -> int:
        """Of the weights that were sent last; -1 before any were."""
        return -1 if self._weights is None else self._weights[0]

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._worker.pid

    @property
    def pending(self) -> int:
        """Answers that were asked for and not handed over yet."""
        return len(self._book.running) + len(self._book.finished)

    def submit(self, requests: Sequence[Request]) -> None:
        """Takes requests in; ConfigError as of `LocalSampler.submit`."""
        new = [
            answer
            for request in requests
            for answer in answers_of(request, self.drawing, self.architecture)
        ]
        self._book.add(new)
        self._worker.send((int(Op.SUBMIT), list(requests)))

    def tell(self, op: Op) -> None:
        """Has it draw nothing for now, or draw again; whether it is there shows when it is waited for."""
        if self._worker.alive:
            self._worker.send((int(op), None))

    def poll(self, max_steps: int | None = None) -> list[Drawn]:
        """Waits until an answer is finished, if any is pending, and hands over those that are.

        `max_steps=0` waits for nothing. EndingError where nobody waits any longer; nothing is lost.
        """
        book = self._book
        self._hear_all()
        since = time.monotonic()
        while max_steps != 0 and book.running and not book.finished:
            since += self.ending.check()
            if self._hear(LOOK_S):
                since = time.monotonic()
            elif time.monotonic() - since > self._timeout_s:
                self._restart(
                    f"said nothing for {self._timeout_s:g} s{self._worker.stack()}"
                )
                since = time.monotonic()
        return book.hand_over()

    def load(self, version: int, model: LanguageModel) -> None:
        """Sends a copy of the weights that `model` has now, with its LoRA; answers under way go on with them."""
        self._weights = version, flat_weights(model).numpy()
        self._send_weights()

    def state(self) -> dict[str, Any]:
        """Every answer under way, to the token that was heard of last; those that are finished wait for `poll`."""
        # Nothing more is heard: an answer that ended now would be neither here nor handed over.
        return packed_answers(self._book.answers())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from there; what is under way is forgotten."""
        self._book.clear()
        self._book.add(unpacked_answers(state))
        self._end()
        self._start()
        self._go_on()

    def close(self) -> None:
        """Ends the process, and deletes the weights that an engine in it has left."""
        self._end()
        self._crossing.close()
        if self._said.inside is not None:
            delete_abandoned()

    def _start(self) -> None:
        self._worker = Worker(
            0,
            slice(0, 1),
            self._crossing.fd,
            work="shoal.stream.groups.child",
            word=WORD,
        )
        self._worker.send(self._said)
        self._heard: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._crossing.begin_anew()
        self._reader = threading.Thread(
            target=_read, args=(self._worker.pipe, self._heard), daemon=True
        )
        self._reader.start()

    def _end(self) -> None:
        self._worker.kill()
        self._reader.join(2.0)
        self._worker.end()

    def _go_on(self) -> None:
        """Has a new process do what is under way."""
        if self._weights is not None:
            self._send_weights()
        if self._book.running:
            answers = packed_answers(self._book.answers())
            self._worker.send((int(Op.RESTORE), answers))

    def _restart(self, why: str) -> None:
        """Starts another process in the place of one that died or hangs; EnvError where that was done too often."""
        name = str(self._worker)
        if not self._left:
            raise EnvError(f"{name} {why}")
        self._left -= 1
        if self._tell is not None:
            self._tell(
                f"{name} {why}; another goes on with {len(self._book.running)} answers"
            )
        self._end()
        self._hear_all(alive=False)
        self._start()
        self._go_on()

    def _send_weights(self) -> None:
        assert self._weights is not None
        while self._crossing.full:
            if not self._hear(self._timeout_s):
                self._restart(f"took no weights for {self._timeout_s:g} s")
                return  # which has sent them
        version, flat = self._weights
        self._worker.send((int(Op.LOAD), (version, self._crossing.write(flat))))

    def _hear_all(self, *, alive: bool = True) -> None:
        """Takes in what was said; of a process that is gone (`alive` is false) without a word on its end."""
        while not self._heard.empty():
            packed = self._heard.get()
            if packed is not None or alive:
                self._take(packed)

    def _hear(self, wait_s: float) -> bool:
        """Takes in what is said within so many seconds; whether anything was."""
        try:
            packed = self._heard.get(timeout=wait_s)
        except queue.Empty:
            return False
        self._take(packed)
        return True

    def _take(self, packed: bytes | None) -> None:
        if packed is None:
            self._restart(self._worker.death())
            return
        _, good, value = unpack(packed)
        if not good:
            raise value.exception()
        if isinstance(value, Loaded):
            self._crossing.copied()
            return
        self._book.take(value)


def _read(pipe: Any, heard: queue.SimpleQueue[bytes | None]) -> None:
    """Hears what the process says, whatever the learner does, until it is gone; None stands for that."""
    try:
        while True:
            if pipe.poll(None):
                heard.put(pipe.recv_bytes())
    except (OSError, EOFError):
        heard.put(None)


def beginning_of(
    model: LanguageModel,
    drawing: Drawing,
    slots: int,
    seed: int,
    sizes: tuple[int, ...],
    *,
    refill: bool,
) -> Beginning:
    """What the process is told first: all but the weights."""
    return Beginning(
        model.architecture,
        model.tokenizer,
        model.temperature,
        drawing,
        slots,
        seed,
        1,
        refill,
        model.exact,
        str(model.head.device),
        sizes,
    )


def numbers_sent(model: LanguageModel) -> int:
    """How many numbers a version of weights has, a LoRA merged into them."""
    sent = (p for n, p in model.named_parameters() if not n.endswith(LEARNED))
    return sum(p.numel() for p in sent)
