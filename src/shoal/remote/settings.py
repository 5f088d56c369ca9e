"""What a client and a server of environments show each other, so that each knows who the other is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from shoal.types import ConfigError, check_ranges

if TYPE_CHECKING:
    from collections.abc import Callable

PLANES = ("auto", "unix", "tls", "grpc")


@dataclass(frozen=True, slots=True)
class Remote:
    """How servers of environments are reached; files in PEM."""

    ca: str | None = None
    """File with the certificate authority that signed the servers' certificates (grpcs://); default: the system's."""
    cert: str | None = None
    """File with this client's own certificate, where servers ask for one."""
    key: str | None = None
    """File with the private key of `cert`."""
    token_file: str | None = None
    """File with the token that servers ask for."""
    plane: Literal["auto", "unix", "tls", "grpc"] = "auto"
    """What carries batches: auto takes a Unix socket on one machine, TLS where there is a certificate, else gRPC."""
    reconnect_s: float = 10.0
    """Seconds to try to reach a server again whose connection broke: then its session goes on, no step lost."""

    def __post_init__(self) -> None:
        """Refuses one of two files that belong together."""
        if self.plane not in PLANES:
            raise ConfigError(
                f"remote.plane must be {' or '.join(PLANES)}, got {self.plane!r}"
            )
        check_ranges(self, reconnect_s=(0, 3_600))
        if (self.cert is None) != (self.key is None):
            raise ConfigError(
                "remote.cert and remote.key belong together: a certificate and its private key"
            )

    @property
    def tls(self) -> bool:
        """Whether a setting is for encrypted connections."""
        return self.ca is not None or self.cert is not None


class Terms(NamedTuple):
    """How a client asks for rows."""

    remote: Remote = Remote()
    timeout_s: float = 60.0
    """What any reply may take."""
    on_fault: str = "raise"
    """raise: a server's error ends it; restart: a new session there takes its rows over; drop: others go on without."""
    max_restarts: int = 3
    """Of each server, after a reset."""
    playing: bool = False
    """For evaluation: a server has as many environments for that besides."""
    locate: Callable[[int], str] | None = None
    """HOST:PORT of a server, by its number, where it may be elsewhere after a fault; None: servers stay where they are.
    ConfigError says that it is not there yet, EnvError that it is gone for good."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may connect to a server; files in PEM."""

    cert: str | None = None
    """File with the server's certificate: connections are encrypted."""
    key: str | None = None
    """File with the private key of `cert`."""
    client_ca: str | None = None
    """File with the certificate authority that clients' certificates must be signed by."""
    token_file: str | None = None
    """File with a token that clients must show."""
    plane: bool = True
    """Offer clients a Unix socket, and with a certificate a TLS port, for their batches beside gRPC."""
    idle_s: float = 60.0
    """A client that says nothing for so many seconds loses its environments; shoal's own says something in time."""
    max_clients: int = 64
    """Clients that have environments at a time, one each for training and evaluation; further ones are refused."""

    def __post_init__(self) -> None:
        """Refuses files without what they need."""
        if (self.cert is None) != (self.key is None):
            raise ConfigError(
                "cert and key belong together: the server's certificate and its private key"
            )
        check_ranges(self, idle_s=(1, 86_400), max_clients=(1, 4_096))
        if self.client_ca and not self.cert:
            raise ConfigError(
                "client_ca asks clients for certificates on encrypted connections: give cert and key too"
            )

    @property
    def knows_clients(self) -> bool:
        """Whether connections are encrypted and clients say who they are."""
        return self.cert is not None and bool(self.client_ca or self.token_file)


def read_file(path: str, what: str) -> bytes:
    """The bytes of a file; ConfigError where it cannot be read or is empty."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{what}: {path!r} cannot be read ({error.strerror})"
        ) from error
    if not data.strip():
        raise ConfigError(f"{what}: {path!r} is empty")
    return data


def read_token(path: str) -> str:
    """The token in a file; ConfigError where it is too short, or no text."""
    what = "the file with the token"
    token = read_file(path, what).strip()
    if (
        len(token) < LEAST_TOKEN
        or not token.isascii()
        or not token.decode("ascii").isprintable()
    ):
        raise ConfigError(
            f"{what}: {path!r} must hold {LEAST_TOKEN} or more printable characters; "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one"
        )
    return token.decode("ascii")


LEAST_TOKEN = 16
