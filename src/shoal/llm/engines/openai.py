"""Servers with OpenAI's completions: they draw with the weights that they have, and take no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.llm.engines.connection import EngineError, LostEngineError
from shoal.llm.engines.protocol import BROKEN, Piece, Served
from shoal.llm.engines.reading import logprobs_of, tokens_of
from shoal.llm.sampler.progress import Progress
from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from shoal.llm.engines.calls import Call
    from shoal.llm.engines.connection import Connection
    from shoal.llm.engines.protocol import Wanted
    from shoal.llm.sampler.protocol import Drawing

COMPLETIONS = "/v1/completions"
ENDS = {"stop": Progress.ENDED, "length": Progress.CUT}
AS_ID = "token_id:"
"""How vLLM writes tokens by their numbers."""
NO_WEIGHTS = "an OpenAI-compatible server takes no weights, so a run cannot train with it; take vllm or sglang"


class OpenAi:
    """Frozen: for answers of a model that stays as it is, and for what it says of those of others.

    The server must take prompts as tokens and say which tokens it drew, as vLLM and SGLang do.
    """

    name = "openai"

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
        if drawing.cuts:
            raise ConfigError(
                "completions do not say which tokens could be drawn with top_k, top_p or min_p; leave them out"
            )

    def draw(self, wanted: Wanted, call: Call) -> Iterator[Piece]:
        """Asks for answers; their tokens as they are drawn."""
        body = {
            "model": self._model,
            "prompt": list(wanted.token),
            "n": wanted.count,
            "max_tokens": wanted.max_tokens,
            "temperature": wanted.drawing.temperature,
            "logprobs": 1,
            "stream": True,
            "stop": list(wanted.drawing.stop) or None,
            "stop_token_ids": list(wanted.end),
            "return_token_ids": True,
        }
        where = f"{self.url}{COMPLETIONS}"
        for event in self._to.events(COMPLETIONS, body, call.opened):
            for choice in _choices(event, where):
                yield _piece(choice, where)

    def prefill(self, token: Sequence[int], salt: str) -> list[float]:
        """The log-probability of each token but the first."""
        del salt
        body = {
            "model": self._model,
            "prompt": list(token),
            "max_tokens": 1,
            "logprobs": 1,
            "echo": True,
            "temperature": 1.0,
        }
        where = f"{self.url}{COMPLETIONS}"
        (choice,) = _choices(self._to.post(COMPLETIONS, body), where)
        given: list[Any] = (choice.get("logprobs") or {}).get("token_logprobs") or []
        if len(given) < len(token):
            raise EngineError(
                f"{where}: it gave {len(given)} log-probabilities of the {len(token)} tokens that it read (echo)"
            )
        return logprobs_of(given[1 : len(token)], len(token) - 1, where)

    def version(self) -> str | None:
        """It has none."""
        return None

    def pause(self, *, refill: bool) -> None:
        """It cannot."""
        raise EngineError(NO_WEIGHTS)

    def take(self, version: str, folder: Path) -> None:
        """It cannot."""
        raise EngineError(NO_WEIGHTS)

    def resume(self) -> None:
        """It was not paused."""


def _choices(event: object, where: str) -> list[Mapping[str, Any]]:
    if isinstance(event, dict) and event.get("error") is not None:
        raise LostEngineError(f"{where}: {str(event['error'])[:300]}")
    choices = event.get("choices") if isinstance(event, dict) else None
    if not isinstance(choices, list):
        raise EngineError(f"{where}: a reply has no choices")
    return choices


def _piece(choice: Mapping[str, Any], where: str) -> Piece:
    said: Mapping[str, Any] = choice.get("logprobs") or {}
    token = tokens_of(_tokens(choice, said, where), where)
    given: list[Any] = said.get("token_logprobs") or []
    reason = choice.get("finish_reason")
    end = 0 if reason is None else ENDS.get(reason, BROKEN)
    logprob = logprobs_of(given, len(token), where)
    return Piece(int(choice.get("index", 0)), token, logprob, None, end)


def _tokens(
    choice: Mapping[str, Any], said: Mapping[str, Any], where: str
) -> list[Any] | None:
    """The numbers of the tokens, in either place where servers have them."""
    if choice.get("token_ids") is not None:
        return choice["token_ids"]
    written: list[Any] = said.get("tokens") or []
    if all(str(one).startswith(AS_ID) for one in written):
        return [int(str(one).removeprefix(AS_ID)) for one in written]
    raise EngineError(
        f"{where}: it says no token's number (token_ids), and text is not tokenized again; take a server that does"
    )
