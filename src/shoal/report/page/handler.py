"""Requests to the live page: each is checked, answered from what was read already, and closed to everything else."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

from shoal.report.page import answers
from shoal.report.page.films import open_film
from shoal.report.page.gate import MOST_FIELDS, RefusedError
from shoal.run.reading import parse_json
from shoal.types import ConfigError
from shoal.types.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import BufferedReader

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
JSON, BINARY = "application/json", "application/octet-stream"
PLAIN = "text/plain; charset=utf-8"
RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back."""

    data: bytes
    kind: str
    status: int = 200
    tagged: bool = False
    """Whether a browser that has it already is told so instead."""
    file: BufferedReader | None = None
    """What is sent instead of `data`, in parts if the browser wants that."""


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
            if changes:
                answer = self._changed(address.path, body)
            else:
                query = parse_qs(address.query, max_num_fields=MOST_FIELDS)
                answer = self._shown(address.path, query)
        except RefusedError as error:
            answer = Answer(f"{error}\n".encode(), PLAIN, error.status)
        except ConfigError as error:
            said = printable(error, 400)
            answer = Answer(f"{said}\n".encode("utf-8", "replace"), PLAIN, 409)
        except (ConnectionError, TimeoutError):  # of this connection
            raise
        except OSError as error:  # a folder that is gone, another's, or on a full disk
            said = printable(error, 400)
            answer = Answer(f"{said}\n".encode("utf-8", "replace"), PLAIN, 409)
        except ValueError as error:
            said = f"This request means nothing here: {printable(error, 200)}\n"
            answer = Answer(said.encode("utf-8", "replace"), PLAIN, 400)
        if answer.file is not None:
            self._send_file(answer, answer.file)
        else:
            self._send(answer, cookie)

    def _body(self) -> bytes:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= BODY_BYTES or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            said = f"A request holds at most {BODY_BYTES:,} bytes, and says how many"
            raise RefusedError(413, said)
        return self.rfile.read(length)

    def _shown(self, path: str, query: Mapping[str, list[str]]) -> Answer:
        runs, files = self.server.runs, self.server.files
        if path in files:
            kind, data = files[path]
            return Answer(data, kind, tagged=True)
        if path == "/api/state":
            looked = {int(number) for number in query.get("run", [])}
            newest = min(int(query.get("newest", ["0"])[0]), 100)
            if newest > 0:
                looked |= {one.number for one in runs.listed()[-newest:]}
            return _json(answers.state(runs, self.server.filming, looked))
        if path == "/api/timeline":
            return _json(runs.one(_number(query)).lanes())
        if path == "/film":
            watched = runs.one(_number(query))
            film, file = open_film(watched.run, query.get("name", [""])[0])
            return Answer(b"", film.kind, file=file)
        raise RefusedError(404, "There is no such page here")

    def _changed(self, path: str, body: bytes) -> Answer:
        runs = self.server.runs
        if path == "/api/curves":
            return Answer(answers.curves(runs, _table(body)), BINARY)
        if path == "/api/order":
            return _json({"said": answers.give_order(runs, _table(body))})
        if path == "/api/film":
            watched = runs.one(_table(body).get("run"))
            steps = watched.facts().steps
            self.server.filming.begin(watched.run, steps or 0)
            return _json({"said": "making"})
        raise RefusedError(404, "There is no such page here")

    def _send(self, answer: Answer, cookie: str | None) -> None:
        status, data = answer.status, answer.data
        tag = f'"{sha256(data).hexdigest()[:32]}"' if answer.tagged else ""
        if tag and self.headers.get("If-None-Match") == tag:
            status, data = 304, b""
        more = {"ETag": tag} if tag else {}
        if cookie is not None:
            more["Set-Cookie"] = cookie
        if status != 304:
            more |= {"Content-Type": answer.kind, "Content-Length": f"{len(data)}"}
        if self.close_connection:
            more["Connection"] = "close"
        self._begin(status, more)
        self.wfile.write(data)

    def _send_file(self, answer: Answer, file: BufferedReader) -> None:
        """A file, or the part of it that a player asks for."""
        with file:
            size = file.seek(0, 2)
            begin, end, status = 0, size, 200
            wanted = RANGE.fullmatch(self.headers.get("Range", ""))
            more = {"Content-Type": answer.kind, "Accept-Ranges": "bytes"}
            if wanted is not None and int(wanted[1]) < size:
                begin, status = int(wanted[1]), 206
                if wanted[2]:
                    end = min(size, int(wanted[2]) + 1)
                end = max(begin + 1, end)
                more["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
            more["Content-Length"] = f"{end - begin}"
            self._begin(status, more)
            file.seek(begin)
            left = end - begin
            while left and (part := file.read(min(left, 1 << 18))):
                self.wfile.write(part)
                left -= len(part)
            if left:  # the file has become shorter: the length that was said is wrong
                self.close_connection = True

    def _begin(self, status: int, more: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **more}.items():
            self.send_header(name, value)
        self.end_headers()


def _json(said: Any) -> Answer:
    return Answer(json.dumps(said).encode(), JSON, tagged=True)


def _table(body: bytes) -> dict[str, object]:
    found = parse_json(body)
    if not isinstance(found, dict):
        raise ValueError("it is no table")
    return cast("dict[str, object]", found)


def _number(query: Mapping[str, list[str]]) -> int:
    return int(query.get("run", [""])[0])
