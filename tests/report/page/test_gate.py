"""Who is let in: the token, the Host, the Origin, and what every answer forbids."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from shoal.report.page.gate import Gate
from tests.report.page.conftest import TOKEN, Page, write_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CURVES = {"axis": "step", "width": 100, "curves": []}


@pytest.fixture
def page(tmp_path: Path, serve: Callable[..., Page]) -> Page:
    write_run(tmp_path / "runs" / "a")
    return serve(tmp_path / "runs")


ADDRESSES = ["/", "/page.js", "/page.css", "/api/state", "/nothing", f"/?token={TOKEN}x", "/?token=", "/?token"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_token(page: Page, address: str) -> None:
    """Nothing is told without it, not even what there is."""
    answer = page.ask(address, {})
    assert answer.status == 403
    assert b"token" in answer.data
    assert "Set-Cookie" not in answer.headers


def test_tokens_twice(page: Page) -> None:
    assert page.ask(f"/?token={TOKEN}&token={TOKEN}", {}).status == 403


def test_cookie(page: Page) -> None:
    """The address with the token sets a cookie, which scripts cannot read, and which is enough from then on."""
    first = page.ask(f"/?token={TOKEN}", {})
    assert first.status == 200
    cookie = first.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    held = {"Cookie": f"other=1; {cookie.split(';')[0]}"}
    assert page.ask("/api/state", held).status == 200
    assert "Set-Cookie" not in page.ask("/", held).headers
    name = cookie.split("=")[0]
    assert page.ask("/api/state", {"Cookie": f"{name}=wrong"}).status == 403
    assert page.ask("/api/state", {"Cookie": "shoal=\x7f;;="}).status == 403


def test_cookies_of_two() -> None:
    """Cookies go to all ports of a host, so those of two pages have two names, which tell nothing of the token."""
    first, second = Gate("one"), Gate("two")
    assert first.cookie != second.cookie
    assert "one" not in first.cookie
    assert len(Gate().token) >= 43


HOSTS = {
    "evil.example": 403,
    "evil.example:8790": 403,
    "localhost.evil.example": 403,
    "127.0.0.1.evil.example": 403,
    "127.0.0.1@evil.example": 403,
    "192.168.0.7": 403,
    "0.0.0.0": 403,
    "": 403,
    "localhost:": 403,
    "localhost:99999999": 403,
    "localhost": 200,
    "localhost:5555": 200,
    "LOCALHOST:5555": 200,
    "127.0.0.1:1": 200,
    "[::1]:5555": 200,
}


@pytest.mark.parametrize("host", HOSTS)
def test_host(page: Page, host: str) -> None:
    """A name that somebody else's server has given this machine's address is refused, with the token too."""
    answer = page.ask("/api/state", page.headers | {"Host": host})
    assert answer.status == HOSTS[host]
    if answer.status == 403:
        assert b"ssh -L" in answer.data


def raw(page: Page, text: str) -> bytes:
    with socket.create_connection(("127.0.0.1", page.server.server_port), timeout=10) as connection:
        connection.sendall(text.replace("\n", "\r\n").encode())
        return connection.recv(1000)


def test_no_host(page: Page) -> None:
    """Nor without a Host, nor with two."""
    bearer = f"Authorization: Bearer {TOKEN}\nConnection: close\n\n"
    assert b" 403 " in raw(page, f"GET / HTTP/1.0\n{bearer}")
    assert b" 403 " in raw(page, f"GET / HTTP/1.1\nHost: localhost\nHost: evil.example\n{bearer}")
    assert b" 200 " in raw(page, f"GET / HTTP/1.1\nHost: localhost\n{bearer}")


ORIGINS = {
    "http://evil.example": 403,
    "null": 403,
    "": 403,
    "http://127.0.0.1:1": 403,
    "https://{host}": 403,
    "http://{host}": 200,
}


@pytest.mark.parametrize("origin", ORIGINS)
def test_origin(page: Page, origin: str) -> None:
    """What does something is taken from the page alone, as another page of this machine has its cookie sent too."""
    said = origin.format(host=page.origin.removeprefix("http://"))
    assert page.post("/api/curves", CURVES, Origin=said).status == ORIGINS[origin]


def test_no_origin(page: Page) -> None:
    assert page.ask("/api/curves", body=b"{}").status == 403
    site = {"Sec-Fetch-Site": "cross-site"}
    assert page.post("/api/curves", CURVES, **site).status == 403
    assert page.post("/api/curves", CURVES, **{"Sec-Fetch-Site": "same-origin"}).status == 200


def test_tunnel(page: Page) -> None:
    """Through an SSH tunnel the browser names another port, in its Host and its Origin alike."""
    answer = page.post("/api/curves", CURVES, Host="localhost:5555", Origin="http://localhost:5555")
    assert answer.status == 200
    assert page.post("/api/curves", CURVES, Host="localhost:5555").status == 403


@pytest.mark.parametrize("path", ["/", "/page.js", "/api/state", "/nothing"])
def test_policy(page: Page, path: str) -> None:
    """Every answer forbids scripts and styles that stand in a page, frames, and whatever comes from elsewhere."""
    headers = page.ask(path).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "Access-Control-Allow-Origin" not in headers
    assert TOKEN not in headers.values()


def test_files_are_the_pages_own(page: Page) -> None:
    """Nothing of the page stands inline, comes from elsewhere, or is read as markup."""
    files = page.server.files
    html = files["/"][1].decode()
    assert "<script>" not in html
    assert "style=" not in html
    assert " on" not in html.replace(" on ", "")
    for address, (_, data) in files.items():
        text = data.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, address
        assert "https://" not in text, address
        for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("):
            assert word not in text, address


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD"])
def test_methods(page: Page, method: str) -> None:
    """Other methods do nothing."""
    assert page.ask("/api/state", method=method).status == 501


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/curves", b"[]", 400),
        ("/api/curves", b"{", 400),
        ("/api/curves", b"[" * 100_000, 400),
        ("/api/curves", b'{"axis": "wall", "width": 9, "curves": []}', 400),
        ("/api/curves", b'{"axis": "step", "width": -9, "curves": []}', 400),
        ("/api/curves", b'{"axis": "step", "width": 9, "curves": [7]}', 400),
        ("/api/curves", b'{"axis": "step", "width": 9, "curves": [{"run": 1, "since": 0.5, "key": "x"}]}', 200),
        ("/api/curves", b'{"axis": "step", "width": 9, "curves": [{"run": 1, "key": "x", "from": "y"}]}', 400),
        ("/api/curves", b'{"axis": ["step"], "width": 9, "curves": []}', 400),
        ("/api/curves", b" " * 300_000, 413),
        ("/api/order", b'{"run": 1, "order": ["pause"]}', 400),
        ("/api/order", b'{"run": true, "order": "pause"}', 409),
        ("/api/film", b'{"run": [1]}', 409),
        ("/api/state", b"{}", 404),
        ("/", b"", 404),
    ],
)
def test_bad_requests(page: Page, path: str, body: bytes, status: int) -> None:
    """What means nothing is refused in words."""
    answer = page.ask(path, page.headers | {"Origin": page.origin}, body)
    assert answer.status == status
    if status != 200:
        assert answer.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize("path", ["/../conftest.py", "/%2e%2e/server.py", "/page.js/..", "/static/page.js"])
def test_no_other_files(page: Page, path: str) -> None:
    assert page.ask(path).status == 404


def test_bad_numbers(page: Page) -> None:
    assert page.ask("/api/state?run=x").status == 400
    assert page.ask("/api/state?" + "&".join(f"run={number}" for number in range(101))).status == 200
    assert page.ask("/api/state?" + "&".join("run=1" for _ in range(300))).status == 400
