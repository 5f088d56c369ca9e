"""Who may ask: a token, a Host that is this machine, and an Origin that is this page for whatever changes something.

The server listens on the loopback alone. Any page that a browser shows may send requests there, and may give its own
name this machine's address (DNS rebinding): so the Host must be a name of this machine, at any port, as an SSH tunnel
ends at another one. The token keeps out other users of the machine.
"""

from __future__ import annotations

import hmac
import re
import secrets
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from email.message import Message

MOST_FIELDS = 200
"""Of an address: each run that is drawn takes one."""

HOST = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
FROM_HERE = ("same-origin", "none")
"""What browsers say in Sec-Fetch-Site of a page's own requests, and of an address that somebody typed."""


class RefusedError(Exception):
    """A request that gets no answer but this."""

    def __init__(self, status: int, sentence: str) -> None:
        """`status`: of HTTP."""
        super().__init__(sentence)
        self.status = status


class Gate:
    """The token of one server, and what is asked of each request."""

    def __init__(self, token: str | None = None) -> None:
        """`token`: a new one of 256 bits unless given."""
        self.token = token or secrets.token_urlsafe(32)
        # Cookies are shared by all ports of a host: two servers need two names.
        digest = sha256(self.token.encode()).hexdigest()
        self.cookie = f"shoal-{digest[:12]}"

    def check(self, headers: Message, query: str, *, changes: bool) -> bool:
        """Whether the token came in the address, so that a cookie is to be set.

        Args:
            headers: of the request.
            query: of its address.
            changes: whether the request does something, so that only this page may send it.

        Raises:
            RefusedError: 403, with the reason.
        """
        host = self._check_host(headers)
        if changes:
            _check_origin(headers, host)
        given = parse_qs(query, max_num_fields=MOST_FIELDS).get("token", [])
        if len(given) == 1 and self._is_token(given[0]):
            return True
        if not (self._has_cookie(headers) or self._has_bearer(headers)):
            raise RefusedError(
                403,
                "The token is missing or wrong: open the address that `shoal watch` printed, with all that follows ?",
            )
        return False

    def cookie_line(self) -> str:
        """What Set-Cookie says: scripts cannot read it, and no other site's request carries it."""
        return f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"

    def _check_host(self, headers: Message) -> str:
        hosts = headers.get_all("Host") or []
        if len(hosts) != 1 or not HOST.fullmatch(hosts[0]):
            raise RefusedError(
                403,
                "This page is for localhost, 127.0.0.1 and [::1] only; from another machine: "
                "ssh -L 8800:127.0.0.1:PORT MACHINE, then open http://127.0.0.1:8800",
            )
        return hosts[0]

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(
            given.encode("utf-8", "replace"), self.token.encode()
        )

    def _has_cookie(self, headers: Message) -> bool:
        for line in headers.get_all("Cookie") or []:
            try:
                found = SimpleCookie(line).get(self.cookie)
            except CookieError:
                continue
            if found is not None and self._is_token(found.value):
                return True
        return False

    def _has_bearer(self, headers: Message) -> bool:
        kind, _, given = (headers.get("Authorization") or "").partition(" ")
        return kind.lower() == "bearer" and self._is_token(given.strip())


def _check_origin(headers: Message, host: str) -> None:
    """Refuses what another page sent; programs send no Sec-Fetch-Site, but they can say whose page they stand for."""
    site = headers.get("Sec-Fetch-Site", "none")
    origins = headers.get_all("Origin") or []
    if site in FROM_HERE and origins == [f"http://{host}"]:
        return
    raise RefusedError(
        403,
        f"Only the page itself may ask this: the header Origin must be http://{host}",
    )
