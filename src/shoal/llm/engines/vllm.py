"""vLLM's server: tokens in and out, weights that are pushed while it decodes, versions token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.llm.engines.connection import EngineError, LostEngineError
from shoal.llm.engines.protocol import BROKEN, Piece, Served
from shoal.llm.engines.reading import logprobs_of, spans_of, tokens_of
from shoal.llm.sampler.progress import Progress
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from shoal.llm.engines.calls import Call
    from shoal.llm.engines.connection import Connection
    from shoal.llm.engines.protocol import Wanted
    from shoal.llm.sampler.protocol import Drawing

GENERATE = "/inference/v1/generate"
MOST_LOGPROBS = 20
"""Tokens whose log-probabilities a server gives at each position, unless it was told otherwise."""
ENDS = {"stop": Progress.ENDED, "length": Progress.CUT}
WEIGHTS = "model.safetensors"


class Vllm:
    """vLLM 0.28 or newer, started as `shoal engine vllm` starts it."""

    name = "vllm"

    def __init__(self, connection: Connection) -> None:
        """Nothing is asked yet."""
        self.url, self._to = connection.url, connection
        self._model = ""

    def describe(self) -> Served:
        """Asks which model it serves."""
        said = self._to.get("/v1/models")
        try:
            one = said["data"][0]
            self._model = str(one["id"])
        except (KeyError, IndexError, TypeError):
            raise EngineError(f"{self.url}/v1/models: it names no model") from None
        length = one.get("max_model_len")
        return Served(self._model, length if isinstance(length, int) else None)

    def check(self, drawing: Drawing) -> None:
        """ConfigError where the tokens that could be drawn would not be known."""
        if drawing.cuts and not 0 < drawing.top_k <= MOST_LOGPROBS:
            raise ConfigError(
                f"vLLM says which tokens could be drawn among the {MOST_LOGPROBS} most probable ones only: set "
                f"sampling.top_k to at most {MOST_LOGPROBS}, beside top_p or min_p too, or leave all of them out"
            )

    def draw(self, wanted: Wanted, call: Call) -> Iterator[Piece]:
        """Asks for answers; their tokens as they are drawn."""
        drawing = wanted.drawing
        kept = drawing.top_k if drawing.cuts else 0
        sampling: dict[str, Any] = {
            "n": wanted.count,
            "max_tokens": wanted.max_tokens,
            "temperature": drawing.temperature,
            "top_k": drawing.top_k,
            "top_p": drawing.top_p,
            "min_p": drawing.min_p,
            "logprobs": kept,
            "ignore_eos": True,
            "stop_token_ids": list(wanted.end),
        }
        if drawing.stop:
            sampling |= {"stop": list(drawing.stop), "include_stop_str_in_output": True}
        else:
            sampling["detokenize"] = False
        body = {
            "model": self._model,
            "token_ids": list(wanted.token),
            "sampling_params": sampling,
            "stream": True,
            "cache_salt": wanted.salt,
        }
        for event in self._to.events(GENERATE, body, call.opened):
            for choice in _choices(event, f"{self.url}{GENERATE}"):
                yield _piece(choice, f"{self.url}{GENERATE}", cuts=drawing.cuts)

    def prefill(self, token: Sequence[int], salt: str) -> list[float]:
        """The log-probability of each token but the first."""
        sampling = {
            "max_tokens": 1,
            "temperature": 1.0,
            "prompt_logprobs": 0,
            "detokenize": False,
        }
        body = {
            "model": self._model,
            "token_ids": list(token),
            "sampling_params": sampling,
            "cache_salt": salt,
        }
        where = f"{self.url}{GENERATE}"
        said = self._to.post(GENERATE, body)
        given = said.get("prompt_logprobs") if isinstance(said, dict) else None
        if not isinstance(given, list) or len(given) != len(token):
            raise EngineError(
                f"{where}: it gave no log-probabilities of the {len(token)} tokens that it read (prompt_logprobs)"
            )
        try:
            found = [
                one[str(t)]["logprob"]
                for one, t in zip(given[1:], token[1:], strict=True)
            ]
        except (KeyError, TypeError):
            raise EngineError(
                f"{where}: prompt_logprobs lack a token that was asked about; it reads other tokens than were sent"
            ) from None
        return logprobs_of(found, len(token) - 1, where)

    def version(self) -> str | None:
        """What `take` said last, as the server has it now."""
        return _field(self._to.get("/weight_info"), "weight_version")

    def pause(self, *, refill: bool) -> None:
        """Draws no more tokens; answers under way stay."""
        self._to.post("/pause", query={"mode": "keep"})
        if refill:
            self._to.post(
                "/reset_prefix_cache", query={"reset_running_requests": "true"}
            )

    def take(self, version: str, folder: Path) -> None:
        """Takes weights, layer by layer."""
        info = {"path": str(folder / WEIGHTS)}
        self._to.post("/start_weight_update")
        self._to.post("/update_weights", {"update_info": info})
        self._to.post("/finish_weight_update", {"weight_version": version})

    def resume(self) -> None:
        """Goes on."""
        self._to.post("/resume")


def _choices(event: object, where: str) -> list[Mapping[str, Any]]:
    if not isinstance(event, dict):
        raise EngineError(f"{where}: an event is no object")
    error = event.get("error")
    if error is not None:
        said = error.get("message") if isinstance(error, dict) else error
        raise LostEngineError(f"{where}: {str(said)[:300]}")
    choices = event.get("choices")
    if not isinstance(choices, list):
        raise EngineError(f"{where}: an event has no choices")
    return choices


def _piece(choice: Mapping[str, Any], where: str, *, cuts: bool) -> Piece:
    token = tokens_of(choice.get("token_ids"), where)
    content: list[Any] = (choice.get("logprobs") or {}).get("content") or []
    logprob = logprobs_of([one.get("logprob") for one in content], len(token), where)
    for one, drawn in zip(content, token, strict=True):
        if one.get("token_id", drawn) != drawn:
            raise EngineError(f"{where}: log-probabilities are of other tokens")
    reason = choice.get("finish_reason")
    end = 0 if reason is None else ENDS.get(reason, BROKEN)
    versions = spans_of(choice.get("weight_versions"), where)
    kept = [_kept(one) for one in content] if cuts else None
    return Piece(int(choice.get("index", 0)), token, logprob, kept, end, versions)


def _kept(one: Mapping[str, Any]) -> list[int]:
    """The tokens that could be drawn: others have no finite log-probability."""
    likely = [
        int(top["token_id"])
        for top in one.get("top_logprobs", ())
        if top.get("logprob") is not None and top["logprob"] > LOWEST
    ]
    return [int(one["token_id"]), *likely]


LOWEST = -9000.0
"""Servers write minus infinity as -9999."""


def _field(said: object, name: str) -> str | None:
    found = said.get(name) if isinstance(said, dict) else None
    return None if found is None else str(found)
