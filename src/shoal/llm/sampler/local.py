"""LocalSampler: draws answers in this process, with torch, on a CPU or any device of torch's."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from shoal.llm.sampler.cache import Cache
from shoal.llm.sampler.draw import drawn
from shoal.llm.sampler.ends import Ends
from shoal.llm.sampler.exact import ExactPass
from shoal.llm.sampler.passes import FastPass
from shoal.llm.sampler.progress import Progress, packed_answers, unpacked_answers
from shoal.llm.sampler.protocol import Drawn
from shoal.llm.sampler.reading import Reader
from shoal.llm.sampler.requests import answers_of
from shoal.llm.sampler.slots import Slots
from shoal.math.noise import uniform_noise
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.passes import Pass
    from shoal.llm.sampler.protocol import Drawing, Request
    from shoal.llm.sampler.slots import Answer

ENTER = 8
"""New answers enter together, once a 1 / ENTER of the slots is free: reading a few prompts costs as much as many."""


class LocalSampler:
    """Continuous batching over a fixed number of slots: a finished answer's slot goes to the next one that waits.

    An answer's tokens are a function of the weights, the seed, its key and its number, up to rounding: neither the
    slot nor the other answers matter.
    """

    def __init__(
        self,
        model: LanguageModel,
        drawing: Drawing,
        *,
        slots: int,
        seed: int,
        stream: int = 0,
        num_threads: int = 1,
        reload: Literal["keep", "refill"] = "keep",
        exact: bool = False,
    ) -> None:
        """Begins with a copy of the model's weights as version 0.

        Args:
            model: its weights, sizes, tokenizer and device.
            drawing: how tokens are drawn.
            slots: answers that are drawn at once.
            seed: of the noise.
            stream: which sequence of noise of this seed.
            num_threads: of torch, while it decodes.
            reload: what happens to answers under way when weights are loaded: "keep" goes on with the keys and values
                of the old weights, "refill" reads prompt and tokens anew.
            exact: whether a model with `exact` gives the recorded log-probabilities bit for bit, on a CPU of this
                kind; after weights were loaded that needs "refill". Slower.

        Raises:
            ConfigError: a setting that cannot work.
        """
        if slots < 1 or num_threads < 1:
            raise ConfigError(
                f"slots and num_threads must be at least 1, got {slots} and {num_threads}"
            )
        if reload not in ("keep", "refill"):
            raise ConfigError(f"reload must be keep or refill, got {reload!r}")
        a = model.architecture
        self.architecture, self.drawing = a, drawing
        self.device = model.head.device
        self._seed, self._stream = seed, stream
        self._num_threads, self._reload, self._exact = num_threads, reload, exact
        kept_bytes = -(-a.vocab_size // 8) if drawing.cuts else 0
        routed = (a.num_layers, a.experts_per_token) if a.num_experts else (0, 0)
        self._slots = Slots(slots, kept_bytes, (0, 0) if exact else routed)
        self._cache = Cache(a, slots, self.device, model.head.dtype)
        self._ends = Ends(model.tokenizer, a.vocab_size, drawing.stop)
        self._waiting: deque[Answer] = deque()
        self._reader = Reader(self._cache, self._slots)
        self._pass: Pass | None = None
        self.progress: Progress | None = None
        """What the last step of `poll` drew; None where it drew nothing."""
        self.load(0, model)

    @property
    def version(self) -> int:
        """Of the weights that it draws with."""
        return self._version

    @property
    def pending(self) -> int:
        """Answers that were asked for and not handed over yet."""
        return self._slots.active + len(self._waiting)

    def submit(self, requests: Sequence[Request]) -> None:
        """Takes requests in, in order.

        Raises:
            ConfigError: a prompt leaves no room for an answer, a token is not one of the model's, numbers repeat, or
                there is not enough memory. Nothing of `requests` is taken in then.
        """
        new = [
            answer
            for request in requests
            for answer in answers_of(request, self.drawing, self.architecture)
        ]
        self._make_room(new)
        self._waiting.extend(new)

    @torch.inference_mode()
    def poll(self, max_steps: int | None = None) -> list[Drawn]:
        """Goes on until an answer is finished, if any is pending, and hands over those that are.

        Args:
            max_steps: tokens of each answer after which it returns in any case; None: no such end.
        """
        steps, self.progress = 0, None
        with threads(self._num_threads):
            while self.pending and steps != max_steps:
                self._admit()
                finished = self._step()
                if finished:
                    return finished
                steps += 1
        return []

    @torch.inference_mode()
    def load(self, version: int, model: LanguageModel) -> None:
        """Draws from now on with a copy of the weights that `model` has now; answers under way go on."""
        slots = len(self._slots.key)
        self._version = version
        with threads(self._num_threads):
            exact = self._exact
            self._pass = None  # the old copy goes before the new one comes
            self._reader.take(None)
            self._pass = ExactPass(model) if exact else FastPass(model, rows=slots)
            self._reader.take(self._pass)
            if self._reload == "refill":
                self._reader.read_again()

    def state(self) -> dict[str, Any]:
        """Every answer under way, to the token: lists and arrays."""
        active = [self._slots.taken(slot) for slot in range(self._slots.active)]
        return packed_answers([*active, *self._waiting])

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from there; what is under way is forgotten. Prompts and tokens are read anew by the weights."""
        answers = unpacked_answers(state)
        self._make_room(answers)
        self._slots.active = 0
        self._waiting = deque(answers)

    def close(self) -> None:
        """Forgets what is under way."""
        self._slots.active = 0
        self._waiting.clear()

    @torch.inference_mode()
    def _make_room(self, answers: Sequence[Answer]) -> None:
        self._cache.grow(max((end_of(one, self) for one in answers), default=0))
        self._slots.grow(self._cache.capacity, self.drawing.max_tokens)

    def _admit(self) -> None:
        """Gives free slots to those that wait."""
        free, total = self._slots.free, len(self._slots.key)
        if free < min(len(self._waiting), max(1, total // ENTER)):
            return
        new = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
        follows = next(iter(self._waiting), None)
        for answer in self._reader.read(new, follows):
            self._slots.add(answer, end_of(answer, self))

    def _step(self) -> list[Drawn]:
        """One token for every active slot; the answers that it ends."""
        slots = self._slots
        active = slots.active
        length = slots.length[:active]
        position = length - 1
        last = slots.token[np.arange(active), position]
        assert self._pass is not None
        logits = self._pass.decode(
            self._cache,
            self._tensor(last),
            self._tensor(position),
            int(length.max()),
        )
        step = length - slots.prompt[:active]
        noise = uniform_noise(self._seed, self._stream, slots.row, step)
        token, logprob, kept = drawn(logits, self._tensor(noise), self.drawing)
        chosen = token.cpu().numpy()
        bits, went = bits_of(kept), self._pass.routing
        chances = known(logprob, self._version)
        routing = None if went is None else went.cpu().numpy()
        slots.append(chosen, chances, self._version, bits, routing)
        end = ended(self._ends, slots, chosen)
        self.progress = Progress(
            slots.key[:active].copy(),
            slots.number[:active].copy(),
            chosen,
            chances,
            self._version,
            bits,
            end,
            routing,
            slots.new_prefixes(),
        )
        return self._finished(end)

    def _finished(self, end: NDArray[np.uint8]) -> list[Drawn]:
        slots, done = self._slots, end > 0
        if not done.any():
            return []
        finished = [
            handed_over(slots.taken(slot), truncated=bool(end[slot] == Progress.CUT))
            for slot in np.flatnonzero(done).tolist()
        ]
        source, target = slots.remove(done)
        if len(source):
            longest = int(slots.length[target].max())
            self._cache.move(self._tensor(source), self._tensor(target), longest)
        return finished

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def end_of(answer: Answer, sampler: LocalSampler) -> int:
    """The length at which an answer is cut."""
    most = answer.prompt + sampler.drawing.max_tokens
    return min(most, sampler.architecture.max_length)


def ended(ends: Ends, slots: Slots, token: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Which active answers end with this token, and how."""
    active = slots.active
    length = slots.length[:active]
    start = slots.given[:active]  # what an answer begins with ends nothing
    stopped = ends.stopped(token, slots.token[:active], start, length)
    cut = ~stopped & (length >= slots.end[:active])
    return np.where(cut, Progress.CUT, stopped * Progress.ENDED).astype(np.uint8)


def known(logprob: Tensor, version: int) -> NDArray[np.float32]:
    """The log-probabilities of what was drawn; FloatingPointError where the weights of this version give none."""
    chances = logprob.cpu().numpy()
    if np.isnan(chances).any():
        raise FloatingPointError(
            f"the language model computes no finite numbers with version {version} of its weights: they have grown "
            "too large, or were so when they were loaded; begin again, or from an earlier checkpoint, with a smaller "
            "learning_rate"
        )
    return chances


def bits_of(kept: Tensor | None) -> NDArray[np.uint8] | None:
    """What was kept [n, V] as bits [n, ceil(V / 8)], lowest first."""
    if kept is None:
        return None
    return np.packbits(kept.cpu().numpy(), axis=1, bitorder="little")


def handed_over(answer: Answer, *, truncated: bool) -> Drawn:
    """What the caller gets of a finished answer."""
    token = np.array(answer.token[answer.given :], np.int64)
    return Drawn(
        key=answer.key,
        number=answer.number,
        token=token,
        logprob=answer.logprob,
        version=answer.version,
        truncated=truncated,
        kept=answer.kept,
        routing=answer.routing,
        prefix=answer.prefix,
    )


@contextmanager
def threads(count: int) -> Generator[None]:
    """So many threads of torch within."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
