"""A chat with a model behind an OpenAI-compatible server: one request, tried again where that may help."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from math import inf
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shoal.types import ConfigError, check_ranges, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.llm.tasks.task import Message

MAX_REPLY = 2**20
"""Bytes of a reply that are read."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses after which a server may well answer the next time."""
MAX_PAUSE_S = 30.0


class ChatError(RuntimeError):
    """A server did not answer; the message names it and says what it did."""


@dataclass(frozen=True, slots=True)
class ChatServer:
    """Which server is asked, and how."""

    base_url: str
    """With its version: `http://127.0.0.1:8000/v1`. Beyond this machine https, unless `insecure`."""
    model: str
    """As the server calls it."""
    max_tokens: int = 512
    """Of its reply."""
    temperature: float = 0.0
    """Of its tokens."""
    timeout_s: float = 60.0
    """For one request, from its first byte to the last one of the reply."""
    retries: int = 3
    """After a failed connection, a time-out, or a status that says to come again; pauses double."""
    pause_s: float = 0.5
    """The first pause; a server's Retry-After counts where it is longer. At most 30 s."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; where it is not set, none is sent."""
    insecure: bool = False
    """Allows http to another machine: what is said and the key go unencrypted."""

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ConfigError(
                f"base_url is http://HOST:PORT/v1 or https://HOST/v1, got {self.base_url!r}"
            )
        if url.username or url.password:
            raise ConfigError(
                "base_url must hold no password; put the key into the variable that api_key_env names"
            )
        if url.scheme == "http" and url.hostname not in LOOPBACK and not self.insecure:
            raise ConfigError(
                f"{self.base_url} would send answers and key unencrypted to another machine; use https, or say "
                "insecure=True where the network is yours"
            )
        check_ranges(
            self,
            max_tokens=(1, inf),
            temperature=(0.0, 100.0),
            timeout_s=(1e-3, inf),
            retries=(0, 100),
            pause_s=(0.0, MAX_PAUSE_S),
        )


class Chat:
    """Asks a server."""

    def __init__(self, server: ChatServer) -> None:
        """Nothing is asked yet."""
        self.server = server
        self.url = server.base_url.rstrip("/") + "/chat/completions"
        self._key = os.environ.get(server.api_key_env, "")
        # Another address than the one that was named gets neither key nor answers.
        self._open = urllib.request.build_opener(_NoRedirect).open

    def ask(self, messages: Sequence[Message]) -> str:
        """What the model says next.

        Raises:
            ChatError: the server did not answer, or refused.
        """
        server = self.server
        body = {
            "model": server.model,
            "messages": [{"role": x.role, "content": x.content} for x in messages],
            "max_tokens": server.max_tokens,
            "temperature": server.temperature,
        }
        pause_s = server.pause_s
        for left in range(server.retries, -1, -1):
            try:
                return self._content(self._post(json.dumps(body).encode()))
            except _AgainError as error:
                if not left:
                    raise ChatError(
                        f"{self.url}: {error}, {server.retries + 1} times"
                    ) from error
                time.sleep(min(max(pause_s, error.after_s), MAX_PAUSE_S))
                pause_s *= 2
        raise AssertionError

    def _post(self, body: bytes) -> bytes:
        """The reply to a request; _AgainError where another try may succeed."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.url, body, headers)
        timeout_s = self.server.timeout_s
        deadline = time.monotonic() + timeout_s
        try:
            with self._open(request, timeout=timeout_s) as response:
                return _read(response, deadline, timeout_s)
        except urllib.error.HTTPError as error:
            what = f"it answered {error.code} {error.reason}{_said(error)}"
            if error.code not in RETRIED:
                raise ChatError(f"{self.url}: {what}") from None
            raise _AgainError(
                what, _seconds(error.headers.get("Retry-After"))
            ) from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise _AgainError(
                f"no answer ({type(reason).__name__}: {text_of(reason)})"
            ) from error

    def _content(self, reply: bytes) -> str:
        try:
            read: Any = json.loads(reply)
            content = read["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            content = None
        if not isinstance(content, str):
            raise ChatError(
                f"{self.url}: the reply is no chat completion: {reply[:200].decode(errors='replace')!r}"
            )
        return content


class _AgainError(Exception):
    """A failure after which the next request may succeed."""

    def __init__(self, text: str, after_s: float = 0.0) -> None:
        super().__init__(text)
        self.after_s = after_s


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        """None: the redirection is an error."""


def _read(response: Any, deadline: float, timeout_s: float) -> bytes:
    """The whole reply: urllib's own time-out is for each of its parts."""
    parts: list[bytes] = []
    size = 0
    while part := response.read1(2**16):
        parts.append(part)
        size += len(part)
        if size > MAX_REPLY:
            raise ChatError(
                f"{response.url}: the reply has more than {MAX_REPLY:,} bytes"
            )
        if time.monotonic() > deadline:
            raise TimeoutError(f"its reply took more than {timeout_s:g} s")
    return b"".join(parts)


def _said(error: urllib.error.HTTPError) -> str:
    """The beginning of what stands in an error's reply."""
    with suppress(OSError, HTTPException):
        said = error.read1(500).decode(errors="replace").strip()
        return f": {said}" if said else ""
    return ""


def _seconds(given: str | None) -> float:
    """What a Retry-After says, where it is seconds."""
    return float(given) if given is not None and given.isdecimal() else 0.0
