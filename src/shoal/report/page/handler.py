"""Requests to the live page: each is checked, answered from what was read already, and closed to everything else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qs, urlsplit

from shoal.report.page.answers import curves, state
from shoal.report.page.gate import RefusedError
from shoal.run.reading import parse_json
from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.report.page.server import Server

BODY_BYTES = 256 << 10
"""What a request may send."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Browsers run and load for the page what this server sends, and nothing that stands in it."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
HTML, JSON = "text/html; charset=utf-8", "application/json"
PLAIN, BINARY = "text/plain; charset=utf-8", "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back."""

    data: bytes
    kind: str
    status: int = 200
    tagged: bool = False
    """Whether a browser that has it already is told so instead."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "shoal", ""
    timeout = 60.0
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        """The page, its parts, and what is shown on it."""
        self._answer(changes=False)

    def do_POST(self) -> None:
        """Curves, as what is wanted of them is too long for an address; and orders."""
        self._answer(changes=True)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: addresses hold the token."""

    def _answer(self, *, changes: bool) -> None:
        address = urlsplit(self.path)
        cookie: str | None = None
        try:
            body = self._body() if changes else b""
            gate = self.server.gate
            if gate.check(self.headers, address.query, changes=changes):
                cookie = gate.cookie_line()
            query = parse_qs(address.query, max_num_fields=20)
            answer = self._route(address.path, query, body, changes=changes)
        except RefusedError as error:
            answer = Answer(f"{error}\n".encode(), PLAIN, error.status)
        except ConfigError as error:
            said = printable(error, 400)
            answer = Answer(f"{said}\n".encode("utf-8", "replace"), PLAIN, 409)
        except ValueError as error:
            said = f"This request means nothing here: {printable(error, 200)}\n"
            answer = Answer(said.encode("utf-8", "replace"), PLAIN, 400)
        self._send(answer, cookie)

    def _body(self) -> bytes:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= BODY_BYTES or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise RefusedError(
                413, f"A request holds at most {BODY_BYTES:,} bytes, and says how many"
            )
        return self.rfile.read(length)

    def _route(
        self, path: str, query: Mapping[str, list[str]], body: bytes, *, changes: bool
    ) -> Answer:
        files = self.server.files
        if not changes and path in files:
            kind, data = files[path]
            return Answer(data, kind, tagged=True)
        if not changes and path == "/api/state":
            wanted = {int(number) for number in query.get("run", [])[:200]}
            said = state(self.server.runs, wanted)
            return Answer(json.dumps(said).encode(), JSON, tagged=True)
        if changes and path == "/api/curves":
            wanted_curves = parse_json(body)
            if not isinstance(wanted_curves, dict):
                raise ValueError("curves are asked for by a table")
            asked = cast("dict[str, object]", wanted_curves)
            return Answer(curves(self.server.runs, asked), BINARY)
        raise RefusedError(404, "There is no such page here")

    def _send(self, answer: Answer, cookie: str | None) -> None:
        status, data = answer.status, answer.data
        tag = f'"{sha256(data).hexdigest()[:32]}"' if answer.tagged else ""
        if tag and self.headers.get("If-None-Match") == tag:
            status, data = 304, b""
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if tag:
            self.send_header("ETag", tag)
        if cookie is not None:
            self.send_header("Set-Cookie", cookie)
        if status != 304:
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
