"""`shoal serve`: environments for learners in other processes, over gRPC."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field, fields
from typing import Annotated

import tyro

from shoal.cli.arguments import ENV_OPTIONS, look_here, parse, take_env_kwargs
from shoal.remote.settings import Guard
from shoal.types import ConfigError


@dataclass(frozen=True, slots=True)
class Given:
    """Options of `serve`."""

    env: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ENV")]
    """A built-in or Gymnasium id, or `package.module:function`."""
    num_envs: int = 64
    """Environments for all clients together."""
    listen: str = "127.0.0.1:50051"
    """HOST:PORT to listen at; port 0 takes a free one."""
    backend: str = "auto"
    """native (C++), serial (Python), workers (Python, in processes) or a library; auto as `shoal train` chooses."""
    num_threads: int | None = None
    """Threads that step native rows of each client; default: one for each core."""
    info_keys: tuple[str, ...] = ()
    """Numbers of every episode's last info that clients get (not native)."""
    guard: Guard = field(default_factory=Guard)
    """Who may connect. Without any of these it listens at this machine's own loopback only."""


def main(arguments: list[str], about: str) -> int:
    """Serves until Ctrl-C; the exit status."""
    arguments, env_kwargs = take_env_kwargs(arguments)
    given = parse(Given, arguments, command="serve", about=f"{about}\n\n{ENV_OPTIONS}")
    look_here(given.env)
    try:
        from shoal.remote.server import Server, serve
    except ImportError as error:
        raise ConfigError(
            f"a server needs gRPC: pip install 'shoal-rl[remote]' ({error})"
        ) from error
    told = {part.name: getattr(given, part.name) for part in fields(given)}
    server: Server | None = None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server = serve(env_kwargs=env_kwargs, **told)
        print(
            f"{given.num_envs} environments {given.env} at {server.address}; "
            f"shoal train {server.name} learns in them (Ctrl-C ends it)",
            flush=True,
        )
        server.wait()
    except KeyboardInterrupt:
        if server is not None:
            server.stop()
    return 0
