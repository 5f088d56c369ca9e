"""`shoal serve`: environments for learners in other processes, over gRPC."""

from __future__ import annotations

import signal
from dataclasses import asdict, dataclass
from typing import Annotated

import tyro

from shoal.cli.arguments import ENV_OPTIONS, look_here, parse, take_env_kwargs
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
    idle_s: float = 60.0
    """A client that says nothing for so many seconds loses its environments; shoal's own says something every 10 s."""


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
    server: Server | None = None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server = serve(env_kwargs=env_kwargs, **asdict(given))
        print(
            f"{given.num_envs} environments {given.env} at {server.address}; "
            f"shoal train grpc://{server.address} learns in them (Ctrl-C ends it)",
            flush=True,
        )
        server.wait()
    except KeyboardInterrupt:
        if server is not None:
            server.stop()
    return 0
