"""What a fleet is asked for; nothing here imports Ray."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from math import inf

from shoal.remote.address import split_port
from shoal.types import ConfigError, check_finite, check_ranges

LOCAL, AUTO, CLIENT = "local", "auto", "ray://"
MOST_SERVERS = 10_000
PACKAGES = ("ray", "grpc", "cryptography")


@dataclass(frozen=True, slots=True)
class Placement:
    """What a fleet's environment servers are given."""

    servers: int = 2
    """Environment servers, on as many nodes as there are, each with an equal part of the environments. Does not change
    results; `resume` needs as many as before."""
    cpus: float = 1.0
    """CPUs that each server takes of its node; native environments are stepped by so many threads."""
    resource: str | None = None
    """Named resource of which each server takes one: only nodes that offer it get servers."""
    wait_s: float = 60.0
    """Seconds that the fleet may take to have room and to start the servers; more where nodes are started on demand."""

    def __post_init__(self) -> None:
        """Refuses what cannot be placed."""
        check_ranges(self, servers=(1, MOST_SERVERS), cpus=(0, inf), wait_s=(0, inf))
        check_finite(self, "cpus", "wait_s")
        if self.resource is not None and (
            not self.resource or self.resource in ("CPU", "GPU", "memory")
        ):
            raise ConfigError(
                f"placement.resource names what nodes offer besides CPUs, such as envs of `ray start "
                f"--resources '{{\"envs\": 4}}'`, got {self.resource!r}"
            )

    @property
    def bundle(self) -> dict[str, float]:
        """What one server takes, as Ray names it."""
        taken = {"CPU": self.cpus} if self.cpus else {}
        if self.resource is not None:
            taken[self.resource] = 1.0
        return taken or {"CPU": 0.001}


def check_where(fleet: str) -> None:
    """ConfigError unless a fleet can be there."""
    if fleet in (LOCAL, AUTO):
        return
    if not fleet.startswith(CLIENT):
        raise ConfigError(
            f"fleet must be local (Ray is started on this machine), auto (the Ray that runs here) or "
            f"ray://HOST:PORT (another's, whose client port is 10001), got {fleet!r}"
        )
    try:
        split_port(fleet.removeprefix(CLIENT))
    except ConfigError:
        raise ConfigError(
            f"fleet={fleet!r} names no host and port; write ray://HOST:10001"
        ) from None


def check_installed() -> None:
    """ConfigError where the extra is not."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"a fleet needs Ray: pip install 'shoal-rl[fleet]' (not installed here: {', '.join(missing)})"
        )
