"""HTTP with an engine: requests with time-outs and limits, and replies that come event by event."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from shoal.types import ConfigError, text_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from http.client import HTTPResponse

LOOPBACK = ("localhost", "127.0.0.1", "::1")
MAX_REPLY = 2**26
"""Bytes of a reply, or of one event, that are read."""
MAX_ERROR = 600
"""Bytes of an error's reply that are shown."""
API_KEY = "OPENAI_API_KEY"
"""The environment variable that holds the key, as clients of OpenAI's have it."""
AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""Statuses after which a server may well answer the next time."""


class EngineError(RuntimeError):
    """An engine refused a request, or said what cannot be; another try would bring the same."""


class LostEngineError(EngineError):
    """An engine did not answer, broke off, or asks to come again: another try may succeed."""

    def __init__(self, text: str, status: int | None = None) -> None:
        """`status`: what it answered, where it did."""
        super().__init__(text)
        self.status = status


class Connection:
    """Requests to one server. Each opens a connection of its own; several threads may send them."""

    def __init__(self, url: str, *, timeout_s: float, insecure: bool = False) -> None:
        """Nothing is sent yet.

        Args:
            url: of the server, http://HOST:PORT; a path is put before every other.
            timeout_s: how long it may say nothing, before the first byte of a reply and between two.
            insecure: allows http to another machine.

        Raises:
            ConfigError: the url is none, holds a password, or would send prompts and key unencrypted.
        """
        split = urlsplit(url)
        if split.scheme not in ("http", "https") or not split.hostname:
            raise ConfigError(
                f"an engine's url is http://HOST:PORT or https://HOST, got {url!r}"
            )
        if split.username or split.password:
            raise ConfigError(
                f"an engine's url must hold no password; put its key into the variable {API_KEY}"
            )
        local = split.hostname in LOOPBACK
        if split.scheme == "http" and not local and not insecure:
            raise ConfigError(
                f"{url} would send prompts, weights' places and the key unencrypted to another machine; use https, "
                "or a tunnel whose near end is on this one (ssh -L 8000:localhost:8000)"
            )
        self.url = url.rstrip("/").removesuffix("/v1")
        self._kind = HTTPSConnection if split.scheme == "https" else HTTPConnection
        self._host, self._port = split.hostname, split.port
        self._before = urlsplit(self.url).path
        self._timeout_s = timeout_s
        key = os.environ.get(API_KEY, "")
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    def get(self, path: str) -> Any:
        """What a GET brings, from JSON.

        Raises:
            LostEngineError, EngineError: see there.
        """
        with self._answered("GET", path, None) as response:
            return self._json(path, response)

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """What a POST brings, from JSON; None for an empty reply."""
        whole = f"{path}?{urlencode(query)}" if query else path
        with self._answered("POST", whole, body) as response:
            return self._json(path, response)

    def events(
        self, path: str, body: Mapping[str, Any], opened: list[HTTPConnection]
    ) -> Iterator[Any]:
        """The events of a reply that is streamed (text/event-stream), each from JSON, until `[DONE]`.

        `opened` gets the connection: whoever closes it ends the reply, and the server's work on it.

        Raises:
            LostEngineError: it broke off before `[DONE]`.
        """
        with self._answered("POST", path, body, opened) as response:
            while True:
                line = response.readline(MAX_REPLY + 1)
                if not line:
                    raise LostEngineError(f"{self.url}{path}: its reply broke off")
                if len(line) > MAX_REPLY:
                    raise EngineError(
                        f"{self.url}{path}: an event has more than {MAX_REPLY:,} bytes"
                    )
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                yield self._parsed(path, data)

    @contextmanager
    def _answered(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        opened: list[HTTPConnection] | None = None,
    ) -> Generator[HTTPResponse]:
        connection = self._kind(self._host, self._port, timeout=self._timeout_s)
        if opened is not None:
            opened.append(connection)
        data = None if body is None else json.dumps(body).encode()
        where = f"{self.url}{path.partition('?')[0]}"
        try:
            connection.request(method, self._before + path, data, self._headers)
            response = connection.getresponse()
            if response.status >= 300:
                raise _refusal(where, response)
            yield response
        except TimeoutError as error:
            raise LostEngineError(
                f"{where}: it said nothing for {self._timeout_s:g} s"
            ) from error
        except (OSError, HTTPException, AttributeError, ValueError) as error:
            # AttributeError, ValueError: what http.client raises where another thread closed the connection.
            if isinstance(error, HTTPException | OSError) or opened is not None:
                raise LostEngineError(
                    f"{where}: {type(error).__name__}: {text_of(error)}"
                ) from error
            raise
        finally:
            connection.close()

    def _json(self, path: str, response: HTTPResponse) -> Any:
        data = response.read(MAX_REPLY + 1)
        if len(data) > MAX_REPLY:
            raise EngineError(
                f"{self.url}{path}: the reply has more than {MAX_REPLY:,} bytes"
            )
        return self._parsed(path, data) if data.strip() else None

    def _parsed(self, path: str, data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            shown = data[:200].decode(errors="replace")
            raise EngineError(
                f"{self.url}{path}: the reply is no JSON: {shown!r}"
            ) from None


def _refusal(where: str, response: HTTPResponse) -> EngineError:
    said = ""
    with suppress(OSError, HTTPException):
        said = response.read(MAX_ERROR).decode(errors="replace").strip()
    text = f"{where}: it answered {response.status} {response.reason}: {said}"
    if response.status in AGAIN:
        return LostEngineError(text, response.status)
    return EngineError(text)
