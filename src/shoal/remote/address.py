"""Addresses of servers: `grpc://HOST:PORT,HOST:PORT`, encrypted `grpcs://`."""

from __future__ import annotations

import ipaddress

from shoal.types import ConfigError

SCHEME, ENCRYPTED = "grpc://", "grpcs://"


def is_address(name: object) -> bool:
    """Whether an environment's name is the address of servers."""
    return isinstance(name, str) and name.startswith((SCHEME, ENCRYPTED))


def servers_of(name: str) -> list[str]:
    """HOST:PORT of each server that a name lists; ConfigError where it is no such list."""
    listed = name.removeprefix(SCHEME).removeprefix(ENCRYPTED)
    servers = [part.strip() for part in listed.split(",")]
    for server in servers:
        split_port(server)
        if servers.count(server) > 1:
            raise ConfigError(f"{name} lists {server} twice; each server has rows once")
    return servers


def split_port(server: str) -> tuple[str, int]:
    """The host and the port of HOST:PORT; ConfigError where it is none."""
    host, colon, port = server.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(
            f"{server!r} is no address of a server; write HOST:PORT, such as 127.0.0.1:50051, and several with commas "
            f"between: {SCHEME}127.0.0.1:50051,127.0.0.1:50052"
        )
    return host.strip("[]"), int(port)


def is_loopback(server: str) -> bool:
    """Whether HOST:PORT is this machine's own loopback, which nobody else can reach."""
    host, _ = split_port(server)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
