"""`shoal serve`: environments for learners in other processes, over gRPC."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from functools import partial
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


def main(arguments: list[str], about: str) -> int:
    """Serves until Ctrl-C; the exit status."""
    arguments, env_kwargs = take_env_kwargs(arguments)
    given = parse(Given, arguments, command="serve", about=f"{about}\n\n{ENV_OPTIONS}")
    look_here(given.env)
    if given.num_envs < 1:
        raise ConfigError(f"--num-envs must be at least 1, got {given.num_envs}")
    from shoal.envs.registry import make

    try:
        from shoal.remote.server import Server
    except ImportError as error:
        raise ConfigError(
            f"a server needs gRPC: pip install 'shoal-rl[remote]' ({error})"
        ) from error
    rows = partial(
        make,
        given.env,
        backend=given.backend,
        num_threads=given.num_threads or len(os.sched_getaffinity(0)),
        env_kwargs=env_kwargs,
        info_keys=given.info_keys,
    )
    server: Server | None = None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server = Server(rows, num_envs=given.num_envs, listen=given.listen)
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
