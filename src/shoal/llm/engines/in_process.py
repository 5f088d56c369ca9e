"""VllmSampler: vLLM in this process, where it is installed beside shoal; it draws step by step as LocalSampler does."""

from __future__ import annotations

import secrets
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.llm.engines.prefill import PrefillCheck, prefill_logprobs, probe_tokens
from shoal.llm.engines.vllm import MOST_LOGPROBS, WEIGHTS
from shoal.llm.engines.weights_folder import WeightsFolder
from shoal.llm.sampler.book import Book, bits_of_sets
from shoal.llm.sampler.progress import Progress, packed_answers, unpacked_answers
from shoal.llm.sampler.requests import answers_of
from shoal.llm.sampler.stopping import ended_by_texts, ends_of
from shoal.types import ConfigError, EnvError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from shoal.llm.model import LanguageModel
    from shoal.llm.sampler.protocol import Drawing, Drawn, Request
    from shoal.llm.sampler.slots import Answer

PROBE = "probe"
MISSING = (
    "engine_in_process: this environment has no vLLM that can be imported ({}); pip install vllm, or leave "
    "engine_in_process out and name the interpreter of an environment that has it (language.engine_python)"
)


class VllmSampler:
    """Answers drawn by a vLLM engine that this process steps: weights change between two of its steps."""

    def __init__(
        self,
        model: LanguageModel,
        drawing: Drawing,
        *,
        slots: int,
        refill: bool = False,
        tolerance: float = 0.1,
        options: Sequence[str] = (),
    ) -> None:
        """Begins with the model's weights as version 0.

        Args:
            model: its weights, sizes and tokenizer.
            drawing: how tokens are drawn.
            slots: answers that are drawn at once.
            refill: whether answers under way are read anew when weights change.
            tolerance: nats by which its log-probabilities may be off on average, after a push.
            options: of vLLM's server, as it takes them.

        Raises:
            ConfigError: there is no vLLM here, or it cannot say what could be drawn.
            EnvError: it computes with other weights.
        """
        if drawing.cuts and not 0 < drawing.top_k <= MOST_LOGPROBS:
            raise ConfigError(
                f"with vLLM sampling.top_k must be 1 to {MOST_LOGPROBS} where top_p or min_p is set"
            )
        self.architecture, self.drawing = model.architecture, drawing
        self.check = PrefillCheck("vLLM", tolerance)
        self.progress: Progress | None = None
        """What the last step of `poll` drew; None where it drew nothing."""
        self._refill, self._end = refill, model.tokenizer.end
        self._folder = WeightsFolder()
        self._book = Book(model.architecture, drawing)
        self._ahead: list[Progress] = []
        """What was drawn while weights were compared."""
        self._keys: dict[str, tuple[int, int]] = {}
        self._ends = ends_of(model, drawing)
        self._names = count()
        self._probe = probe_tokens(model)
        try:
            folder = self._folder.write(model)
            self._engine, self._params = _started(folder, slots, options)
            self.load(0, model)
        except BaseException:
            self._folder.close()
            raise

    @property
    def version(self) -> int:
        """Of the weights that it draws with."""
        return self._version

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
        for answer in new:
            self._ask(answer)

    def poll(self, max_steps: int | None = None) -> list[Drawn]:
        """Goes on until an answer is finished, if any is pending, and hands over those that are.

        `max_steps`: tokens of each answer after which it returns in any case.
        """
        steps, self.progress = 0, None
        while self.pending and not self._book.finished and steps != max_steps:
            said = self._ahead.pop(0) if self._ahead else self._step()
            if said is not None:
                self.progress = self._take(said)
                steps += 1
        return self._book.hand_over()

    def load(self, version: int, model: LanguageModel) -> None:
        """Draws from now on with the weights that `model` has now; answers under way go on.

        Raises:
            EnvError: it computes with others.
        """
        path = self._folder.write(model) / WEIGHTS
        call = self._engine.collective_rpc
        call("start_weight_update")
        call("update_weights", kwargs={"update_info": {"path": str(path)}})
        call("finish_weight_update")
        if self._refill:
            self._engine.reset_prefix_cache(reset_running_requests=True)
        self._version = version
        self._salt = secrets.token_hex(
            8
        )  # keys and values of older weights stay with their answers
        self.check.compare(
            version, self._prefill(), prefill_logprobs(model, self._probe)
        )

    def state(self) -> dict[str, Any]:
        """Every answer under way, to the last token that `poll` has seen.

        What was drawn while weights were compared is seen by the next `poll`, and may end answers: whoever goes on from
        this state draws it again.
        """
        return packed_answers(self._book.answers())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from there; what is under way is forgotten. Prompts and tokens are read anew by the weights."""
        self._engine.abort_request(list(self._keys))
        self._keys.clear()
        self._ahead.clear()
        self._book.clear()
        answers = unpacked_answers(state)
        self._book.add(answers)
        for answer in answers:
            self._ask(answer)

    def close(self) -> None:
        """Forgets what is under way."""
        self._engine.abort_request(list(self._keys))
        self._keys.clear()
        self._book.clear()
        self._folder.close()

    def _ask(self, answer: Answer) -> None:
        most = min(
            answer.prompt + self.drawing.max_tokens, self.architecture.max_length
        )
        name = str(next(self._names))
        self._keys[name] = answer.key, answer.number
        drawing = self.drawing
        self._add(
            name,
            answer.token,
            n=1,
            max_tokens=most - len(answer.token),
            temperature=drawing.temperature,
            top_k=drawing.top_k,
            top_p=drawing.top_p,
            min_p=drawing.min_p,
            logprobs=drawing.top_k if drawing.cuts else 0,
            ignore_eos=True,
            stop_token_ids=list(self._end),
        )

    def _add(self, name: str, token: Sequence[int], **sampling: Any) -> None:
        prompt = {"prompt_token_ids": list(token), "cache_salt": self._salt}
        self._engine.add_request(name, prompt, self._params(**sampling))

    def _take(self, said: Progress) -> Progress:
        """Enters a step in the book, with the answers that a text ends; vLLM has no text here, and is told so."""
        if self._ends is not None:
            said = ended_by_texts(self._ends, self._book, said)
            rows = zip(said.key.tolist(), said.number.tolist(), strict=True)
            over = {key for key, end in zip(rows, said.end, strict=True) if end}
            names = [name for name, key in self._keys.items() if key in over]
            self._engine.abort_request(names)
            for name in names:
                del self._keys[name]
        self._book.take(said)
        return said

    def _prefill(self) -> list[float]:
        """What it says of the probe; what it draws meanwhile is kept."""
        self._add(PROBE, self._probe, max_tokens=1, prompt_logprobs=0)
        found: list[Any] = []
        while not found:
            said = self._step(found)
            if said is not None:
                self._ahead.append(said)
        return [
            one[token].logprob
            for one, token in zip(found[0][1:], self._probe[1:], strict=True)
        ]

    def _step(self, probed: list[Any] | None = None) -> Progress | None:
        """One token of each answer under way; None where none came. `probed` gets what it says of the probe."""
        outputs: list[Any] = []
        for said in self._engine.step():
            if said.request_id != PROBE:
                outputs.append(said)
            elif probed is not None and said.prompt_logprobs:
                probed.append(said.prompt_logprobs)
        width = -(-self.architecture.vocab_size // 8) if self.drawing.cuts else 0
        made = _progress(outputs, self._keys, self._version, width)
        for said in outputs:
            if said.finished:
                del self._keys[said.request_id]
        return made


def _progress(
    outputs: Sequence[Any],
    keys: Mapping[str, tuple[int, int]],
    version: int,
    width: int,
) -> Progress | None:
    """What a step of vLLM's drew; `width`: bytes of the sets that tokens were drawn from, 0 where all could be."""
    if not outputs:
        return None
    token: list[int] = []
    logprob: list[float] = []
    kept: list[list[int]] = []
    for said in outputs:
        one = said.outputs[0]
        if len(one.token_ids) != 1:
            raise EnvError(
                f"vLLM drew {len(one.token_ids)} tokens of an answer in one step; turn speculative decoding off"
            )
        (drawn,), chances = one.token_ids, one.logprobs[0]
        token.append(drawn)
        logprob.append(chances[drawn].logprob)
        kept.append([t for t, x in chances.items() if np.isfinite(x.logprob)])
    whose = np.array([keys[said.request_id] for said in outputs], np.int64)
    end = [_end_of(said.outputs[0].finish_reason) for said in outputs]
    return Progress(
        whose[:, 0],
        whose[:, 1],
        np.array(token, np.int64),
        np.array(logprob, np.float32),
        version,
        bits_of_sets(kept, width) if width else None,
        np.array(end, np.uint8),
    )


def _started(folder: Path, slots: int, options: Sequence[str]) -> tuple[Any, Any]:
    """An engine in this process, and what makes parameters of sampling for it."""
    try:
        from shoal.llm.engines import vllm_here
    except ImportError as error:
        raise ConfigError(MISSING.format(error)) from error
    return vllm_here.engine(str(folder), slots, options), vllm_here.sampling


def _end_of(reason: str | None) -> int:
    if reason is None:
        return 0
    if reason == "length":
        return Progress.CUT
    if reason == "stop":
        return Progress.ENDED
    raise EnvError(f"vLLM ended an answer on its own: {reason}")
