"""`shoal serve-policy`: a trained policy for programs in other processes, over gRPC."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoal.cli.arguments import parse
from shoal.cli.loading import OfPolicy, agent_of
from shoal.remote.settings import Guard

if TYPE_CHECKING:
    from shoal.deploy.policy_server import PolicyServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Given(OfPolicy):
    """Options of `serve-policy`."""

    listen: str = "127.0.0.1:50052"
    """HOST:PORT to listen at; port 0 takes a free one."""
    most_rows: int = 4096
    """Observations in one step of a client."""
    guard: Guard = field(default_factory=Guard)
    """Who may connect. Without any of these it listens at this machine's own loopback only."""


def main(arguments: list[str], about: str) -> int:
    """Serves until Ctrl-C; the exit status."""
    given = parse(Given, arguments, command="serve-policy", about=about)
    from shoal.types.text import printable

    server: PolicyServer | None = None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        agent = agent_of(given)
        server = agent.serve(
            listen=given.listen, guard=given.guard, most_rows=given.most_rows
        )
        print(
            f"the policy of {printable(agent.spec.env_id)} at {server.address}; "
            f'shoal.remote_policy("{server.name}").act(obs) asks it (Ctrl-C ends it)',
            flush=True,
        )
        server.wait()
    except KeyboardInterrupt:
        if server is not None:
            server.stop()
    return 0
