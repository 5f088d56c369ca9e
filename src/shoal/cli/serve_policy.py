"""`shoal serve-policy`: a trained policy for programs in other processes, over gRPC."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from shoal.cli.arguments import add_here, look_here, parse
from shoal.remote.settings import Guard

if TYPE_CHECKING:
    from shoal.deploy.policy_server import PolicyServer


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `serve-policy`."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Run directory, or a directory of runs (the newest is used)."""
    listen: str = "127.0.0.1:50052"
    """HOST:PORT to listen at; port 0 takes a free one."""
    most_rows: int = 4096
    """Observations in one step of a client."""
    run_dir: str = "runs"
    """Directory in which RUN is searched for as well."""
    env: str | None = None
    """The environment, as `package.module:Class`, where the run was given an object."""
    policy: str | None = None
    """The policy, as `package.module:Class`, where the run was given an object."""
    tag: Literal["", "best", "deployed"] = ""
    """Checkpoint to serve: the newest, `best`, or `deployed` (see `shoal stage`)."""
    trust: bool = False
    """Import and run what the file names (an environment, a policy, an algorithm), though nothing shows that you
    wrote it."""
    guard: Guard = field(default_factory=Guard)
    """Who may connect. Without any of these it listens at this machine's own loopback only."""


def main(arguments: list[str], about: str) -> int:
    """Serves until Ctrl-C; the exit status."""
    given = parse(Given, arguments, command="serve-policy", about=about)
    look_here(given.env, given.policy)
    if given.trust:
        add_here()
    from shoal.experiment.agent import load
    from shoal.types.text import printable

    server: PolicyServer | None = None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        agent = load(
            given.run,
            run_dir=given.run_dir,
            policy=given.policy,
            factory=given.env,
            tag=given.tag,
            trust=given.trust,
        )
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
