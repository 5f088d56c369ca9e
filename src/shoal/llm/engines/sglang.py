"""SGLang's server: tokens in and out, weights that are taken from a folder while it is paused, versions by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.llm.engines.connection import EngineError, LostEngineError
from shoal.llm.engines.protocol import BROKEN, Piece, Served
from shoal.llm.engines.reading import logprobs_of, spans_of, tokens_of
from shoal.llm.sampler.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from shoal.llm.engines.calls import Call
    from shoal.llm.engines.connection import Connection
    from shoal.llm.engines.protocol import Wanted
    from shoal.llm.sampler.protocol import Drawing

GENERATE = "/generate"
ENDS = {"stop": Progress.ENDED, "length": Progress.CUT}


class Sglang:
    """SGLang 0.5.

    Weights go by a folder, since `/update_weights_from_tensor` takes pickled tensors, and what is unpickled may run
    anything.
    """

    name = "sglang"

    def __init__(self, connection: Connection) -> None:
        """Nothing is asked yet."""
        self.url, self._to = connection.url, connection

    def describe(self) -> Served:
        """Asks which model it serves."""
        model = self._to.get("/model_info").get("model_path", "")
        length = self._to.get("/server_info").get("context_length")
        return Served(str(model), length if isinstance(length, int) else None)

    def check(self, drawing: Drawing) -> None:
        """It gives all that is asked."""

    def draw(self, wanted: Wanted, call: Call) -> Iterator[Piece]:
        """Asks for answers, which begin alike; their tokens as they are drawn."""
        drawing = wanted.drawing
        sampling: dict[str, Any] = {
            "n": wanted.count,
            "max_new_tokens": wanted.max_tokens,
            "temperature": drawing.temperature,
            "top_k": drawing.top_k or -1,
            "top_p": drawing.top_p,
            "min_p": drawing.min_p,
            "ignore_eos": True,
            "stop_token_ids": list(wanted.end),
            "no_stop_trim": True,
        }
        if drawing.stop:
            sampling["stop"] = list(drawing.stop)
        body = {
            "input_ids": list(wanted.token),
            "sampling_params": sampling,
            "return_logprob": True,
            "return_sampling_mask": drawing.cuts,
            "stream": True,
            "extra_key": wanted.salt,
        }
        where = f"{self.url}{GENERATE}"
        seen = [0] * wanted.count
        for event in self._to.events(GENERATE, body, call.opened):
            piece = _piece(event, seen, where, cuts=drawing.cuts)
            if piece is not None:
                yield piece

    def prefill(self, token: Sequence[int], salt: str) -> list[float]:
        """The log-probability of each token but the first."""
        body = {
            "input_ids": list(token),
            "sampling_params": {"max_new_tokens": 1, "temperature": 1.0},
            "return_logprob": True,
            "logprob_start_len": 0,
            "extra_key": salt,
        }
        where = f"{self.url}{GENERATE}"
        given = _meta(self._to.post(GENERATE, body), where).get("input_token_logprobs")
        if not isinstance(given, list) or len(given) != len(token):
            raise EngineError(
                f"{where}: it gave no log-probabilities of the {len(token)} tokens that it read (input_token_logprobs)"
            )
        if [one[1] for one in given[1:]] != list(token[1:]):
            raise EngineError(f"{where}: it read other tokens than were sent")
        return logprobs_of([one[0] for one in given[1:]], len(token) - 1, where)

    def version(self) -> str | None:
        """What `take` said last, as the server has it now."""
        found = self._to.get("/model_info").get("weight_version")
        return None if found is None else str(found)

    def pause(self, *, refill: bool) -> None:
        """Draws no more tokens; answers under way stay."""
        mode = "retract" if refill else "in_place"
        self._to.post("/pause_generation", {"mode": mode})

    def take(self, version: str, folder: Path) -> None:
        """Takes the weights of a folder."""
        body = {
            "model_path": str(folder),
            "weight_version": version,
            "abort_all_requests": False,
            "flush_cache": False,
            "keep_pause": True,
        }
        said = self._to.post("/update_weights_from_disk", body)
        if isinstance(said, dict) and said.get("success") is False:
            raise EngineError(
                f"{self.url}/update_weights_from_disk: {str(said.get('message'))[:300]}"
            )

    def resume(self) -> None:
        """Goes on."""
        self._to.post("/continue_generation", {})


def _meta(event: object, where: str) -> Mapping[str, Any]:
    if isinstance(event, dict):
        if event.get("error") is not None:
            raise LostEngineError(f"{where}: {str(event['error'])[:300]}")
        if isinstance(event.get("meta_info"), dict):
            return event["meta_info"]
    raise EngineError(f"{where}: an event has no meta_info")


def _piece(event: Any, seen: list[int], where: str, *, cuts: bool) -> Piece | None:
    """What is new in an event."""
    meta = _meta(event, where)
    index = int(event.get("index", 0))
    if not 0 <= index < len(seen):
        raise EngineError(f"{where}: an event is of answer {index} of {len(seen)}")
    said: list[Any] = meta.get("output_token_logprobs") or []
    count = meta.get("completion_tokens", len(said))
    begin = _begin(len(said), count, seen[index], where)
    new = said[begin:]
    seen[index] += len(new)
    token = tokens_of([one[1] for one in new], where)
    chances, kept = [one[0] for one in new], None
    if cuts:
        masks = _tail(meta, "output_token_sampling_mask", len(new), where)
        kept = [tokens_of(one, where) for one in masks]
        chances = _tail(meta, "output_token_sampling_logprobs", len(new), where)
    logprob = logprobs_of(chances, len(token), where)
    reason = meta.get("finish_reason")
    kind = reason.get("type") if isinstance(reason, dict) else reason
    end = 0 if kind is None else ENDS.get(kind, BROKEN)
    if not token and not end:
        return None
    versions = spans_of(meta.get("weight_versions"), where) if end else None
    return Piece(index, token, logprob, kept, end, versions)


def _begin(given: int, count: int, seen: int, where: str) -> int:
    """Where what is new begins in an event's lists, which hold the whole answer, or what is new alone."""
    if given == count:
        return seen
    if given == count - seen:
        return 0
    raise EngineError(
        f"{where}: it gave {given} log-probabilities for {count} tokens; all are needed to learn from them"
    )


def _tail(meta: Mapping[str, Any], name: str, count: int, where: str) -> list[Any]:
    given = meta.get(name)
    if not isinstance(given, list) or len(given) < count:
        raise EngineError(
            f"{where}: it says not which tokens could be drawn, and how likely they were ({name}); 0.5.23 does"
        )
    return given[len(given) - count :]
